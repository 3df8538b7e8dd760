"""The public face on real files, held against NumPy."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import vecdb

METRICS = ["cosine", "l2", "ip"]


def rows_of(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def true_distances(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return ((q[:, None, :] - x[None, :, :]) ** 2).sum(axis=2)
    if metric == "ip":
        return -(q @ x.T)
    return 1 - (q @ x.T) / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(x, axis=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.vdb"


@pytest.fixture
def col(path: Path) -> Iterator[vecdb.Collection]:
    """100 rows of 16 dims with metadata, in memory still."""
    with vecdb.create(path, dim=16) as made:
        made.add(
            rows_of(100),
            metadata={"n": list(range(100)), "lang": ["en", "fr", None, "de"] * 25},
        )
        yield made


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("state", ["memory", "flushed", "reopened", "optimized", "mixed"])
def test_search_finds_the_true_neighbours_in_every_state_of_the_store(
    path: Path, metric: Any, state: str
) -> None:
    rows, queries = rows_of(500), rows_of(7, seed=1)
    col = vecdb.create(path, dim=16, metric=metric)
    col.add(rows[:300])
    if state == "mixed":
        col.flush()
    col.add(rows[300:])
    if state == "flushed":
        col.flush()
    if state == "optimized":
        col.optimize()
    if state == "reopened":
        col.close()
        col = vecdb.open(path)
    truth = np.sort(true_distances(queries, rows, metric), axis=1)[:, :10]
    for exact in (False, True):
        hits = col.search(queries, k=10, exact=exact)
        np.testing.assert_allclose(hits.distances, truth, rtol=1e-4, atol=1e-5)
        assert (np.diff(hits.scores, axis=1) <= 0).all()
    col.close()


def test_one_query_gives_hits_and_many_give_batch_hits(col: vecdb.Collection) -> None:
    query = rows_of(1, seed=5)
    one = col.search(query[0], k=5)
    many = col.search(query, k=5)
    assert isinstance(one, vecdb.Hits)
    assert isinstance(many, vecdb.BatchHits)
    assert one.ids.shape == (5,)
    assert many.ids.shape == many.distances.shape == (1, 5)
    assert one.distances.dtype == many.distances.dtype == np.float32
    np.testing.assert_array_equal(one.ids, many.ids[0])
    np.testing.assert_array_equal(one.ids, many[0].ids)
    ids, distances = one
    np.testing.assert_array_equal(ids, one.ids)
    np.testing.assert_array_equal(distances, one.distances)


def test_a_row_finds_itself_at_distance_zero_and_the_best_score(path: Path) -> None:
    rows = rows_of(50)
    with vecdb.create(path, dim=16) as col:
        col.add(rows)
        hits = col.search(rows[7], k=3)
        assert hits.ids[0] == 7
        assert hits.distances[0] == pytest.approx(0, abs=1e-6)
        assert hits.scores[0] == pytest.approx(1, abs=1e-6)


def test_a_short_answer_is_shorter_or_padded_and_never_an_error(col: vecdb.Collection) -> None:
    query = rows_of(2, seed=3)
    assert len(col.search(query[0], k=1000)) == 100
    batch = col.search(query, k=1000)
    assert batch.ids.shape == (2, 1000)
    assert batch.counts.tolist() == [100, 100]
    assert (batch.ids[:, 100:] == -1).all()
    assert np.isinf(batch.distances[:, 100:]).all()
    none = col.search(query, k=3, where="n > 1000")
    assert none.counts.tolist() == [0, 0]
    assert len(col.search(query[0], where="n > 1000")) == 0


def test_an_empty_store_answers_with_nothing(path: Path) -> None:
    with vecdb.create(path, dim=4) as col:
        assert len(col) == 0
        assert len(col.search(np.ones(4, np.float32))) == 0
        assert col.search(np.ones((2, 4), np.float32), k=3).ids.tolist() == [[-1] * 3] * 2
        assert col.query().num_rows == 0
        assert col.get([]).num_rows == 0
        assert col.delete(ids=[1]) == 0
        assert col.vectors.shape == (0, 4)
        assert col.add(np.empty((0, 4), np.float32)).tolist() == []


def test_tables_name_the_columns_as_promised(col: vecdb.Collection) -> None:
    hits = col.search(rows_of(1, seed=2)[0], k=4, select=["lang", "n"])
    assert hits.to_arrow().column_names == ["id", "distance", "score", "lang", "n"]
    assert hits.to_arrow()["n"].to_pylist() == hits.ids.tolist()
    batch = col.search(rows_of(3, seed=2), k=4, select=["n", "vector"])
    table = batch.to_arrow()
    assert table.column_names == ["query", "id", "distance", "score", "n", "vector"]
    assert table["query"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert table["n"].to_pylist() == batch.ids.ravel().tolist()
    assert len(hits.to_pandas()) == 4
    assert pl.DataFrame(hits).shape == hits.to_polars().shape == (4, 5)
    assert hits.to_list()[0]["id"] == hits.ids[0]
    assert batch.to_list()[2] == batch[2].to_list()
    assert pa.table(hits).num_rows == 4


def test_get_keeps_the_input_order_and_names_what_is_missing(col: vecdb.Collection) -> None:
    table = col.get([5, 99, 5, 0], vectors=True)
    assert table.column_names == ["id", "n", "lang", "vector"]
    assert table["id"].to_pylist() == table["n"].to_pylist() == [5, 99, 5, 0]
    np.testing.assert_array_equal(
        np.array(table["vector"].to_pylist(), np.float32), rows_of(100)[[5, 99, 5, 0]]
    )
    assert col.get(7, select=["lang"]).to_pylist() == [{"id": 7, "lang": "de"}]
    with pytest.raises(vecdb.NotFoundError, match="12345"):
        col.get([1, 12345])


def test_query_pages_through_rows_by_metadata(col: vecdb.Collection) -> None:
    assert col.query("n >= 90", select=["n"])["n"].to_pylist() == list(range(90, 100))
    assert col.query(limit=3, offset=98)["id"].to_pylist() == [98, 99]
    assert col.query(vecdb.col("lang") == "fr", limit=2)["n"].to_pylist() == [1, 5]
    assert col.query({"lang": "fr"}, limit=1, offset=1)["n"].to_pylist() == [5]
    assert col.query(limit=0).num_rows == 0


def test_filters_delete_and_upsert_change_what_is_found(col: vecdb.Collection) -> None:
    query = rows_of(100)[42]
    assert col.search(query, k=1).ids.tolist() == [42]
    assert col.delete(ids=[42, 4242]) == 1
    assert 42 not in col.search(query, k=100).ids
    assert 42 not in col
    assert len(col) == 99
    assert col.delete(where="n < 10") == 10
    assert col.query()["n"].to_pylist() == [n for n in range(10, 100) if n != 42]
    col.upsert(-rows_of(1, seed=9), ids=[50], metadata=[{"n": -1, "lang": "xx"}])
    assert col.get([50])["lang"].to_pylist() == ["xx"]
    assert col.search(-rows_of(1, seed=9)[0], k=1).ids.tolist() == [50]
    assert len(col) == 89


def test_everything_is_there_after_reopening(path: Path, col: vecdb.Collection) -> None:
    col.delete(ids=[3])
    col.flush()
    col.delete(ids=[4])
    col.upsert(rows_of(1, seed=7), ids=[5], metadata=[{"n": 555}])
    before = col.query(select=["n", "lang", "vector"]).sort_by("id")
    col.close()
    for mode in ("r", "w"):
        with vecdb.open(path, mode) as again:  # type: ignore[arg-type]
            assert again.query(select=["n", "lang", "vector"]).sort_by("id").equals(before)
            assert again.search(rows_of(1, seed=7)[0], k=1).ids.tolist() == [5]


def test_automatic_ids_go_on_after_the_largest(path: Path) -> None:
    with vecdb.create(path, dim=4) as col:
        assert col.add(rows_of(2, 4)).tolist() == [0, 1]
        col.add(rows_of(1, 4), ids=[100])
        assert col.add(rows_of(1, 4)).tolist() == [101]
    with vecdb.open(path, "w") as col:
        assert col.add(rows_of(1, 4)).tolist() == [102]


def test_text_ids_work_everywhere(path: Path) -> None:
    with vecdb.create(path, dim=4, ids="string") as col:
        col.add(rows_of(3, 4), ids=["a", "ä", "€"])
        col.flush()
        col.add(rows_of(1, 4, seed=1), ids=["z"])
        assert col.search(rows_of(3, 4)[1], k=1).ids.tolist() == ["ä"]
        assert col.get(["z", "a"])["id"].to_pylist() == ["z", "a"]
        assert col.search(rows_of(1, 4), k=6).ids[0, 4:].tolist() == [None, None]
        with pytest.raises(vecdb.DuplicateIdError, match="€"):
            col.add(rows_of(1, 4), ids=["€"])
        assert col.delete(ids="ä") == 1
        with pytest.raises(vecdb.VecdbError, match="ids"):
            col.add(rows_of(1, 4))


def test_float16_stores_take_half_of_the_bytes(path: Path) -> None:
    rows = rows_of(64, 32)
    with vecdb.create(path, dim=32, dtype="float16") as col:
        col.add(rows)
        col.flush()
        assert col.vectors.dtype == np.float16
        np.testing.assert_array_equal(np.asarray(col.vectors), rows.astype(np.float16))
        assert col.search(rows[9], k=1).ids.tolist() == [9]
        assert col.get([0], vectors=True).schema.field("vector").type.value_type == pa.float32()


def test_columns_added_later_read_null_in_old_rows(path: Path, col: vecdb.Collection) -> None:
    col.flush()
    col.add_columns({"stars": "int8"})
    col.add(rows_of(1, seed=4), metadata=[{"n": 100, "stars": 5}])
    assert col.query("stars IS NULL").num_rows == 100
    assert col.query("stars = 5")["n"].to_pylist() == [100]
    col.close()
    with vecdb.open(path) as again:
        assert again.get([0, 100])["stars"].to_pylist() == [None, 5]


def test_a_snapshot_stays_while_the_collection_moves_on(col: vecdb.Collection) -> None:
    pinned = col.snapshot()
    col.delete(where="n < 50")
    col.optimize()
    assert len(pinned) == 100
    assert len(col) == 50
    assert pinned.search(rows_of(100)[7], k=1).ids.tolist() == [7]
    with pytest.raises(vecdb.ReadOnlyError):
        pinned.add(rows_of(1))
    pinned.close()
    assert col.search(rows_of(100)[77], k=1).ids.tolist() == [77]


def test_a_reader_sees_one_state_until_it_refreshes(path: Path, col: vecdb.Collection) -> None:
    with vecdb.open(path) as reader:
        assert len(reader) == 100
        col.add(rows_of(5, seed=3), metadata={"n": [0] * 5})
        assert len(reader) == 100
        assert reader.refresh() is True
        assert len(reader) == 105
        assert reader.refresh() is False
        with pytest.raises(vecdb.ReadOnlyError):
            reader.delete(ids=[1])


def test_a_second_writer_is_refused_with_the_holders_pid(path: Path, col: vecdb.Collection) -> None:
    import os

    with pytest.raises(vecdb.LockedError, match=str(os.getpid())):
        vecdb.open(path, "w")
    col.close()
    vecdb.open(path, "w").close()


def _search_in_child(pickled: bytes, query: np.ndarray, out: Any) -> None:
    col = pickle.loads(pickled)
    out.put(col.search(query, k=3).ids.tolist())
    col.close()


def test_a_handle_pickles_by_path_and_version(col: vecdb.Collection) -> None:
    col.flush()
    query = rows_of(1, seed=8)[0]
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    child = context.Process(target=_search_in_child, args=(pickle.dumps(col), query, out))
    child.start()
    assert out.get(timeout=120) == col.search(query, k=3).ids.tolist()
    child.join(timeout=60)
    assert child.exitcode == 0


def test_a_closed_handle_refuses_every_call_and_closes_twice(col: vecdb.Collection) -> None:
    col.close()
    col.close()
    for call in (
        lambda: col.add(rows_of(1)),
        lambda: col.search(rows_of(1)),
        lambda: len(col),
        lambda: col.get([1]),
        col.query,
        lambda: col.delete(ids=[1]),
        col.flush,
        col.optimize,
        col.stats,
        col.snapshot,
        lambda: col.vectors,
    ):
        with pytest.raises(vecdb.ClosedError):
            call()
    assert col.state == "closed"
    assert "closed" in repr(col)


def test_vectors_are_a_read_only_view_that_outlives_the_collection(path: Path) -> None:
    rows = rows_of(300)
    col = vecdb.create(path, dim=16)
    col.add(rows)
    col.flush()
    view = col.vectors[10:20]
    assert np.shares_memory(view, col.vectors[0:300])
    assert not view.flags.writeable
    one = col.vectors[299]
    col.close()
    np.testing.assert_array_equal(view, rows[10:20])
    np.testing.assert_array_equal(one, rows[299])


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_closed_collection_with_a_graph_waits_for_no_garbage_collection(
    path: Path, mode: Any
) -> None:
    rows = rows_of(2000)
    with vecdb.create(path, dim=16) as col:
        col.add(rows)
        col.optimize()
    del col
    gc.collect()
    gc.disable()
    try:
        with vecdb.open(path, mode) as col:
            assert col.search(rows[3], 5).plan.strategy == "graph"
        del col
        assert str(path) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()


def test_views_keep_their_mapping_and_the_last_one_lets_it_go(path: Path) -> None:
    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    rows = rows_of(300)
    col = vecdb.create(path, dim=16)
    col.add(rows, metadata={"n": np.arange(300)})
    col.flush()
    view = col.vectors[10:20]
    column = col.query(select=["n"])["n"]
    col.delete(where="n < 200")
    col.optimize()  # the segment of the views is rewritten and its file unlinked
    col.close()
    gc.collect()
    assert mapped()
    np.testing.assert_array_equal(view, rows[10:20])
    assert column.to_pylist() == list(range(300))
    del view
    gc.collect()
    assert mapped()
    del column
    gc.collect()
    assert not mapped()


def test_vectors_index_like_an_array_over_several_parts_and_deletions(path: Path) -> None:
    rows = rows_of(90)
    with vecdb.create(path, dim=16) as col:
        for start in (0, 30, 60):
            col.add(rows[start : start + 30])
            if start < 60:
                col.flush()
        col.delete(ids=[0, 31, 89])
        kept = np.delete(rows, [0, 31, 89], axis=0)
        view = col.vectors
        assert view.shape == kept.shape
        np.testing.assert_array_equal(np.asarray(view), kept)
        np.testing.assert_array_equal(view[20:70], kept[20:70])
        np.testing.assert_array_equal(view[::-7], kept[::-7])
        np.testing.assert_array_equal(view[[3, -1, 50]], kept[[3, -1, 50]])
        np.testing.assert_array_equal(view[-1], kept[-1])
        np.testing.assert_array_equal(np.concatenate(view.chunks), kept)
        with pytest.raises(IndexError):
            view[87]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.search(np.ones(15, np.float32)), vecdb.DimensionError, "16"),
        (lambda c: c.search(np.full(16, np.nan)), vecdb.SchemaError, "NaN"),
        (lambda c: c.search(np.zeros(16)), vecdb.SchemaError, "zeros"),
        (lambda c: c.search(np.ones(16), k=0), ValueError, "k: expected"),
        (lambda c: c.search(np.ones(16), k=2.5), ValueError, "k: expected"),
        (lambda c: c.search(np.ones(16), ef_search=0), ValueError, "ef_search"),
        (lambda c: c.search(np.ones(16), select=["nope"]), vecdb.SchemaError, "nope"),
        (lambda c: c.search(np.ones(16), where="nope = 1"), vecdb.FilterError, "nope"),
        (lambda c: c.search(np.ones(16), timeout=-1), ValueError, "timeout"),
        (lambda c: c.add(rows_of(1, 15)), vecdb.DimensionError, "16"),
        (lambda c: c.add(rows_of(2), ids=[1000]), vecdb.SchemaError, "2 ids"),
        (lambda c: c.add(rows_of(1), ids=[5]), vecdb.DuplicateIdError, "5"),
        (lambda c: c.add(rows_of(2), ids=[500, 500]), vecdb.DuplicateIdError, "500"),
        (lambda c: c.add(rows_of(1), ids=["a"]), vecdb.SchemaError, "integers"),
        (lambda c: c.add(rows_of(1), metadata=[{"m": 1}]), vecdb.SchemaError, "'m'"),
        (lambda c: c.add(rows_of(2), metadata={"n": [1]}), vecdb.SchemaError, "2 rows"),
        (lambda c: c.upsert(rows_of(1), None), ValueError, "ids"),
        (lambda c: c.delete(), ValueError, "neither"),
        (lambda c: c.delete(ids=[1], where="n = 1"), ValueError, "both"),
        (lambda c: c.query(limit=-1), ValueError, "limit"),
        (lambda c: c.query(offset=-1), ValueError, "offset"),
        (lambda c: c.add_columns({"n": int}), vecdb.SchemaError, "already"),
        (lambda c: c.add_columns({"id": int}), vecdb.SchemaError, "reserved"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    col: vecdb.Collection, call: Any, error: type[Exception], message: str
) -> None:
    before = col.query(select="*")
    with pytest.raises(error, match=message) as caught:
        call(col)
    assert isinstance(caught.value, vecdb.VecdbError)
    assert "Fix:" in str(caught.value)
    assert col.query(select="*").equals(before)


def test_creating_and_opening_where_it_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for bad in (file, full):
        with pytest.raises(vecdb.VecdbError):
            vecdb.create(bad, dim=4)
        with pytest.raises(vecdb.VecdbError):
            vecdb.open(bad)
    with pytest.raises(vecdb.NotFoundError, match="nowhere"):
        vecdb.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="mode"):
        vecdb.open(tmp_path, mode="a")  # type: ignore[arg-type]
    assert (full / "notes.txt").read_text() == "mine"
    vecdb.create(tmp_path / "one", dim=4).close()
    with pytest.raises(vecdb.ExistsError):
        vecdb.create(tmp_path / "one", dim=4)
    vecdb.create(tmp_path / "one", dim=4, exist_ok=True).close()
    with pytest.raises(vecdb.SchemaError, match="dim"):
        vecdb.create(tmp_path / "one", dim=5, exist_ok=True)


def test_repr_and_card_show_the_figures(col: vecdb.Collection) -> None:
    col.flush()
    col.delete(ids=[1])
    text = repr(col)
    for shown in ("rows=99", "dim=16", "'cosine'", "segments=1", "tombstones=1", "bytes="):
        assert shown in text
    card = col._repr_html_()
    for shown in ("99", "cosine", "tombstones", "indexed", "lang"):
        assert shown in card
    hits = col.search(rows_of(1)[0], k=3, select="*")
    assert "<table>" in hits._repr_html_()
    assert "Hits(" in repr(hits)


def test_html_escapes_what_users_store(path: Path) -> None:
    with vecdb.create(path, dim=4) as col:
        col.add(rows_of(1, 4), metadata=[{"t": "<script>alert(1)</script>"}])
        assert "<script>" not in col.search(rows_of(1, 4)[0], select="*")._repr_html_()


def test_the_state_is_explicit_and_observers_hear_of_it(path: Path) -> None:
    heard: list[str] = []
    col = vecdb.create(path, dim=4)
    assert col.state == "running"
    stop = col.subscribe(heard.append)
    col.close()
    assert heard == ["closing", "closed"]
    stop()
    stop()


def test_an_observer_that_fails_does_not_keep_the_collection_from_closing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    col = vecdb.create(path, dim=4)
    heard: list[str] = []

    def fail(state: str) -> None:
        raise RuntimeError(state)

    col.subscribe(fail)
    col.subscribe(heard.append)
    col.close()
    assert (col.state, heard) == ("closed", ["closing", "closed"])
    assert "an observer of" in caplog.text
    vecdb.open(path, "w").close()  # the lock is free


def test_an_observer_that_cannot_be_called_is_refused(col: vecdb.Collection) -> None:
    with pytest.raises(vecdb.ArgumentError, match="a function of one argument"):
        col.subscribe("print")  # type: ignore[arg-type]


def test_fifty_single_adds_leave_a_handful_of_files(path: Path) -> None:
    with vecdb.create(path, dim=4) as col:
        for row in rows_of(50, 4):
            col.add(row[None])
    assert len(list(path.iterdir())) <= 6


def test_progress_is_shown_for_a_large_addition_and_for_optimize(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with vecdb.create(path, dim=1024) as col:
        col.add(rows_of(20_000, 1024), progress=True)
        shown = capsys.readouterr()
        assert "add" in shown.err
        assert "100%" in shown.err
        assert shown.out == ""
        col.add(rows_of(1, 1024))
        assert capsys.readouterr().err == ""


def test_batches_export_every_row_once(path: Path, col: vecdb.Collection) -> None:
    col.flush()
    col.add(rows_of(9, seed=1), metadata={"n": list(range(100, 109))})
    col.delete(ids=[0])
    batches = list(col.batches(size=10))
    assert max(batch.num_rows for batch in batches) <= 10
    table = pa.Table.from_batches(batches)
    assert table["n"].to_pylist() == list(range(1, 109))
    assert table.column_names == ["id", "n", "lang", "vector"]


def test_plan_tells_what_the_search_did(col: vecdb.Collection) -> None:
    hits = col.search(rows_of(1, seed=1)[0], where="n < 25")
    assert hits.plan.rows == 100
    assert hits.plan.selectivity == 0.25
    assert hits.plan.complete is True
    assert hits.plan.strategy == "scan"
    assert hits.plan.to_dict()["pruned"] == 0.0


def test_a_writer_that_is_dropped_without_closing_frees_its_lock_and_loses_nothing(
    path: Path,
) -> None:
    col = vecdb.create(path, dim=4)
    col.add(rows_of(3, 4))
    col = vecdb.open(path, "r")
    gc.collect()
    assert len(col) == 3
    again = vecdb.open(path, "w")
    assert len(again) == 3
    del again
    with vecdb.open(path, "w") as last:
        assert len(last) == 3


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_handle_that_outlives_its_module_ends_in_silence(path: Path, mode: str) -> None:
    vecdb.create(path, dim=4).close()
    script = (
        "import numba, vecdb\n"
        f"col = vecdb.open({str(path)!r}, {mode!r})\n"
        "col.mode == 'w' and col.add([[1, 2, 3, 4]])\n"
        "col.search([1, 2, 3, 4], 1)\n"
        "same = numba.njit(lambda x: x)\nsame(1)\n"  # it keeps its module's names, to the very end
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with vecdb.open(path) as reader:
        assert len(reader) == (mode == "w")

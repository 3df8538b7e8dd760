"""Filters on real stores: segments, memtables, deletions, ids, and the cache behind them."""

from __future__ import annotations

import gc
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vecdb
from vecdb import col, forking
from vecdb.filter import evaluate, masks
from vecdb.segment import bitmap

ROWS = 6000
RNG = np.random.default_rng(7)
METADATA = pa.table(
    {
        "year": np.arange(1960, 1960 + ROWS) % 60 + 1960,
        "lang": np.array(["en", "fr", "de"])[np.arange(ROWS) % 3],
        "tags": pa.array([["a"] * (i % 2) + ["b"] * (i % 3 == 0) for i in range(ROWS)]),
    }
)
VECTORS = RNG.random((ROWS, 4), dtype=np.float32)


@pytest.fixture(params=["int64", "string"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Two segments and a memtable, every 10th row deleted."""
    ids: Any = np.arange(ROWS) if request.param == "int64" else [f"row {i}" for i in range(ROWS)]
    with vecdb.create(tmp_path / "store", 4, ids=request.param) as made:
        for start in range(0, ROWS, 2000):
            stop = start + 2000
            made.add(VECTORS[start:stop], ids[start:stop], METADATA.slice(start, 2000))
            if stop < ROWS:
                made.flush()
        made.delete(ids[::10])
        yield made


def expected(passes: Any) -> list[int]:
    rows = METADATA.to_pylist()
    return [i for i, row in enumerate(rows) if i % 10 and passes(i, row)]


def found(collection: Any, where: Any) -> list[int]:
    ids = collection.query(where)["id"].to_pylist()
    return [int(str(identifier).removeprefix("row ")) for identifier in ids]


def test_filters_hold_across_segments_memtable_and_deletions(collection: Any) -> None:
    where = (col("year") > 2000) & (col("lang") != "en") & ~col("tags").has("b")
    passes = lambda _, row: row["year"] > 2000 and row["lang"] != "en" and "b" not in row["tags"]  # noqa: E731
    for spelling in (where, "year > 2000 AND lang <> 'en' AND NOT has(tags, 'b')"):
        assert found(collection, spelling) == expected(passes)
    assert found(collection, None) == expected(lambda _, row: True)
    assert found(collection, "FALSE") == []


def test_lists_without_null_elements_are_searched_whatever_memory_held(collection: Any) -> None:
    np.full(1 << 16, 2, np.uint8)  # freed at once: what is not written is not 1 by chance
    assert found(collection, col("tags").has("a")) == expected(lambda _, row: "a" in row["tags"])
    assert found(collection, col("tags").has_any(["b", "c"])) == expected(
        lambda _, row: "b" in row["tags"]
    )
    assert found(collection, col("tags").has_all(["a", "b"])) == expected(
        lambda _, row: {"a", "b"} <= set(row["tags"])
    )


def test_ids_are_filtered_like_a_column(collection: Any) -> None:
    if isinstance(collection.query(limit=1)["id"][0].as_py(), int):
        wanted: list[Any] = [5, 10, 3999, 4001, 5.5, -1, 2**70]
        assert found(collection, col("id") == 41) == [41]
        assert found(collection, col("id").between(1998, 2003)) == [1998, 1999, 2001, 2002, 2003]
        assert found(collection, col("id") < 0) == []
    else:
        wanted = ["row 5", "row 10", "row 3999", "row 4001", "nothing"]
        assert found(collection, col("id") == "row 41") == [41]
        assert found(collection, col("id").endswith("999")) == [999, 1999, 2999, 3999, 4999, 5999]
        assert found(collection, col("id") < "row 10") == [1]
    assert found(collection, col("id").isin(wanted)) == [5, 3999, 4001]
    assert found(collection, col("id").is_null()) == []
    assert len(found(collection, ~col("id").isin(wanted))) == len(collection) - 3


def test_a_column_added_later_reads_null_in_old_rows(collection: Any) -> None:
    collection.add_columns({"price": float})
    assert found(collection, "price IS NOT NULL") == []
    assert len(found(collection, "price IS NULL")) == len(collection)
    assert found(collection, "NOT price > 5") == []


def test_counts_are_exact_and_full_masks_are_none(collection: Any) -> None:
    snapshot = collection._store.snapshot
    for allowed in masks.allowed("year > 2000", snapshot):
        assert allowed.bits is not None
        assert allowed.count == bitmap.live_rows(allowed.bits)
    collection.optimize()
    snapshot = collection._store.snapshot
    assert [a.bits for a in masks.allowed("year > 0", snapshot) if a.count] == [None]


def test_without_takes_single_rows_away(collection: Any) -> None:
    snapshot = collection._store.snapshot
    parts, rows = np.array([1, 0, -1], np.int32), np.array([7, 3, -1])
    before = masks.allowed(None, snapshot)
    after = masks.without(before, snapshot, parts, rows)
    assert sum(a.count for a in before) - sum(a.count for a in after) == 2
    assert bitmap.test(before[1].bits, np.array([7])).all()  # type: ignore[arg-type]
    assert not bitmap.test(after[1].bits, np.array([7])).any()  # type: ignore[arg-type]


def test_a_repeated_filter_is_not_evaluated_again(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found(collection, "year = 1999")
    monkeypatch.setattr(masks, "evaluate", None)
    assert found(collection, col("year") == 1999) == first
    collection.delete(collection.query("year = 1999", limit=1)["id"].to_pylist())
    with pytest.raises(TypeError):
        found(collection, "year = 1998")
    monkeypatch.setattr(masks, "evaluate", evaluate.evaluate)
    assert found(collection, "year = 1999") == first[1:]


def test_a_filter_past_its_deadline_looks_at_no_further_block_and_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_TIMED", 1024)
    blocks = []
    pack = evaluate.pack_into

    def spy(bits: Any, start: int, flags: Any) -> None:
        blocks.append(start)
        pack(bits, start, flags)

    monkeypatch.setattr(evaluate, "pack_into", spy)
    with vecdb.create(tmp_path / "store", 4) as made:
        made.add(VECTORS, metadata={"n": np.arange(ROWS) % 7})
        made.flush()
        made.query("n = 2", limit=0)  # the column is read
        blocks.clear()
        ours = types.SimpleNamespace(monotonic_ns=lambda: len(blocks))
        with monkeypatch.context() as patched:
            patched.setattr(evaluate, "time", ours)
            late = masks.allowed("n = 3", made._store.snapshot, deadline_ns=1)
        assert blocks == [0, 1024]
        assert not late.complete
        assert [part.count for part in late] == [0]
        hits = made.search(VECTORS[0], where="n = 4", timeout=0)
        assert len(hits) == 0
        assert not hits.plan.complete
        assert not made.search(VECTORS[:3], where="n = 4", timeout=0, group_by="n").plan.complete
        assert not made.search(where="n = 4", timeout=0, query_id=5).plan.complete
        for where in ("n = 3", "n = 4"):
            assert masks.allowed(where, made._store.snapshot, deadline_ns=2**62).complete
            assert made.query(where).num_rows == len(range(int(where[-1]), ROWS, 7))


def test_a_column_that_takes_too_long_is_read_on_for_the_next_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, reads = threading.Event(), []
    read = masks.column_data

    def slow(array: Any) -> Any:
        reads.append(len(array))
        may_go_on.wait(60)
        return read(array)

    monkeypatch.setattr(masks, "column_data", slow)
    with vecdb.create(tmp_path / "store", 4) as made:
        made.add(VECTORS, metadata={"n": np.arange(ROWS) % 7})
        made.flush()
        for _ in range(3):
            late = made.search(VECTORS[0], where="n = 3", timeout=0.02)
            assert (len(late), late.plan.complete) == (0, False)
        may_go_on.set()
        found = made.search(VECTORS[0], where="n = 3", timeout=60)
        assert (len(found), found.plan.complete) == (10, True)
        assert reads == [ROWS]


def test_a_parser_that_takes_too_long_to_load_is_loaded_on_for_the_next_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, loads = threading.Event(), []

    def slow(name: str) -> None:
        loads.append(name)
        may_go_on.wait(60)
        forking._loaded.add(name)

    monkeypatch.setattr(forking, "load", slow)
    monkeypatch.setattr(forking, "_loaded", set())
    monkeypatch.setattr(forking, "_loading", {})
    with vecdb.create(tmp_path / "store", 4) as made:
        made.add(VECTORS, metadata={"n": np.arange(ROWS) % 7})
        for query in (VECTORS[0], VECTORS[:2]):
            late = made.search(query, where="n = 3", timeout=0.02)
            assert not late.plan.complete
            assert late.plan.matching == 0
        tree = made.search(VECTORS[0], where=col("n") == 3, timeout=60)
        assert tree.plan.complete  # no text, no parser
        may_go_on.set()
        found = made.search(VECTORS[0], where="n = 3", timeout=60)
        assert found.ids.tolist() == tree.ids.tolist()
        assert found.plan.complete
    assert loads == ["sqlglot"]


def test_an_error_in_a_column_is_raised_under_a_deadline_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(array: Any) -> Any:
        raise vecdb.CorruptionError("a block")

    monkeypatch.setattr(masks, "column_data", damaged)
    with vecdb.create(tmp_path / "store", 4) as made:
        made.add(VECTORS, metadata={"n": np.arange(ROWS) % 7})
        for _ in range(2):
            with pytest.raises(vecdb.CorruptionError, match="a block"):
                made.search(VECTORS[0], where="n = 3", timeout=60)


def test_the_cache_keeps_to_its_bytes_and_to_living_owners() -> None:
    class Owner:
        pass

    cache = masks._Cache(limit=100_000)
    owners = [Owner() for _ in range(20)]
    for owner in owners:
        cache.put(owner, "key", "value", 30_000)
    assert [cache.get(owner, "key") for owner in owners[-3:]] == ["value"] * 3
    assert cache.get(owners[0], "key") is None
    assert len(cache._entries) == 3
    lone = Owner()
    cache.put(lone, "large", "value", 1_000_000)
    assert cache.get(lone, "large") == "value"  # what was just made is used at least once
    del owners, owner, lone
    gc.collect()
    cache.put(last := Owner(), "key", 1, 1)
    assert len(cache._entries) == 1
    assert cache.get(last, "key") == 1


def test_filters_that_nothing_passes_are_forgotten_too_and_seldom_summed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = masks._Cache(limit=1 << 20)
    trims = []
    trim = cache._trim

    def spy(newest: Any) -> None:
        trims.append(newest)
        trim(newest)

    monkeypatch.setattr(cache, "_trim", spy)
    owner = type("Owner", (), {})()
    for i in range(10_000):
        cache.put(owner, i, "nothing", 0)
        assert len(cache._entries) <= 1024 + 128 + 1
    assert len(trims) <= 10_000 // 128
    assert cache.get(owner, 9_999) == "nothing"
    assert cache.get(owner, 0) is None


@pytest.mark.parametrize("where", [col("id") < 2000, ~(col("id") >= 2000), col("id").isin([3, 7])])
def test_parts_whose_ids_can_not_match_are_not_looked_at(
    tmp_path: Path, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecdb.create(tmp_path / "store", 4) as made:
        for start in range(0, ROWS, 2000):
            made.add(VECTORS[start : start + 2000], np.arange(start, start + 2000))
            made.flush()
        looked_at: list[Any] = []
        look = masks._allowed_part

        def spy(expr: Any, part: Any, *rest: Any) -> Any:
            looked_at.append(part)
            return look(expr, part, *rest)

        monkeypatch.setattr(masks, "_allowed_part", spy)
        found = made.query(where)["id"].to_pylist()
        assert found in (list(range(2000)), [3, 7])
        assert {part.bounds[0] for part in looked_at} <= {0}
        assert made.search(VECTORS[2500], 3, where=where).ids.max() < 2000


def test_owners_that_go_while_the_cache_is_looked_through_are_forgotten() -> None:
    cache = masks._Cache(limit=1 << 30)

    class Owner:
        def __init__(self) -> None:
            self.itself = self  # goes with a collection, not before

    lasting, before = Owner(), gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5_000):
            cache.put(Owner(), "x", 0, 1)
        gc.set_threshold(gc.get_count()[0] + 100)  # while 5,000 are looked through
        gc.enable()
        cache.put(lasting, "x", 7, 1)
    finally:
        gc.set_threshold(*before)
        gc.enable()
    assert cache.get(lasting, "x") == 7
    gc.collect()
    assert len(cache._entries) == 1

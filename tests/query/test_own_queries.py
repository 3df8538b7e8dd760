"""Calibration on the user's own queries: they get the recall that is asked, and stay with the store
through whatever becomes of its segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import vecdb
from vecdb import graph

ROWS, DIM, K = 12_000, 48, 10
RNG = np.random.default_rng(2)
BASIS = RNG.standard_normal((16, DIM))


def drawn(count: int, noise: float) -> npt.NDArray[np.float32]:
    """Vectors near a plane of 16 dimensions: with more noise, further from it."""
    flat = RNG.standard_normal((count, 16)) @ BASIS
    return (flat + noise * RNG.standard_normal((count, DIM))).astype(np.float32)


VECTORS, STRANGE = drawn(ROWS, 1), drawn(1000, 8)
OWN, HELD_OUT = STRANGE[:500], STRANGE[500:]
METADATA = {"dice": RNG.random(ROWS), "side": VECTORS[:, 0].astype(np.float64)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one segment, calibrated on queries unlike its rows."""
    vecdb.warmup()
    path: Path = tmp_path_factory.mktemp("own") / "store"
    with vecdb.create(path, DIM) as made:
        made.add(VECTORS, metadata=METADATA)
        made.optimize()
        assert made.recall(K, queries=HELD_OUT, target_recall=0.8).recall < 0.77
        assert made.calibrate(OWN) == 1
    return path


def small(folder: Path, *segments: int) -> Any:
    """A store with segments of so many rows, all with a graph where they are large enough."""
    vecdb.warmup()
    made = vecdb.create(folder / "small", DIM, sync="os")
    made._store._background.stop()
    first = 0
    for count in segments:
        made.add(VECTORS[first : first + count])
        made.flush()
        first += count
    return made


def graphs(col: Any) -> list[Any]:
    """The graphs of a collection's segments, None where there is none."""
    return [part.data.graph for part in col._store.snapshot.parts]


@pytest.mark.parametrize("where", [None, "dice < 0.5", "side < 0"])
@pytest.mark.parametrize("target", [0.8, 0.9])
def test_held_out_queries_get_the_recall_that_is_asked(
    store: Path, target: float, where: str | None
) -> None:
    with vecdb.open(store) as col:
        found = col.recall(K, queries=HELD_OUT, where=where, target_recall=target)
    assert found.recall == pytest.approx(target, abs=0.02)


def test_a_calibration_is_read_back_and_not_made_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecdb.open(store) as col:
        (index,) = graphs(col)
        np.testing.assert_array_equal(index.queries, OWN)
        assert index.meta["calibration"]["asked"] == "queries"
        monkeypatch.setattr(graph, "calibrate", None)
        assert len(col.search(OWN[0], K, target_recall=0.9)) == K


def test_for_another_k_the_same_queries_are_asked(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = graph.calibrate

    def calibrate(*given: Any) -> dict[str, Any]:
        made.append(real(*given))
        return made[-1]

    monkeypatch.setattr(graph, "calibrate", calibrate)
    with vecdb.open(store) as col:
        col.search(HELD_OUT[0], 3, target_recall=0.9)
    assert [(each["k"], each["asked"]) for each in made] == [(3, "queries")]


def test_a_writer_and_its_readers_see_a_new_calibration(tmp_path: Path) -> None:
    with small(tmp_path, 3000) as col:
        col.optimize()
        with vecdb.open(col.path) as reader:
            before = [(c, c.search(OWN, target_recall=0.9).plan.visited) for c in (col, reader)]
            assert col.calibrate(OWN) == 1
            assert reader.refresh()
            for each, visited in before:
                assert each.search(OWN, target_recall=0.9).plan.visited != visited
        assert col.verify()["ok"]
        assert len(list(Path(col.path).glob("idx-*"))) == 1


def test_graphs_that_are_missing_are_built_and_small_segments_left_alone(tmp_path: Path) -> None:
    with small(tmp_path, 3000, 2500, 500) as col:
        assert graphs(col) == [None] * 3
        assert col.calibrate(OWN, k=7) == 2
        first, second, none = graphs(col)
        assert none is None
        for index in (first, second):
            np.testing.assert_array_equal(index.queries, OWN)
            assert graph.kept(index, 7) is not None
        found = col.recall(7, queries=HELD_OUT, target_recall=0.8)
        assert found.recall > 0.78  # each of two graphs finds as much of its own part


def test_graphs_that_are_built_later_are_calibrated_on_the_same_queries(tmp_path: Path) -> None:
    with small(tmp_path, 3000) as col:
        col.calibrate(OWN, k=7)
        col.calibrate(OWN[:200], k=7)  # what was said last counts
        col.add(VECTORS[3000:6000])
        col.optimize()  # one segment of both
        (index,) = graphs(col)
        assert index.rows == 6000
        np.testing.assert_array_equal(index.queries, OWN[:200])
        assert graph.kept(index, 7) is not None
        col.add(VECTORS[6000:9000])
        col.flush()
        compactor = col._store._compactor
        compactor._index(col._store.snapshot.parts[1], compactor._questions())  # beside it
        np.testing.assert_array_equal(graphs(col)[1].queries, OWN[:200])


def test_a_collection_without_graphs_has_nothing_to_calibrate(tmp_path: Path) -> None:
    with small(tmp_path, 100) as col:
        assert col.calibrate(OWN) == 0
        assert not list(Path(col.path).glob("idx-*"))


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (OWN[:99], vecdb.ArgumentError, "100 or more"),
        (OWN[0], vecdb.ArgumentError, "100 or more"),
        (OWN[:, :40], vecdb.DimensionError, "(n, 48)"),
        (np.where(np.arange(500)[:, None] == 7, np.nan, OWN), vecdb.SchemaError, "row 7"),
        (OWN.astype(str), vecdb.SchemaError, "float32"),
    ],
)
def test_what_is_no_sample_of_queries_is_refused_and_changes_nothing(
    tmp_path: Path, queries: Any, error: type[Exception], message: str
) -> None:
    with small(tmp_path, 2500) as col:
        with pytest.raises(error) as caught:
            col.calibrate(queries)
        assert message in str(caught.value)
        with pytest.raises(vecdb.ArgumentError, match="integer >= 1"):
            col.calibrate(OWN, k=0)
        assert graphs(col) == [None]


def test_only_an_open_writer_calibrates(store: Path) -> None:
    with vecdb.open(store) as reader, pytest.raises(vecdb.ReadOnlyError):
        reader.calibrate(OWN)
    with vecdb.open(store) as reader, pytest.raises(vecdb.ReadOnlyError):
        reader.snapshot().calibrate(OWN)
    with pytest.raises(vecdb.ClosedError):
        reader.calibrate(OWN)


def test_queries_that_nothing_can_have_written_are_refused(store: Path) -> None:
    with vecdb.open(store) as col:
        (index,) = graphs(col)
        for bad in (OWN[:, :40], OWN.astype(np.float64), np.zeros((2001, DIM), "f4"), OWN[0]):
            with pytest.raises(ValueError, match="queries"):
                graph.Graph.from_arrays({**index.arrays, "queries": bad}, index.meta, ROWS, DIM)
        for k in ("many", 0, True, None):
            index.meta["calibration"] = {"k": k}
            assert graph.kept(index, K) is None

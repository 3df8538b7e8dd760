"""Every path of the engine on graphs so small that they can be built and searched interpreted.

``tests/reliability/test_checked_kernels.py`` runs this file a second time as plain Python, where a
read beyond an array's end is an error, and a third time with every access checked.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from vecdb import graph
from vecdb.graph import levels, visited
from vecdb.kernels import reference

graph_search = importlib.import_module("vecdb.graph.search")  # not the function of that name

ROWS, DIM = 40, 9
RNG = np.random.default_rng(8)
VECTORS = RNG.standard_normal((ROWS, DIM)).astype(np.float32)
QUERIES = RNG.standard_normal((3, DIM)).astype(np.float32)


def agree(built: graph.Graph, vectors: np.ndarray, metric: str, **options: object) -> None:
    """A search with a pool for all rows finds what NumPy finds; also one query at a time."""
    queries = np.ascontiguousarray(QUERIES[:, : vectors.shape[1]])
    truth = reference.scan(vectors, queries, 4, metric, allowed=options.get("allowed"))[1]
    found = graph.search(built, vectors, queries, 4, len(vectors), metric=metric, **options)
    np.testing.assert_allclose(found.distances, truth, rtol=1e-4, atol=1e-4)
    ask = graph.Bound(built, vectors, 4, len(vectors), metric=metric, **options)
    np.testing.assert_array_equal(ask(queries[1:2])[0][0], found.rows[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_a_tiny_graph_finds_what_numpy_finds(metric: str, dtype: type) -> None:
    vectors = VECTORS.astype(dtype)
    built = graph.build(vectors, metric, ef_construction=12)
    assert built.reachable() == ROWS
    agree(built, vectors, metric)


@pytest.mark.parametrize("codes", ["int8", "1bit", "2bit", "4bit"])
def test_a_tiny_graph_of_each_code_finds_what_numpy_finds(codes: str) -> None:
    agree(graph.build(VECTORS, "l2", ef_construction=12, codes=codes), VECTORS, "l2")


def test_knobs_a_filter_and_a_hash_table_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    built = graph.build(VECTORS, "l2", M=24, ef_construction=12)
    assert built.blocks == 2
    for off in ("pruning", "codes", "prefetch", "lazy"):
        agree(built, VECTORS, "l2", knobs=graph.Knobs(**{off: False}))
    bits = np.zeros(64, bool)
    bits[:ROWS:3] = True
    agree(built, VECTORS, "l2", allowed=np.packbits(bits, bitorder="little"))
    monkeypatch.setattr(graph_search, "HASHED_ROWS", 0)
    monkeypatch.setattr(visited, "_SLOTS", 1)
    built.calls.clear()
    agree(built, VECTORS, "l2")
    visited.tables.clear()


def test_a_tiny_graph_grown_from_two_others_finds_what_numpy_finds() -> None:
    seeds = [
        (graph.build(VECTORS[:30], "l2", ef_construction=12), np.arange(30)),
        (graph.build(VECTORS[30:], "l2", ef_construction=12), np.arange(30, ROWS)),
    ]
    seeds[0][1][5:12] = -1  # deleted: other rows are there now
    merged = graph.build(VECTORS, "l2", ef_construction=12, seeds=seeds)
    assert merged.reachable() == ROWS
    agree(merged, VECTORS, "l2")


def test_a_graph_with_an_upper_level_finds_what_numpy_finds() -> None:
    vectors = RNG.standard_normal((8 * levels.FIRST, 2)).astype(np.float32)
    built = graph.build(vectors, "l2", ef_construction=8)
    assert built.meta["levels"] == 1
    agree(built, vectors, "l2")


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_a_graph_of_hardly_any_rows_finds_them_all(rows: int) -> None:
    built = graph.build(VECTORS[:rows], "cosine", ef_construction=12)
    found = graph.search(built, VECTORS[:rows], QUERIES, 6, 6, metric="cosine")
    assert (np.sort(found.rows, axis=1)[:, 6 - rows :] == np.arange(rows)).all()


def test_clustered_and_equal_rows_stay_reachable() -> None:
    centers = RNG.standard_normal((4, DIM)).astype(np.float32) * 20
    clustered = np.repeat(centers, ROWS // 4, axis=0) + VECTORS * np.float32(0.01)
    for vectors in (clustered, np.ones((ROWS, DIM), np.float32)):
        assert graph.build(vectors, "l2", ef_construction=12).reachable() == ROWS

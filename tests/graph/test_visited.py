"""The two ways of remembering where a search has been give the same answers."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from vecdb import graph
from vecdb.graph import visited
from vecdb.kernels.jit import INTERPRETED

search = importlib.import_module("vecdb.graph.search")  # not the function of that name

ROWS = 120 if INTERPRETED else 3000
RNG = np.random.default_rng(4)
VECTORS = RNG.standard_normal((ROWS, 16), dtype=np.float32)
QUERIES = RNG.standard_normal((4 if INTERPRETED else 40, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def built() -> graph.Graph:
    return graph.build(VECTORS, "l2", ef_construction=60)


@pytest.mark.parametrize("knobs", [graph.Knobs(), graph.Knobs(pruning=False)])
@pytest.mark.parametrize("slots", [16, 1])
def test_a_search_with_a_hash_table_finds_what_one_with_bytes_finds(
    built: graph.Graph, monkeypatch: pytest.MonkeyPatch, knobs: graph.Knobs, slots: int
) -> None:
    """With one slot for each place of the pool the table grows in mid-search."""
    expected = graph.search(built, VECTORS, QUERIES, 10, 100, metric="l2", knobs=knobs)
    monkeypatch.setattr(search, "HASHED_ROWS", 0)
    monkeypatch.setattr(visited, "_SLOTS", slots)
    built.calls.clear()
    visited.tables.clear()
    for _ in range(3):
        found = graph.search(built, VECTORS, QUERIES, 10, 100, metric="l2", knobs=knobs)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.counters, expected.counters)
    assert [len(table) for table in visited.tables] == [visited.table_bytes(104)]
    built.calls.clear()
    visited.tables.clear()


def test_graphs_of_all_sizes_share_one_array_of_bytes(built: graph.Graph) -> None:
    """Over more searches than there are tags."""
    small = graph.build(VECTORS[: ROWS // 10], "l2")
    visited.flags.clear()
    alone = [graph.search(built, VECTORS, QUERIES[:1], 10, 100, metric="l2").rows]
    visited.flags.clear()
    alone.append(graph.search(small, VECTORS[: ROWS // 10], QUERIES[:1], 10, 100, metric="l2").rows)
    for _ in range(200):
        found = graph.search(built, VECTORS, QUERIES[:1], 10, 100, metric="l2").rows
        np.testing.assert_array_equal(found, alone[0])
        found = graph.search(small, VECTORS[: ROWS // 10], QUERIES[:1], 10, 100, metric="l2").rows
        np.testing.assert_array_equal(found, alone[1])
    assert [len(array) for array in visited.flags] == [ROWS + 1]


def test_links_that_point_outside_the_rows_are_passed_over(built: graph.Graph) -> None:
    arrays = dict(built.arrays)
    arrays["rows"] = arrays["rows"].copy()
    damaged = graph.Graph(arrays, built.meta, 16)
    for links in damaged.link_views():
        links[::2, ::3] = 2**31 - 1
        links[1::2, ::3] = -5
    with pytest.raises(ValueError, match="outside"):
        graph.Graph.from_arrays(arrays, built.meta, ROWS, 16)
    mapped = graph.Graph.from_arrays(arrays, built.meta, ROWS, 16, check_links=False)
    for knobs in (graph.Knobs(), graph.Knobs(pruning=False), graph.Knobs(codes=False)):
        found = graph.search(mapped, VECTORS, QUERIES, 10, 100, metric="l2", knobs=knobs)
        assert found.rows.min() >= -1
        assert found.rows.max() < ROWS

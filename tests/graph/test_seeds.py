"""Merging and churn: a graph seeded from old ones is as good as one built afresh."""

from __future__ import annotations

import numpy as np

from vecdb import graph
from vecdb.kernels.jit import INTERPRETED
from vecdb.kernels.scan import scan

ROWS, ASKED, BEAM = (120, 4, 16) if INTERPRETED else (2000, 200, 80)
RNG = np.random.default_rng(6)
CENTERS = RNG.standard_normal((25, 48)) * 2


def rows(n: int) -> np.ndarray:
    return (CENTERS[RNG.integers(0, 25, n)] + RNG.standard_normal((n, 48))).astype(np.float32)


QUERIES = rows(ASKED)


def recall(built, vectors: np.ndarray) -> float:
    truth = scan(vectors, QUERIES, 10, "l2")[1]
    found = graph.search(built, vectors, QUERIES, 10, 48, metric="l2").distances
    return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())


def test_after_ten_rounds_of_churn_recall_is_that_of_a_fresh_build_and_no_row_is_lost():
    vectors = rows(ROWS)
    built = graph.build(vectors, "l2", ef_construction=BEAM)
    for _ in range(2 if INTERPRETED else 10):
        alive = np.sort(RNG.permutation(ROWS)[: ROWS // 2])
        moved = np.full(ROWS, -1)
        moved[alive] = np.arange(ROWS // 2)
        vectors = np.concatenate([vectors[alive], rows(ROWS // 2)])
        built = graph.build(vectors, "l2", ef_construction=BEAM, seeds=[(built, moved)])
        assert built.reachable() == ROWS
    fresh = graph.build(vectors, "l2", ef_construction=BEAM)
    assert recall(built, vectors) > recall(fresh, vectors) - 0.005


def test_the_largest_seed_keeps_its_links_and_the_others_rows_are_inserted():
    first, more, beam = (100, 20, 16) if INTERPRETED else (1500, 300, 64)
    large, small = rows(first), rows(more)
    seeds = [
        (graph.build(small, "l2", ef_construction=beam), np.arange(first, first + more)),
        (graph.build(large, "l2", ef_construction=beam), np.arange(first)),
    ]
    vectors = np.concatenate([large, small])
    merged = graph.build(vectors, "l2", ef_construction=beam, seeds=seeds)
    assert merged.reachable() == first + more
    assert recall(merged, vectors) > 0.95
    old, new = seeds[1][0].links(), merged.links()[:first]
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(old, new, strict=True)])
    assert shared > 20


def test_a_seed_without_a_row_left_is_no_seed():
    vectors = rows(ROWS // 10)
    old = graph.build(rows(ROWS // 40), "l2", ef_construction=32)
    gone = (old, np.full(ROWS // 40, -1))
    seeded = graph.build(vectors, "l2", ef_construction=32, seeds=[gone])
    plain = graph.build(vectors, "l2", ef_construction=32)
    np.testing.assert_array_equal(seeded.links(), plain.links())

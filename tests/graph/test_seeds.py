"""Merging and churn: a graph seeded from old ones is as good as one built afresh."""

from __future__ import annotations

import numpy as np

from vecdb import graph
from vecdb.kernels.scan import scan

RNG = np.random.default_rng(6)
CENTERS = RNG.standard_normal((25, 48)) * 2


def rows(n: int) -> np.ndarray:
    return (CENTERS[RNG.integers(0, 25, n)] + RNG.standard_normal((n, 48))).astype(np.float32)


QUERIES = rows(200)


def recall(built, vectors: np.ndarray) -> float:
    truth = scan(vectors, QUERIES, 10, "l2")[1]
    found = graph.search(built, vectors, QUERIES, 10, 48, metric="l2").distances
    return float((found <= truth[:, -1:] * (1 + 1e-6)).mean())


def test_after_ten_rounds_of_churn_recall_is_that_of_a_fresh_build_and_no_row_is_lost():
    vectors = rows(2000)
    built = graph.build(vectors, "l2", ef_construction=80)
    for _ in range(10):
        alive = np.sort(RNG.permutation(2000)[:1000])
        moved = np.full(2000, -1)
        moved[alive] = np.arange(1000)
        vectors = np.concatenate([vectors[alive], rows(1000)])
        built = graph.build(vectors, "l2", ef_construction=80, seeds=[(built, moved)])
        assert built.reachable() == 2000
    fresh = graph.build(vectors, "l2", ef_construction=80)
    assert recall(built, vectors) > recall(fresh, vectors) - 0.005


def test_the_largest_seed_keeps_its_links_and_the_others_rows_are_inserted():
    large, small = rows(1500), rows(300)
    seeds = [
        (graph.build(small, "l2", ef_construction=64), np.arange(1500, 1800)),
        (graph.build(large, "l2", ef_construction=64), np.arange(1500)),
    ]
    vectors = np.concatenate([large, small])
    merged = graph.build(vectors, "l2", ef_construction=64, seeds=seeds)
    assert merged.reachable() == 1800
    assert recall(merged, vectors) > 0.95
    old, new = seeds[1][0].links(), merged.links()[:1500]
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(old, new, strict=True)])
    assert shared > 20


def test_a_seed_without_a_row_left_is_no_seed():
    vectors = rows(200)
    old = graph.build(rows(50), "l2", ef_construction=32)
    gone = (old, np.full(50, -1))
    seeded = graph.build(vectors, "l2", ef_construction=32, seeds=[gone])
    plain = graph.build(vectors, "l2", ef_construction=32)
    np.testing.assert_array_equal(seeded.links(), plain.links())

"""Building graphs: the same for any number of threads, connected, for rows of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb import graph
from vecdb.errors import Cancelled
from vecdb.kernels.jit import INTERPRETED
from vecdb.kernels.scan import scan
from vecdb.workers import Workers

ROWS = 40 if INTERPRETED else 600


def clusters(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((20, dim)) * 4
    return (centers[rng.integers(0, 20, n)] + rng.standard_normal((n, dim))).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_the_graph_is_bit_for_bit_the_same_for_any_number_of_threads(metric):
    vectors = clusters(ROWS if INTERPRETED else 1500, 40)
    alone = graph.build(vectors, metric, ef_construction=48)
    workers = Workers(3)
    try:
        together = graph.build(vectors, metric, ef_construction=48, workers=workers)
    finally:
        workers.close()
    assert alone.meta == together.meta
    for name, array in alone.arrays.items():
        np.testing.assert_array_equal(array, together.arrays[name])


def test_another_seed_gives_another_graph_over_the_same_rows():
    vectors = clusters(ROWS, 40)
    first, second = (graph.build(vectors, "l2", ef_construction=32, seed=s) for s in (0, 1))
    assert (first.links() != second.links()).any()


def kinds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    plain = rng.standard_normal((ROWS, 48)).astype(np.float32)
    outlier = plain.copy()
    outlier[:, 3] *= 50
    far = clusters(ROWS, 48)
    far[: ROWS // 2] += 1000
    return {
        "no row": plain[:0],
        "one row": plain[:1],
        "two rows": plain[:2],
        "ten rows": plain[:10],
        "two dimensions": plain[:, :2],
        "one dimension": plain[:, :1],
        "all the same": np.ones((ROWS // 2, 40), np.float32),
        "every row twice": np.repeat(plain[: ROWS // 2], 2, axis=0),
        "heavy tails": plain * np.exp(2 * rng.standard_normal((ROWS, 1))).astype(np.float32),
        "one great dimension": outlier,
        "two far clusters": far,
        "tiny": plain * np.float32(1e-12),
        "float16": plain.astype(np.float16),
    }


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_every_row_of_every_kind_of_data_is_reachable_and_found(kind, metric):
    vectors = np.ascontiguousarray(kinds()[kind])
    built = graph.build(vectors, metric, ef_construction=64)
    assert built.reachable() == len(vectors)
    if not len(vectors):
        return
    queries = vectors[:: max(1, len(vectors) // 25)].astype(np.float32)
    k = min(10, len(vectors))
    truth = scan(vectors, queries, k, metric)[1]
    found = graph.search(built, vectors, queries, k, len(vectors), metric=metric).distances
    scale = np.abs(truth).max() + (0.1 if metric == "cosine" else 1e-30)
    assert (found <= truth[:, -1:] + 1e-5 * scale).mean() > 0.97


def test_a_build_can_be_watched_and_cancelled():
    vectors = clusters(ROWS, 40)
    seen: list[tuple[int, int]] = []
    graph.build(vectors, "l2", ef_construction=32, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1] == (ROWS, ROWS)
    with pytest.raises(Cancelled):
        graph.build(vectors, "l2", ef_construction=32, cancel=lambda: len(seen) > 0)


def test_more_links_give_more_blocks():
    vectors = clusters(ROWS // 2, 40)
    built = graph.build(vectors, "l2", M=24, ef_construction=64)
    assert built.meta["degree"] == 64
    assert built.blocks == 2
    assert built.reachable() == ROWS // 2
    found = graph.search(built, vectors, vectors[:20], 1, 32, metric="l2")
    assert (found.rows[:, 0] == np.arange(20)).all()

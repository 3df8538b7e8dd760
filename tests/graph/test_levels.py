"""Upper levels: samples within samples, descended greedily, whatever the file says."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb import graph
from vecdb.graph.levels import WIDTH, descend, level_sizes, levels_of
from vecdb.kernels.jit import INTERPRETED
from vecdb.kernels.scan import scan

RNG = np.random.default_rng(8)
ROWS = 280 if INTERPRETED else 4500


def tight(rows: int, centers: np.ndarray, spread: float) -> np.ndarray:
    noise = spread * RNG.standard_normal((rows, centers.shape[1]))
    return (centers[RNG.integers(0, len(centers), rows)] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def built():
    return graph.build(RNG.standard_normal((ROWS, 24)).astype(np.float32), "l2", ef_construction=64)


def positions(built: graph.Graph) -> np.ndarray:
    """The inner rows; up to 32 dimensions records hold them as float32."""
    return np.ascontiguousarray(built.arrays["rows"][:, :96]).view(np.float32)


def enter(built: graph.Graph, own: np.ndarray) -> int:
    arrays = built.arrays
    return descend(
        arrays["upper_records"].ctypes.data, built.inner, built.rows, own.ctypes.data,
        built.meta["entry"], built.meta["levels"], arrays["upper_rows"].ctypes.data,
        arrays["upper_links"].ctypes.data,
    )  # fmt: skip


def naive(built: graph.Graph, own: np.ndarray) -> int:
    """The descent in NumPy: to the nearest link while there is a nearer one, then a level down."""
    sample, links = built.arrays["upper_rows"], built.arrays["upper_links"]
    far = ((positions(built)[sample] - own[:24]) ** 2).sum(axis=1)
    at = start = 0
    for size in level_sizes(built.meta["levels"]):
        level = links[start : start + size]
        while True:
            near = level[at][level[at] >= 0]
            best = near[far[near].argmin()] if len(near) else at
            if far[best] >= far[at]:
                break
            at = int(best)
        start += size
    return int(sample[at])


def test_a_level_is_a_sample_within_the_next_and_links_stay_within_it(built):
    sizes = level_sizes(levels_of(ROWS)).tolist()
    assert sizes == ([32] if INTERPRETED else [32, 512])
    sample, links = built.arrays["upper_rows"], built.arrays["upper_links"]
    assert len(np.unique(sample)) == len(sample) == sizes[-1]
    assert links.shape == (sum(sizes), WIDTH)
    assert sample[0] == built.meta["entry"]
    records = built.arrays["upper_records"]
    np.testing.assert_array_equal(records, built.arrays["rows"][sample, : built.record])
    assert ((links >= 0).sum(axis=1) > 2).all()
    for size, level in zip(sizes, np.split(links, [32])[: len(sizes)], strict=True):
        assert len(level) == size
        assert level.max() < size
        assert not (level == np.arange(size)[:, None]).any()


def test_few_rows_have_no_upper_level():
    assert [levels_of(n) for n in (0, 1, 255, 256, 4095, 4096, 1 << 20)] == [0, 0, 0, 1, 1, 2, 4]


def test_the_descent_is_the_greedy_one(built):
    for query in RNG.standard_normal((40, 24)).astype(np.float32):
        own = np.zeros(32, np.float32)
        own[:24] = query
        own[24] = (query**2).sum()
        assert enter(built, own) == naive(built, own)


@pytest.mark.parametrize("bad", [ROWS, -2, 2**31 - 1, -(2**31)])
def test_what_a_damaged_level_says_is_passed_over(built, bad):
    links, sample = built.arrays["upper_links"].copy(), built.arrays["upper_rows"].copy()
    links[:, ::2] = bad
    sample[1::2] = bad
    arrays = {**built.arrays, "upper_links": links, "upper_rows": sample}
    with pytest.raises(ValueError, match="upper level"):
        graph.Graph.from_arrays(arrays, built.meta, ROWS, 24)
    lazy = graph.Graph.from_arrays(arrays, built.meta, ROWS, 24, check_links=False)
    for row in positions(built)[:20]:
        own = np.zeros(32, np.float32)
        own[:24] = row
        assert 0 <= enter(lazy, own) < ROWS


@pytest.mark.parametrize("seeded", [False, True])
def test_rows_of_tight_clusters_are_found_also_when_most_clusters_came_by_a_merge(seeded):
    """Links within a cluster would crowd out the ways between: all its rows are equally far."""
    centers = RNG.standard_normal((40, 256))
    old = tight(1200, centers[:10], 0.4)
    vectors = np.concatenate([old, tight(2800, centers, 0.4)])
    seeds = []
    if seeded:
        seeds = [(graph.build(old, "cosine", ef_construction=100), np.arange(1200))]
    built = graph.build(vectors, "cosine", ef_construction=100, seeds=seeds)
    queries = vectors[::40] + np.float32(0.02)
    truth = scan(vectors, queries, 10, "cosine")[1]
    found = graph.search(built, vectors, queries, 10, 64, metric="cosine").distances
    assert (found <= truth[:, -1:] + 1e-5).mean() > 0.97

"""Data sets are read right, truth is exact, and recall counts what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import datasets, made
from bench.datasets import Dataset

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "OUT", tmp_path / "out")


def small(metric: str, rows: int = 500, dim: int = 12) -> Dataset:
    train = RNG.standard_normal((rows, dim), dtype=np.float32)
    return Dataset(f"small-{metric}", metric, train, train[:40] + np.float32(0.1))


def naive(data: Dataset) -> np.ndarray:
    """All distances, (queries, rows), float64."""
    rows, queries = data.train.astype(np.float64), data.test.astype(np.float64)
    if data.metric == "l2":
        return ((queries[:, None] - rows) ** 2).sum(axis=2)
    if data.metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        return 1 - queries @ rows.T
    return -queries @ rows.T


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_truth_is_what_a_naive_search_finds(metric: str) -> None:
    data = small(metric)
    best = datasets.truth(data, 10)
    np.testing.assert_allclose(best, np.sort(naive(data), axis=1)[:, :10], atol=1e-12)
    np.testing.assert_array_equal(datasets.truth(data, 10), best)  # from its cache


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_recall_counts_found_neighbours_once_and_ties_for_free(metric: str) -> None:
    data = small(metric)
    best = datasets.truth(data, 10)
    ids = np.argsort(naive(data), axis=1)[:, :10]
    assert datasets.recall(data, ids, best) == 1
    half = ids.copy()
    half[:, 5:] = -1
    assert datasets.recall(data, half, best) == 0.5
    twice = ids.copy()
    twice[:, 1] = twice[:, 0]
    assert datasets.recall(data, twice, best) == 0.9
    wrong = np.argsort(naive(data), axis=1)[:, 10:20]
    assert datasets.recall(data, wrong, best) == 0


def test_a_row_that_ties_with_the_last_neighbour_counts() -> None:
    train = np.repeat(np.eye(3, 6, dtype=np.float32), 10, axis=0)
    data = Dataset("ties", "l2", train, np.eye(1, 6, dtype=np.float32))
    best = datasets.truth(Dataset("ties-padded", "l2", np.tile(train, (3, 1)), data.test), 5)
    assert datasets.recall(data, np.array([[9, 3, 1, 7, 5]]), best) == 1


def test_the_sift_like_set_is_bytes_in_128_dims_and_always_the_same() -> None:
    one, two = (datasets.sift_like(rows=3000, queries=50) for _ in range(2))
    assert one.train.shape == (3000, 128)
    assert one.test.shape == (50, 128)
    np.testing.assert_array_equal(one.train, two.train)
    assert one.train.dtype == np.uint8
    lengths = np.linalg.norm(one.train.astype(np.float32), axis=1)
    assert abs(lengths.mean() - 512) < 5


@pytest.mark.parametrize("name", made.MADE)
def test_a_made_set_is_finite_of_its_shape_and_always_the_same(name: str) -> None:
    one, two = (datasets.made(name, rows=500, queries=20) for _ in range(2))
    kind = made.MADE[name]
    assert one.train.shape == (500, kind.dim)
    assert one.test.shape == (20, kind.dim)
    assert one.metric == kind.metric == datasets._metric_of(one.name)
    assert np.isfinite(one.train).all()
    assert np.isfinite(one.test).all()
    np.testing.assert_array_equal(one.train, two.train)
    np.testing.assert_array_equal(one.test, two.test)


def test_made_sets_are_what_their_names_say() -> None:
    sets = {name: datasets.made(name, rows=1000, queries=100) for name in made.MADE}
    assert len(np.unique(sets["repeated"].train, axis=0)) < 1000 / 15
    assert (sets["words"].train == 0).mean() > 0.9
    assert sets["offset"].train.min() >= 1000
    assert sets["offset"].train.max() <= 1001
    assert set(np.unique(sets["bits"].train)) == {0, 1}
    assert sets["gist-like"].train.min() >= 0
    lengths = np.linalg.norm(sets["items-skewed"].train, axis=1)
    assert lengths.max() > 10 * np.median(lengths)
    rows, queries = datasets.normalised(sets["cross-modal"].train), sets["cross-modal"].test
    near = (datasets.normalised(queries) @ rows.T).max(axis=1)
    assert near.mean() < np.sort(rows @ rows.T)[:, -2].mean() - 0.1


def test_truth_of_rows_far_from_zero_is_exact() -> None:
    data = datasets.made("offset", rows=500, queries=20)
    best = np.sort(naive(data), axis=1)[:, :10]
    np.testing.assert_allclose(datasets.truth(data, 10), best, rtol=1e-6)


def test_files_of_the_public_sets_are_read(tmp_path: Path) -> None:
    vectors = RNG.integers(0, 100, (2500, 8)).astype(np.float32)
    prefix = np.full((2500, 1), 8, "<i4")
    np.hstack([prefix, vectors.view("<i4")]).tofile(tmp_path / "a.fvecs")
    np.hstack([prefix.view("u1"), vectors.astype("u1")]).tofile(tmp_path / "a.bvecs")
    for name, kind in {"a.fbin": "<f4", "a.u8bin": "u1", "a.i8bin": "i1"}.items():
        head = np.array([2500, 8], "<u4").tobytes()
        (tmp_path / name).write_bytes(head + vectors.astype(kind).tobytes())
    for name in ("a.fvecs", "a.bvecs", "a.fbin", "a.u8bin", "a.i8bin"):
        data = datasets.load(str(tmp_path / name))
        np.testing.assert_array_equal(data.train, vectors[:1500])
        np.testing.assert_array_equal(data.test, vectors[1500:])
        assert data.train.dtype == np.float32


def test_the_metric_comes_from_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = RNG.standard_normal((20, 4)).astype(np.float16)
    for name, metric in {"x-4-angular": "cosine", "y_euclidean": "l2", "z-ip": "ip"}.items():
        np.savez(tmp_path / f"{name}.npz", train=train, test=train[:3])
        monkeypatch.setenv("VECDB_DATA", str(tmp_path))
        data = datasets.load(name, rows=10)
        assert data.metric == metric
        assert data.train.shape == (10, 4)
        assert data.name == f"{name}-10"


def test_a_set_that_is_nowhere_is_refused_with_the_places_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VECDB_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="VECDB_DATA"):
        datasets.load("no-such-set")

"""Exact search and rescoring against their NumPy reference."""

from __future__ import annotations

import sys
import time
import types

import numpy as np
import pytest

from vecdb.errors import ArgumentError
from vecdb.kernels import reference
from vecdb.kernels.scan import rescore, scan
from vecdb.workers import Workers


def sample(n: int, dim: int, dtype: type = np.float32, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)).astype(dtype), rng.standard_normal((7, dim)).astype("f4")


def bitmap(bits: np.ndarray) -> np.ndarray:
    padded = np.zeros(-(-len(bits) // 64) * 64, bool)
    padded[: len(bits)] = bits
    return np.packbits(padded, bitorder="little")


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("n", "dim"), [(0, 3), (1, 1), (5, 16), (300, 17), (2000, 65)])
def test_a_scan_finds_what_numpy_finds(n, dim, dtype, metric):
    vectors, queries = sample(n, dim, dtype)
    for share in (None, 0.0, 0.02, 0.5):
        allowed = None if share is None else bitmap(np.random.default_rng(1).random(n) < share)
        rows, dists, complete = scan(vectors, queries, 10, metric, allowed=allowed)
        _, expected, _ = reference.scan(vectors, queries, 10, metric, allowed=allowed)
        assert complete
        np.testing.assert_allclose(dists, expected, rtol=1e-4, atol=1e-4)
        found = rows >= 0
        assert (found == np.isfinite(dists)).all()
        if allowed is not None:
            assert np.isin(rows[found], reference.allowed_rows(allowed, n)).all()


def test_ties_go_to_the_lower_row_in_both_paths():
    vectors = np.ones((100, 8), np.float32)
    queries = np.ones((2, 8), np.float32)
    for search in (scan, reference.scan):
        for metric in ("cosine", "l2", "ip"):
            assert (search(vectors, queries, 5, metric)[0] == np.arange(5)).all()


def test_a_nan_row_is_never_returned():
    vectors, queries = sample(50, 20)
    vectors[::2, 3] = np.nan
    for search in (scan, reference.scan):
        for metric in ("cosine", "l2", "ip"):
            rows, dists, _ = search(vectors, queries, 50, metric)
            assert (rows[:, :25] % 2 == 1).all()
            assert (rows[:, 25:] == -1).all()
            assert np.isinf(dists[:, 25:]).all()


def test_threads_split_queries_and_rows_without_changing_the_answer():
    vectors, queries = sample(40_000, 64)
    alone = scan(vectors, queries, 10, "l2")
    workers = Workers(3)
    try:
        for some in (queries[:1], queries, np.repeat(queries, 30, axis=0)):
            rows, dists, _ = scan(vectors, some, 10, "l2", workers=workers)
            assert (rows[0] == alone[0][0]).all()
            assert (dists[0] == alone[1][0]).all()
    finally:
        workers.close()


def test_a_scan_past_its_deadline_says_that_it_is_not_complete():
    vectors, queries = sample(1000, 8)
    rows, _, complete = scan(vectors, queries, 3, "l2", deadline_ns=time.monotonic_ns() - 1)
    assert not complete
    assert (rows == -1).all()


@pytest.mark.parametrize("exact", [scan, reference.scan])
def test_the_clock_is_looked_at_after_a_bounded_number_of_distances(exact, monkeypatch):
    vectors, queries = np.zeros((40_000, 2), np.float32), np.zeros((200, 2), np.float32)
    looks = []
    ours = types.SimpleNamespace(monotonic_ns=lambda: looks.append(1) or 0)
    monkeypatch.setattr(sys.modules[exact.__module__], "time", ours)
    assert exact(vectors, queries, 3, "l2", deadline_ns=1)[2]
    assert len(looks) >= len(vectors) * len(queries) / (1 << 16)


@pytest.mark.parametrize("exact", [scan, reference.scan])
def test_the_clock_is_looked_at_every_few_megabytes_of_rows(exact, monkeypatch):
    vectors, queries = np.zeros((8_000, 1024), np.float32), np.zeros((1, 1024), np.float32)
    looks = []
    ours = types.SimpleNamespace(monotonic_ns=lambda: looks.append(1) or 0)
    monkeypatch.setattr(sys.modules[exact.__module__], "time", ours)
    assert exact(vectors, queries, 3, "l2", deadline_ns=1)[2]
    assert len(looks) >= vectors.nbytes / (4 << 20)


def test_rescoring_gives_true_distances_and_infinity_for_no_row():
    vectors, queries = sample(30, 19, np.float16)
    rows = np.array([[0, 5, -1, 29, 30]] * len(queries))
    for metric in ("cosine", "l2", "ip"):
        found = rescore(vectors, queries, rows, metric)
        expected = reference.distances(queries, vectors, metric)[:, [0, 5, 29]]
        np.testing.assert_allclose(found[:, [0, 1, 3]], expected, rtol=1e-4, atol=1e-4)
        assert np.isinf(found[:, [2, 4]]).all()


@pytest.mark.parametrize(
    ("vectors", "queries", "metric"),
    [
        (np.zeros((3, 4), "f8"), np.zeros((1, 4), "f4"), "l2"),
        (np.zeros((3, 4), "f4"), np.zeros((1, 5), "f4"), "l2"),
        (np.zeros((3, 4), "f4"), np.zeros((1, 4), "f4"), "hamming"),
    ],
)
def test_wrong_arguments_are_refused_by_name(vectors, queries, metric):
    with pytest.raises(ArgumentError, match="expected"):
        scan(vectors, queries, 1, metric)


def test_rows_may_be_a_read_only_mapping(tmp_path):
    vectors, queries = sample(200, 12)
    vectors.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(200, 12))
    assert (scan(mapped, queries, 4, "l2")[0] == scan(vectors, queries, 4, "l2")[0]).all()

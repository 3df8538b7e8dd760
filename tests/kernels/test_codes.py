"""A scan by codes gives what the scan without them gives, whatever the rows are like."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.kernels.codes import Codes, encode
from vecdb.kernels.scan import rescore, scan
from vecdb.workers import Workers

METRICS = ("cosine", "l2", "ip")
RNG = np.random.default_rng(0)


def coded(vectors: np.ndarray, metric: str, step: int = 100) -> Codes:
    """The codes of all rows, made step by step."""
    codes = Codes.empty(*vectors.shape)
    for start in range(0, len(vectors), step):
        encode(vectors, metric, codes, start, min(start + step, len(vectors)))
    return codes


def same(vectors: np.ndarray, queries: np.ndarray, k: int, metric: str, **options: object) -> None:
    """Both scans agree: on every distance, and (but for ties of the last bit) on every row."""
    plain = scan(vectors, queries, k, metric, **options)
    quick = scan(vectors, queries, k, metric, codes=coded(vectors, metric), **options)
    np.testing.assert_allclose(quick[1], plain[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(quick[0] >= 0, plain[0] >= 0)
    for rows in quick[0]:
        assert len(set(rows[rows >= 0].tolist())) == np.count_nonzero(rows >= 0)
    np.testing.assert_allclose(quick[1], rescore(vectors, queries, quick[0], metric), rtol=1e-5)


def rows_of(kind: str, n: int, dim: int) -> np.ndarray:
    """Rows that are hard on codes, each in its way."""
    rows = RNG.standard_normal((n, dim)).astype(np.float32)
    if kind == "spiked":  # one value takes the whole range of the code
        rows[np.arange(n), RNG.integers(0, dim, n)] = 1e4
    elif kind == "far":  # l2: the norms dwarf the distances
        rows += 300
    elif kind == "clusters":
        rows = rows[RNG.integers(0, min(n, 5), n)] + np.float32(1e-3) * rows
    elif kind == "scales":
        rows *= (10.0 ** RNG.integers(-30, 17, (n, 1))).astype(np.float32)
    elif kind == "extreme":  # beyond what float32 can square
        rows *= np.float32(1e-25)
        rows[::3] *= np.float32(1e38)
        rows[1::3] *= np.float32(1e38)
        rows[1::3] *= np.float32(1e22)
    return np.ascontiguousarray(rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "spiked", "far", "clusters", "scales", "extreme"])
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (7, 3), (70, 20), (900, 64), (2000, 100)])
def test_codes_change_nothing_but_the_time(n: int, dim: int, kind: str, metric: str) -> None:
    vectors = rows_of(kind, n, dim)
    queries = np.concatenate([vectors[:2], RNG.standard_normal((3, dim)).astype(np.float32)])
    with np.errstate(all="ignore"):
        for k in (1, 10, 40):
            same(vectors, queries, k, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_only_allowed_rows_come_back_on_one_thread_or_two(metric: str) -> None:
    vectors = rows_of("normal", 90_000, 96)  # two parts of more than 4 MiB of codes
    allowed = np.packbits(RNG.random(90_000 + 56) < 0.3, bitorder="little")
    queries = RNG.standard_normal((1, 96)).astype(np.float32)
    workers = Workers(2)
    for bits in (None, allowed, np.zeros_like(allowed)):
        same(vectors, queries, 10, metric, allowed=bits, workers=workers)
    workers.close()


def test_the_bound_lets_few_rows_through() -> None:
    """Rows that the bound rules out are never read: here they have become nearest unseen."""
    vectors = rows_of("normal", 5000, 128)
    codes = coded(vectors, "l2")
    query = vectors[:1].copy()
    changed = vectors.copy()
    changed[200:] = query  # a scan that read them all would return them
    rows, _, _ = scan(changed, query, 1, "l2", codes=codes)
    assert rows[0, 0] == 0
    rows, _, _ = scan(changed, query, 1200, "l2", codes=codes)
    assert len(set(rows[0].tolist()) & set(range(200, 5000))) < 3000

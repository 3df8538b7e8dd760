"""Distances and exact search in plain NumPy: the oracle of the tests, and the path before warm-up.

Nothing here imports numba, so a search that comes while the kernels are still being compiled is
answered from here.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from vecdb.errors import ArgumentError, describe
from vecdb.kernels import blas

__all__ = ["allowed_rows", "digests", "distances", "scan"]

_BLOCK_BYTES = 16 << 20  # of float32 rows at a time
_QUERIES = 64  # at a time
_TIMED = 1 << 16  # rows times queries between two looks at the clock
_TIMED_BYTES = 2 << 20  # of rows, times queries, between them


def distances(queries: NDArray[Any], vectors: NDArray[Any], metric: str) -> NDArray[np.float32]:
    """Distances of every query to every row.

    Parameters
    ----------
    queries : (nq, dim) array
    vectors : (n, dim) array
    metric : {"cosine", "l2", "ip"}
        ``1 - cos``, the squared Euclidean distance, or ``-dot``.

    Returns
    -------
    (nq, n) float32 array
    """
    q = np.asarray(queries, np.float32)
    x = np.asarray(vectors, np.float32)
    if metric == "l2":
        return np.stack([np.square(x - row).sum(axis=1) for row in q]).astype(np.float32)
    blas.room()
    dots = q @ x.T
    if metric == "ip":
        return -dots
    if metric != "cosine":
        raise ArgumentError(
            describe("metric", expected="cosine, l2 or ip", got=repr(metric), fix="use one of them")
        )
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - dots / norms, np.float32)


def allowed_rows(allowed: NDArray[np.uint8], rows: int) -> NDArray[np.int64]:
    """Row numbers of the set bits of an Arrow bitmap (least significant bit first)."""
    return np.flatnonzero(np.unpackbits(allowed, count=rows, bitorder="little"))


def scan(
    vectors: NDArray[Any],
    queries: NDArray[np.float32],
    k: int,
    metric: str,
    *,
    allowed: NDArray[np.uint8] | None = None,
    workers: object = None,
    deadline_ns: int = 0,
    codes: object = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """Exact search; the arguments and results of :func:`vecdb.kernels.scan.scan`."""
    n, dim = vectors.shape
    rows = None if allowed is None else allowed_rows(allowed, n)
    count = n if rows is None else len(rows)
    best = np.full((len(queries), k), -1, np.int64)
    dists = np.full((len(queries), k), np.inf, np.float32)
    if len(queries) > _QUERIES:
        parts = [
            scan(vectors, queries[at : at + _QUERIES], k, metric, allowed=allowed,
                 deadline_ns=deadline_ns)
            for at in range(0, len(queries), _QUERIES)
        ]  # fmt: skip
        found_rows, found_distances, complete = zip(*parts, strict=True)
        return np.concatenate(found_rows), np.concatenate(found_distances), all(complete)
    block = max(1, _BLOCK_BYTES // (4 * max(dim, 1)))
    if deadline_ns:
        block = max(1, min(_TIMED, _TIMED_BYTES // (4 * max(dim, 1))) // max(1, len(queries)))
    for start in range(0, count, block):
        if deadline_ns and time.monotonic_ns() > deadline_ns:
            return best, dists, False
        stop = min(count, start + block)
        part = np.arange(start, stop) if rows is None else rows[start:stop]
        chunk = vectors[start:stop] if rows is None else vectors[part]
        found = distances(queries, chunk, metric)
        found[np.isnan(found)] = np.inf
        all_rows = np.concatenate([best, np.broadcast_to(part, found.shape)], axis=1)
        all_dists = np.concatenate([dists, found], axis=1)
        all_rows[np.isinf(all_dists)] = -1
        order = np.lexsort((all_rows.astype(np.uint64), all_dists), axis=1)[:, :k]
        best = np.take_along_axis(all_rows, order, axis=1)
        dists = np.take_along_axis(all_dists, order, axis=1)
    return best, dists, True


def digests(addresses: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """XXH3-64 of pieces of memory, which the caller keeps alive.

    Parameters
    ----------
    addresses, lengths : (n,) int64 array
        Where each begins, and its bytes.

    Returns
    -------
    (n,) uint64 array
    """
    if not len(addresses):
        return np.empty(0, np.uint64)
    start, stop = int(addresses.min()), int((addresses + lengths).max())
    memory = {"data": (start, True), "shape": (stop - start,), "typestr": "|u1", "version": 3}
    data = np.asarray(SimpleNamespace(__array_interface__=memory)).data
    places = (addresses - start).tolist()
    digest = xxhash.xxh3_64_intdigest
    found = (digest(data[at : at + n]) for at, n in zip(places, lengths.tolist(), strict=True))
    return np.fromiter(found, np.uint64, len(addresses))

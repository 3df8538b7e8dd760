"""Exact search: every row, or every allowed row, against a block of queries.

Rows are read in blocks that fit into the second cache level, four rows a step with the query in
registers, so that a batch of queries reads memory once. Ties go to the lower row number; a NaN
distance never wins.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import ArgumentError, describe
from vecdb.kernels.codes import Codes, scan_codes
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import distance, distance4, pool_insert, prefetch_bytes
from vecdb.kernels.memory import address
from vecdb.kernels.pools import METRICS, decode_pools, fill_pools, list_allowed, pool_key
from vecdb.workers import Workers

__all__ = ["METRICS", "flat", "pool_key", "query_norm", "rescore", "scan"]

_BYTES = "Array(u1, 1, 'C', readonly=True)"
_CHUNK = 1 << 16  # rows times queries in a call of the kernel; the clock is looked at between calls
_TIMED_BYTES = 4 << 20  # of rows in a call under a deadline, and less for many queries: about 1 ms
_FEW = 4  # queries that are compared with a row in the time that it takes to read it
_QUERIES = 64  # queries in one task: their pools and a block of rows stay in the second level
_SPLIT_BYTES = 4 << 20  # of rows worth a thread of their own: 0.3 ms of work, 45 us of hand-over
_NONE = np.zeros(0, np.uint8)
_HEAD = 128  # bytes of the next row that are asked for: no stream goes beyond its page by itself
_CODED = 128  # codes looked at before the rows that they let through are computed in full


@jit("f4(i8, i8)")
def query_norm(query, dim):
    """Norm of the float32 query at an address; all paths take it, and so agree to the bit."""
    return np.sqrt(-distance(2, False, query, query, dim, np.float32(1)))


@jit("f4[::1](Array(f4, 2, 'C', readonly=True))", entry=True)
def query_norms(queries):
    """Norms of all queries."""
    norms = np.empty(len(queries), np.float32)
    for j in range(len(queries)):
        norms[j] = query_norm(address(queries) + 4 * j * queries.shape[1], queries.shape[1])
    return norms


@jit(
    f"void(i8, b1, {_BYTES}, i8, i8, i8, b1, {_BYTES}, {_BYTES}, f4[::1], i8[:, ::1], i8[::1])",
    entry=True,
)
def scan_rows(metric, half, data, dim, start, stop, every, allowed, queries, norms, pools, rows):
    """Offer the allowed rows of [start, stop) to the pools of all queries.

    A pool is a row of `pools`: 8 sentinels, then the ascending keys; `rows` is scratch whose length
    is the number of rows taken at a time.
    """
    row_bytes = dim * (2 if half else 4)
    size = pools.shape[1] - 8
    base = address(data)
    for block in range(start, stop, len(rows)):
        count = list_allowed(every, allowed, block, min(stop, block + len(rows)), rows)
        for j in range(len(norms)):
            pool = address(pools) + 8 * (j * pools.shape[1] + 8)
            query = address(queries) + j * dim * 4
            # long rows come from memory faster in one stream: at 1,024 dims, where four rows share
            # a set of the cache, 93 ns instead of 137; at 384 26 instead of 30; at 100 16, not 10
            whole = 0 if every and j == 0 and row_bytes > 1024 else count & ~3
            for i in range(0, whole, 4):
                if not every and j == 0 and i + 8 <= count:
                    for ahead in range(i + 4, i + 8):
                        prefetch_bytes(base + rows[ahead] * row_bytes, row_bytes)
                found = distance4(
                    metric, half, base + rows[i] * row_bytes, base + rows[i + 1] * row_bytes,
                    base + rows[i + 2] * row_bytes, base + rows[i + 3] * row_bytes, query, dim,
                    norms[j],
                )  # fmt: skip
                for lane in range(4):
                    key = pool_key(found[lane], rows[i + lane])
                    if key < pools[j, size + 7]:
                        pool_insert(pool, size, key)
            for i in range(whole, count):
                prefetch_bytes(base + (rows[i] + 1) * row_bytes, _HEAD)
                value = distance(metric, half, base + rows[i] * row_bytes, query, dim, norms[j])
                key = pool_key(value, rows[i])
                if key < pools[j, size + 7]:
                    pool_insert(pool, size, key)


@jit(f"void(i8, b1, {_BYTES}, i8, i8, {_BYTES}, f4[::1], i8[:, ::1], f4[:, ::1])", entry=True)
def rescore_rows(metric, half, data, dim, total, queries, norms, rows, out):
    """Distances of each query to its own list of rows; infinity where the list holds -1."""
    row_bytes = dim * (2 if half else 4)
    base = address(data)
    for j in range(len(norms)):
        query = address(queries) + j * dim * 4
        for i in range(rows.shape[1]):
            if i + 4 < rows.shape[1] and 0 <= rows[j, i + 4] < total:
                prefetch_bytes(base + rows[j, i + 4] * row_bytes, row_bytes)
            out[j, i] = np.inf
            if 0 <= rows[j, i] < total:
                at = base + rows[j, i] * row_bytes
                out[j, i] = distance(metric, half, at, query, dim, norms[j])


def flat(array: NDArray[Any]) -> NDArray[np.uint8]:
    """A C-contiguous array as its bytes, without a copy."""
    return array.reshape(-1).view(np.uint8)


def scan(
    vectors: NDArray[Any],
    queries: NDArray[np.float32],
    k: int,
    metric: str,
    *,
    allowed: NDArray[np.uint8] | None = None,
    workers: Workers | None = None,
    codes: Codes | None = None,
    deadline_ns: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """The k nearest rows of every query, exactly.

    Parameters
    ----------
    vectors : (n, dim) float32 or float16 array
        C-contiguous; may be a read-only mapping.
    queries : (nq, dim) float32 array
    k : int
        Hits wanted per query.
    metric : {"cosine", "l2", "ip"}
    allowed : uint8 array, optional
        Arrow bitmap, padded to a multiple of 8 bytes: a row whose bit is 0 is not returned.
    workers : Workers, optional
        Threads to use; the calling thread alone when not given.
    deadline_ns : int
        Value of ``time.monotonic_ns()`` after which to stop with what there is; 0 for none.
    codes : Codes, optional
        Of the (float32) rows: the same answer, with a quarter of the bytes read.

    Returns
    -------
    rows : (nq, k) int64 array
        Nearest first, ties by row number; -1 where there are fewer than k.
    distances : (nq, k) float32 array
        ``1 - cos``, squared Euclid or ``-dot``; infinity beside -1.
    complete : bool
        False when the deadline came first.
    """
    data, half = _checked(vectors, queries, metric)
    n, dim = vectors.shape
    if k < 1:
        raise ArgumentError(describe("k", expected="an integer >= 1", got=k, fix="ask for a hit"))
    queries = np.ascontiguousarray(queries)
    size = min(k, n) + 7 & ~7
    rows, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    bitmap = _NONE if allowed is None else np.ascontiguousarray(allowed)
    read = vectors if codes is None else codes.bytes
    blocks = [slice(at, at + _QUERIES) for at in range(0, len(queries), _QUERIES)]
    parts = 1
    if workers is not None and len(blocks) < workers.threads:
        parts = max(1, min(workers.threads // max(1, len(blocks)), read.nbytes // _SPLIT_BYTES))
    pools = np.empty((parts, len(queries), 8 + size), np.int64)
    norms = query_norms(queries)
    fill_pools(pools)
    edges = [n * i // parts for i in range(parts + 1)]
    step = max(64, (256 << 10) // max(1, vectors.strides[0] if n else 1))
    done = [True] * (parts * len(blocks))

    def task(i: int) -> None:
        part, block = divmod(i, len(blocks))
        mine = blocks[block]
        asked = flat(queries[mine]), norms[mine]
        scratch = np.empty(step if codes is None else 3 * _CODED, np.int64)
        chunk = _CHUNK
        if deadline_ns:
            count = max(1, len(asked[1]))
            bytes_a_row = vectors.strides[0] * max(1, count // _FEW) if n else 1
            chunk = max(64, min(_CHUNK // count, _TIMED_BYTES // bytes_a_row))
        for start in range(edges[part], edges[part + 1], chunk):
            if deadline_ns and time.monotonic_ns() > deadline_ns:
                done[i] = False
                return
            stop = min(edges[part + 1], start + chunk)
            if codes is None:
                scan_rows(
                    METRICS[metric], half, data, dim, start, stop, allowed is None, bitmap, *asked,
                    pools[part, mine], scratch,
                )  # fmt: skip
            else:
                scan_codes(
                    METRICS[metric], data, dim, start, stop, allowed is None, bitmap,
                    flat(codes.bytes), codes.figures, *asked, min(k, n), pools[part, mine], scratch,
                )  # fmt: skip

    if workers is None:
        for i in range(len(done)):
            task(i)
    else:
        workers.each(task, range(len(done)))
    decode_pools(pools, rows, distances)
    return rows, distances, all(done)


def rescore(
    vectors: NDArray[Any], queries: NDArray[np.float32], rows: NDArray[np.int64], metric: str
) -> NDArray[np.float32]:
    """Exact distances of every query to its own rows.

    Parameters
    ----------
    vectors : (n, dim) float32 or float16 array
    queries : (nq, dim) float32 array
    rows : (nq, m) int64 array
        Row numbers; -1 (or any number outside the rows) gives infinity.
    metric : {"cosine", "l2", "ip"}

    Returns
    -------
    (nq, m) float32 array
    """
    data, half = _checked(vectors, queries, metric)
    queries = np.ascontiguousarray(queries)
    out = np.empty(rows.shape, np.float32)
    rescore_rows(
        METRICS[metric], half, data, vectors.shape[1], len(vectors), flat(queries),
        query_norms(queries), np.ascontiguousarray(rows), out,
    )  # fmt: skip
    return out


def _checked(
    vectors: NDArray[Any], queries: NDArray[np.float32], metric: str
) -> tuple[NDArray[np.uint8], bool]:
    """Bytes of the rows and whether they are float16, after a look at all shapes."""
    if metric not in METRICS:
        raise ArgumentError(
            describe("metric", expected="cosine, l2 or ip", got=repr(metric), fix="use one of them")
        )
    if vectors.dtype.char not in "fe" or queries.dtype.char != "f":
        raise ArgumentError(
            describe("vectors and queries", expected="float32 (vectors also float16)",
                     got=f"{vectors.dtype} and {queries.dtype}", fix="convert them")
        )  # fmt: skip
    if queries.ndim != 2 or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ArgumentError(
            describe("queries", expected=f"shape (nq, {vectors.shape[-1]})", got=queries.shape,
                     fix="use as many dimensions as the rows have")
        )  # fmt: skip
    return flat(np.asarray(vectors)), vectors.dtype.char == "e"

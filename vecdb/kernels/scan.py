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
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import distance, distance4, pool_insert, prefetch_bytes
from vecdb.kernels.memory import address
from vecdb.workers import Workers

__all__ = ["METRICS", "flat", "rescore", "scan"]

METRICS = {"l2": 0, "cosine": 1, "ip": 2}
_BYTES = "Array(u1, 1, 'C', readonly=True)"
_EMPTY = np.iinfo(np.int64).max
_SENTINEL = np.iinfo(np.int64).min
_CHUNK = 1 << 16  # rows in one call of the kernel: the deadline is looked at between calls
_QUERIES = 64  # queries in one task: their pools and a block of rows stay in the second level
_SPLIT_BYTES = (
    4 << 20
)  # rows worth a thread of their own: 0.3 ms of work against 45 us of hand-over


@jit("i8(f4, i8)", inline=True)
def pool_key(value, row):
    """Order of a hit: by distance (it may be negative), then by row. NaN sorts as infinity."""
    if value != value:
        value = np.float32(np.inf)
    if value == 0:  # -0.0 and 0.0 are a tie
        value = np.float32(0)
    pattern = np.int64(np.float32(value).view(np.int32))
    if pattern < 0:
        pattern = np.int64(-2147483649) - pattern
    return (pattern << 32) | row


@jit("f4(i8, i8)")
def query_norm(query, dim):
    """Norm of the float32 query at an address; all paths take it, and so agree to the bit."""
    return np.sqrt(-distance(2, False, query, query, dim, np.float32(1)))


@jit("f4[::1](Array(f4, 2, 'C', readonly=True))")
def query_norms(queries):
    """Norms of all queries."""
    norms = np.empty(len(queries), np.float32)
    for j in range(len(queries)):
        norms[j] = query_norm(address(queries) + 4 * j * queries.shape[1], queries.shape[1])
    return norms


@jit("i8(b1, Array(u1, 1, 'C', readonly=True), i8, i8, i8[::1])")
def list_allowed(every, allowed, start, stop, rows):
    """Write the allowed row numbers of [start, stop) and return how many there are."""
    count = 0
    if every:
        for row in range(start, stop):
            rows[count] = row
            count += 1
        return count
    row = start
    while row < stop:
        if row & 7 == 0 and allowed[row >> 3] == 0:
            row += 8
            continue
        if allowed[row >> 3] >> (row & 7) & 1:
            rows[count] = row
            count += 1
        row += 1
    return count


@jit(f"void(i8, b1, {_BYTES}, i8, i8, i8, b1, {_BYTES}, {_BYTES}, f4[::1], i8[:, ::1], i8[::1])")
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
            for i in range(0, count - 3, 4):
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
            for i in range(count & ~3, count):
                value = distance(metric, half, base + rows[i] * row_bytes, query, dim, norms[j])
                key = pool_key(value, rows[i])
                if key < pools[j, size + 7]:
                    pool_insert(pool, size, key)


@jit(f"void(i8, b1, {_BYTES}, i8, i8, {_BYTES}, f4[::1], i8[:, ::1], f4[:, ::1])")
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
    threads = workers.threads if workers else 1
    blocks = [slice(at, at + _QUERIES) for at in range(0, len(queries), _QUERIES)]
    parts = max(1, min(threads // max(1, len(blocks)), vectors.nbytes // _SPLIT_BYTES))
    edges = [n * i // parts for i in range(parts + 1)]
    pools = np.full((parts, len(queries), 8 + (min(k, n) + 7 & ~7)), _EMPTY, np.int64)
    pools[:, :, :8] = _SENTINEL
    queries = np.ascontiguousarray(queries)
    norms = query_norms(queries)
    step = max(64, (256 << 10) // max(1, vectors.strides[0] if n else 1))
    bitmap = np.zeros(0, np.uint8) if allowed is None else np.ascontiguousarray(allowed)
    done = [True] * (parts * len(blocks))

    def task(i: int) -> None:
        part, block = divmod(i, len(blocks))
        mine = blocks[block]
        scratch = np.empty(step, np.int64)
        for start in range(edges[part], edges[part + 1], _CHUNK):
            if deadline_ns and time.monotonic_ns() > deadline_ns:
                done[i] = False
                return
            scan_rows(
                METRICS[metric], half, data, dim, start, min(edges[part + 1], start + _CHUNK),
                allowed is None, bitmap, flat(queries[mine]), norms[mine], pools[part, mine],
                scratch,
            )  # fmt: skip

    if workers is None or len(done) == 1:
        for i in range(len(done)):
            task(i)
    else:
        workers.run(task, len(done))
    keys = np.sort(np.concatenate(list(pools[:, :, 8:]), axis=1), axis=1)[:, :k]
    return *_decode(keys, k), all(done)


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
    if vectors.dtype not in (np.float32, np.float16) or queries.dtype != np.float32:
        raise ArgumentError(
            describe("vectors and queries", expected="float32 (vectors also float16)",
                     got=f"{vectors.dtype} and {queries.dtype}", fix="convert them")
        )  # fmt: skip
    if queries.ndim != 2 or vectors.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise ArgumentError(
            describe("queries", expected=f"shape (nq, {vectors.shape[-1]})", got=queries.shape,
                     fix="use as many dimensions as the rows have")
        )  # fmt: skip
    return flat(np.asarray(vectors)), vectors.dtype == np.float16


def _decode(keys: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Row numbers and distances of sorted keys, padded to k columns."""
    pattern = keys >> 32
    pattern = np.where(pattern < 0, -2147483649 - pattern, pattern).astype(np.int32)
    none = keys == _EMPTY
    rows = np.full((len(keys), k), -1, np.int64)
    dists = np.full((len(keys), k), np.inf, np.float32)
    found = pattern.view(np.float32)
    none |= np.isinf(found)
    rows[:, : keys.shape[1]] = np.where(none, -1, keys & 0xFFFFFFFF)
    dists[:, : keys.shape[1]] = np.where(none, np.inf, found)
    return rows, dists

"""What the exact scans share: the pools that hits are gathered in, and the rows that may be hits.

A pool is 8 sentinels, then ascending keys: as many as are wanted, rounded up to a multiple of 8.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import pool_insert
from vecdb.kernels.memory import address

__all__ = ["METRICS", "decode_pools", "fill_pools", "list_allowed", "pool_key"]

METRICS = {"l2": 0, "cosine": 1, "ip": 2}
_EMPTY = np.iinfo(np.int64).max
_SENTINEL = np.iinfo(np.int64).min


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


@jit("void(i8[:, :, ::1])", entry=True)
def fill_pools(pools):
    """Make pools, (parts, queries, 8 + size), empty."""
    for part in range(pools.shape[0]):
        for j in range(pools.shape[1]):
            for i in range(pools.shape[2]):
                pools[part, j, i] = _SENTINEL if i < 8 else _EMPTY


@jit("void(i8[:, :, ::1], i8[:, ::1], f4[:, ::1])", entry=True)
def decode_pools(pools, rows, distances):
    """Merge the parts' pools of each query, and write its rows and distances, -1 and inf behind."""
    size = pools.shape[2] - 8
    for j in range(pools.shape[1]):
        best = address(pools) + 8 * (j * pools.shape[2] + 8)
        for part in range(1, pools.shape[0]):
            for i in range(8, 8 + size):
                if pools[part, j, i] >= pools[0, j, size + 7]:
                    break
                pool_insert(best, size, pools[part, j, i])
        for i in range(rows.shape[1]):
            rows[j, i] = -1
            distances[j, i] = np.inf
            key = pools[0, j, 8 + i] if i < size else _EMPTY
            if key == _EMPTY:
                continue
            pattern = key >> 32
            if pattern < 0:
                pattern = np.int64(-2147483649) - pattern
            distance = np.int32(pattern).view(np.float32)
            if distance < np.inf:
                rows[j, i] = key & 0xFFFFFFFF
                distances[j, i] = distance

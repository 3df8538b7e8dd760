"""Keys of the search pools, and the tags by which a search knows where it has been.

A key is ``distance bits << 32 | row << 1 | expanded``: for distances that are not negative the
order of keys is the order of distances, ties by row.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit

__all__ = ["EMPTY", "LEAST", "key_distance", "key_row", "make_key", "next_tag"]

EMPTY = np.iinfo(np.int64).max
"""The key of a free place: farther than everything, expanded."""

LEAST = np.iinfo(np.int64).min
"""The sentinel below a pool."""


@jit("i8(f4, i8)", inline=True)
def make_key(value, row):
    """The key of a row at a distance, not yet expanded."""
    return (np.int64(np.float32(value).view(np.int32)) << 32) | (row << 1)


@jit("f4(i8)", inline=True)
def key_distance(key):
    """The distance of a key."""
    return np.int32(key >> 32).view(np.float32)


@jit("i8(i8)", inline=True)
def key_row(key):
    """The row of a key."""
    return (key & 0xFFFFFFFF) >> 1


@jit("u1(u1[::1])", inline=True)
def next_tag(visited):
    """A tag that no node bears; element 0 holds the last one, node i has element i + 1."""
    if visited[0] == 255:
        visited[:] = 0
    visited[0] += np.uint8(1)
    return visited[0]

"""The nodes that a search has met: a byte for each node, or, in large graphs, a hash set.

The scratch of a search is a uint8 array in one of two forms. With ``rows + 1`` bytes element 0
holds the tag of the search that uses it, and node i has been met when element i + 1 equals it. A
hash table is read as int64: a power of two slots, each ``tag << 32 | node`` (with another tag it
counts as free, so nothing is cleared between searches), then the tag.

Bytes are 15 % faster at 100,000 rows. But at 64 million they would be 64 MB for each thread, of
which every node met touches another page. Either goes with the search, not with the graph, and
serves all graphs of the process in turn: 11 segments of a million rows take 1 MB, not 11.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.keys import next_tag
from vecdb.kernels.jit import jit
from vecdb.kernels.memory import address, read_i64, read_u8, write_i64, write_u8

__all__ = ["HASHED_ROWS", "begin", "enter", "flags", "grown", "slot_of", "table_bytes", "tables"]

HASHED_ROWS = 4 << 20
"""Rows of a graph from which on its searches use a hash table."""

_SLOTS = 16  # for each place of the pool; a search meets about four nodes for each
_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
_LOW = np.int64(0xFFFFFFFF)

flags: deque[NDArray[np.uint8]] = deque()
"""Arrays with a byte for each node that no search uses now."""

tables: deque[NDArray[np.uint8]] = deque()
"""Tables that no search uses now."""


def table_bytes(pool: int) -> int:
    """Length of the table for a search with a pool of `pool` places."""
    return 8 * (1 << (pool * _SLOTS - 1).bit_length()) + 8


@jit("i8(u1[::1], i8[::1], b1)", inline=True)
def begin(scratch, table, hashed):
    """Start a search that has met nothing yet; returns its tag."""
    if not hashed:
        return np.int64(next_tag(scratch))
    last = len(table) - 1
    if table[last] == 0x7FFFFFFF:
        table[:] = 0
    table[last] += 1
    return table[last]


@jit("i8(i8, i8, i8, b1, i8, i8)", inline=True)
def slot_of(scratch, table, slots, hashed, tag, node):
    """Address at which to enter a node; 0 when it has been met.

    `scratch` and `table` are addresses too: an array handed on costs two atomic instructions.
    """
    if not hashed:
        return 0 if read_u8(scratch + 1 + node) == tag else scratch + 1 + node
    mask = slots - 1
    slot = np.int64((np.uint64(node) * _FIBONACCI) >> np.uint64(32)) & mask
    while read_i64(table + 8 * slot) >> 32 == tag:
        if read_i64(table + 8 * slot) & _LOW == node:
            return 0
        slot = slot + 1 & mask
    return table + 8 * slot


@jit("void(i8, b1, i8, i8)", inline=True)
def enter(slot, hashed, tag, node):
    """Note that a node has been met, at the address that :func:`slot_of` gave."""
    if hashed:
        write_i64(slot, tag << 32 | node)
    else:
        write_u8(slot, np.uint8(tag))


@jit("i8[::1](i8[::1], i8)")
def grown(table, tag):
    """A table of twice the slots with the same nodes, for the rest of this search."""
    slots = len(table) - 1
    larger = np.zeros(2 * slots + 1, np.int64)
    larger[2 * slots] = tag
    for i in range(slots):
        if table[i] >> 32 == tag:
            node = table[i] & _LOW
            enter(slot_of(0, address(larger), 2 * slots, True, tag, node), True, tag, node)
    return larger

"""The nodes that a search has met, as a hash set: its size goes with the search, not the graph.

A table is an int64 array of a power of two slots and one element more, the last, which holds the
tag of the search that uses it. A slot holds ``tag << 32 | node``; whatever bears another tag counts
as free, so nothing is cleared between searches, and tables serve all graphs of a process in turn.
One byte a node would be as fast, but is 64 MB a segment and thread at 64 million rows, of which
each node met touches another page.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.jit import jit

__all__ = ["begin", "borrow", "give_back", "grown", "slot_of"]

_TAGS = (1 << 31) - 1
_SLOTS_PER_POOL = 16  # a search meets some four nodes for each place of its pool
_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio

_free: deque[NDArray[np.int64]] = deque()


def borrow(pool: int) -> NDArray[np.int64]:
    """A table for searches with a pool of this length; give it back afterwards."""
    slots = 1 << (pool * _SLOTS_PER_POOL - 1).bit_length()
    try:
        table = _free.pop()
    except IndexError:
        table = np.zeros(slots + 1, np.int64)
    return table if len(table) > slots else np.zeros(slots + 1, np.int64)


def give_back(table: NDArray[np.int64]) -> None:
    """Keep a table for the next search of any thread."""
    _free.append(table)


@jit("i8(i8[::1])", inline=True)
def begin(table):
    """Start a search with an empty set; returns its tag."""
    last = len(table) - 1
    if table[last] == _TAGS:
        table[:] = 0
    table[last] += 1
    return table[last]


@jit("i8(i8[::1], i8, i8)", inline=True)
def slot_of(table, tag, node):
    """The slot where a node that is not in the set belongs, -1 when it is in it."""
    mask = len(table) - 2
    wanted = tag << 32 | node
    slot = np.int64((np.uint64(node) * _FIBONACCI) >> np.uint64(32)) & mask
    while table[slot] >> 32 == tag:
        if table[slot] == wanted:
            return -1
        slot = slot + 1 & mask
    return slot


@jit("i8[::1](i8[::1], i8)")
def grown(table, tag):
    """A table of twice the slots with the same set."""
    slots = len(table) - 1
    larger = np.zeros(2 * slots + 1, np.int64)
    larger[2 * slots] = tag
    for i in range(slots):
        if table[i] >> 32 == tag:
            larger[slot_of(larger, tag, table[i] & 0xFFFFFFFF)] = table[i]
    return larger

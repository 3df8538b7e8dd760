"""Upper levels: where a search enters the ground level, HNSW's way (Malkov & Yashunin, 2016).

Level l holds a random sample of ``32 * 16**l`` rows, each level within the next; a row there has up
to 16 diverse links. A search goes greedily from the entry down, by the distances of records, and
begins its walk where the descent ends: without it 50 tight clusters left most answers in clusters
that no walk came to (recall .14).

As rows are inserted in random order, a level is nothing but the graph as it was when it had that
many rows, thinned. Links are numbers within the sample, whose records are kept once more, one after
the other: a level is read from short arrays, not from a page of the ground level for each row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import prefetch_bytes
from vecdb.kernels.memory import read_i32
from vecdb.quant.record import record_bytes, record_distance

__all__ = ["WIDTH", "descend", "level_sizes", "levels_of"]

FIRST = 32
FACTOR = 16  # 8 cost 2 % of QPS at 784 dimensions, and found no more
WIDTH = 16
"""Links of a row on an upper level."""


def level_sizes(levels: int) -> NDArray[np.int64]:
    """Rows of each of so many levels, the highest first."""
    return FIRST * FACTOR ** np.arange(levels, dtype=np.int64)


def levels_of(rows: int) -> int:
    """Upper levels of a graph: the lowest has at most an eighth of its rows."""
    levels = 0
    while 8 * FIRST * FACTOR**levels <= rows:
        levels += 1
    return levels


@jit("i8(i8, i8, i8, i8, i8, i8, i8, i8)")
def descend(records, inner, rows, own, entry, levels, sample, links):
    """The row at which to enter the ground level.

    `records`, `sample` and `links` are the addresses of the sample's records and rows, and of the
    levels' links, `own` of the record that is searched for. What a mapped file says is checked
    before it is followed.
    """
    if levels == 0:
        return entry
    length = record_bytes(inner)
    least = record_distance(records, own, inner)
    position = np.int64(0)
    size = np.int64(FIRST)
    for _level in range(levels):
        before = np.int64(-1)
        while before != position:
            before = position
            at = links + 4 * WIDTH * position
            for i in range(WIDTH):
                other = np.int64(read_i32(at + 4 * i))
                if 0 <= other < size:
                    prefetch_bytes(records + other * length, length)
            for i in range(WIDTH):
                other = np.int64(read_i32(at + 4 * i))
                if not 0 <= other < size:
                    continue
                value = record_distance(records + other * length, own, inner)
                if value < least:
                    least = value
                    position = other
        links += 4 * WIDTH * size
        size *= FACTOR
    row = np.int64(read_i32(sample + 4 * position))
    return row if 0 <= row < rows else entry

"""The rows that a filter cuts off: most of what lies around them does not pass.

A walk that began in the midst of what its filter hides goes on from the rows that pass to others
that do. It comes by nearly all of them, but not by those at the rim, whose links mostly lead to
hidden rows, nor by some that lie scattered among these. They are few, so a walk may look at all of
them (:func:`vecdb.graph.selective.seed`). Under a random filter they are many, but no walk is in
need of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.layout import Graph
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import prefetch_bytes
from vecdb.kernels.memory import read_i32
from vecdb.quant.neighbours import BLOCK, block_bytes

__all__ = ["cut_off"]

_PART = 16  # one in so many of the rows that pass are looked at by each walk, and
_SOME = 64  # as many more, but
_MOST = 512  # at most: text under a filter of 60 % had 2,400 of them, and half of the QPS
_FEW = 1 / 2  # of the places for links: who has as many that pass is not cut off
_RARER = 8  # times more does a link from a row that passes count than one to it
_AHEAD = 16  # rows whose links are asked for before they are needed
_REACHED = 0x80  # beside the number of links from rows that pass
_FULL = 0x7F

_BYTES = "Array(u1, 1, 'C', readonly=True)"


@jit("b1(Array(u1, 1, 'C', readonly=True), i8)", inline=True)
def passes(allowed, row):
    """Whether the bit of a row is set."""
    return allowed[row >> 3] >> (row & 7) & 1 == 1


@jit(f"i8(i8, i8, i8, i8, i8, i8, {_BYTES}, u1[::1], u1[::1], i8[::1])", entry=True)
def _survey(data, rows, stride, record, blocks, size, allowed, own, state, stack):
    """Write for each row that passes how many such rows it links to (`own`), and how many link to
    it and whether a walk from the one with the most comes to it (`state`). Returns that row; -1
    when none passes.

    `data` is the address of the graph's rows, whose blocks of neighbours of `size` bytes begin at
    `record`; `own` and `state` are given as zeros, `stack` has room for all rows that pass.
    """
    best = np.int64(-1)
    ahead = np.int64(0)
    waiting = np.int64(0)
    for row in range(rows):
        if not passes(allowed, row):
            continue
        while ahead < rows and waiting < _AHEAD:  # links are far apart: most of it is waiting
            if passes(allowed, ahead):
                prefetch_bytes(data + ahead * stride + record, 4 * BLOCK)
                waiting += 1
            ahead += 1
        waiting -= 1
        if best < 0:
            best = row
        for b in range(blocks):
            link = data + row * stride + record + b * size
            for lane in range(BLOCK):
                other = np.int64(read_i32(link + 4 * lane))
                if 0 <= other < rows and passes(allowed, other):
                    own[row] += own[row] < _FULL
                    state[other] += state[other] < _FULL
                    if state[other] > state[best]:
                        best = other
    if best < 0:
        return best
    state[best] |= _REACHED
    stack[0] = best
    depth = 1
    while depth:
        depth -= 1
        row = stack[depth]
        for b in range(blocks):
            link = data + row * stride + record + b * size
            for lane in range(BLOCK):
                other = np.int64(read_i32(link + 4 * lane))
                if 0 <= other < rows and passes(allowed, other) and state[other] < _REACHED:
                    state[other] |= _REACHED
                    prefetch_bytes(data + other * stride + record, 4 * BLOCK)
                    stack[depth] = other
                    depth += 1
    return best


def cut_off(graph: Graph, allowed: NDArray[np.uint8], matching: int) -> NDArray[np.int64]:
    """The rows that a filter cuts off, and the one that most of the others link to; empty where
    those that no walk comes to are more than one can look at.

    Parameters
    ----------
    graph : Graph
    allowed : uint8 array
        Arrow bitmap of the rows that pass, padded to a multiple of 8 bytes.
    matching : int
        How many these are.

    Returns
    -------
    (n,) int64 array
        Rows that no walk among the others comes to; then those with the fewest links to rows that
        pass, or hardly a link from one, as far as there is room.
    """
    own, state = np.zeros((2, graph.rows), np.uint8)
    size = block_bytes(graph.meta["dims"], graph.meta["bits"])
    best = _survey(
        graph.data.ctypes.data, graph.rows, graph.stride, graph.record, graph.blocks, size,
        allowed, own, state, np.empty(matching, np.int64),
    )  # fmt: skip
    if best < 0:
        return np.zeros(0, np.int64)
    passing = np.flatnonzero(np.unpackbits(allowed, count=graph.rows, bitorder="little"))
    found = state[passing]
    links = np.minimum(own[passing], _RARER * (found & _FULL).astype(np.int64))
    links[found < _REACHED] = 0
    room = min(matching // _PART + _SOME, _MOST)
    few = np.bincount(links, minlength=1).cumsum()[: int(_FEW * graph.meta["degree"])]
    fewest = int(np.searchsorted(few, room, side="right"))  # links that are enough
    if fewest == 0:
        return np.zeros(0, np.int64)
    return np.append(passing[links < fewest], best)

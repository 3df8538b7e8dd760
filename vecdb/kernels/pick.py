"""Single rows of columns copied out of mapped files, whose blocks have been hashed.

A column may lie in several files: a reach says where and which rows are meant, as for
:func:`vecdb.kernels.reference.unknown`, and row number `i` goes to place ``places[i]``.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import prefetch_bytes
from vecdb.kernels.memory import read_i32, read_u8

__all__ = ["bits", "ends", "texts", "values"]

_AHEAD = 16  # rows asked for before they are needed: hashing has emptied the caches


@jit("void(i8[:, ::1], i8[::1], i8[::1], u1[:, ::1])", entry=True)
def values(reaches, rows, places, out):
    """Numbers of as many bytes as `out` has columns."""
    size = out.shape[1]
    for reach in reaches:
        for i in range(reach[8], reach[9]):
            if i + _AHEAD < reach[9]:
                prefetch_bytes(reach[0] + size * rows[i + _AHEAD], size)
            at = reach[0] + size * rows[i]
            for k in range(size):
                out[places[i], k] = read_u8(at + k)


@jit("void(i8[:, ::1], i8[::1], i8[::1], u1[::1])", entry=True)
def bits(reaches, rows, places, out):
    """Bits into zeros, all of them set where a reach has no address."""
    for reach in reaches:
        for i in range(reach[8], reach[9]):
            row = rows[i]
            if not reach[0] or read_u8(reach[0] + (row >> 3)) >> (row & 7) & 1:
                out[places[i] >> 3] |= np.uint8(1 << (places[i] & 7))


@jit("void(i8[:, ::1], i8[::1], i8[::1], i8[::1])", entry=True)
def ends(reaches, rows, places, out):
    """Where texts begin and end that follow each other, into zeros. The reaches are those of the
    texts."""
    for reach in reaches:
        for i in range(reach[8], reach[9]):
            if i + _AHEAD < reach[9]:
                prefetch_bytes(reach[5] + 4 * rows[i + _AHEAD], 8)
            at = reach[5] + 4 * rows[i]
            out[places[i] + 1] = np.int64(read_i32(at + 4)) - np.int64(read_i32(at))
    for i in range(1, len(out)):
        out[i] += out[i - 1]


@jit("void(i8[:, ::1], i8[::1], i8[::1], i8[::1], u1[::1])", entry=True)
def texts(reaches, rows, places, stops, out):
    """The texts, each to where the one before it ends."""
    for reach in reaches:
        for i in range(reach[8], reach[9]):
            if i + _AHEAD < reach[9]:
                following = reach[0] + np.int64(read_i32(reach[5] + 4 * rows[i + _AHEAD]))
                prefetch_bytes(following, 64)
            at = reach[0] + np.int64(read_i32(reach[5] + 4 * rows[i]))
            start = stops[places[i]]
            for k in range(stops[places[i] + 1] - start):
                out[start + k] = read_u8(at + k)


# numba settles with the first call how such arrays are handed over: not while a search waits
_reaches, _none = np.empty((0, 10), np.int64), np.empty(0, np.int64)
values(_reaches, _none, _none, np.empty((0, 8), np.uint8))
bits(_reaches, _none, _none, np.empty(0, np.uint8))
ends(_reaches, _none, _none, np.empty(1, np.int64))
texts(_reaches, _none, _none, np.zeros(1, np.int64), np.empty(0, np.uint8))

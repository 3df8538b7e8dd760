"""Which blocks of mapped files hold wanted rows, and XXH3-64 of many blocks: each in one call that
keeps the interpreter free.

The function is the one of the xxhash package, whose extension module exports it on Linux and macOS;
a build that does not is left to the loop of :mod:`vecdb.kernels.reference`, a third of a
microsecond a block slower.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec

import llvmlite.binding as llvm
import numpy as np
from numba import types

from vecdb.kernels import reference
from vecdb.kernels.jit import INTERPRETED, jit
from vecdb.kernels.leaves import prefetch_bytes
from vecdb.kernels.memory import read_i32, read_i64, read_u8, write_u8

__all__ = ["changed", "digests", "unknown"]

_NAME = "XXH3_64bits"
_MAPPED = 1 << 16  # bytes that the system maps around the page that is touched
_GROUP = 4 << 20  # mapped in before they are hashed: block by block small pages took longer
_AHEAD = 6  # blocks asked for before they are hashed: small ones that lie apart are waited for
_FETCHED = 1 << 10  # bytes of a block: the processor foresees the rest

_module = find_spec("xxhash._xxhash")
_exported = getattr(ctypes.CDLL(_module.origin), _NAME, None) if _module is not None else None

if _exported is None or INTERPRETED:
    changed, digests = reference.changed, reference.digests
else:
    llvm.add_symbol(_NAME, ctypes.cast(_exported, ctypes.c_void_p).value)
    _digest = types.ExternalFunction(_NAME, types.uint64(types.int64, types.int64))

    @jit("b1[::1](i8[:, ::1])", entry=True)
    def changed(blocks):
        """As :func:`vecdb.kernels.reference.changed`."""
        bad = np.zeros(len(blocks), np.bool_)
        start = stop = 0
        while start < len(blocks):
            mapped = seen = last = 0
            while stop < len(blocks) and mapped < _GROUP:
                at, length = blocks[stop, 0], blocks[stop, 1]
                for window in range(at // _MAPPED, (at + length - 1) // _MAPPED + 1):
                    if window != last:
                        seen |= read_u8(max(at, window * _MAPPED))
                        last = window
                mapped += length
                stop += 1
            for i in range(start, stop):
                ahead = i + _AHEAD
                if ahead < stop:
                    prefetch_bytes(blocks[ahead, 0], min(blocks[ahead, 1], _FETCHED))
                    prefetch_bytes(blocks[ahead, 2], 8)
                digest = np.int64(_digest(blocks[i, 0], blocks[i, 1]))
                # `seen` has eight bits: never true, but else the loop above would be left out
                bad[i] = digest != read_i64(blocks[i, 2]) or seen > 255
                if not bad[i]:
                    write_u8(blocks[i, 3], 1)
            start = stop
        return bad

    @jit("u8[::1](i8, i8, i8)", entry=True)
    def digests(at, count, size):
        """As :func:`vecdb.kernels.reference.digests`."""
        found = np.empty(count, np.uint64)
        for i in range(count):
            found[i] = _digest(at + i * size, size)
        return found


@jit("i8(i8[:, ::1], i8[::1], i8[:, ::1])", entry=True)
def unknown(reaches, rows, found):
    """As :func:`vecdb.kernels.reference.unknown`."""
    count = 0
    for number in range(len(reaches)):
        reach = reaches[number]
        data, length, shift, step, span = reach[0], reach[1], reach[2], reach[3], reach[4]
        offsets, hashes, known = reach[5], reach[6], reach[7]
        before, last = 0, -1
        for i in range(reach[8], reach[9]):
            row = rows[i]
            if offsets:
                start = np.int64(read_i32(offsets + 4 * row))
                stop = np.int64(read_i32(offsets + 4 * row + 4))
            elif row < 0 or row > 8 * length:  # so that nothing below overflows
                return -1 - number
            else:
                start = row * step if step else row >> 3
                stop = start + span
            if start < before or stop < start or stop > length:
                return -1 - number
            before = start
            if start == stop:
                continue
            # no later row begins before this one: what lies between is listed already
            for block in range(max(start >> shift, last + 1), (stop - 1 >> shift) + 1):
                last = block
                if not read_u8(known + block):
                    if count < len(found):
                        at = block << shift
                        found[count, 0] = data + at
                        found[count, 1] = min(1 << shift, length - at)
                        found[count, 2] = hashes + 8 * block
                        found[count, 3] = known + block
                    count += 1
    return count


# numba settles with the first call how such arrays are handed over: not while a search waits
changed(np.empty((0, 4), np.int64))
digests(0, 0, 1)
unknown(np.empty((0, 10), np.int64), np.empty(0, np.int64), np.empty((0, 4), np.int64))

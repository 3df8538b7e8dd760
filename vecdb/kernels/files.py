"""Reading rows of a file from within a kernel, past the mapping.

A row that is touched in a mapping takes 16 pages into the process's resident memory: the system
maps what the page cache has around it, whatever it was advised. A row that is read takes none, and
costs a system call where a mapped one costs a cache miss. What the page cache has not is asked for
all at once before any of it is waited for: a disk serves many requests better than one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from vecdb.kernels.foreign import foreign
from vecdb.kernels.jit import jit
from vecdb.kernels.memory import address

__all__ = ["read_rows"]

_NOWAIT = 8  # RWF_NOWAIT: only what is in memory
_WILL_NEED = 3  # POSIX_FADV_WILLNEED


def _of_linux(name: str, *arguments: str) -> Any:
    """Elsewhere than on Linux no descriptor is handed in, and the function is not looked for."""
    if sys.platform != "linux":
        return jit(inline=True)(lambda *_: -1)
    return foreign(name, *arguments)


preadv2 = _of_linux("preadv2", "int", "long", "int", "long", "int")
posix_fadvise = _of_linux("posix_fadvise", "int", "long", "long", "int")


@jit("b1(i8, i8, i8, i8, i8[::1], i8, i8)")
def read_rows(descriptor, offset, flags, row_bytes, rows, count, to):
    """Copy some rows of the array at `offset` of a file to address `to`, one after the other.

    `flags` are those of preadv2(2). False when the file does not give them all.
    """
    source = np.int32(descriptor)
    piece = np.empty(2, np.int64)  # a struct iovec
    late = 0
    for i in range(count):
        at = offset + rows[i] * row_bytes
        piece[0], piece[1] = to + i * row_bytes, row_bytes
        if preadv2(source, address(piece), np.int32(1), at, np.int32(flags | _NOWAIT)) != row_bytes:
            posix_fadvise(source, at, row_bytes, np.int32(_WILL_NEED))
            late |= 1 << i % 63
    for i in range(count):
        if late >> i % 63 & 1:
            at = offset + rows[i] * row_bytes
            piece[0] = to + i * row_bytes
            if preadv2(source, address(piece), np.int32(1), at, np.int32(flags)) != row_bytes:
                return False
    return True

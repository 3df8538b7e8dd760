"""Reading and writing memory by address, for kernels.

Leaves take addresses, not arrays: numba counts references for every array that is passed on, with
atomic instructions, and in a leaf of 15 ns that was three quarters of the time. The caller keeps
the arrays alive. Under ``NUMBA_DISABLE_JIT=1`` the same functions go through ctypes.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from vecdb.kernels.jit import INTERPRETED

__all__ = [
    "address",
    "bytes_at",
    "fetch_add",
    "read_f32",
    "read_i32",
    "read_i64",
    "read_u8",
    "read_u16",
    "write_f32",
    "write_i32",
    "write_i64",
    "write_u8",
]  # fmt: skip

if INTERPRETED:

    def address(array: Any) -> int:
        """Address of an array's first byte."""
        return int(array.ctypes.data)

    def bytes_at(at: int, count: int) -> Any:
        """So many bytes at an address as an array; whoever owns them keeps them alive."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * int(count)).from_address(int(at) or 64))

    _adding = threading.Lock()

    def fetch_add(at: int, count: int) -> int:
        """The 64-bit integer at an address, to which `count` is added in one atomic step."""
        with _adding:
            before = read_i64(at)
            write_i64(at, before + count)
        return int(before)

    def _reader(kind: Any, scalar: Any) -> Any:
        return lambda at: scalar(kind.from_address(int(at)).value)

    def _writer(kind: Any, python: Any) -> Any:
        def write(at: int, value: Any) -> None:
            kind.from_address(int(at)).value = python(value)

        return write

    read_u8 = _reader(ctypes.c_uint8, int)
    read_u16 = _reader(ctypes.c_uint16, int)
    read_i32 = _reader(ctypes.c_int32, int)
    read_i64 = _reader(ctypes.c_int64, int)
    read_f32 = _reader(ctypes.c_float, np.float32)
    write_u8 = _writer(ctypes.c_uint8, int)
    write_i32 = _writer(ctypes.c_int32, int)
    write_i64 = _writer(ctypes.c_int64, int)
    write_f32 = _writer(ctypes.c_float, float)
else:
    from numba import carray

    from vecdb.kernels.jit import jit
    from vecdb.kernels.vector import (
        address,
        fetch_add,
        pointer,
        read_f32,
        read_i32,
        read_i64,
        read_u8,
        read_u16,
        write_f32,
        write_i32,
        write_i64,
        write_u8,
    )

    @jit("u1[::1](i8, i8)", inline=True)
    def bytes_at(at, count):
        """So many bytes at an address as an array; whoever owns them keeps them alive."""
        return carray(pointer(at), (count,))

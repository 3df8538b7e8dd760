"""XXH3-64 of many pieces of memory in one call that keeps the interpreter free.

The function is the one of the xxhash package, whose extension module exports it on Linux and macOS;
a build that does not is left to the loop of :mod:`vecdb.kernels.reference`, a third of a
microsecond a piece slower.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec

import llvmlite.binding as llvm
import numpy as np
from numba import types

from vecdb.kernels import reference
from vecdb.kernels.jit import INTERPRETED, jit

__all__ = ["digests"]

_NAME = "XXH3_64bits"

_module = find_spec("xxhash._xxhash")
_exported = getattr(ctypes.CDLL(_module.origin), _NAME, None) if _module is not None else None

if _exported is None or INTERPRETED:
    digests = reference.digests
else:
    llvm.add_symbol(_NAME, ctypes.cast(_exported, ctypes.c_void_p).value)
    _digest = types.ExternalFunction(_NAME, types.uint64(types.int64, types.int64))

    @jit("u8[::1](i8[::1], i8[::1])", entry=True)
    def digests(addresses, lengths):
        """Hash of each piece, given by address and length in bytes; as
        :func:`vecdb.kernels.reference.digests`."""
        found = np.empty(len(addresses), np.uint64)
        for i in range(len(addresses)):
            found[i] = _digest(addresses[i], lengths[i])
        return found


# numba settles with the first call how such arrays are handed over: not while a search waits
digests(np.empty(0, np.int64), np.empty(0, np.int64))

"""Functions of the C library, called from kernels."""

from __future__ import annotations

import ctypes
from typing import Any

from numba import types

from vecdb.kernels.jit import INTERPRETED

__all__ = ["foreign"]

_KINDS = {"int": (types.int32, ctypes.c_int), "long": (types.int64, ctypes.c_long)}


def foreign(name: str, *arguments: str) -> Any:
    """A function that takes such arguments ("int" or "long") and returns a long.

    Looked for in the process itself, like numba's own helpers. One that returns an int has
    garbage in the upper half of its result.
    """
    kinds = [_KINDS[argument] for argument in arguments]
    if INTERPRETED:
        function = getattr(ctypes.CDLL(None), name)
        function.argtypes = [kind for _, kind in kinds]
        function.restype = ctypes.c_long
        return function
    return types.ExternalFunction(name, types.int64(*[kind for kind, _ in kinds]))

"""Predicates that users write, compiled for the types of their columns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from vecdb.errors import FilterError, describe

__all__ = ["compiled"]


@functools.lru_cache(maxsize=256)
def compiled(function: Callable[..., Any], dtypes: tuple[np.dtype[Any], ...]) -> np.ufunc:
    """The function over arrays, giving bool; NumPy runs such a ufunc without the GIL.

    Raises
    ------
    FilterError
        numba can't compile it for these types.
    """
    signature = numba.boolean(*(numba.from_dtype(dtype) for dtype in dtypes))
    plain = getattr(function, "py_func", function)  # of a dispatcher
    try:
        made: np.ufunc = numba.vectorize([signature])(plain)
    except Exception as error:  # numba raises its own kinds, and NumPy's and Python's
        said = " ".join(str(error).split())
        raise FilterError(
            describe(f"predicate {getattr(plain, '__name__', plain)}",
                     expected=f"a function that numba compiles for {', '.join(map(str, dtypes))}",
                     got=f"{type(error).__name__}: {said}"[:300],
                     fix="use numbers, arithmetic, comparisons and math only")
        ) from error  # fmt: skip
    return made

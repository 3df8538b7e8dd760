"""Memory for the matrix products of NumPy."""

from __future__ import annotations

import numpy as np

__all__ = ["room"]

_BUFFER = 48 << 20  # bytes: what OpenBLAS allocates, and half as much for the product itself


def room() -> None:
    """Raise MemoryError where a matrix product might end the process.

    OpenBLAS allocates 32 MiB in a thread's first product of some size, and calls abort when the
    system refuses them (a limit on address space, or no overcommitting).
    """
    np.empty(_BUFFER, np.uint8)  # cheap: the pages are never touched

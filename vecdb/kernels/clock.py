"""The clock that deadlines are told by, for kernels: ``time.monotonic_ns()`` without the GIL."""

from __future__ import annotations

import time

import numpy as np

from vecdb.kernels.foreign import foreign
from vecdb.kernels.jit import jit
from vecdb.kernels.memory import address

__all__ = ["monotonic_ns"]

_CLOCK = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
"""What Python's own clock reads: the first on macOS, the second on Linux."""

_clock_gettime = foreign("clock_gettime", "int", "long")


@jit("i8()")
def monotonic_ns():
    """Nanoseconds of ``time.monotonic_ns()``."""
    now = np.empty(2, np.int64)  # a struct timespec
    _clock_gettime(np.int32(_CLOCK), address(now))
    return now[0] * 1_000_000_000 + now[1]

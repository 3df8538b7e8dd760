from __future__ import annotations

import time

from vecdb.kernels.clock import monotonic_ns


def test_the_clock_of_kernels_is_that_of_python() -> None:
    for _ in range(100):
        before = time.monotonic_ns()
        between = monotonic_ns()
        assert before <= between <= time.monotonic_ns()

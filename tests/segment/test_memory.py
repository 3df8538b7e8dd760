"""The bound on the memory of a build: stated, and kept."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import vecdb
from vecdb.segment.memory import build_bytes


@pytest.mark.parametrize(("dim", "M"), [(24, 16), (128, 16), (128, 32), (300, 16)])
def test_a_build_allocates_no_more_than_is_said(dim: int, M: int) -> None:
    vecdb.warmup()
    from vecdb.graph import build

    rows = np.random.default_rng(0).standard_normal((6_000, dim), dtype=np.float32)
    tracemalloc.start()  # NumPy reports its arrays to it
    try:
        build(rows, "l2", M=M, ef_construction=40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sampled = 96 << 20  # what the projection and its codes are fitted to, whatever the rows
    assert peak < 1.35 * build_bytes(dim, M) * len(rows) + sampled
    assert peak > 0.5 * build_bytes(dim, M) * len(rows)

"""The bound on the memory of a build: stated, kept, and what decides how large a segment grows."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.store import memory
from vecdb.store.memory import build_bytes


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


def test_segments_are_not_merged_beyond_what_memory_can_index(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = 2 * 1_000 * build_bytes(16, 16)
    monkeypatch.setattr(memory, "usable_memory", lambda: enough)
    store = lab.create(sync="os")
    for start in range(0, 2_100, 300):
        store.append(lab.batch(range(start, start + 300)))
        store.flush()
    store.optimize()
    assert sorted(part.data.rows for part in store.snapshot.parts) == [300, 900, 900]
    monkeypatch.undo()
    store.optimize()
    assert [part.data.rows for part in store.snapshot.parts] == [2_100]
    store.close()

"""The bound on the memory of a build: stated, and kept."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.segment import memory
from vecdb.segment.memory import build_bytes


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/app", {"app/memory.max": "8192"}, 8192),
        ("0::/app", {"app/memory.max": "max", "memory.max": "4096"}, 4096),
        ("4:memory:/app\n0::/", {"memory/app/memory.limit_in_bytes": "12288"}, 12288),
        ("4:cpu:/app", {"memory/app/memory.limit_in_bytes": "1"}, None),
    ],
)
def test_usable_memory_is_what_the_control_group_allows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    expected: int | None,
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "groups").write_text(groups + "\n")
    monkeypatch.setattr(memory, "_GROUPS", str(tmp_path))
    monkeypatch.setattr(memory, "_MINE", str(tmp_path / "groups"))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.usable_memory.__wrapped__() == (expected or machine)


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

"""Rows that a kernel reads from a file are those that a mapping shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vecdb.kernels.files import read_rows

OFFSET = 100
DATA = np.random.default_rng(0).standard_normal((5_000, 33)).astype(np.float32)
ROW = 4 * 33

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="no descriptor is handed in")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file with the rows, nothing of it in the page cache."""
    (tmp_path / "rows").write_bytes(bytes(OFFSET) + DATA.tobytes())
    descriptor = os.open(tmp_path / "rows", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    yield descriptor
    os.close(descriptor)


def read(descriptor: int, rows: list[int]) -> np.ndarray | None:
    copies = np.full((len(rows) + 1, DATA.shape[1]), 7, np.float32)
    wanted = np.array(rows, np.int64)
    done = read_rows(descriptor, OFFSET, 0, ROW, wanted, len(rows), copies.ctypes.data)
    assert (copies[-1] == 7).all()  # nothing behind the last row is written
    return copies[:-1] if done else None


@pytest.mark.parametrize("count", [0, 1, 12, 63, 64, 200])
def test_rows_come_in_the_order_that_they_are_named_in(file: int, count: int) -> None:
    rows = np.random.default_rng(count).integers(0, len(DATA), count).tolist()
    for _ in ("on the disk", "in memory"):
        np.testing.assert_array_equal(read(file, rows), DATA[rows])


def test_a_row_that_the_file_does_not_have_is_no_answer(file: int, tmp_path: Path) -> None:
    assert read(file, [len(DATA)]) is None
    os.truncate(tmp_path / "rows", OFFSET + len(DATA) * ROW - 1)
    assert read(file, [3, len(DATA) - 1]) is None
    assert read(file, [3, len(DATA) - 2]) is not None


def test_a_descriptor_that_is_none_is_no_answer() -> None:
    assert read(-1, [3]) is None

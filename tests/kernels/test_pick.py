"""Rows that the kernels copy are those that NumPy takes."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.kernels import pick, reference

DATA = np.random.default_rng(0).integers(0, 256, 900, np.uint8)
ENDS = np.sort(np.random.default_rng(1).integers(0, 800, 101)).astype("<i4")


def reaches(offsets: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of three runs of rows, the second empty: where they lie, their numbers and their places."""
    rng = np.random.default_rng(2)
    rows = np.sort(rng.integers(0, 100, (2, 20)), axis=1).reshape(-1)
    ends = ENDS.ctypes.data if offsets else 0
    table = [[DATA.ctypes.data + at, 0, 0, 0, 0, ends, 0, 0, *own]
             for at, own in ((0, (0, 20)), (7, (20, 20)), (64, (20, 40)))]  # fmt: skip
    return np.array(table), rows, rng.permutation(40)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_numbers_of_every_width(size: int) -> None:
    table, rows, places = reaches()
    for copy in (pick.values, reference.values):
        out = np.zeros((40, size), np.uint8)
        copy(table, rows, places, out)
        for i, (row, place) in enumerate(zip(rows, places, strict=True)):
            start = (64 if i >= 20 else 0) + size * row
            assert out[place].tolist() == DATA[start : start + size].tolist()


def test_bits_and_those_that_are_set_for_want_of_a_section() -> None:
    table, rows, places = reaches()
    table[2, 0] = 0
    for copy in (pick.bits, reference.bits):
        out = np.zeros(5, np.uint8)
        copy(table, rows, places, out)
        found = np.unpackbits(out, bitorder="little")[places]
        assert found[:20].tolist() == [DATA[row >> 3] >> (row & 7) & 1 for row in rows[:20]]
        assert found[20:].all()


def test_texts_follow_each_other_in_the_order_of_their_places() -> None:
    table, rows, places = reaches(offsets=True)
    expected = [b""] * 40
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        base = 64 if i >= 20 else 0
        expected[place] = DATA[base + ENDS[row] : base + ENDS[row + 1]].tobytes()
    for copy in (pick, reference):
        ends = np.zeros(41, np.int64)
        copy.ends(table, rows, places, ends)
        assert ends.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
        out = np.empty(ends[-1], np.uint8)
        copy.texts(table, rows, places, ends, out)
        assert out.tobytes() == b"".join(expected)

"""The compiled loops over blocks find the same as NumPy, and the xxhash package's own hashes."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from vecdb.kernels import hashing, reference

DATA = np.random.default_rng(0).integers(0, 256, 9_000, np.uint8)
LENGTHS = [0, 1, 16, 17, 128, 129, 240, 241, 1024, 4096, 8192]


@pytest.mark.parametrize("changed", [hashing.changed, reference.changed])
def test_blocks_are_held_against_their_hashes_and_the_sound_ones_are_noted(changed) -> None:
    stored = np.array(
        [xxhash.xxh3_64_intdigest(DATA[7 * i : 7 * i + n]) for i, n in enumerate(LENGTHS)],
        np.uint64,
    )
    stored[[3, 8]] ^= 1 << 63
    known = np.zeros(len(LENGTHS), np.uint8)
    numbers = np.arange(len(LENGTHS))
    blocks = np.stack(
        [DATA.ctypes.data + 7 * numbers, LENGTHS, stored.ctypes.data + 8 * numbers,
         known.ctypes.data + numbers], axis=1
    )  # fmt: skip
    assert np.flatnonzero(changed(blocks)).tolist() == [3, 8]
    assert np.flatnonzero(known == 0).tolist() == [3, 8]
    assert not len(changed(blocks[:0]))


@pytest.mark.parametrize("digests", [hashing.digests, reference.digests])
@pytest.mark.parametrize(("size", "count"), [(1024, 8), (64, 100), (1, 3), (9_000, 1), (5, 0)])
def test_blocks_that_follow_each_other_have_the_hashes_of_each(digests, size, count) -> None:
    naive = [xxhash.xxh3_64_intdigest(DATA[size * i : size * (i + 1)]) for i in range(count)]
    found = digests(DATA.ctypes.data, count, size)
    assert (found.dtype, found.tolist()) == (np.uint64, naive)


class Sections:
    """Sections in memory: numbers, bits, and texts with their offsets, in blocks of 16 bytes."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ends = np.sort(rng.integers(0, 500, 101)).astype("<i4")
        self.known = rng.integers(0, 2, 100).astype(np.uint8) if seed else np.zeros(100, np.uint8)
        rows = [np.sort(rng.integers(0, 100, 12)), np.sort(rng.integers(0, 100, seed % 3))]
        self.rows = np.concatenate(rows)
        whose = (0, 12), (12, len(self.rows))
        data, ends, known = DATA.ctypes.data, self.ends.ctypes.data, self.known.ctypes.data
        shapes = ((800, 8, 8, 0), (13, 0, 1, 0), (404, 4, 8, 0), (500, 0, 0, ends))
        self.reaches = np.array(
            [[data + 64 * i, length, 4, step, span, offsets, data + 4096, known, *own]
             for own in whose for i, (length, step, span, offsets) in enumerate(shapes)]
        )  # fmt: skip

    def unknown(self, find) -> np.ndarray:
        found = np.empty((0, 4), np.int64)
        count = find(self.reaches, self.rows, found)
        found = np.empty((max(count, 0) + 1, 4), np.int64)
        assert find(self.reaches, self.rows, found) == count
        some = np.empty((count // 2, 4), np.int64)
        assert find(self.reaches, self.rows, some) == count
        np.testing.assert_array_equal(some, found[: len(some)])
        return found[:count]


@pytest.mark.parametrize("seed", range(8))
def test_the_same_blocks_are_unknown_to_both(seed: int) -> None:
    sections = Sections(seed)
    found = sections.unknown(hashing.unknown)
    np.testing.assert_array_equal(found, sections.unknown(reference.unknown))
    wanted = set()
    for data, length, shift, step, span, offsets, _, _, first, last in sections.reaches.tolist():
        for row in sections.rows[first:last].tolist():
            start = row * step if step else row >> 3
            start, stop = sections.ends[row : row + 2] if offsets else (start, start + span)
            wanted |= {(data, length, at >> shift) for at in range(start, stop)}
    expected = sorted((d + 16 * b, min(16, n - 16 * b)) for d, n, b in wanted
                      if not sections.known[b])  # fmt: skip
    assert sorted({(at, length) for at, length, _, _ in found.tolist()}) == sorted(set(expected))


@pytest.mark.parametrize("find", [hashing.unknown, reference.unknown])
def test_a_section_that_does_not_hold_its_rows_is_told(find) -> None:
    for number, wrong in ((0, -1), (0, 100), (1, 104), (2, 101), (0, 1 << 61)):
        sections = Sections(0)
        sections.rows[0 if wrong < 0 else 11] = wrong
        sections.reaches = sections.reaches[number : number + 1]
        assert find(sections.reaches, sections.rows, np.empty((0, 4), np.int64)) == -1
    for row, wrong in ((4, -1), (4, 501), (4, 0), (4, 450)):
        sections = Sections(0)
        sections.rows[:12] = np.arange(12)
        sections.ends[:13] = 100 + np.arange(13)
        sections.ends[row] = wrong
        assert find(sections.reaches, sections.rows, np.empty((0, 4), np.int64)) == -4

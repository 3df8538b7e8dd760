"""Which blocks of a mapped file have been hashed, and the hashing: each once, when first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from vecdb import kernels
from vecdb.kernels import reference
from vecdb.segment.mapping import in_memory, will_need

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.segment.format import Section
    from vecdb.segment.mapping import Mapping

__all__ = ["Blocks", "changed", "digests", "fetch", "unknown"]

_STEP = 64 << 20  # bytes hashed in one call, which no signal interrupts
_ROOM = 16_384  # blocks that are listed at once: else they are counted first
_BRIDGED = 64 << 10  # bytes between two blocks that are read with them: cheaper than a wait each
_SAMPLE = 8  # blocks looked for in memory before all are


class Blocks:
    """What is known of the blocks of one file. Safe to share between threads: at worst two of them
    hash the same block."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._known: dict[str, npt.NDArray[np.uint8]] = {}  # by section, then block
        self._sound: set[str] = set()  # sections whose hashes were found sound

    def whole(self, name: str) -> bool:
        """Whether a section has been hashed from end to end."""
        known = self._known.get(name)
        return known is not None and bool(known.all())

    def forget(self) -> None:
        """Have everything hashed anew."""
        self._sound.clear()
        for known in self._known.values():  # which reaches lead to
            known[:] = 0

    def known(self, section: Section) -> npt.NDArray[np.uint8]:
        """A byte for each block of a section: 1 once it has been hashed."""
        known = self._known.get(section.name)
        if known is None:
            known = self._known.setdefault(section.name, np.zeros(section.blocks, np.uint8))
        return known

    def sound(self, section: Section) -> bool:
        """Whether the hashes of a section's blocks, themselves hashed, are as they were written."""
        if section.name not in self._sound:
            stored = self._mapping.glance(section.hashes, 8 * section.blocks)
            if xxhash.xxh3_64_intdigest(stored) != section.hash:
                return False
            self._sound.add(section.name)
        return True

    def reach(self, section: Section, step: int, span: int, offsets: int) -> tuple[int, ...]:
        """What :func:`unknown` needs to know of a section whose hashes are :meth:`sound`."""
        start, shift = self._mapping.address, section.block.bit_length() - 1
        known = self.known(section).__array_interface__["data"][0]  # .ctypes takes twice as long
        return (start + section.offset, section.length, shift, step, span, offsets,
                start + section.hashes, known)  # fmt: skip

    def changed(self, section: Section, start: int, stop: int) -> list[int]:
        """Read and hash blocks `start` to `stop` of a section whose hashes are :meth:`sound`: the
        numbers of those that are not as they were written."""
        data, length, *_, hashes, known = self.reach(section, 0, 0, 0)
        size, found = section.block, []
        most = max(_STEP // size, 1)
        for first in range(start, stop, most):
            numbers = np.arange(first, min(first + most, stop))
            lengths = np.minimum(length - numbers * size, size)
            step = np.stack(
                [data + numbers * size, lengths, hashes + 8 * numbers, known + numbers], axis=1
            )
            fetch(step)
            found += numbers[changed(step)].tolist()
        return found


def unknown(reaches: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Any:
    """The blocks that :func:`vecdb.kernels.reference.unknown` finds, (n, 4) int64; the number of
    the section that does not hold its rows where there is one."""
    find = _hashing().unknown
    found = np.empty((min(len(rows) * len(reaches), _ROOM), 4), np.int64)
    while (count := find(reaches, rows, found)) > len(found):
        found = np.empty((count, 4), np.int64)
    return found[:count] if count >= 0 else -1 - count


def changed(blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Hash blocks, which were fetched, in one step that no signal interrupts, and remember which
    are sound.

    Returns
    -------
    (n,) bool array
        Whether a block is not as it was written.
    """
    bad: npt.NDArray[np.bool_] = _hashing().changed(blocks)
    return bad


def digests(data: memoryview, size: int) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each of the blocks of `size` bytes that `data` consists of."""
    memory = np.frombuffer(data, np.uint8)
    count = len(memory) // size
    found: npt.NDArray[np.uint64] = _hashing().digests(memory.ctypes.data, count, size)
    return found


def _hashing() -> Any:
    if not kernels.ready():
        return reference
    from vecdb.kernels import hashing

    return hashing


def fetch(blocks: npt.NDArray[np.int64]) -> None:
    """Have the disk read all of it at once, unless it is in memory: one by one it would be waited
    for page by page."""
    sample = blocks[:: -(-len(blocks) // _SAMPLE) or 1, 0]
    if all(map(in_memory, sample.tolist())):
        return
    places, ends = blocks[:, 0], blocks[:, 0] + blocks[:, 1]
    gaps = places[1:] - ends[:-1]
    runs = np.flatnonzero((gaps < 0) | (gaps > _BRIDGED)) + 1
    for start, stop in zip([0, *runs.tolist()], [*runs.tolist(), len(places)], strict=True):
        will_need(int(places[start]), int(ends[stop - 1] - places[start]))

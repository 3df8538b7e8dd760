"""Which blocks of a mapped file have been hashed, and the hashing: each once, when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from vecdb import kernels
from vecdb.kernels import reference

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.segment.format import Section
    from vecdb.segment.mapping import Mapping

__all__ = ["Blocks"]

_DENSE = 2  # one block known or wanted in so many, and all are hashed: no later row asks again
_STEP = 64 << 20  # bytes hashed in one call, which no signal interrupts
_SAMPLE = 4  # blocks looked for in memory before all are

Wanted = Sequence[tuple["Section", "npt.NDArray[np.int64]"]]


class Blocks:
    """What is known of the blocks of one file. Safe to share between threads: at worst two of them
    hash the same block."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._whole: set[str] = set()  # sections
        self._known: dict[str, npt.NDArray[np.bool_]] = {}  # by block, of sections that are not
        self._stored: dict[str, npt.NDArray[np.uint64]] = {}

    def whole(self, name: str) -> bool:
        """Whether a section has been hashed from end to end."""
        return name in self._whole

    def forget(self) -> None:
        """Have everything hashed anew."""
        for known in (self._whole, self._known, self._stored):
            known.clear()

    def missing(self, section: Section, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of some blocks (in any order, also repeated) that were not hashed yet, ascending;
        all that were not, where few would be left."""
        known = self._known.get(section.name)
        if known is not None:
            blocks = blocks[~known[blocks]]
        if len(blocks) > 1:  # np.unique takes three times as long
            blocks = np.sort(blocks)
            fresh = np.ones(len(blocks), np.bool_)
            np.not_equal(blocks[1:], blocks[:-1], out=fresh[1:])
            blocks = blocks[fresh]
        if len(blocks) > 1:
            done = 0 if known is None else np.count_nonzero(known)
            if (done + len(blocks)) * _DENSE > section.blocks:
                return np.arange(section.blocks) if known is None else np.flatnonzero(~known)
        return blocks

    def changed(self, wanted: Wanted) -> tuple[Section, list[int]] | None:
        """Hash blocks (ascending) of sections whose hashes are :meth:`stored`.

        Returns
        -------
        (Section, list of int) or None
            The first section in which bytes have changed, and in which of the blocks. None when all
            are as they were written, which is remembered.
        """
        places = [section.offset + blocks * section.block for section, blocks in wanted]
        lengths = [
            np.minimum(section.length - blocks * section.block, section.block)
            for section, blocks in wanted
        ]
        stored = [self._stored[section.name][blocks] for section, blocks in wanted]
        found = self._digests(np.concatenate(places), np.concatenate(lengths))
        different = found != np.concatenate(stored)
        if different.any():
            for section, blocks in wanted:
                bad = blocks[different[: len(blocks)]]
                if len(bad):
                    return section, bad.tolist()
                different = different[len(blocks) :]
        for section, blocks in wanted:
            self._remember(section, blocks)
        return None

    def stored(self, section: Section) -> npt.NDArray[np.uint64] | None:
        """The hashes of a section's blocks, themselves hashed; None when they have changed."""
        stored = self._stored.get(section.name)
        if stored is None:
            stored = self._mapping.array(section.hashes, "<u8", (section.blocks,))
            if xxhash.xxh3_64_intdigest(stored.data) != section.hash:
                return None
            self._stored[section.name] = stored
        return stored

    def _remember(self, section: Section, blocks: npt.NDArray[np.int64]) -> None:
        if len(blocks) == section.blocks:
            self._whole.add(section.name)
            return
        known = self._known.get(section.name)
        if known is None:
            known = self._known.setdefault(section.name, np.zeros(section.blocks, np.bool_))
        known[blocks] = True
        if known.all():
            self._whole.add(section.name)

    def _digests(
        self, places: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        find: Callable[..., Any] = reference.digests
        if kernels.ready():
            from vecdb.kernels import hashing

            find = hashing.digests
        found = np.empty(len(places), np.uint64)
        most = max(_STEP // int(lengths.max(initial=1)), 1)
        for start in range(0, len(places), most):
            step = slice(start, start + most)
            sample = places[step][:: -(-len(places[step]) // _SAMPLE)]
            if not all(map(self._mapping.in_memory, sample.tolist())):
                self._fetch(places[step], lengths[step])
            found[step] = find(places[step] + self._mapping.address, lengths[step])
        return found

    def _fetch(self, places: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        """Have the disk read all of it at once: one by one it would be waited for page by page."""
        ends = places + lengths
        runs = np.flatnonzero(places[1:] != ends[:-1]) + 1
        for start, stop in zip([0, *runs.tolist()], [*runs.tolist(), len(places)], strict=True):
            self._mapping.will_need(int(places[start]), int(ends[stop - 1] - places[start]))

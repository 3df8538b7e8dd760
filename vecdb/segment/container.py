"""Reads one container file: mapped at once, parsed and hashed when first used."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from vecdb.errors import CorruptionError, VersionError, describe
from vecdb.segment import format as f

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.fs import Directory

__all__ = ["Container"]

_DENSE = 8  # one block wanted in so many, and all are hashed: that takes as long, and once only


class Container:
    """A mapped, immutable container file.

    Opening maps the file and checks its length, both magics, the UUID of the store, and the
    footer hash, against the manifest's record of the file when there is one. The section table is
    parsed on first use, a section is hashed on first use.

    Raises
    ------
    CorruptionError
        Naming the file, for anything that does not fit.
    VersionError
        For a newer format.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        kind: f.Kind,
        store: bytes,
        expected: f.FileInfo | None = None,
    ) -> None:
        self._folder = directory.path
        self.kind = kind
        self.name = name
        self.mapping, header, end = directory.map(
            name, f.HEADER.size, f.PAGE, keep=kind == f.Kind.SEGMENT
        )
        self.length = length = self.mapping.length
        if expected is not None and length != expected.length:
            raise self.damaged(f"{expected.length} bytes", f"{length}")
        if length < f.HEADER.size + f.TAIL.size:
            raise self.damaged("a whole file", f"{length} bytes")
        tail = end[-f.TAIL.size :]
        magic, version, found, _, uuid, self.id, self.segment = f.HEADER.unpack(header)
        if magic == f.MAGIC and version > f.VERSION:
            raise VersionError(
                describe(str(self.path), expected=f"format version {f.VERSION} or older",
                         got=f"version {version}", fix="upgrade vecdb")
            )  # fmt: skip
        start, sections, meta, total, digest, end_magic = f.TAIL.unpack(tail)
        if magic != f.MAGIC or end_magic != f.END_MAGIC or version != f.VERSION or found != kind:
            raise self.damaged(f"a {kind.name.lower()} file", "other bytes")
        if uuid != store or (expected is not None and self.id != expected.id):
            raise self.damaged("a file of this store", "one of another store or place")
        size = sections * f.ROW.size + meta
        if (
            total != length
            or start + size + f.TAIL.size != length
            or sections > f.MAX_SECTIONS
            or meta > f.MAX_META
        ):
            raise self.damaged("a footer inside the file", f"footer at {start} of {size} bytes")
        behind = size + f.TAIL.size
        whole = end if behind <= len(end) else self.mapping.bytes(start, behind)
        self._footer = whole[len(whole) - behind : -f.TAIL.size]
        self._footer_offset = start
        self._count = sections
        if f.footer_hash(header, self._footer, tail) != digest or (
            expected is not None and digest != expected.footer
        ):
            raise self.damaged("the footer that was written", "a different footer hash")
        self.info = f.FileInfo(self.id, length, digest)
        self._verified: set[str] = set()
        self._known: dict[str, npt.NDArray[np.bool_]] = {}  # blocks hashed of sections that are not

    @property
    def path(self) -> Path:
        """Where the file was when it was mapped."""
        return self._folder / self.name

    def damaged(self, expected: object, got: object) -> CorruptionError:
        """The error for a file that is not as it was written."""
        return CorruptionError(
            describe(str(self.path), expected=expected, got=got,
                     fix="restore the file from a backup, or run `python -m vecdb repair`")
        )  # fmt: skip

    @cached_property
    def sections(self) -> dict[str, f.Section]:
        """The section table; bounds are checked in Python's integers, which don't overflow."""
        found: dict[str, f.Section] = {}
        end = f.HEADER.size
        hashes_end = self._footer_offset
        table = memoryview(self._footer)[: self._count * f.ROW.size]
        for raw, offset, length, hashes, digest in f.ROW.iter_unpack(table):
            try:
                name = raw.rstrip(b"\0").decode("ascii")
            except UnicodeDecodeError:
                raise self.damaged("ASCII section names", raw) from None
            size = f.block_size(self.kind, name)
            section = f.Section(name, offset, length, hashes, digest, size)
            inside = end <= offset and offset + length <= self._footer_offset
            hashed = end <= hashes and hashes + 8 * section.blocks <= hashes_end and hashes % 8 == 0
            if not inside or not hashed or offset % f.ALIGN or name in found:
                raise self.damaged("sections one after the other", f"{name!r} at {offset}")
            found[name] = section
            end = offset + length
        return found

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The JSON object of the footer."""
        try:
            meta = json.loads(self._footer[self._count * f.ROW.size :])
        except (ValueError, RecursionError):
            meta = None
        if not isinstance(meta, dict):
            raise self.damaged("a JSON object in the footer", "something else")
        return meta

    def array(
        self, name: str, dtype: Any, shape: tuple[int, ...], *, verify: bool = True
    ) -> npt.NDArray[Any]:
        """A section as a read-only array of exactly this dtype and shape, hashed before use."""
        section = self._section(name)
        expected = np.dtype(dtype).itemsize
        for extent in shape:
            expected *= int(extent)
        if expected != section.length:
            raise self.damaged(f"{expected} bytes of {name!r}", f"{section.length}")
        if verify:
            self.verify(name)
        return self.mapping.array(section.offset, dtype, shape)

    def buffer(self, name: str, *, verify: bool = True) -> pa.Buffer:
        """A section as an Arrow buffer, hashed before use."""
        section = self._section(name)
        if verify:
            self.verify(name)
        return self.mapping.buffer(section.offset, section.length)

    def length_of(self, name: str) -> int:
        """Bytes of a section."""
        return self._section(name).length

    def touch(self, name: str, size: int, places: npt.NDArray[np.int64]) -> None:
        """Hash the blocks in which the elements of `size` bytes (1, 2, 4 or 8) at these places of a
        section lie, where that was not done before."""
        section = self._section(name)
        if not len(places):
            return
        if int(places.min()) < 0 or (int(places.max()) + 1) * size > section.length:
            raise self.damaged(f"{section.length // size} elements in {name!r}", "one outside")
        blocks = places * size // section.block
        if not self._touched(section, blocks):
            self._touch(section, np.isin(np.arange(section.blocks), blocks))

    def touch_spans(self, name: str, starts: npt.NDArray[Any], stops: npt.NDArray[Any]) -> None:
        """The same for ranges of bytes."""
        section = self._section(name)
        if not len(starts):
            return
        length = section.length
        if int(starts.min()) < 0 or int(stops.max()) > length or bool((starts > stops).any()):
            raise self.damaged(f"ranges inside the {length} bytes of {name!r}", "others")
        if not length:
            return
        # an empty range may stand at the very end, behind the last block
        first = np.minimum(starts, length - 1) // section.block
        last = np.maximum((stops - 1) // section.block, first)
        if bool((first + 1 >= last).all()) and self._touched(section, first, last):
            return
        edges = np.zeros(section.blocks + 1, np.int64)
        np.add.at(edges, first, 1)
        np.add.at(edges, last + 1, -1)
        self._touch(section, np.cumsum(edges[:-1]) > 0)

    def elements(self, name: str, dtype: Any, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of some elements of a section, hashed before."""
        size = np.dtype(dtype).itemsize
        self.touch(name, size, places)
        section = self._section(name)
        whole = self.mapping.array(section.offset, dtype, (section.length // size,))
        found: npt.NDArray[Any] = whole[places]
        return found

    def verify(self, name: str) -> None:
        """Hash a section, once; raises CorruptionError when a byte has changed."""
        if name in self._verified:
            return
        section = self._section(name)
        self.verify_blocks(name, 0, section.blocks)
        self._verified.add(name)

    def verified(self, name: str) -> bool:
        """Whether a section has been hashed whole."""
        return name in self._verified

    def verify_blocks(self, name: str, start: int, stop: int) -> None:
        """Hash some blocks of a section; raises CorruptionError when a byte has changed."""
        self._refuse_changed(name, range(start, stop))

    def _refuse_changed(self, name: str, blocks: Any) -> None:
        bad = self.bad_blocks(name, blocks)
        if bad:
            section = self._section(name)
            first = section.offset + bad[0] * section.block
            raise self.damaged(
                f"section {name!r} as it was written",
                f"changed bytes in {len(bad)} of {section.blocks} blocks, the first at {first}",
            )

    def _touched(self, section: f.Section, *blocks: npt.NDArray[Any]) -> bool:
        """Whether all of these blocks have been hashed."""
        if section.name in self._verified:
            return True
        known = self._known.get(section.name)
        return known is not None and all(bool(known[some].all()) for some in blocks)

    def _touch(self, section: f.Section, wanted: npt.NDArray[np.bool_]) -> None:
        if np.count_nonzero(wanted) * _DENSE > section.blocks:
            self.verify(section.name)
            return
        known = self._known.setdefault(section.name, np.zeros(section.blocks, np.bool_))
        self._refuse_changed(section.name, np.flatnonzero(wanted & ~known))
        known |= wanted
        if known.all():
            self._verified.add(section.name)

    def release_blocks(self, name: str, start: int, stop: int) -> None:
        """Blocks that were hashed need not stay in this process's resident memory."""
        section = self._section(name)
        length = (stop - start) * section.block
        self.mapping.release(section.offset + start * section.block, length)

    def bad_blocks(self, name: str, blocks: Any = None) -> list[int]:
        """Numbers of the blocks, of all or of these (ascending), whose bytes have changed; all of
        them when their hashes have."""
        section = self._section(name)
        wanted = np.arange(section.blocks) if blocks is None else np.asarray(blocks, np.int64)
        try:
            stored = self.block_hashes(name)
        except CorruptionError:
            return wanted.tolist() or [0]
        data = self.mapping.array(section.offset, np.uint8, (section.length,)).data
        size, digest = section.block, xxhash.xxh3_64_intdigest
        found: list[int] = []
        for some in np.split(wanted, np.flatnonzero(np.diff(wanted * size // f.BLOCK)) + 1):
            if len(some) * size > f.BLOCK // 4:  # a MiB of which much is wanted is mapped at once
                start = int(some[0]) * size
                length = min((int(some[-1]) + 1) * size, section.length) - start
                self.mapping.populate(section.offset + start, length)
            found += [digest(data[i : i + size]) for i in (some * size).tolist()]
        bad: list[int] = wanted[np.array(found, np.uint64) != stored[wanted]].tolist()
        return bad

    def block_hashes(self, name: str) -> npt.NDArray[np.uint64]:
        """The hashes of a section's blocks, themselves hashed, without a look at the blocks."""
        section = self._section(name)
        stored = self.mapping.array(section.hashes, "<u8", (section.blocks,))
        if xxhash.xxh3_64_intdigest(stored.data) != section.hash:
            raise self.damaged(f"the block hashes of {name!r}", "changed bytes")
        return stored

    def problems(self) -> list[str]:
        """What a full check of every section finds; empty when the file is whole."""
        found = []
        try:
            names = list(self.sections)
        except CorruptionError as error:
            return [str(error)]
        self._verified.clear()
        self._known.clear()
        for name in names:
            try:
                self.verify(name)
            except CorruptionError as error:
                found.append(str(error))
        return found

    def _section(self, name: str) -> f.Section:
        section = self.sections.get(name)
        if section is None:
            raise self.damaged(f"a section {name!r}", "none")
        return section

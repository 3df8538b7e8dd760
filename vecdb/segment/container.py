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
            section = f.Section(name, offset, length, hashes, digest)
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

    def buffer(self, name: str) -> pa.Buffer:
        """A section as an Arrow buffer, hashed before use."""
        section = self._section(name)
        self.verify(name)
        return self.mapping.buffer(section.offset, section.length)

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
        bad = self.bad_blocks(name, start, stop)
        if bad:
            section = self._section(name)
            first = section.offset + bad[0] * f.BLOCK
            raise self.damaged(
                f"section {name!r} as it was written",
                f"changed bytes in {len(bad)} of {section.blocks} blocks, the first at {first}",
            )

    def release_blocks(self, name: str, start: int, stop: int) -> None:
        """Blocks that were hashed need not stay in this process's resident memory."""
        offset = self._section(name).offset
        self.mapping.release(offset + start * f.BLOCK, (stop - start) * f.BLOCK)

    def bad_blocks(self, name: str, start: int = 0, stop: int | None = None) -> list[int]:
        """Numbers of the blocks, of all or some, whose bytes have changed; all of them when their
        hashes have."""
        section = self._section(name)
        try:
            stored = self.block_hashes(name)
        except CorruptionError:
            return list(range(start, stop or max(section.blocks, 1)))
        data = self.mapping.array(section.offset, np.uint8, (section.length,)).data
        bad = []
        for block, digest in enumerate(stored[start:stop].tolist(), start):
            piece = data[block * f.BLOCK : (block + 1) * f.BLOCK]
            self.mapping.will_need(section.offset + block * f.BLOCK, len(piece))
            if xxhash.xxh3_64_intdigest(piece) != digest:
                bad.append(block)
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

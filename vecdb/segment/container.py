"""Reads one container file: mapped at once, parsed and hashed when first used."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import CorruptionError, VersionError, describe
from vecdb.segment import format as f
from vecdb.segment.blocks import Blocks

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.fs import Directory
    from vecdb.segment.mapping import Mapping

__all__ = ["Container"]


class Container:
    """A mapped, immutable container file.

    Opening maps the file and checks its length, both magics, the UUID of the store, and the
    footer hash, against the manifest's record of the file when there is one. The section table is
    parsed on first use, a section is hashed on first use. A file that has just been written comes
    `mapped`: with its header, and the bytes from its footer on.

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
        mapped: tuple[Mapping, bytes, bytes] | None = None,
    ) -> None:
        self._folder = directory.path
        self.kind = kind
        self.name = name
        self.mapping, header, end = mapped or directory.map(
            name, f.HEADER.size, f.PAGE, keep=keeps_descriptor(kind)
        )
        self.length = length = self.mapping.length
        if expected is not None and length != expected.length:
            raise self.damaged(f"{expected.length} bytes", f"{length}")
        if length < f.HEADER.size + f.TAIL.size:
            raise self.damaged("a whole file", f"{length} bytes")
        tail = end[-f.TAIL.size :]
        magic, self._version, found, _, uuid, self.id, self.segment = f.HEADER.unpack(header)
        if magic == f.MAGIC and self._version > f.VERSION:
            raise VersionError(
                describe(str(self.path), expected=f"format version {f.VERSION} or older",
                         got=f"version {self._version}", fix="upgrade vecdb")
            )  # fmt: skip
        start, sections, meta, total, digest, end_magic = f.TAIL.unpack(tail)
        if (magic, end_magic, found) != (f.MAGIC, f.END_MAGIC, kind) or not self._version:
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
        whole = end if behind <= len(end) else bytes(self.mapping.glance(start, behind))
        self._footer = whole[len(whole) - behind : -f.TAIL.size]
        self._footer_offset = start
        self._count = sections
        if f.footer_hash(header, self._footer, tail) != digest or (
            expected is not None and digest != expected.footer
        ):
            raise self.damaged("the footer that was written", "a different footer hash")
        self.info = f.FileInfo(self.id, length, digest)
        self._blocks = Blocks(self.mapping)

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
        for raw, bits, offset, length, hashes, digest in f.ROW.iter_unpack(table):
            try:
                name = raw.rstrip(b"\0").decode("ascii")
            except UnicodeDecodeError:
                raise self.damaged("ASCII section names", raw) from None
            if self._version < 3:
                size = f.old_block_size(self._version, self.kind, name)
            elif bits in f.BLOCK_BITS:
                size = 1 << bits
            else:
                least, most = f.BLOCK_BITS[0], f.BLOCK_BITS[-1]
                raise self.damaged(
                    f"{name!r} in blocks of 2**{least} to 2**{most} bytes", f"2**{bits}"
                )
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

    def reach(self, name: str, step: int, span: int, offsets: int = 0) -> tuple[int, ...]:
        """What :mod:`vecdb.segment.pick` needs to find the blocks of a section that rows lie in:
        see :func:`vecdb.kernels.reference.unknown`."""
        return self._blocks.reach(self.check_block_hashes(name), step, span, offsets)

    def elements(self, name: str, dtype: Any, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of some elements of a section, which have been touched."""
        section = self._section(name)
        count = section.length // np.dtype(dtype).itemsize
        whole = self.mapping.array(section.offset, dtype, (count,))
        found: npt.NDArray[Any] = whole[places]
        return found

    def verify(self, *names: str) -> None:
        """Hash sections, each once; raises CorruptionError when a byte has changed."""
        for name in names:
            if not self._blocks.whole(name):
                self.verify_blocks(name, 0, self._section(name).blocks)

    def verified(self, name: str) -> bool:
        """Whether a section has been hashed whole."""
        return self._blocks.whole(name)

    def verify_blocks(self, name: str, start: int, stop: int) -> None:
        """Hash some blocks of a section; raises CorruptionError when a byte has changed."""
        bad = self._blocks.changed(self.check_block_hashes(name), start, stop)
        if bad:
            raise self.changed(name, bad)

    def changed(self, name: str, bad: list[int]) -> CorruptionError:
        """The error for blocks of a section that are not as they were written."""
        section = self._section(name)
        return self.damaged(
            f"section {name!r} as it was written",
            f"changed bytes in {len(bad)} of {section.blocks} blocks, "
            f"the first at {section.offset + bad[0] * section.block}",
        )

    def release_blocks(self, name: str, start: int, stop: int) -> None:
        """Blocks that were hashed need not stay in this process's resident memory."""
        section = self._section(name)
        length = (stop - start) * section.block
        self.mapping.release(section.offset + start * section.block, length)

    def bad_blocks(self, name: str) -> list[int]:
        """Numbers of the blocks whose bytes have changed; all of them when their hashes have."""
        section = self._section(name)
        if not self._blocks.sound(section):
            return list(range(max(section.blocks, 1)))
        return self._blocks.changed(section, 0, section.blocks)

    def check_block_hashes(self, name: str) -> f.Section:
        """A section, once the hashes of its blocks have been hashed, without a look at the blocks;
        raises CorruptionError when they have changed."""
        section = self._section(name)
        if not self._blocks.sound(section):
            raise self.damaged(f"the block hashes of {name!r}", "changed bytes")
        return section

    def problems(self) -> list[str]:
        """What a full check of every section finds; empty when the file is whole."""
        found = []
        try:
            names = list(self.sections)
        except CorruptionError as error:
            return [str(error)]
        self._blocks.forget()
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


def keeps_descriptor(kind: f.Kind) -> bool:
    """Whether rows of such a file may be read past its mapping."""
    return kind == f.Kind.SEGMENT

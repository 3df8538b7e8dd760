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

    from vecdb.segment.blocks import Wanted
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

    def touch(self, *elements: tuple[str, int, npt.NDArray[np.int64]]) -> None:
        """Hash the blocks in which elements lie, where that was not done before.

        Parameters
        ----------
        *elements : (str, int, ndarray)
            A section, the bytes of an element (1, 2, 4 or 8), and (n,) numbers of elements.
        """
        wanted = []
        for name, size, places in elements:
            section = self._section(name)
            if not len(places):
                continue
            if int(places.view(np.uint64).max()) * size >= section.length:  # or negative
                raise self.damaged(f"{section.length // size} elements in {name!r}", "one outside")
            if not self._blocks.whole(name):
                wanted.append((section, places * size // section.block))
        self._touch(wanted)

    def touch_spans(self, *spans: tuple[str, npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> None:
        """The same for ranges of bytes: a section, and (n,) starts and stops."""
        wanted = []
        for name, starts, stops in spans:
            section = self._section(name)
            length = section.length
            if not len(starts):
                continue
            if int(starts.min()) < 0 or int(stops.max()) > length or bool((starts > stops).any()):
                raise self.damaged(f"ranges inside the {length} bytes of {name!r}", "others")
            if length and not self._blocks.whole(name):
                # an empty range may stand at the very end, behind the last block
                first = np.minimum(starts, length - 1) // section.block
                last = np.maximum((stops - 1) // section.block, first)
                wanted.append((section, _between(first, last, section.blocks)))
        self._touch(wanted)

    def elements(self, name: str, dtype: Any, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy of some elements of a section, which have been touched."""
        section = self._section(name)
        count = section.length // np.dtype(dtype).itemsize
        whole = self.mapping.array(section.offset, dtype, (count,))
        found: npt.NDArray[Any] = whole[places]
        return found

    def verify(self, *names: str) -> None:
        """Hash sections, each once; raises CorruptionError when a byte has changed."""
        sections = [self._section(name) for name in names if not self._blocks.whole(name)]
        self._hash([(section, np.arange(section.blocks)) for section in sections])

    def verified(self, name: str) -> bool:
        """Whether a section has been hashed whole."""
        return self._blocks.whole(name)

    def verify_blocks(self, name: str, start: int, stop: int) -> None:
        """Hash some blocks of a section; raises CorruptionError when a byte has changed."""
        self._hash([(self._section(name), np.arange(start, stop))])

    def _touch(self, wanted: Wanted) -> None:
        missing = [(section, self._blocks.missing(section, blocks)) for section, blocks in wanted]
        self._hash([(section, blocks) for section, blocks in missing if len(blocks)])

    def _hash(self, wanted: Wanted) -> None:
        for section, _ in wanted:
            self.block_hashes(section.name)
        changed = self._blocks.changed(wanted) if wanted else None
        if changed is not None:
            section, bad = changed
            first = section.offset + bad[0] * section.block
            raise self.damaged(
                f"section {section.name!r} as it was written",
                f"changed bytes in {len(bad)} of {section.blocks} blocks, the first at {first}",
            )

    def release_blocks(self, name: str, start: int, stop: int) -> None:
        """Blocks that were hashed need not stay in this process's resident memory."""
        section = self._section(name)
        length = (stop - start) * section.block
        self.mapping.release(section.offset + start * section.block, length)

    def bad_blocks(self, name: str) -> list[int]:
        """Numbers of the blocks whose bytes have changed; all of them when their hashes have."""
        section = self._section(name)
        if self._blocks.stored(section) is None:
            return list(range(max(section.blocks, 1)))
        changed = self._blocks.changed([(section, np.arange(section.blocks))])
        return [] if changed is None else changed[1]

    def block_hashes(self, name: str) -> npt.NDArray[np.uint64]:
        """The hashes of a section's blocks, themselves hashed, without a look at the blocks."""
        stored = self._blocks.stored(self._section(name))
        if stored is None:
            raise self.damaged(f"the block hashes of {name!r}", "changed bytes")
        return stored

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


def _between(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], blocks: int
) -> npt.NDArray[np.int64]:
    """All blocks from each first to its last one; most ranges lie in one or two."""
    if bool((first + 1 >= last).all()):
        return np.concatenate([first, last])
    edges = np.zeros(blocks + 1, np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, last + 1, -1)
    return np.flatnonzero(np.cumsum(edges[:-1]))

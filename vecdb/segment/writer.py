"""Writes one container file, section after section, in a single pass."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from vecdb.segment import format as f
from vecdb.segment.blocks import digests
from vecdb.segment.container import Container, keeps_descriptor
from vecdb.segment.sparse import Sparse

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory

__all__ = ["ContainerWriter"]

_PIECE = 8 << 20
_GATHERED = 1 << 16  # bytes below which pieces are copied together before they are written


class ContainerWriter:
    """A container file on its way to disk; memory use is one buffer of the caller's.

    Sections are written one after the other: :meth:`begin`, any number of :meth:`write` and
    :meth:`skip`, then the next. :meth:`finish` makes the file durable; :meth:`abandon` removes
    what an error left.
    """

    def __init__(self, directory: Directory, name: str, header: f.Header) -> None:
        self._directory = directory
        self._name = name
        self._header = header
        self._sections: list[f.Section] = []
        self._hashes: list[bytearray] = []  # of each section, as they are written
        self._block = xxhash.xxh3_64()
        self._size = f.BLOCK  # bytes of a block of the current section
        self._filled = 0  # of the current block
        self._file = directory.create(name)
        self._pending = bytearray(header.pack())  # small pieces on their way to the file
        self._length = len(self._pending)

    def add(self, name: str, data: Any, align: int = f.ALIGN) -> None:
        """A whole section in one piece, see :meth:`write`."""
        self.begin(name, align)
        self.write(data)

    def begin(self, name: str, align: int = f.ALIGN) -> None:
        """End the section before and start one at the next multiple of `align`."""
        if len(name.encode("ascii")) > f.MAX_NAME:
            raise ValueError(f"section name {name!r} is longer than {f.MAX_NAME} bytes")
        self._end_section()
        self._pad(align)
        self._size = f.block_size(self._header.kind, name)
        self._sections.append(f.Section(name, self._length, 0, 0, 0, self._size))
        self._hashes.append(bytearray())

    def write(self, data: Any) -> None:
        """Append a buffer, a C-contiguous array or a :class:`Sparse` one to the section."""
        if isinstance(data, Sparse):
            for piece in data.pieces():
                if isinstance(piece, int):
                    self.skip(piece)
                else:
                    self.write(piece)
            return
        if isinstance(data, np.ndarray):
            data = data.reshape(-1).view(np.uint8)
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):  # hashed and written while it is in the cache
            part = view[start : start + _PIECE]
            self._hash(part)
            self._put(part)

    def skip(self, length: int) -> None:
        """Append zeros to the current section as a hole in the file."""
        head = min(length, -self._filled % self._size)
        self._hash(memoryview(bytes(head)))
        whole, rest = divmod(length - head, self._size)
        self._hashes[-1] += whole * _zeros_hash(self._size)
        self._hash(memoryview(bytes(rest)))
        self._flush()
        self._file.skip(length)
        self._length += length

    def finish(self, meta: dict[str, Any]) -> Container:
        """Write hashes and footer, sync the file, and map it: opening it anew by its name would
        be five more calls of the system, which beside searching threads took .35 ms."""
        self._end_section()
        self._pad(8)
        rows = []
        for section, hashes in zip(self._sections, self._hashes, strict=True):
            rows.append(
                f.ROW.pack(section.name.encode(), section.block.bit_length() - 1, section.offset,
                           section.length, self._length, xxhash.xxh3_64_intdigest(hashes))
            )  # fmt: skip
            self._put(hashes)
        encoded = json.dumps(meta, separators=(",", ":")).encode()
        footer = b"".join(rows) + encoded
        start = self._length
        tail = f.Tail(start, len(rows), len(encoded), start + len(footer) + f.TAIL.size)
        kind, head = self._header.kind, self._header.pack()
        digest = f.footer_hash(head, footer, tail.pack(0))
        end = footer + tail.pack(digest)
        self._put(end)
        self._flush()
        self._file.sync()
        mapping = self._file.map(keep=keeps_descriptor(kind))
        info = f.FileInfo(self._header.id, tail.length, digest)
        return Container(
            self._directory, self._name, kind, self._header.store, info, (mapping, head, end)
        )

    def abandon(self) -> None:
        """Close and remove the unfinished file."""
        self._file.close()
        self._directory.unlink(self._name)

    def _hash(self, view: memoryview) -> None:
        head = min(len(view), -self._filled % self._size)  # of a block that was begun before
        stop = len(view) - (len(view) - head) % self._size
        self._fill(view[:head])
        if head < stop:
            self._hashes[-1] += digests(view[head:stop], self._size).astype("<u8").tobytes()
        self._fill(view[max(head, stop) :])

    def _fill(self, piece: memoryview) -> None:
        self._block.update(piece)
        self._filled += len(piece)
        if self._filled == self._size:
            self._end_block()

    def _end_block(self) -> None:
        self._hashes[-1] += self._block.intdigest().to_bytes(8, "little")
        self._block.reset()
        self._filled = 0

    def _end_section(self) -> None:
        if not self._sections:
            return
        if self._filled:
            self._end_block()
        last = self._sections[-1]
        if not last.length:
            self._sections[-1] = last._replace(length=self._length - last.offset)

    def _pad(self, align: int) -> None:
        self._put(bytes(-self._length % align))

    def _put(self, data: Any) -> None:
        """Write a piece; small ones are gathered, so that a small file is one system call."""
        self._length += len(data)
        if len(data) < _GATHERED:
            self._pending += data
            if len(self._pending) >= _GATHERED:
                self._flush()
        else:
            pending, self._pending = self._pending, bytearray()
            self._file.write(pending, data)

    def _flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        self._file.write(pending)


@functools.cache
def _zeros_hash(size: int) -> bytes:
    return xxhash.xxh3_64_intdigest(bytes(size)).to_bytes(8, "little")

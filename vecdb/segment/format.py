"""The one file format of vecdb: a header, sections, a footer. Writer and reader share this page.

Segments (``seg-``), graph indexes (``idx-``) and tombstones (``del-``) are all containers of
named sections. Numbers are little-endian. ::

    offset 0     header, 64 bytes
                   8  magic  b"vecdbfil"
                   2  format version (3; sections of 1 and 2 don't say how large their blocks are)
                   2  kind: 1 segment, 2 index, 3 tombstones
                   4  zero
                  16  UUID of the store
                   8  id of this file
                   8  id of the segment that an index or tombstones belong to, else 0
                  16  zero
    sections     each aligned to 64 bytes, vectors to 4096 (a page)
    hashes       for each section one xxh3-64 per block, 8 bytes each, 8-aligned; a block has
                 1 MiB; of a segment's ids and columns, of which single rows are read, 1 KiB
    footer       section table: 64 bytes a section, ascending offsets, no overlap
                  31  name, ASCII, padded with zeros
                   1  log2 of the bytes of a block
                   8  offset of the section
                   8  length in bytes, without padding
                   8  offset of its block hashes
                   8  xxh3-64 over its block hashes
                 meta: JSON in UTF-8
    end - 64     tail, 64 bytes
                   8  offset of the footer
                   4  number of sections
                   4  length of meta in bytes
                   8  length of the file
                  24  zero
                   8  footer hash: xxh3-64 over header, footer and the first 48 bytes of the tail
                   8  magic  b"vecdbend"

The manifest holds each file's length and footer hash; the footer hash covers the hashes of the
block hashes, and these cover every byte. So opening reads the header, the footer and the tail,
whatever the size: 64 million rows of 128 dimensions have 32 GiB of vectors, 256 KiB of block
hashes and a footer of a few hundred bytes. A block is hashed when it is first used.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import NamedTuple

import xxhash

__all__ = [
    "BLOCK",
    "PAGE",
    "ROWS_BLOCK",
    "FileInfo",
    "Header",
    "Kind",
    "Section",
    "Tail",
    "block_size",
    "old_block_size",
]

VERSION = 3
BLOCK = 1 << 20  # bytes that share one hash: 16.5 GB/s of XXH3-64 makes it 64 us
# where single rows are read: bench.open's first get took 3.8 ms so, and 5.1 in the same minutes
# with 4 KiB for text and 64 for the rest
ROWS_BLOCK = 1 << 10
PAGE = 4096
ALIGN = 64
MAGIC = b"vecdbfil"
END_MAGIC = b"vecdbend"
MAX_SECTIONS = 65_536
MAX_META = 16 << 20
MAX_NAME = 31
BLOCK_BITS = range(6, 31)  # log2 of the bytes of a block

HEADER = struct.Struct("<8sHHI16sQQ16x")
TAIL = struct.Struct("<QIIQ24xQ8s")
ROW = struct.Struct("<31sBQQQQ")
HASHED_TAIL = 48  # bytes of the tail that the footer hash covers


class Kind(enum.IntEnum):
    """What a container holds."""

    SEGMENT = 1
    INDEX = 2
    TOMBSTONES = 3


class Section(NamedTuple):
    """One row of the section table."""

    name: str
    offset: int
    length: int
    hashes: int  # offset of the block hashes
    hash: int  # over the block hashes
    block: int  # bytes that share one

    @property
    def blocks(self) -> int:
        """Number of blocks, hence of block hashes."""
        return -(-self.length // self.block)


@dataclasses.dataclass(frozen=True, slots=True)
class FileInfo:
    """How the manifest refers to a file: a file that differs in either is not that file."""

    id: int
    length: int
    footer: int  # footer hash


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first 64 bytes."""

    kind: Kind
    store: bytes  # UUID
    id: int
    segment: int = 0

    def pack(self) -> bytes:
        return HEADER.pack(MAGIC, VERSION, self.kind, 0, self.store, self.id, self.segment)


@dataclasses.dataclass(frozen=True, slots=True)
class Tail:
    """The last 64 bytes."""

    footer: int
    sections: int
    meta: int
    length: int

    def pack(self, footer_hash: int) -> bytes:
        return TAIL.pack(self.footer, self.sections, self.meta, self.length, footer_hash, END_MAGIC)


def block_size(kind: Kind, name: str) -> int:
    """Bytes of a section that share one hash, in a file that is written now."""
    return ROWS_BLOCK if kind == Kind.SEGMENT and name != "vectors" else BLOCK


def old_block_size(version: int, kind: Kind, name: str) -> int:
    """The same in a file of version 1 or 2, which does not say it."""
    if kind != Kind.SEGMENT or name == "vectors":
        return 1 << 20
    is_text = name == "ids.text" or (name.startswith("c") and name.endswith(".2"))
    return 4 << 10 if is_text and version == 2 else 64 << 10


def footer_hash(header: bytes, footer: bytes, tail: bytes) -> int:
    """The hash that the tail and the manifest hold."""
    return xxhash.xxh3_64_intdigest(header + footer + tail[:HASHED_TAIL])

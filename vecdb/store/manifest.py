"""The manifest: what a store consists of at one generation. Publishing one is the commit.

One line of JSON, a newline, the XXH3-64 of that line in 16 hexadecimal digits, a newline::

    {"format": 1, "features": [], "uuid": "<32 hex digits>", "generation": 7,
     "sync": "full",                or "os": what the store was created with
     "schema": {...},               see Schema.to_json
     "sequence": 1200,              every record up to this one is in the segments
     "wal": 3,                      replay wal-3, wal-4, ... from sequence + 1
     "next_id": 1000,               greater than every int64 id ever stored
     "next_file": 12,               greater than every file number ever used
     "segments": [{"file": [id, length, "footer hash"], "rows": 1000, "live": 990,
                   "ids": [0, 999],                   least and greatest, null for text
                   "index": [id, length, "hash"],     null when there is none
                   "deletes": [id, length, "hash"]}]} null when all rows are live

The newest manifest counts. When it can't be read that is an error, never a reason to take an
older one: it would lose acknowledged rows in silence.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import TYPE_CHECKING, Any

import xxhash

from vecdb.errors import CorruptionError, NotFoundError, StorageError, VersionError, describe
from vecdb.schema import Schema
from vecdb.segment.format import FileInfo
from vecdb.store import names

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory

__all__ = ["Manifest", "SegmentEntry", "newest_generation", "publish", "read_manifest"]

FORMAT = 3  # no file of a store has a later version
FEATURES: frozenset[str] = frozenset()  # features this version understands
MAX_BYTES = 256 << 20
MAX_ROWS = 1 << 40  # of one segment; a crafted count beyond it is refused before any arithmetic


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment as the manifest knows it."""

    file: FileInfo
    rows: int
    live: int
    ids: tuple[int, int] | None
    index: FileInfo | None = None
    deletes: FileInfo | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """The content of one manifest; immutable."""

    uuid: bytes
    generation: int
    schema: Schema
    sync: str = "full"
    sequence: int = 0
    wal: int = 1
    next_id: int = 0
    next_file: int = 1
    segments: tuple[SegmentEntry, ...] = ()

    def encode(self) -> bytes:
        """The bytes of the file."""
        document = {
            "format": FORMAT,
            "features": [],
            "uuid": self.uuid.hex(),
            "generation": self.generation,
            "sync": self.sync,
            "schema": self.schema.to_json(),
            "sequence": self.sequence,
            "wal": self.wal,
            "next_id": self.next_id,
            "next_file": self.next_file,
            "segments": [
                {
                    "file": _pack(entry.file),
                    "rows": entry.rows,
                    "live": entry.live,
                    "ids": entry.ids,
                    "index": _pack(entry.index),
                    "deletes": _pack(entry.deletes),
                }
                for entry in self.segments
            ],
        }
        line = json.dumps(document, separators=(",", ":")).encode()
        return line + b"\n" + xxhash.xxh3_64_hexdigest(line).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The inverse of :meth:`encode`; ValueError for anything that it can't have made."""
        line, _, checksum = data.partition(b"\n")
        if checksum != xxhash.xxh3_64_hexdigest(line).encode() + b"\n":
            raise ValueError("the checksum does not match")
        document = json.loads(line)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        features = document.get("features")
        if not isinstance(features, list) or not all(isinstance(f, str) for f in features):
            raise ValueError("features are a list of names")
        unknown = set(features) - FEATURES
        if _natural(document.get("format")) > FORMAT or unknown:
            raise VersionError(
                describe("manifest", expected=f"format {FORMAT} or older",
                         got=f"format {document['format']}, features {sorted(unknown)}",
                         fix="upgrade vecdb")
            )  # fmt: skip
        try:
            uuid = bytes.fromhex(document["uuid"])
            if len(uuid) != 16 or document["sync"] not in ("full", "os"):
                raise ValueError("the UUID or sync has an impossible value")
            items = document["segments"]
            if len({item["file"][0] for item in items}) < len(items):
                raise ValueError("a segment stands in it twice")
            segments = tuple(_entry(item) for item in items)
            return cls(
                uuid=uuid,
                schema=Schema.from_json(document["schema"]),
                sync=document["sync"],
                segments=segments,
                **{
                    key: _natural(document[key])
                    for key in ("generation", "sequence", "wal", "next_id", "next_file")
                },
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or has a wrong type: {error}") from None


def newest_generation(directory: Directory) -> int:
    """Generation of the newest manifest; 0 when there is none."""
    found = (names.number_of(name, "MANIFEST") for name in directory.names())
    return max((number for number in found if number is not None), default=0)


def read_manifest(directory: Directory, generation: int) -> Manifest:
    """Read one manifest.

    Raises
    ------
    NotFoundError
        There is none of this generation (any more).
    CorruptionError, VersionError
        It can't be read.
    """
    name = names.manifest(generation)
    path = directory.path / name
    try:
        data = directory.read(name, limit=MAX_BYTES)
    except StorageError as error:
        if error.errno != errno.ENOENT:
            raise
        raise NotFoundError(
            describe(str(directory.path), expected=f"generation {generation}",
                     got="it has been replaced", fix="open the collection again")
        ) from None  # fmt: skip
    try:
        manifest = Manifest.decode(data)
        if manifest.generation != generation:
            raise ValueError(f"it says that it is generation {manifest.generation}")
    except VersionError as error:
        raise VersionError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise CorruptionError(
            describe(str(path), expected="a whole manifest", got=str(error)[:200],
                     fix="restore it from a backup, or run `python -m vecdb repair`")
        ) from None  # fmt: skip
    return manifest


def publish(directory: Directory, manifest: Manifest) -> None:
    """Make a manifest the newest one, durably. Every file that it names must be durable."""
    name = names.manifest(manifest.generation)
    file = directory.create(f"{name}.tmp")
    try:
        file.write(manifest.encode())
        file.sync()
    finally:
        file.close()
    directory.sync()  # the entries of the new files: before the manifest that relies on them
    directory.rename(f"{name}.tmp", name)
    directory.sync()


def _pack(info: FileInfo | None) -> list[Any] | None:
    return None if info is None else [info.id, info.length, f"{info.footer:016x}"]


def _info(value: Any) -> FileInfo:
    number, length, footer = value
    return FileInfo(_natural(number), _natural(length), int(footer, 16))


def _entry(item: Any) -> SegmentEntry:
    rows, live = _natural(item["rows"]), _natural(item["live"])
    if rows > MAX_ROWS or live > rows:
        raise ValueError(f"{live} live of {rows} rows in a segment")
    index, deletes, bounds = item["index"], item["deletes"], item["ids"]
    if bounds is not None:
        low, high = bounds
        bounds = _natural(low), _natural(high)
    return SegmentEntry(
        file=_info(item["file"]),
        rows=rows,
        live=live,
        ids=bounds,
        index=None if index is None else _info(index),
        deletes=None if deletes is None else _info(deletes),
    )


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**63:
        raise ValueError(f"{value!r:.40} where a count belongs")
    return value

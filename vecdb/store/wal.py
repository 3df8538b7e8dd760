"""The write-ahead log: records that are on disk before they are acknowledged.

::

    header, 64 bytes                          record
      8  magic b"vecdbwal"                      4  magic 0x6c617776
      4  format version (1)                     4  length of the payload
      4  skipped                                8  sequence number
     16  UUID of the store                      1  type, see record.py
      8  number of this log                     7  zero
      8  salt, random                           8  XXH3-64, seeded with the salt, over the 24
      8  sequence number of the first record       bytes before and the payload
      8  XXH3-64 of the 56 bytes before            payload

Sequence numbers follow each other without a gap, through one log and from one log to the next.
`skipped` is 1 in a log that begins with a commit of rows that no log holds, which takes a sequence
number of its own, and else 0: any other gap means that records were lost.
The salt keeps what an older log left in reused blocks from looking like a record of this one.

A log ends at the first record that is not valid. What stands behind the end is a torn tail: the
end of a write that was never acknowledged. A valid record with a greater sequence number behind
it, though, means that acknowledged bytes were damaged.

Space is not preallocated: on ext4 fdatasync took 4.0 ms after an appending write, 4.0 ms into
fallocated and 4.0 ms into zeroed space (medians of 300 writes of 2 kB).
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from vecdb.errors import CorruptionError, PoisonedError, VersionError, describe
from vecdb.segment import fs
from vecdb.store import names

if TYPE_CHECKING:
    from vecdb.segment.fs import Directory

__all__ = ["HEADER_SIZE", "WalReader", "WalRecord", "WalWriter"]

VERSION = 1
MAGIC = b"vecdbwal"
RECORD_MAGIC = 0x6C617776
MAX_PAYLOAD = (1 << 32) - 1
HEADER_SIZE = 64
_HEADER = struct.Struct("<8sII16sQQQ")
_RECORD = struct.Struct("<IIQB7x")
_HASH = struct.Struct("<Q")
_RANDOM = os.urandom(16)  # of this process: asking for more would hand the interpreter over
_HASHED_TIMES = 16  # what a search for a later record may hash, in lengths of the tail
_CHUNK = 1 << 20  # bytes read at a time: a record of one row has 2 kB
RECORD_SIZE = _RECORD.size + _HASH.size


class WalRecord(NamedTuple):
    """A valid record as it stands in the log."""

    sequence: int
    kind: int
    payload: memoryview


class WalWriter:
    """Appends records to a log of its own. One thread appends; any thread may sync."""

    def __init__(
        self, directory: Directory, number: int, store: bytes, first: int, skipped: int = 0
    ) -> None:
        self.number = number
        self.sequence = first - 1  # of the last record
        self.salt = xxhash.xxh3_64_intdigest(_RANDOM + _HASH.pack(time.time_ns()))
        self._file = directory.create(names.wal(number))
        head = _HEADER.pack(MAGIC, VERSION, skipped, store, number, self.salt, first)
        self._file.write(head + _HASH.pack(xxhash.xxh3_64_intdigest(head)))
        # on disk before the first record: were half of that record on disk and the header not,
        # a write that nobody acknowledged would look like damage
        self._file.sync()
        directory.sync()
        self._synced = self._file.length
        self._sync_lock = threading.Lock()
        self._broken = False

    @classmethod
    def resume(cls, directory: Directory, reader: WalReader) -> WalWriter:
        """Go on with a log that has a header and nothing behind it."""
        if reader.length() != HEADER_SIZE:
            raise ValueError("a log with records is never appended to again")
        self = cls.__new__(cls)
        self.number, self.sequence = reader.number, reader.first - 1
        self.salt = reader.salt
        self._file = directory.reopen(names.wal(reader.number))
        self._synced = self._file.length
        self._sync_lock = threading.Lock()
        self._broken = False
        return self

    @property
    def length(self) -> int:
        """Bytes written."""
        return self._file.length

    def append(self, kind: int, payload: list[Any]) -> int:
        """Write one record; returns the length of the log, to be given to :meth:`sync`."""
        size = sum(memoryview(piece).nbytes for piece in payload)
        if size > MAX_PAYLOAD:
            raise ValueError(f"a record of {size} bytes")
        head = _RECORD.pack(RECORD_MAGIC, size, self.sequence + 1, kind)
        digest = xxhash.xxh3_64(head, seed=self.salt)
        for piece in payload:
            digest.update(piece)
        self._file.write(head + _HASH.pack(digest.intdigest()), *payload)
        self.sequence += 1
        return self._file.length

    def sync(self, length: int | None = None) -> None:
        """Put the first `length` bytes (everything when not given) on disk.

        Callers that wait share one fdatasync. Under sync="os" the folder makes it do nothing.
        """
        with self._sync_lock:
            target = self._file.length
            if self._synced >= (target if length is None else length):
                return
            if self._broken:  # a second fsync may report success for pages that were dropped
                raise PoisonedError("an earlier sync of the write-ahead log failed")
            self._broken = True
            self._file.datasync()
            self._broken = False
            self._synced = target

    def close(self) -> None:
        """Close the file; what was not synced may still be lost."""
        self._file.close()


class WalReader:
    """Reads a log forward, also while a writer appends to it.

    Attributes
    ----------
    first, skipped, salt : int
        Sequence number of the log's first record, how many before it stand in no log, and the
        log's salt, from the header.
    position : int
        Where the next record begins.
    sequence : int
        Of the last record that was read.
    """

    def __init__(self, directory: Directory, number: int, store: bytes) -> None:
        self.number = number
        self.path = directory.path / names.wal(number)
        self._chunk = memoryview(b"")
        self._chunk_start = 0
        self._fd = directory.descriptor(names.wal(number))
        try:
            self._read_header(store)
        except BaseException:
            self.close()
            raise
        self.position = HEADER_SIZE
        self.sequence = self.first - 1

    def records(self) -> Iterator[WalRecord]:
        """Every record from `position` to the end of what is valid."""
        while (record := self._record_at(self.position, self.sequence + 1)) is not None:
            self.position += RECORD_SIZE + len(record.payload)
            self.sequence = record.sequence
            yield record

    def torn(self) -> bytes:
        """The bytes behind the last valid record.

        Raises
        ------
        CorruptionError
            When a later record stands among them: these are no leftovers of a torn write.
        """
        tail = self._tail()
        if not tail.strip(b"\0"):
            return b""
        if self._next_in(tail) is not None:
            raise CorruptionError(
                describe(str(self.path), expected=f"record {self.sequence + 1} at byte "
                         f"{self.position}", got="damaged bytes before later records",
                         fix="restore it from a backup, or run `python -m vecdb repair`")
            )  # fmt: skip
        return tail

    def salvage(self) -> Iterator[WalRecord]:
        """Every valid record, also those behind damaged ones."""
        while True:
            yield from self.records()
            found = self._next_in(self._tail())
            if found is None:
                return
            self.position, self.sequence = found

    def _tail(self) -> bytes:
        return fs.read_at(self._fd, self.path, self.position, max(self.length() - self.position, 0))

    def _next_in(self, tail: bytes) -> tuple[int, int] | None:
        """Where in the bytes from `position` on a valid record begins, and the number before it.

        Raises CorruptionError when many times the tail would have to be hashed to know: rows can
        be made up so that records seem to begin everywhere.
        """
        view = memoryview(tail)
        left = _HASHED_TIMES * len(tail)
        place = tail.find(_MAGIC_BYTES)
        while 0 <= place <= len(tail) - RECORD_SIZE:
            _, size, sequence, _ = _RECORD.unpack_from(tail, place)
            start = place + RECORD_SIZE
            if start + size <= len(tail) and sequence > self.sequence:
                payload = view[start : start + size]
                if self._is_whole(view[place:start], payload):
                    return self.position + place, sequence - 1
                left -= size
            if left < 0:
                raise CorruptionError(
                    describe(str(self.path), expected=f"record {self.sequence + 1} at byte "
                             f"{self.position}", got="bytes that imitate records",
                             fix="run `python -m vecdb repair`")
                )  # fmt: skip
            place = tail.find(_MAGIC_BYTES, place + 1)
        return None

    def _is_whole(self, head: memoryview, payload: memoryview) -> bool:
        digest = xxhash.xxh3_64(head[: _RECORD.size], seed=self.salt)
        digest.update(payload)
        return bool(digest.intdigest() == _HASH.unpack_from(head, _RECORD.size)[0])

    def length(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if getattr(self, "_fd", -1) >= 0 and not ending():  # then this module's names may be gone
            self.close()

    def _record_at(self, position: int, expected: int) -> WalRecord | None:
        """The valid record of that number at a position."""
        head = self._read(position, RECORD_SIZE)
        if len(head) < RECORD_SIZE:
            return None
        magic, size, sequence, kind = _RECORD.unpack_from(head)
        if magic != RECORD_MAGIC or sequence != expected:
            return None
        payload = self._read(position + RECORD_SIZE, size)
        if len(payload) < size:
            return None
        if not self._is_whole(head, payload):
            self._chunk = memoryview(b"")  # a writer may have been in the middle of it: look anew
            return None
        return WalRecord(sequence, kind, payload)

    def _read(self, position: int, length: int) -> memoryview:
        """Bytes of the file, fewer only at its end; small ones out of a chunk read before."""
        start = position - self._chunk_start
        if start < 0 or start + length > len(self._chunk):
            wanted = min(max(length, _CHUNK), max(self.length() - position, 0))
            self._chunk = memoryview(fs.read_at(self._fd, self.path, position, wanted))
            self._chunk_start = position
            start = 0
        return self._chunk[start : start + length]

    def _read_header(self, store: bytes) -> None:
        head = fs.read_at(self._fd, self.path, 0, HEADER_SIZE)
        problem = None
        if len(head) < HEADER_SIZE:
            problem = f"{len(head)} bytes"
        else:
            magic, version, self.skipped, uuid, number, self.salt, self.first = _HEADER.unpack_from(
                head
            )
            digest = _HASH.unpack_from(head, _HEADER.size)[0]
            if magic != MAGIC or digest != xxhash.xxh3_64_intdigest(head[: _HEADER.size]):
                problem = "a damaged header"
            elif version > VERSION:
                raise VersionError(
                    describe(str(self.path), expected=f"version {VERSION} or older",
                             got=f"version {version}", fix="upgrade vecdb")
                )  # fmt: skip
            elif self.skipped > 1 or not self.skipped < self.first < 2**63:
                problem = "an impossible first record"
            elif uuid != store or number != self.number:
                problem = "the log of another store or place"
        if problem is not None:
            raise CorruptionError(
                describe(str(self.path), expected="a write-ahead log of this store", got=problem,
                         fix="restore it from a backup, or run `python -m vecdb repair`")
            )  # fmt: skip


_MAGIC_BYTES = struct.pack("<I", RECORD_MAGIC)

"""The single writer: logs a change, applies it, acknowledges it, and publishes the snapshot.

Locks, always taken in this order:

``flush_lock``   one flush at a time, so that logs are retired in order
``commit_lock``  one commit (manifest) at a time
``lock``         the state; held while a record is written and applied, not while it is synced

Who waits for a change of the state has a condition over ``lock`` of their own, so that nobody else
is woken: each thread that wakes takes the interpreter from those that search.

Searches take none of them. A snapshot is published only after its last record is durable, so
what was once seen stays true. Any failed write, sync or rename poisons the writer: what is on
disk is unknown then, so reads go on and writing needs a reopen, which finds out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.ending import is_near
from vecdb.errors import ClosedError, DuplicateIdError, PoisonedError, SchemaError, describe
from vecdb.store import record
from vecdb.store.commit import Edit, commit, new_segment
from vecdb.store.memtable import Memtable, align, capacity
from vecdb.store.wal import WalWriter

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.batch import Batch
    from vecdb.progress import Report
    from vecdb.schema import Schema
    from vecdb.segment.fs import Directory
    from vecdb.store.manifest import Manifest
    from vecdb.store.snapshot import Snapshot
    from vecdb.store.state import State

__all__ = ["Writer"]

_MAX_MEMTABLES = 3  # one that is appended to, others on their way to disk: 192 MiB of vectors
_LOG_BYTES = 256 << 20  # from here on a log of deletions, too, is retired
_LOG_RECORDS = 16_384  # so is one of single rows: 20 us each to replay, 0.3 s in all
_BULK_ROWS = 256  # of a batch that is part of a load, during which no index is built
_SHOWN = 5


class Writer:
    """Everything that changes a store.

    Attributes
    ----------
    published : Snapshot
        What searches see.
    state : State
        What has been applied; ahead of `published` by what is being synced.
    manifest : Manifest
        The newest generation.
    failure : BaseException or None
        Why the writer is poisoned.
    """

    def __init__(
        self,
        directory: Directory,
        manifest: Manifest,
        state: State,
        wal: WalWriter,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.state = state
        self.wal = wal
        self.published: Snapshot = state.current
        self.failure: BaseException | None = None
        self.closed = False
        self.next_file = manifest.next_file
        self.flush_lock = threading.RLock()
        self.commit_lock = threading.RLock()
        self.lock = threading.RLock()
        self.room = threading.Condition(self.lock)  # callers: until a memtable has been flushed
        self.full = threading.Condition(self.lock)  # the flushing thread: for a full memtable
        self.changed = threading.Condition(self.lock)  # the compacting thread: for other segments
        self._publish_lock = threading.Lock()
        self._on_failure = on_failure
        self.last_bulk = 0.0  # time.monotonic() at the last large batch
        self.last_kill = 0.0  # and at the last deletion in a segment
        self._reserved = 0  # automatic ids below this one are given away

    def append(
        self,
        batch: Batch,
        *,
        replace: bool,
        schema: Schema | None,
        progress: Report | None = None,
    ) -> None:
        """Add rows, durably; `schema` brings the columns inferred from a first metadata."""
        if len(batch) >= _BULK_ROWS:
            self.last_bulk = time.monotonic()
        if len(batch) > capacity(self.state.schema):
            self._append_large(batch, replace=replace, schema=schema, progress=progress)
            return
        with self.lock:
            self._make_room(len(batch))
            columns = self._columns_after(schema)
            seen = self.state.current
            found = self._refuse_or_find(batch.ids, replace=replace)
            with self.poisoning():
                if columns is not None:
                    self._log_schema(columns)
                batch = self._aligned(batch)
                kind = record.Kind.REPLACE if replace else record.Kind.PUT
                length = self.wal.append(kind, record.encode_put(batch))
                if found is not None:
                    self._kill(seen, *found)
                self.state.put(batch.ids, batch.vectors, batch.metadata)
                snapshot = self._applied()
            wal = self.wal
        self._acknowledge(wal, length, snapshot)

    def delete(self, ids: npt.NDArray[Any]) -> int:
        """Delete rows by id, durably; ids that are not there are passed over."""
        with self.lock:
            self._make_room(0)
            seen = self.state.current
            parts, rows = seen.find(ids)
            known = parts >= 0
            if not known.any():
                return 0
            with self.poisoning():
                length = self.wal.append(record.Kind.DELETE, record.encode_delete(ids[known]))
                count = self._kill(seen, parts, rows)
                snapshot = self._applied()
            wal = self.wal
        self._acknowledge(wal, length, snapshot)
        return count

    def add_columns(self, columns: pa.Schema) -> None:
        """Add metadata columns, durably; rows from before read null."""
        with self.lock:
            self.check_writable()
            schema = self.state.schema.with_columns(columns)
            with self.poisoning():
                length = self._log_schema(schema)
                snapshot = self._applied()
            wal = self.wal
        self._acknowledge(wal, length, snapshot)

    def next_id(self, count: int) -> int:
        """The first of `count` consecutive ids that are free and given to nobody else."""
        with self.lock:
            first = max(self.state.next_id, self._reserved)
            if first + count > 2**63:
                raise SchemaError(
                    describe("ids", expected=f"{count} free numbers behind {first - 1}",
                             got="the end of int64", fix="pass ids=[...] yourself")
                )  # fmt: skip
            self._reserved = first + count
            return first

    def flush(self) -> None:
        """Put everything into segments and retire the logs."""
        with self.flush_lock:
            with self.lock:
                self.check_writable()
                if not self.state.untouched:
                    self._rotate()
            while self.flush_oldest():
                pass

    def flush_oldest(self) -> bool:
        """Write the oldest full memtable as a segment and retire its log; False: there is none."""
        with self.flush_lock, self.poisoning():
            with self.lock:
                self.check_writable()
                if len(self.state.memtables) == 1:
                    return False
                memtable = self.state.memtables[0]
                part = memtable.part(self.state.schema)
            added = None
            if part.live_rows:
                added = new_segment(self, [part])
            commit(self, Edit(flushed=memtable, added=added, sources=(part,)))
            return True

    def close(self) -> None:
        """Refuse further writes and close the log, after what other threads are committing."""
        with self.flush_lock, self.commit_lock, self.lock:
            self.closed = True
            if self.failure is None:
                self.wal.sync()  # for callers that wait for their acknowledgement
            self.wal.close()
            self.wake_all()

    def check_writable(self) -> None:
        """Raise the error that says why this handle can't write, if it can't."""
        if self.failure is not None:
            raise PoisonedError(
                describe("write", expected="a sound writer", got=f"an earlier failure: "
                         f"{self.failure}", fix="close this handle and open the collection again")
            ) from self.failure  # fmt: skip
        if self.closed:
            raise ClosedError("the collection is closed. Fix: open it again")

    def wake(self) -> None:
        """Have the background look at the segments again."""
        with self.lock:
            self.state.changes += 1
            self.changed.notify()

    def wake_all(self) -> None:
        """Have every thread that waits look whether it still should."""
        with self.lock:
            for condition in (self.room, self.full, self.changed):
                condition.notify_all()

    @contextlib.contextmanager
    def poisoning(self) -> Iterator[None]:
        """Any error inside leaves the writer unable to write; reads go on."""
        try:
            yield
        except BaseException as error:
            if self.failure is None and not self.closed:
                self.failure = error
                self._on_failure(error)
                self.wake_all()
            raise

    def publish(self, snapshot: Snapshot) -> None:
        """Let searches see a snapshot, unless they see a later one already."""
        with self._publish_lock:
            if snapshot.order > self.published.order:
                self.published = snapshot

    def take_file_number(self) -> int:
        """A number that no file of this store has had."""
        with self.lock:
            number = self.next_file
            self.next_file += 1
            return number

    def _acknowledge(self, wal: WalWriter, length: int, snapshot: Snapshot) -> None:
        with self.poisoning():
            wal.sync(length)
        self.publish(snapshot)

    def _applied(self) -> Snapshot:
        """The snapshot after the record that has just been applied."""
        self.state.sequence = self.wal.sequence
        return self.state.renew()

    def _kill(
        self, seen: Snapshot, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]
    ) -> int:
        changes = self.state.changes
        count = self.state.kill(seen, parts, rows)
        if self.state.changes != changes:
            self.last_kill = time.monotonic()
            self.changed.notify()  # a segment may be worth rewriting now
        return count

    def _log_schema(self, schema: Schema) -> int:
        length = self.wal.append(record.Kind.SCHEMA, record.encode_schema(schema))
        self.state.change_schema(schema)
        return length

    def _columns_after(self, schema: Schema | None) -> Schema | None:
        """The schema to log before a batch that brought the first columns; None: no change."""
        current = self.state.schema
        if schema is None or schema.columns is None or schema.columns == current.columns:
            return None
        if current.columns is not None:
            raise SchemaError(
                describe("metadata", expected=f"columns {current.columns.names}",
                         got=f"{schema.columns.names}", fix="another thread added the first "
                         "metadata meanwhile: call add again")
            )  # fmt: skip
        return schema

    def _aligned(self, batch: Batch) -> Batch:
        columns = self.state.schema.columns
        if columns is None or (batch.metadata is not None and batch.metadata.schema == columns):
            return batch
        import pyarrow as pa

        metadata = batch.metadata
        if metadata is None:
            nulls = [pa.nulls(len(batch), field.type) for field in columns]
            metadata = pa.RecordBatch.from_arrays(nulls, schema=columns)
        return dataclasses.replace(batch, metadata=align(metadata, columns))

    def _refuse_or_find(
        self, ids: npt.NDArray[Any], *, replace: bool
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] | None:
        """Where rows of these ids are now, None when nowhere; without `replace` an error."""
        if ids.dtype == np.int64 and len(ids) and int(ids.min()) >= self.state.next_id:
            return None
        parts, rows = self.state.current.find(ids)
        known = np.flatnonzero(parts >= 0)
        if not len(known):
            return None
        if not replace:
            shown = ", ".join(str(i) for i in ids[known[:_SHOWN]])
            more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
            raise DuplicateIdError(
                describe("ids", expected="ids that are not in the collection",
                         got=f"{shown}{more}, stored already",
                         fix="use upsert to replace rows, or leave them out")
            )  # fmt: skip
        return parts, rows

    def _make_room(self, rows: int) -> None:
        """Have an active memtable with room; waits while too many are on their way to disk."""
        while True:
            self.check_writable()
            if self.state.active.fits(rows) and not self._log_is_long():
                return
            if len(self.state.memtables) < _MAX_MEMTABLES:
                self._rotate()
                self.full.notify()
            elif is_near():
                raise ClosedError(
                    "the process ends, and its background no longer makes room. Fix: "
                    "close the collection before exit handlers run"
                )
            else:
                self.room.wait()

    def _log_is_long(self) -> bool:
        records = self.state.sequence + 1 - self.state.active.first
        return records >= _LOG_RECORDS or self.wal.length >= _LOG_BYTES

    def _rotate(self, skipped: int = 0) -> None:
        """Start a new log and memtable; the old ones are complete and durable from here on."""
        with self.poisoning():
            old = self.wal
            old.sync()
            first = self.state.sequence + 1
            self.wal = WalWriter(self.directory, old.number + 1, self.manifest.uuid, first, skipped)
            old.close()
            self.state.start_memtable(self.wal.number)

    def _append_large(
        self, batch: Batch, *, replace: bool, schema: Schema | None, progress: Report | None
    ) -> None:
        """Add a batch that no memtable holds: straight to a segment, acknowledged by a commit."""
        with self.flush_lock:
            while True:
                self.flush()
                with self.commit_lock, self.lock:
                    if self.state.untouched:  # else another writer slipped in
                        self._commit_large(batch, replace, schema, progress)
                        return

    def _commit_large(
        self, batch: Batch, replace: bool, schema: Schema | None, progress: Report | None
    ) -> None:
        columns = self._columns_after(schema)
        seen = self.state.current
        found = self._refuse_or_find(batch.ids, replace=replace)
        with self.poisoning():
            if columns is not None:
                self.state.change_schema(columns)
            batch = self._aligned(batch)
            loose = Memtable.over(self.state.schema, batch)
            added = new_segment(self, [loose.part(self.state.schema)], progress)
            if found is not None:
                self.state.kill(seen, *found)
            if batch.ids.dtype == np.int64:
                self.state.next_id = max(self.state.next_id, int(batch.ids.max()) + 1)
            self.state.sequence += 1
            flushed = self.state.active
            self._rotate(skipped=1)
            commit(self, Edit(flushed=flushed, added=added))

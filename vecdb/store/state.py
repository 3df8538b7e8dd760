"""The applied content of one handle: segments and memtables, and how records change them.

Writer and readers share it: the writer applies what it has just logged, a reader what it reads
from the logs. Every change ends in a new immutable :class:`Snapshot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.store.memtable import Memtable
from vecdb.store.record import Delete, NewSchema, Put
from vecdb.store.snapshot import Part, Snapshot

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.schema import Schema
    from vecdb.store.manifest import Manifest

__all__ = ["State"]


class State:
    """Mutable; guarded by the store's write lock.

    Attributes
    ----------
    segments : tuple of Part
        Oldest first, each over a Segment.
    memtables : list of Memtable
        Oldest first; the last one is appended to.
    next_id : int
        Greater than every int64 id ever stored.
    changes : int
        How often `segments` has changed.
    current : Snapshot
        The state as one immutable object, rebuilt after every change.
    """

    def __init__(self, manifest: Manifest, segments: tuple[Part, ...]) -> None:
        self.schema = manifest.schema
        self.generation = manifest.generation
        self.sequence = manifest.sequence
        self.next_id = manifest.next_id
        self.segments = segments
        self.changes = 0
        self.memtables = [Memtable(manifest.schema, manifest.wal, manifest.sequence + 1)]
        self._order = 0
        self.current = self.renew()

    @property
    def active(self) -> Memtable:
        """The memtable that rows are appended to."""
        return self.memtables[-1]

    def renew(self) -> Snapshot:
        """Rebuild :attr:`current` after a change."""
        self._order += 1
        fresh = tuple(m.part(self.schema) for m in self.memtables if m.rows)
        rows = self._segment_rows() + sum(part.live_rows for part in fresh)
        self.current = Snapshot(
            self.schema, self.generation, self.sequence, self.segments + fresh, rows, self._order
        )
        return self.current

    def apply(self, record: Put | Delete | NewSchema, sequence: int) -> None:
        """Apply a record that was read from a log; call :meth:`renew` after the last one.

        A record whose deletions are in the segments already deletes nothing more.
        """
        if isinstance(record, NewSchema):
            self.change_schema(record.schema)
        else:
            if isinstance(record, Delete) or record.replace:
                seen = self.renew()
                self.kill(seen, *seen.find(record.ids))
            if isinstance(record, Put):
                self.active.reserve(len(record.ids))
                self.put(record.ids, record.vectors, record.metadata)
        self.sequence = sequence

    def put(
        self,
        ids: npt.NDArray[Any],
        vectors: npt.NDArray[Any],
        metadata: pa.RecordBatch | None,
    ) -> None:
        """Append rows, none of whose ids is live; the active memtable has room for them."""
        self.active.append(ids, vectors, metadata)
        if self.schema.ids == "int64" and len(ids):
            self.next_id = max(self.next_id, int(ids.max()) + 1)

    def start_memtable(self, wal: int) -> None:
        """From here on rows go to a new memtable, that of the log `wal`."""
        self.memtables.append(Memtable(self.schema, wal, self.sequence + 1))

    @property
    def untouched(self) -> bool:
        """Whether no record has been applied since the active memtable began."""
        return self.sequence < self.active.first

    def kill(
        self, seen: Snapshot, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]
    ) -> int:
        """Delete live rows that `seen`, the current snapshot, found; returns how many."""
        segments = list(self.segments)
        by_view = [m for m in self.memtables if m.rows]
        for number in sorted(set(parts.tolist()) - {-1}):
            dead = rows[parts == number]
            if number < len(segments):
                segments[number] = seen.parts[number].without(dead)
            else:
                by_view[number - len(segments)].kill(dead)
        if tuple(segments) != self.segments:
            self.replace_segments(tuple(segments))
        return int(np.count_nonzero(parts >= 0))

    def replace_segments(self, segments: tuple[Part, ...]) -> None:
        """Take other segments, or the same with other live rows."""
        self.segments = segments
        self.changes += 1

    def change_schema(self, schema: Schema) -> None:
        """More columns: rows from before read null in them."""
        self.schema = schema
        self.segments = tuple(
            Part(part.segment.with_schema(schema), part.live, part.live_rows, part.bounds)
            for part in self.segments
        )

    def _segment_rows(self) -> int:
        return sum(part.live_rows for part in self.segments)

"""The memtable: the newest rows, in memory, appended by the writer and scanned exactly.

Space for :func:`capacity` rows is reserved at the first append (untouched pages cost nothing), so
appending never moves a row and a view of the first `m` rows stays true while the writer goes on
behind it. Only one thread appends at a time; any number may read views.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb import kernels
from vecdb.segment import bitmap
from vecdb.segment.columns import nulls, numbers
from vecdb.store.snapshot import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.batch import Batch
    from vecdb.kernels.codes import Codes
    from vecdb.schema import Schema

__all__ = ["MAX_BYTES", "MAX_ROWS", "Memtable", "MemtableView", "align", "capacity"]

MAX_BYTES = 64 << 20  # of vectors; 40 MB/ms of scan keep a search of a full one near 5 ms
MAX_ROWS = 1 << 17
_BLOCK_BYTES = 8 << 20  # of vectors that are written and reported at a time
_UNCODED_BYTES = 1 << 20  # of vectors, which a core's cache holds: codes are no faster
_CODED_AT_ONCE = 2_048  # rows that a search may have to code: 2 ms at 384 dims


def capacity(schema: Schema) -> int:
    """Rows that a memtable of this schema holds."""
    row = schema.dim * np.dtype(schema.dtype).itemsize
    return max(16, min(MAX_BYTES // row, MAX_ROWS))


class Memtable:
    """Rows that no segment holds yet.

    Parameters
    ----------
    schema : Schema
        Gives width and types.
    wal : int
        Number of the write-ahead log that holds the same rows: one log, one memtable.
    first : int
        Sequence number of that log's first record.
    """

    def __init__(self, schema: Schema, wal: int, first: int) -> None:
        self.schema = schema  # in force at the first record
        self.wal = wal
        self.first = first
        self.rows = 0
        self.dead = 0
        self.capacity = capacity(schema)
        self.metadata_bytes = 0
        self._live: npt.NDArray[np.uint8] | None = None
        self._covered = 0  # rows that _live covers
        self._vectors: npt.NDArray[Any] | None = None
        self._ids: npt.NDArray[Any] | None = None
        self._ascending = schema.ids == "int64"
        self._row_of: dict[Any, int] = {}  # filled when ids stop ascending; text: from the start
        self._before: dict[int, int] = {}  # row -> the deleted row that had its id before
        self._chunks: list[pa.RecordBatch] = []
        self._codes: Codes | None = None
        self._coded = 0  # rows that _codes covers
        self._lock = threading.Lock()  # guards _chunks and codes
        _memtables.add(self)

    @classmethod
    def over(cls, schema: Schema, batch: Batch) -> Memtable:
        """A memtable that is one batch, without copying its vectors; never appended to."""
        self = cls(schema, wal=0, first=0)
        self.capacity = self.rows = len(batch)
        self._vectors, self._ids = batch.vectors, batch.ids
        if batch.metadata is not None:
            self._chunks.append(batch.metadata)
        return self

    def fits(self, rows: int) -> bool:
        """Whether so many more rows have room."""
        return self.rows + rows <= self.capacity and self.metadata_bytes < MAX_BYTES

    def reserve(self, rows: int) -> None:
        """Make room for so many more rows, by copying where :meth:`fits` says no (recovery)."""
        if self.rows + rows <= self.capacity:
            return
        self.capacity = max(2 * self.capacity, self.rows + rows)
        if self._vectors is not None and self._ids is not None:
            vectors = np.empty((self.capacity, self.schema.dim), self._vectors.dtype)
            ids = np.empty(self.capacity, self._ids.dtype)
            vectors[: self.rows] = self._vectors[: self.rows]
            ids[: self.rows] = self._ids[: self.rows]
            with self._lock:
                self._vectors, self._ids = vectors, ids
                self._codes, self._coded = None, 0

    def append(
        self,
        ids: npt.NDArray[Any],
        vectors: npt.NDArray[Any],
        metadata: pa.RecordBatch | None,
    ) -> None:
        """Add rows behind the others; none of the ids is live in this memtable."""
        if self._vectors is None or self._ids is None:
            shape = (self.capacity, self.schema.dim)
            self._vectors = np.empty(shape, self.schema.dtype)
            self._ids = np.empty(self.capacity, np.int64 if self._ascending else object)
        start, stop = self.rows, self.rows + len(ids)
        self._vectors[start:stop] = vectors
        self._ids[start:stop] = ids
        self._remember(ids, start)
        if metadata is not None:
            import pyarrow as pa

            with self._lock:
                self._chunks.append(metadata)
            # as the log has it: `nbytes` took 8 us of an add of 40
            self.metadata_bytes += pa.ipc.get_record_batch_size(metadata)
        self.rows = stop

    def kill(self, rows: npt.NDArray[np.int64]) -> None:
        """Delete rows (each of them live)."""
        self._live = bitmap.cleared(self._bitmap(), self.rows, rows)
        self._covered = self.rows
        self.dead += len(rows)

    def part(self, schema: Schema) -> Part:
        """An immutable view of the rows as they are now."""
        view = MemtableView(self, self.rows, schema)
        return Part(view, self._bitmap(), self.rows - self.dead)

    def find(self, ids: npt.NDArray[Any], rows: int) -> npt.NDArray[np.int64]:
        """Row of each id among the first `rows`, live or not, -1 where there is none."""
        if self._ids is None or rows == 0:
            return np.full(len(ids), -1, np.int64)
        if not self._row_of:
            known = self._ids[:rows]
            found = np.minimum(np.searchsorted(known, ids), rows - 1)
            return np.where(known[found] == ids, found, -1)
        row_of, before = self._row_of, self._before
        result = np.empty(len(ids), np.int64)
        for i, key in enumerate(ids.tolist()):
            row = row_of.get(key, -1)
            while row >= rows:  # appended after the view was taken
                row = before.get(row, -1)
            result[i] = row
        return result

    def column(self, name: str, rows: int, kind: pa.DataType) -> pa.Array[Any]:
        """The first `rows` values of a metadata column; null where it is younger than a row."""
        import pyarrow as pa

        with self._lock:
            self._tidy()
            chunks = list(self._chunks)
        arrays = []
        missing = rows
        for chunk in chunks:
            if missing <= 0:
                break
            known = name in chunk.schema.names
            array = chunk.column(name) if known else nulls(chunk.num_rows, kind)
            arrays.append(array[:missing])
            missing -= len(arrays[-1])
        if missing or not arrays:  # rows from before the first metadata
            arrays.insert(0, nulls(missing, kind))
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)

    def codes(self, rows: int) -> Codes | None:
        """Codes of the first `rows`, made by the searches that want them; None where a scan does
        without: few rows, float16, a CPU or kernels that are not up to it, too much to catch up."""
        if rows * self.schema.dim * 4 <= _UNCODED_BYTES or not kernels.ready():
            return None
        if self.schema.dtype != "float32":
            return None
        from vecdb.kernels.codes import FAST, Codes, encode

        if not FAST:
            return None
        with self._lock:
            vectors = self._vectors
            assert vectors is not None
            if self._codes is None:
                self._codes = Codes.empty(*vectors.shape)
            if self._coded < rows:
                stop = min(rows, self._coded + _CODED_AT_ONCE)
                encode(vectors, self.schema.metric, self._codes, self._coded, stop)
                self._coded = stop
            return self._codes.first(rows) if self._coded >= rows else None

    def _bitmap(self) -> npt.NDArray[np.uint8] | None:
        """The live bitmap over the rows as they are now; None while none is deleted."""
        if self._live is not None and self._covered < self.rows:
            self._live = bitmap.extended(self._live, self._covered, self.rows)
            self._covered = self.rows
        return self._live

    def _remember(self, ids: npt.NDArray[Any], start: int) -> None:
        """Keep ids findable: by binary search while they ascend, by a dict from then on."""
        assert self._ids is not None
        if self._ascending:
            seam = start == 0 or self._ids[start - 1] < ids[0]
            if seam and (len(ids) == 1 or bool(np.all(ids[1:] > ids[:-1]))):
                return
            self._ascending = False
            self._row_of = dict(zip(self._ids[:start].tolist(), range(start), strict=True))
        row_of = self._row_of
        for row, key in enumerate(ids.tolist(), start):
            if (old := row_of.get(key)) is not None:
                self._before[row] = old
            row_of[key] = row

    def _tidy(self) -> None:
        """Merge chunks so that each is at least twice as long as the next: O(log n) of them."""
        import pyarrow as pa

        chunks = self._chunks
        start = len(chunks)
        tail = 0
        while start and chunks[start - 1].num_rows < 2 * max(tail, 1):
            start -= 1
            tail += chunks[start].num_rows
        if len(chunks) - start > 1:
            columns = chunks[-1].schema
            aligned = [align(chunk, columns) for chunk in chunks[start:]]
            chunks[start:] = [pa.concat_batches(aligned)]  # type: ignore[attr-defined]


_memtables: weakref.WeakSet[Memtable] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child: a thread that held a lock does not exist here and can't release it."""
    for memtable in list(_memtables):
        memtable._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


class MemtableView:
    """The first rows of a memtable, in the shape of a :class:`vecdb.segment.Segment`."""

    def __init__(self, memtable: Memtable, rows: int, schema: Schema) -> None:
        self.rows = rows
        self.schema = schema
        self._memtable = memtable
        self._columns: dict[str, pa.Array[Any]] = {}

    def __repr__(self) -> str:
        return f"MemtableView(rows={self.rows})"

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(rows, dim), read-only."""
        vectors = self._memtable._vectors
        if vectors is None:
            return np.empty((0, self.schema.dim), self.schema.dtype)
        view = vectors[: self.rows]
        view.flags.writeable = False
        return view

    @property
    def codes(self) -> Codes | None:
        """Codes of the vectors, where a scan gains by them."""
        return self._memtable.codes(self.rows)

    def streaming(self) -> contextlib.AbstractContextManager[None]:
        """As :meth:`vecdb.segment.Segment.streaming`; nothing to be done in memory."""
        return contextlib.nullcontext()

    @property
    def ids(self) -> MemtableIds:
        """The id column."""
        return MemtableIds(self._memtable, self.rows)

    @property
    def columns(self) -> pa.Schema:
        """Names and types of the metadata columns."""
        import pyarrow as pa

        return pa.schema([]) if self.schema.columns is None else self.schema.columns

    def column(self, name: str) -> pa.Array[Any]:
        """One metadata column, (rows,)."""
        column = self._columns.get(name)
        if column is None:
            kind = self.columns.field(name).type
            column = self._columns[name] = self._memtable.column(name, self.rows, kind)
        return column

    def take(self, names: Sequence[str], rows: npt.NDArray[np.int64]) -> list[pa.Array[Any]]:
        """Values of some rows, as :meth:`vecdb.segment.Segment.take`."""
        index = numbers(rows)
        return [self.column(name).take(index) for name in names]

    def checked_vectors(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """All vectors in blocks, as :meth:`vecdb.segment.Segment.checked_vectors`."""
        step = max(1, _BLOCK_BYTES // max(self.vectors[:1].nbytes, 1))
        for start in range(0, self.rows, step):
            yield start, self.vectors[start : start + step]

    def block_stats(self, name: str) -> None:
        """A memtable has no zone maps."""

    graph = None
    files = ()
    indexed = False

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the rows take."""
        return int(self.vectors.nbytes) + 8 * self.rows + self._memtable.metadata_bytes

    def verify(self) -> list[str]:
        """Memory has no checksums: always empty."""
        return []

    verify_rows = verify

    def check_index(self) -> None:
        """There is none."""


class MemtableIds:
    """The id column of a memtable view."""

    def __init__(self, memtable: Memtable, rows: int) -> None:
        self._memtable = memtable
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Ids of the rows."""
        ids: npt.NDArray[Any] = self.known()[rows]
        return ids

    def find(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Row of each id, deleted or not, -1 where there is none."""
        return self._memtable.find(ids, self._rows)

    def known(self) -> npt.NDArray[Any]:
        """Every id in row order."""
        ids = self._memtable._ids
        return np.empty(0, np.int64) if ids is None else ids[: self._rows]

    def all(self) -> Any:
        """Every id in row order: an int64 array, or a pyarrow.StringArray."""
        import pyarrow as pa

        ids = self.known()
        return ids if ids.dtype == np.int64 else pa.array(ids, pa.string())


def align(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly these columns, null where it has none of a name."""
    import pyarrow as pa

    if batch.schema.equals(columns):
        return batch
    arrays = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else nulls(batch.num_rows, field.type)
        for field in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)

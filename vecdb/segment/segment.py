"""A segment: an immutable run of rows with ids, vectors and metadata columns in one file."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import CorruptionError
from vecdb.forking import load
from vecdb.segment import format as f
from vecdb.segment.columns import (
    BlockStats,
    check_entry,
    nulls,
    numbers,
    open_column,
    open_stats,
    write_column,
)
from vecdb.segment.ids import IdColumn, TextIds, open_ids, write_ids
from vecdb.segment.index import Index, open_graph
from vecdb.segment.pick import SCARCE, Reach, pick, reach_column
from vecdb.segment.sparse import little_endian
from vecdb.segment.writer import ContainerWriter

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.graph import Graph
    from vecdb.schema import Schema
    from vecdb.segment.container import Container
    from vecdb.segment.fs import Directory
    from vecdb.segment.sparse import Sparse
    from vecdb.workers import Workers

__all__ = ["Segment", "take", "write_segment"]

# a column that is not open whole is opened once what its takes cost more has come to an opening
_ROWS_A_TAKE = 1_000
_OPENED_BYTES = 64 << 20  # which opening may read into memory to make later takes cheaper
_CHECKED_BYTES = 8 << 20  # of vectors hashed at a time, while they are in the processor's cache


class Segment:
    """Rows of one segment file, mapped; touched, hashed and checked only as far as they are used.

    Safe to share between threads. Views that it hands out keep the mapping alive, also after the
    file has been unlinked; when the last one is gone the mapping is gone.

    Attributes
    ----------
    rows : int
        Number of rows, deleted ones included.
    schema : Schema
        The collection's schema; columns that are younger than the file read null.
    files : tuple of Container
        The segment file and, where there is one, its index file.
    indexed : bool
        Whether there is an index that has not proved damaged.
    """

    codes = None
    """Only a memtable has codes to scan by; those of a segment stand in its graph."""

    def __init__(
        self, container: Container, schema: Schema, rows: int, index: Container | None = None
    ) -> None:
        self.rows = rows
        self.schema = schema
        self._file = container
        self._index = None if index is None else Index(index, container, rows, schema.dim)
        self._cache: dict[str, Any] = {}
        self._positions: dict[str, int] | None = None

    def __repr__(self) -> str:
        return f"Segment({self._file.path.name}, rows={self.rows})"

    @property
    def id(self) -> int:
        """Number of the segment file."""
        return self._file.info.id

    @property
    def info(self) -> f.FileInfo:
        """The segment file as the manifest refers to it."""
        return self._file.info

    @property
    def index(self) -> f.FileInfo | None:
        """The index file as the manifest refers to it; None when there is none."""
        return None if self._index is None else self._index.file.info

    @property
    def files(self) -> tuple[Container, ...]:
        return (self._file,) if self._index is None else (self._file, self._index.file)

    @property
    def nbytes(self) -> int:
        """Bytes of the files together."""
        return sum(file.length for file in self.files)

    @property
    def vectors(self) -> npt.NDArray[Any]:
        """(rows, dim) float32 or float16, read-only, on the mapping. Not hashed: see verify."""
        vectors = self._cache.get("vectors")
        if vectors is None:
            self._check_meta()
            shape = (self.rows, self.schema.dim)
            vectors = self._file.array(
                "vectors", np.dtype(self.schema.dtype).newbyteorder("<"), shape, verify=False
            )

            self._cache["vectors"] = vectors
        return vectors

    def streaming(self) -> contextlib.AbstractContextManager[None]:
        """For as long as :attr:`vectors` are read from front to back: read-ahead is on."""
        return self._file.mapping.streaming()

    @property
    def ids(self) -> IdColumn:
        """The id column."""
        ids: IdColumn | None = self._cache.get("ids")
        if ids is None:
            self._check_meta()
            ids = self._cache["ids"] = open_ids(self._file, self.rows, self.schema.ids)
        return ids

    @property
    def columns(self) -> pa.Schema:
        """Names and types of the metadata columns."""
        import pyarrow as pa

        return pa.schema([]) if self.schema.columns is None else self.schema.columns

    def column(self, name: str) -> pa.Array[Any]:
        """One metadata column, (rows,), on the mapping; all null when younger than the file."""
        key = f"column {name}"
        column: pa.Array[Any] | None = self._cache.get(key)
        if column is None:
            column = self._cache[key] = self._open_column(name)
        return column

    def position(self, name: str) -> int | None:
        """Number of a metadata column in the file; None when it is younger."""
        return self._stored().get(name)

    def block_stats(self, name: str) -> BlockStats | None:
        """Zone maps of a column; None where there are none (text, lists, younger columns)."""
        key = f"stats {name}"
        if key not in self._cache:
            position = self.position(name)
            self._cache[key] = None if position is None else open_stats(
                self._file, position, self.columns.field(name).type, self.rows
            )  # fmt: skip
        stats: BlockStats | None = self._cache[key]
        return stats

    @property
    def graph(self) -> Graph | None:
        """The graph, checked as :mod:`vecdb.segment.index` says; None when there is none or it is
        damaged."""
        return None if self._index is None else self._index.graph

    def checked_graph(self) -> Graph | None:
        """The graph with every byte hashed and every link checked, whatever its size; None when
        there is none or it is damaged."""
        return None if self._index is None else self._index.checked_graph()

    @property
    def indexed(self) -> bool:
        return self._index is not None and self._index.sound

    def on_damage(self, callback: Callable[[], None]) -> None:
        """Have `callback`, a method, called in whatever thread when the index proves damaged."""
        if self._index is not None:
            self._index.on_damage = weakref.WeakMethod(callback)

    def check_index(self) -> None:
        """Hash the index now; one that is damaged is left aside, with a warning."""
        if self._index is not None:
            self._index.check()

    def with_schema(self, schema: Schema) -> Segment:
        """The same rows under a schema with more columns."""
        changed = copy.copy(self)
        changed.schema = schema
        return changed

    def with_index(self, index: Container | None) -> Segment:
        """The same rows with another index."""
        changed = copy.copy(self)
        changed._index = (
            None if index is None else Index(index, self._file, self.rows, self.schema.dim)
        )
        return changed

    @property
    def text_bytes(self) -> int:
        """Bytes of text, binary and list values and text ids: bounded in a segment, because
        Arrow's offsets have 32 bits."""
        return sum(
            section.length
            for name, section in self._file.sections.items()
            if name == "ids.text" or (name[0] == "c" and name.endswith((".2", ".3", ".4")))
        )

    def check_vectors(self) -> None:
        """Hash the vectors, which :attr:`vectors` does not; raises CorruptionError."""
        self._file.verify("vectors")

    def checked_vectors(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """All vectors in order as (first row, block of rows), each hashed just before: one pass
        over a file that may be larger than memory.

        Raises
        ------
        CorruptionError
            In place of the first block that has changed.
        """
        vectors = self.vectors
        row = max(self.schema.dim * vectors.itemsize, 1)
        step, block = max(1, _CHECKED_BYTES // row), self._file.sections["vectors"].block
        checked = 0  # blocks
        for start in range(0, self.rows, step):
            stop = min(start + step, self.rows)
            blocks = -(-stop * row // block)
            self._file.verify_blocks("vectors", checked, blocks)
            checked = blocks
            yield start, vectors[start:stop]

    def verify(self) -> list[str]:
        """Hash and check every byte of the files; the problems found, each naming its file."""
        problems = self.verify_rows()
        if self._index is not None:
            file = self._index.file
            damaged = file.problems()
            try:
                if not damaged:
                    open_graph(file, self.rows, self.schema.dim, verify=True)
            except CorruptionError as error:
                damaged.append(str(error))
            problems += damaged
        return problems

    def verify_rows(self) -> list[str]:
        """As :meth:`verify`, without the index, which can't make an answer wrong."""
        problems = self._file.problems()
        if not problems:
            try:
                _ = self.vectors
                if isinstance(self.ids, TextIds):
                    self.ids.all()
                unknown = self._stored().keys() - set(self.columns.names)
                if unknown:
                    raise self._file.damaged("columns of the schema", f"{sorted(unknown)}"[:80])
                for name in self._stored():
                    self.column(name)
            except CorruptionError as error:
                problems.append(str(error))
        return problems

    def _open_column(self, name: str) -> pa.Array[Any]:
        kind = self.columns.field(name).type
        position = self.position(name)
        if position is None:
            return nulls(self.rows, kind)
        return open_column(self._file, position, kind, self.rows)

    def _is_worth_opening(self, name: str, rows: int) -> bool:
        """Whether to have a column open whole to take so many rows of it: that pays for many rows,
        and for few that are asked for again and again."""
        if f"column {name}" in self._cache:
            return True
        import pyarrow as pa

        takes = self._cache[f"takes {name}"] = self._cache.get(f"takes {name}", 0) + 1
        position = self.position(name)
        if position is None or pa.types.is_list(self.columns.field(name).type):
            return True
        if rows * SCARCE > self.rows:
            return True
        if takes * _ROWS_A_TAKE <= self.rows:
            return False
        sections = self._file.sections.items()
        size = sum(s.length for key, s in sections if key.startswith(f"c{position}."))
        return size <= _OPENED_BYTES

    def _reach(self, name: str, kind: pa.DataType) -> Reach | None:
        """How to pick rows of a column; None when it is younger than the file."""
        key = f"reach {name}"
        if key not in self._cache:
            position, reach = self.position(name), None
            if position is not None:
                check_entry(self._file, position, kind)
                reach = reach_column(self._file, f"c{position}", kind)
            self._cache[key] = reach
        found: Reach | None = self._cache[key]
        return found

    def _stored(self) -> dict[str, int]:
        if self._positions is None:
            self._check_meta()
            entries = self._file.meta.get("columns")
            try:
                self._positions = {name: i for i, (name, _, _) in enumerate(entries)}  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise self._file.damaged("a list of columns", f"{entries!r}"[:80]) from None
        return self._positions

    def _check_meta(self) -> None:
        meta = self._file.meta
        expected = {"rows": self.rows, "dim": self.schema.dim, "dtype": self.schema.dtype}
        found = {key: meta.get(key) for key in expected}
        if found != expected:
            raise self._file.damaged(expected, str(found)[:120])


def take(
    wanted: Sequence[tuple[Segment, npt.NDArray[np.int64]]],
    names: Sequence[str],
    places: npt.NDArray[np.int64] | None = None,
    workers: Workers | None = None,
) -> list[pa.Array[Any]]:
    """Values of some rows of segments' columns; of few, only the blocks that they lie in are
    hashed.

    Parameters
    ----------
    places : ndarray, optional
        Where each of the rows comes to lie in the result; one after the other when not given.
    workers : Workers, optional
        Who may help.
    """
    picked = [
        name
        for name in names
        if not all(segment._is_worth_opening(name, len(rows)) for segment, rows in wanted)
    ]
    if not picked:
        return _take_whole(wanted, names, places)
    kinds = [wanted[0][0].columns.field(name).type for name in picked]
    own = [
        ([segment._reach(*column) for column in zip(picked, kinds, strict=True)], rows)
        for segment, rows in wanted
    ]
    found = dict(zip(picked, pick(own, kinds, places, workers), strict=True))
    others = [name for name in names if name not in found]
    if others:
        found.update(zip(others, _take_whole(wanted, others, places), strict=True))
    return [found[name] for name in names]


def _take_whole(
    wanted: Sequence[tuple[Segment, npt.NDArray[np.int64]]],
    names: Sequence[str],
    places: npt.NDArray[np.int64] | None,
) -> list[pa.Array[Any]]:
    """The same of columns that are open whole."""
    import pyarrow as pa

    load("pyarrow.compute")  # what Arrow's own take would import
    pieces = []
    for segment, rows in wanted:
        index = numbers(rows)
        pieces.append([segment.column(name).take(index) for name in names])
    if len(pieces) == 1 and places is None:
        return pieces[0]
    columns = [pa.concat_arrays(column) for column in zip(*pieces, strict=True)]
    if places is None:
        return columns
    back = numbers(np.argsort(places))
    return [column.take(back) for column in columns]


def write_segment(
    directory: Directory,
    name: str,
    header: f.Header,
    schema: Schema,
    rows: int,
    *,
    vectors: Iterable[npt.NDArray[Any] | Sparse],
    ids: Any,
    column: Callable[[str], pa.Array[Any]],
    hashes: npt.NDArray[np.uint64] | None = None,
) -> Container:
    """Write a segment file, make it durable and map it.

    Parameters
    ----------
    vectors : iterable of ndarray or Sparse
        Blocks of (n, dim) rows in order, `rows` in all.
    ids : ndarray, range or pyarrow.StringArray
        (rows,) int64 or text.
    column : callable
        Gives a whole metadata column, (rows,), by name; called once for each.
    hashes : ndarray, optional
        (rows,) XXH3-64 of text ids where they are known.
    """
    writer = ContainerWriter(directory, name, header)
    try:
        writer.begin("vectors", f.PAGE)
        for block in vectors:
            writer.write(little_endian(block, np.dtype(schema.dtype)))
        meta: dict[str, Any] = {
            "rows": rows,
            "dim": schema.dim,
            "dtype": schema.dtype,
            "schema": schema.to_json(),  # so that a store without a manifest can be repaired
            "ids": write_ids(writer, ids, hashes),
        }
        names = [] if schema.columns is None else schema.columns.names
        meta["columns"] = [[n, *write_column(writer, i, column(n))] for i, n in enumerate(names)]
        return writer.finish(meta)
    except BaseException:
        writer.abandon()
        raise

"""What can be kept of one damaged segment: the rows, and their values, outside its damaged blocks.

Nothing is kept of a row with a damaged vector or id. One with a damaged value in a metadata column
reads null there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb.batch import Batch
from vecdb.errors import CorruptionError
from vecdb.segment.columns import nulls, numbers, open_column
from vecdb.segment.ids import IdColumn, open_ids
from vecdb.segment.pick import checked

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment import Segment
    from vecdb.segment.container import Container

__all__ = ["Source"]

_CHUNK_BYTES = 256 << 20  # of vectors copied at a time


class _Values(NamedTuple):
    """A metadata column, and which of its rows may be read."""

    column: pa.Array[Any]
    sound: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.int64]) -> pa.Array[Any]:
        """The values of some rows, null where they may not be read."""
        import pyarrow as pa

        index: Any = pa.array(rows, mask=~self.sound[rows])
        return self.column.take(index)


class Source:
    """A segment of a damaged store.

    Parameters
    ----------
    segment : Segment
    live : ndarray, optional
        The bitmap of its live rows; all are when not given.
    lose : callable
        Told of each loss: the error, and what it costs.
    """

    def __init__(
        self,
        segment: Segment,
        live: npt.NDArray[np.uint8] | None,
        lose: Callable[[object, str], None],
    ) -> None:
        self.segment = segment
        self._file = segment.files[0]
        self._live = live
        self._lose = lose

    def batches(self) -> Iterator[Batch]:
        """The rows that can be kept."""
        segment = self.segment
        try:
            vectors = segment.vectors
            ids = open_ids(self._file, segment.rows, segment.schema.ids, find=False)
            width = segment.schema.dim * vectors.itemsize
            keep = self._whole_rows({"vectors": width, "ids": 8})
        except CorruptionError as error:
            self._lose(error, f"{segment.rows} rows")
            return
        if self._live is not None:
            keep &= np.unpackbits(self._live, count=segment.rows, bitorder="little").view(np.bool_)
        rows = np.flatnonzero(keep)
        columns = [self._values(field.name, field.type) for field in segment.columns]
        step = max(1, _CHUNK_BYTES // width)
        for start in range(0, len(rows), step):
            chosen, named = self._named_rows(ids, rows[start : start + step])
            yield Batch(named, vectors[chosen], self._metadata(columns, chosen))

    def _whole_rows(self, widths: dict[str, int]) -> npt.NDArray[np.bool_]:
        """For each row whether it lies outside the damaged blocks of sections, given with the bytes
        that a row has in them."""
        keep = np.ones(self.segment.rows, np.bool_)
        for name, width in widths.items():
            sound = _outside(self._file, name, 8 * width, len(keep))
            keep &= sound
            if not sound.all():
                lost = len(keep) - int(keep.sum())
                self._lose(
                    f"{self._file.path}: damaged blocks of {name!r}",
                    f"{lost} rows, deleted ones included",
                )
        return keep

    def _named_rows(
        self, ids: IdColumn, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Those of the rows whose ids can be read, and their ids: found by halving."""
        kept, named, waiting = [rows[:0]], [ids.get(rows[:0])], [rows]
        while waiting:
            some = waiting.pop()
            try:
                named.append(ids.get(some))
                kept.append(some)
            except CorruptionError as error:
                if len(some) == 1:
                    reason = error
                else:
                    waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
        lost = len(rows) - sum(map(len, kept))
        if lost:
            self._lose(reason, f"{lost} rows")
        return np.concatenate(kept), np.concatenate(named)

    def _values(self, name: str, kind: pa.DataType) -> _Values:
        """A metadata column with what is damaged left out."""
        segment, rows = self.segment, self.segment.rows
        try:
            return _Values(segment.column(name), np.ones(rows, np.bool_))
        except CorruptionError as error:
            reason = error
        try:
            position = segment.position(name)
            assert position is not None  # else it would have been read as nulls
            column = open_column(self._file, position, kind, rows, whole=False)
            sound = _sound(self._file, f"c{position}", 0, column)
            checked(self._file, f"column {name!r}", column.take(numbers(np.flatnonzero(sound))))
        except CorruptionError:
            column, sound = nulls(rows, kind), np.zeros(rows, np.bool_)
        self._lose(reason, f"{rows - int(sound.sum())} values of column {name!r}")
        return _Values(column, sound)

    def _metadata(self, columns: list[_Values], rows: npt.NDArray[np.int64]) -> Any:
        import pyarrow as pa

        if not columns:
            return None
        arrays = [values.take(rows) for values in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self.segment.columns)


def _sound(file: Container, prefix: str, first: int, column: Any) -> npt.NDArray[np.bool_]:
    """For each value of a column, over sections that may be damaged, whether nothing of it is.

    The sections are numbered from `first` on: validity bits, then values or offsets, then what
    offsets lead to.
    """
    import pyarrow as pa

    kind, count = column.type, len(column)
    sound = _outside(file, f"{prefix}.{first}", 1, count)
    is_list = pa.types.is_list(kind)
    if not (is_list or pa.types.is_string(kind) or pa.types.is_binary(kind)):
        return sound & _outside(file, f"{prefix}.{first + 1}", kind.bit_width, count)
    offsets = f"{prefix}.{first + 1}"
    ends = _outside(file, offsets, 32, count + 1)
    places = file.elements(offsets, "<i4", np.arange(count + 1)).astype(np.int64)
    start, stop = places[:-1], places[1:]
    if is_list:
        bad, unit, length = ~_sound(file, prefix, first + 2, column.values), 1, len(column.values)
    else:
        section = file.sections[f"{prefix}.{first + 2}"]
        bad, unit, length = np.zeros(section.blocks + 1, np.bool_), section.block, section.length
        bad[file.bad_blocks(section.name)] = True
    sound &= ends[:-1] & ends[1:] & (start >= 0) & (start <= stop) & (stop <= length)
    before = np.concatenate([[0], np.cumsum(bad)])  # bad units before each
    start, stop = np.where(sound, start, 0), np.where(sound, stop, 0)
    found: npt.NDArray[np.bool_] = (start == stop) | (
        before[-(-stop // unit)] == before[start // unit]
    )
    return sound & found


def _outside(file: Container, name: str, bits: int, count: int) -> npt.NDArray[np.bool_]:
    """For each of `count` elements of so many bits whether it lies outside the damaged blocks of a
    section, if there is one."""
    sound = np.ones(count, np.bool_)
    if name in file.sections:
        per_block = file.sections[name].block * 8
        for block in file.bad_blocks(name):
            sound[block * per_block // bits : -(-(block + 1) * per_block // bits)] = False
    return sound

"""Metadata columns in the form that conditions are tested on.

A :class:`ColumnData` is made once per column and segment (its codes cost a pass over the text) and
kept with the segment's cached masks. All of them answer for a range of rows at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.filter.bitmap import unpack
from vecdb.filter.values import kind_of, number_type
from vecdb.forking import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.ids import IdColumn

__all__ = ["Bools", "ColumnData", "Ids", "Lists", "Numbers", "Texts", "column_data"]

_SAMPLE = 8_192  # values looked at before a text column is encoded
_MAX_CODES = 65_536


class ColumnData:
    """What all columns share: which rows have a value."""

    def __init__(self, array: pa.Array[Any]) -> None:
        self.type = array.type
        self.array = array
        self.never_null = array.null_count == 0
        self._valid = _view(None if self.never_null else array.buffers()[0], np.uint8)
        self._offset = array.offset

    def valid(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Whether each of the rows has a value; not to be asked when `never_null`: there are no
        bits then, and NumPy unpacks nothing into whatever its memory held before."""
        assert not self.never_null
        return unpack(self._valid, self._offset + start, self._offset + stop)

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the segment's own."""
        return 0


class Bools(ColumnData):
    """A bool column."""

    def __init__(self, array: pa.Array[Any]) -> None:
        super().__init__(array)
        self._bits = _view(array.buffers()[1], np.uint8)

    def flags(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """The values; anything where there is none."""
        return unpack(self._bits, self._offset + start, self._offset + stop)


class Numbers(ColumnData):
    """A column of ints, floats or timestamps, as a view on its Arrow buffer."""

    def __init__(self, array: pa.Array[Any]) -> None:
        super().__init__(array)
        self._numbers = _view(array.buffers()[1], number_type(array.type))[array.offset :][
            : len(array)
        ]

    def numbers(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The values; anything where there is none."""
        return self._numbers[start:stop]


class Ids:
    """The ids of a segment."""

    never_null = True

    def __init__(self, ids: IdColumn, textual: bool) -> None:
        import pyarrow as pa

        self.type: pa.DataType = pa.string() if textual else pa.int64()
        self.textual = textual
        self._ids = ids

    def valid(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Every row has an id."""
        return np.ones(stop - start, np.bool_)

    def numbers(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Integer ids."""
        found: npt.NDArray[np.int64] = self._ids.get(np.arange(start, stop, dtype=np.int64))
        return found

    def texts(self, start: int, stop: int) -> pa.Array[Any]:
        """Text ids."""
        found: pa.Array[Any] = self._ids.all().slice(start, stop - start)
        return found

    def find(self, values: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Rows that have one of the ids, ascending."""
        if self.textual:
            wanted = np.array([*values, None], dtype=object)[:-1]
        else:  # 5.0 is an id, 5.5 and -1 are none
            whole = [int(v) for v in values if 0 <= v < 2**63 and v == int(v)]
            wanted = np.array(whole, dtype=np.int64)
        rows = self._ids.find(wanted)
        return np.sort(rows[rows >= 0])

    @property
    def nbytes(self) -> int:
        """Nothing is held."""
        return 0


class Texts(ColumnData):
    """A column of text or bytes; `codes` number the distinct values when these are few.

    A filter on an encoded column is tested once per distinct value, and then compares codes, not
    text. Encoding is done once.
    """

    def __init__(self, array: pa.Array[Any]) -> None:
        super().__init__(array)
        self.codes: npt.NDArray[Any] | None = None
        self.dictionary: pa.Array[Any] | None = None
        if len(array) >= _SAMPLE and _repeats(array):
            encoded: Any = array.dictionary_encode()
            if len(encoded.dictionary) <= _MAX_CODES:
                small = np.uint8 if len(encoded.dictionary) <= 256 else np.uint16
                self.codes = encoded.indices.fill_null(0).to_numpy().astype(small)
                self.dictionary = encoded.dictionary

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and the distinct values."""
        if self.codes is None or self.dictionary is None:
            return 0
        return int(self.codes.nbytes + self.dictionary.nbytes)


class Lists(ColumnData):
    """A column of lists: the elements of row i are ``elements[offsets[i]:offsets[i + 1]]``."""

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self.offsets: npt.NDArray[np.int32] = array.offsets.to_numpy()
        self.elements = column_data(array.values)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements hold."""
        return self.elements.nbytes


def column_data(array: pa.Array[Any]) -> ColumnData:
    """The column in the form that its type is tested in."""
    kind = kind_of(array.type)
    if kind == "list":
        return Lists(array)
    if kind == "bool":
        return Bools(array)
    return Texts(array) if kind in ("string", "binary") else Numbers(array)


def _view(buffer: Any, dtype: Any) -> npt.NDArray[Any]:
    """An Arrow buffer as an array of whole items; empty when there is none."""
    size = 0 if buffer is None else buffer.size // np.dtype(dtype).itemsize
    return np.frombuffer(buffer if size else b"", dtype, count=size)


def _repeats(array: pa.Array[Any]) -> bool:
    """Whether values come again so often that codes pay, judged by rows from all over."""
    load("pyarrow.compute")
    import pyarrow.compute as pc

    picked = np.linspace(0, len(array) - 1, _SAMPLE).astype(np.int64)
    distinct: int = pc.count_distinct(array.take(picked)).as_py()
    return distinct <= _SAMPLE // 4

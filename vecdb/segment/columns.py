"""Metadata columns in a segment: Arrow's own buffers as sections, read back without a copy.

Column number `i` of the segment has its buffers in sections ``c<i>.0``, ``c<i>.1``, ... in the
order of ``pyarrow.Array.buffers()``; a buffer that Arrow leaves out (no nulls) has no section.
Columns of numbers, booleans and timestamps have zone maps over blocks of 4096 rows in
``c<i>.min``, ``c<i>.max`` (8 bytes a block, 1 for booleans) and ``c<i>.nulls`` (uint16).

Hash first, then validate: Arrow trusts its buffers, a flipped bit in an offset reads beyond them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.schema import type_name

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.container import Container
    from vecdb.segment.writer import ContainerWriter

__all__ = [
    "ZONE_ROWS",
    "BlockStats",
    "check_entry",
    "is_text",
    "nulls",
    "numbers",
    "open_column",
    "open_stats",
    "write_column",
]

ZONE_ROWS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class BlockStats:
    """Zone maps of one column: what each block of :data:`ZONE_ROWS` rows holds.

    Attributes
    ----------
    minimum, maximum : ndarray
        (blocks,) smallest and greatest value, nulls and NaN left aside, in the column's own NumPy
        dtype (int64 for timestamps, uint8 for booleans). A block without any value has
        minimum > maximum.
    null_count : ndarray
        (blocks,) uint16.
    """

    minimum: npt.NDArray[Any]
    maximum: npt.NDArray[Any]
    null_count: npt.NDArray[np.uint16]


def nulls(rows: int, kind: Any) -> pa.Array[Any]:
    """A column without a value."""
    import pyarrow as pa

    column: pa.Array[Any] = pa.nulls(rows, kind)
    return column


def numbers(values: npt.NDArray[Any]) -> pa.Array[Any]:
    """int64 or float32 as Arrow, zero-copy. `pa.array` would import pandas where it is installed,
    to see whether the values are a Series."""
    import pyarrow as pa

    kind = pa.float32() if values.dtype == np.float32 else pa.int64()
    buffer = pa.py_buffer(np.ascontiguousarray(values).data)
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def write_column(writer: ContainerWriter, index: int, column: Any) -> list[Any]:
    """Write one column and its zone maps; returns its entry of the segment's meta.

    Memory: at most one copy of the column.
    """
    import pyarrow as pa

    if column.offset or (pa.types.is_list(column.type) and column.values.offset):
        column = pa.concat_arrays([column, column.slice(0, 0)])  # buffers that start at row 0
    child = 0
    if pa.types.is_list(column.type):
        child = column.offsets[len(column)].as_py() if len(column) else 0
        extents = [*_extents(column.buffers()[:2], column.type, len(column))]
        values = column.values.slice(0, child)
        extents += _extents(values.buffers(), values.type, child)
    else:
        extents = _extents(column.buffers(), column.type, len(column))
    for number, (buffer, size) in enumerate(zip(column.buffers(), extents, strict=True)):
        if buffer is not None:
            writer.add(f"c{index}.{number}", buffer[:size])
    _write_stats(writer, index, column)
    return [type_name(column.type), child]


def open_column(
    container: Container, index: int, kind: pa.DataType, rows: int, *, whole: bool = True
) -> pa.Array[Any]:
    """Column number `index` over the mapped file, hashed and validated; not so with `whole` false:
    then it is the caller who sees to it that nothing is followed that has changed."""
    import pyarrow as pa

    entry = check_entry(container, index, kind)
    child = entry[2]

    def buffers(start: int, stop: int) -> list[pa.Buffer | None]:
        names = [f"c{index}.{number}" for number in range(start, stop)]
        there = container.sections
        return [container.buffer(n, verify=whole) if n in there else None for n in names]

    try:
        if pa.types.is_list(kind):
            width = 3 if is_text(kind.value_type) else 2
            inner = _array(kind.value_type, child, buffers(2, 2 + width), validate=whole)
            column = _array(kind, rows, buffers(0, 2), [inner], validate=whole)
        else:
            width = 3 if is_text(kind) else 2
            column = _array(kind, rows, buffers(0, width), validate=whole)
    except (pa.ArrowException, ValueError) as error:
        raise container.damaged(f"column {entry[0]!r} of {rows} rows", str(error)[:200]) from None
    return column


def open_stats(container: Container, index: int, kind: pa.DataType, rows: int) -> BlockStats | None:
    """Zone maps of a column, None for types that have none."""
    if f"c{index}.min" not in container.sections:
        return None
    blocks = -(-rows // ZONE_ROWS)
    dtype = _stats_dtype(kind)
    return BlockStats(
        container.array(f"c{index}.min", dtype, (blocks,)),
        container.array(f"c{index}.max", dtype, (blocks,)),
        container.array(f"c{index}.nulls", "<u2", (blocks,)),
    )


def _array(
    kind: pa.DataType,
    rows: int,
    buffers: list[Any],
    children: list[Any] | None = None,
    *,
    validate: bool = True,
) -> pa.Array[Any]:
    """from_buffers, with the sizes that validation itself relies on checked before."""
    import pyarrow as pa

    for buffer, size in zip(buffers[:2], _extents(buffers[:2], kind, rows), strict=True):
        if buffer is not None and buffer.size < size:
            raise ValueError(f"{buffer.size} bytes where {size} belong")
    if rows and any(buffer is None for buffer in buffers[1:]):
        raise ValueError("a buffer is missing")
    array = pa.Array.from_buffers(kind, rows, buffers, children=children)
    if validate:
        array.validate(full=True)
    return array


def check_entry(container: Container, index: int, kind: pa.DataType) -> list[Any]:
    """What the segment's meta says of a column: its name, type, and length of the list's values."""
    entry: list[Any] = container.meta["columns"][index]
    if entry[1] != type_name(kind) or not isinstance(entry[2], int) or entry[2] < 0:
        raise container.damaged(f"column {entry[0]!r} of type {kind}", str(entry[1:])[:80])
    return entry


def _extents(buffers: list[Any], kind: pa.DataType, rows: int) -> list[int]:
    """The bytes of each buffer that `rows` rows use (buffers may be longer)."""
    import pyarrow as pa

    bitmap = -(-rows // 8)
    if is_text(kind) or pa.types.is_list(kind):
        extents = [bitmap, 4 * (rows + 1)]
        if len(buffers) > 2:
            offsets = buffers[1]
            used = np.frombuffer(offsets, "<i4")[rows] if rows and offsets is not None else 0
            extents.append(int(used))
        return extents
    return [bitmap, bitmap if kind.bit_width == 1 else rows * (kind.bit_width // 8)]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column is of text or bytes: offsets, and what they lead to."""
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_binary(kind)


def _stats_dtype(kind: pa.DataType) -> Any:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return np.dtype("u1")
    if pa.types.is_timestamp(kind):
        return np.dtype("<i8")
    return np.dtype(kind.to_pandas_dtype()).newbyteorder("<")


def _write_stats(writer: ContainerWriter, index: int, column: pa.Array[Any]) -> None:
    import pyarrow as pa

    kind = column.type
    if is_text(kind) or pa.types.is_list(kind):
        return
    values, null = _values(column)
    starts = np.arange(0, len(values), ZONE_ROWS)
    low, high = _limits(values.dtype)
    missing = null | np.isnan(values) if values.dtype.kind == "f" else null
    nulls = np.add.reduceat(null, starts, dtype=np.uint16) if len(starts) else null
    least = np.where(missing, high, values)
    greatest = np.where(missing, low, values)
    if len(starts):
        least = np.minimum.reduceat(least, starts)
        greatest = np.maximum.reduceat(greatest, starts)
    writer.add(f"c{index}.min", least.astype(_stats_dtype(kind)))
    writer.add(f"c{index}.max", greatest.astype(_stats_dtype(kind)))
    writer.add(f"c{index}.nulls", nulls.astype("<u2"))


def _values(column: pa.Array[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """A column's values as NumPy, zero where null, and where it is null."""
    import pyarrow as pa

    null = np.zeros(len(column), np.bool_)
    if column.null_count:
        null = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if column.null_count:
        column = column.fill_null(0)
    return column.to_numpy(zero_copy_only=False), null


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return dtype.type(-np.inf), dtype.type(np.inf)
    if dtype == np.uint8:
        return np.uint8(0), np.uint8(255)
    info = np.iinfo(dtype)
    return dtype.type(info.min), dtype.type(info.max)

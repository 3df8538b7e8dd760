"""Rows of a snapshot as Arrow tables, and bitmaps as row numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import ArgumentError, SchemaError, describe
from vecdb.forking import load
from vecdb.segment import take
from vecdb.segment.columns import numbers

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.schema import Schema
    from vecdb.store import Part, Snapshot
    from vecdb.workers import Workers

__all__ = ["bitmap_rows", "check_count", "columns_of", "gather", "ids", "page"]

Select = str | Sequence[str] | None


def columns_of(select: Select, schema: Schema, default: Sequence[str]) -> list[str]:
    """The names behind a `select=` argument: None is `default`, ``"*"`` every metadata column.

    ``"vector"`` may be selected too; ``"id"`` always comes and is dropped here.
    """
    known = [] if schema.columns is None else schema.columns.names
    if select is None:
        return list(default)
    if isinstance(select, str):
        select = known if select == "*" else [select]
    elif not isinstance(select, Iterable):
        select = [select]
    wanted = [name for name in select if name != "id"]
    for name in wanted:
        if name not in known and name != "vector":
            raise SchemaError(
                describe(
                    "select",
                    expected=f"columns out of {', '.join([*known, 'vector'])}"[:300],
                    got=repr(name),
                    fix='leave it out, or select="*" for all',
                )
            )
    return list(dict.fromkeys(wanted))


def bitmap_rows(bitmap: npt.NDArray[np.uint8] | None, rows: int) -> npt.NDArray[np.int64]:
    """Row numbers of the set bits, ascending; all rows for None."""
    if bitmap is None:
        return np.arange(rows, dtype=np.int64)
    return np.flatnonzero(np.unpackbits(bitmap, count=rows, bitorder="little"))


def gather(
    snapshot: Snapshot,
    parts: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    names: Sequence[str],
    workers: Workers | None = None,
) -> pa.Table:
    """The rows ``(parts[i], rows[i])`` in that order: ``id`` and the named columns, in several
    chunks where a text column comes to more than the 2 GiB that Arrow's offsets reach."""
    load("pyarrow")
    import pyarrow as pa

    try:
        return _gather(snapshot, parts, rows, names, workers)
    except pa.ArrowInvalid:
        half = len(rows) // 2
        if not half:
            raise
        halves = (slice(half), slice(half, None))
        return pa.concat_tables(gather(snapshot, parts[h], rows[h], names, workers) for h in halves)


def _gather(
    snapshot: Snapshot,
    parts: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    names: Sequence[str],
    workers: Workers | None,
) -> pa.Table:
    used = sorted(set(parts.tolist()))
    if not used:
        return empty_table(snapshot.schema, names)
    if len(used) == 1:
        return _take(snapshot, [(snapshot.parts[used[0]], rows)], names, workers=workers)
    places = np.argsort(parts, kind="stable")
    starts = np.searchsorted(parts[places], used)
    own = [
        (snapshot.parts[part], rows[mine])
        for part, mine in zip(used, np.split(places, starts[1:]), strict=True)
    ]
    return _take(snapshot, own, names, places, workers)


def ids(
    snapshot: Snapshot, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """The ids of the rows ``(parts[i], rows[i])``: int64, or object holding str."""
    if len(snapshot.parts) == 1:
        return snapshot.parts[0].data.ids.get(rows)
    out = np.empty(len(rows), object if snapshot.schema.ids == "string" else np.int64)
    for number in np.unique(parts).tolist():
        mine = parts == number
        out[mine] = snapshot.parts[number].data.ids.get(rows[mine])
    return out


def page(
    snapshot: Snapshot,
    allowed: Sequence[npt.NDArray[np.uint8] | None],
    names: Sequence[str],
    limit: int | None,
    offset: int,
) -> pa.Table:
    """Rows `offset` to ``offset + limit`` of those whose bit is set, in stored order.

    A part without a bitmap gives slices of its mapped columns, zero-copy.
    """
    import pyarrow as pa

    left = snapshot.rows if limit is None else limit
    tables = []
    for part, bitmap in zip(snapshot.parts, allowed, strict=True):
        if left <= 0:
            break
        if bitmap is None:
            passing = part.data.rows
            start = min(offset, passing)
            stop = min(start + left, passing)
            tables.append(_slice(snapshot, part, start, stop, names))
        else:
            rows = bitmap_rows(bitmap, part.data.rows)
            passing = len(rows)
            start = min(offset, passing)
            stop = min(start + left, passing)
            tables.append(_take(snapshot, [(part, rows[start:stop])], names))
        offset -= start
        left -= stop - start
    return pa.concat_tables(tables) if tables else empty_table(snapshot.schema, names)


def _slice(snapshot: Snapshot, part: Part, start: int, stop: int, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    data = part.data
    arrays: list[Any] = [_ids(data.ids.get(np.arange(start, stop, dtype=np.int64)))]
    for name in names:
        if name == "vector":
            arrays.append(_vectors(data.vectors[start:stop]))
        else:
            arrays.append(data.column(name).slice(start, stop - start))
    return pa.Table.from_arrays(arrays, schema=_table_schema(snapshot, names))


def empty_table(schema: Schema, names: Sequence[str]) -> pa.Table:
    """A table of no rows with the columns that a gather would give."""
    return _new_table_schema(schema, names).empty_table()


def _take(
    snapshot: Snapshot,
    wanted: Sequence[tuple[Part, npt.NDArray[np.int64]]],
    names: Sequence[str],
    places: npt.NDArray[np.int64] | None = None,
    workers: Workers | None = None,
) -> pa.Table:
    """Rows of some parts, at their places in the table, else one after the other."""
    import pyarrow as pa

    stored = [name for name in names if name != "vector"]
    found = _columns(wanted, stored, places, workers) if stored else ()
    columns = dict(zip(stored, found, strict=True))
    if "vector" in names:
        columns["vector"] = _vectors(_placed([p.data.vectors[rows] for p, rows in wanted], places))
    ids = _ids(_placed([part.data.ids.get(rows) for part, rows in wanted], places))
    arrays = [ids, *(columns[name] for name in names)]
    return pa.Table.from_arrays(arrays, schema=_table_schema(snapshot, names))


def _placed(
    pieces: list[npt.NDArray[Any]], places: npt.NDArray[np.int64] | None
) -> npt.NDArray[Any]:
    found = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if places is None:
        return found
    placed = np.empty_like(found)
    placed[places] = found
    return placed


def _columns(
    wanted: Sequence[tuple[Part, npt.NDArray[np.int64]]],
    names: Sequence[str],
    places: npt.NDArray[np.int64] | None,
    workers: Workers | None,
) -> list[Any]:
    """The columns of :func:`_take`: of the segments together, of each memtable by itself."""
    import pyarrow as pa

    segments = [(part.segment, rows) for part, rows in wanted if part.data.files]
    if len(segments) == len(wanted):
        return take(segments, names, places, workers)
    load("pyarrow.compute")  # what Arrow's own take would import
    memtables: list[tuple[Any, npt.NDArray[np.int64]]]
    memtables = [(part.data, rows) for part, rows in wanted if not part.data.files]
    chunks = [data.take(names, rows) for data, rows in memtables]  # they come last
    if segments:
        chunks.insert(0, take(segments, names, workers=workers))
    columns = [pa.concat_arrays(column) for column in zip(*chunks, strict=True)]
    if places is None:
        return columns
    order = numbers(np.argsort(places))
    return [column.take(order) for column in columns]


def _table_schema(snapshot: Snapshot, names: Sequence[str]) -> pa.Schema:
    """The schema of a table of these columns, which the snapshot remembers."""
    key = "table", *names
    schema: pa.Schema | None = snapshot.memo.get(key)
    if schema is None:
        schema = snapshot.memo[key] = _new_table_schema(snapshot.schema, names)
    return schema


def _new_table_schema(schema: Schema, names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    fields: list[pa.Field[Any]] = [
        pa.field("id", pa.string() if schema.ids == "string" else pa.int64())
    ]
    for name in names:
        if name == "vector":
            fields.append(pa.field("vector", pa.list_(pa.float32(), schema.dim)))
        else:
            assert schema.columns is not None
            fields.append(schema.columns.field(name))
    return pa.schema(fields)


def _ids(ids: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    return pa.array(ids, pa.string()) if ids.dtype == object else numbers(ids)


def _vectors(vectors: npt.NDArray[Any]) -> Any:
    """(n, dim) as an Arrow FixedSizeList of float32; zero-copy when float32 already."""
    import pyarrow as pa

    flat = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(numbers(flat), vectors.shape[1])


def check_count(name: str, value: object, *, low: int) -> int:
    """`value` as an int of at least `low` (NumPy integers are welcome), or ArgumentError."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= low:
        return int(value)
    raise ArgumentError(
        describe(name, expected=f"an integer >= {low}", got=repr(value), fix=f"pass {name}={low}")
    )

"""Metadata of every form that users bring, made into one Arrow record batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vecdb.errors import SchemaError, describe
from vecdb.forking import load
from vecdb.schema import Schema, check_name, columns_from

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_metadata"]

# by the name of the Arrow type; int stands for float too, but not the other way round
_PYTHON_TYPES: dict[str, frozenset[type]] = {
    "bool": frozenset((bool, type(None))),
    "string": frozenset((str, type(None))),
    "binary": frozenset((bytes, type(None))),
    "double": frozenset((float, int, type(None))),
    **{
        f"{sign}int{bits}": frozenset((int, type(None)))
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def as_metadata(data: Any, rows: int, schema: Schema) -> tuple[pa.RecordBatch | None, Schema]:
    """Metadata as one record batch in the schema's order, and the schema it belongs to.

    A collection without a schema takes its columns from the first metadata that arrives. A column
    that is left out is null in these rows.

    Parameters
    ----------
    data : Arrow table or batch, pandas or polars frame, dict of columns, list of dicts, or None
        Anything with the Arrow C stream interface is taken without a copy where types agree.

    Raises
    ------
    SchemaError
        Wrong number of rows, an unknown column, a value of the wrong type.
    """
    load("pyarrow")
    import pyarrow as pa

    if data is None:
        return (None if schema.columns is None else _nulls(rows, schema.columns)), schema
    whole = _as_it_is(data, rows, schema)
    if whole is not None:
        return whole, schema
    arrays = _as_arrays(data, schema)
    for name, array in arrays.items():
        if len(array) != rows:
            raise SchemaError(
                describe(f"metadata column {name!r}", expected=f"{rows} rows, as many as vectors",
                         got=f"{len(array)}", fix="pass one metadata row per vector")
            )  # fmt: skip
    if schema.columns is None:
        if not arrays:
            return None, schema
        inferred = columns_from([(name, array.type) for name, array in arrays.items()])
        schema = dataclasses.replace(schema, columns=inferred)
    columns = schema.columns
    assert columns is not None
    _refuse_unknown(arrays, columns)
    stored = [
        _cast(arrays[field.name], field) if field.name in arrays else pa.nulls(rows, field.type)
        for field in columns
    ]
    return pa.RecordBatch.from_arrays(stored, schema=columns), schema


def _as_it_is(data: Any, rows: int, schema: Schema) -> pa.RecordBatch | None:
    """Arrow data that needs no change: 2 us instead of 30, which counts for single rows."""
    import pyarrow as pa

    if not isinstance(data, (pa.Table, pa.RecordBatch)) or data.num_rows != rows:
        return None
    if schema.columns is None or not data.schema.equals(schema.columns, check_metadata=True):
        return None
    batches = data.to_batches() if isinstance(data, pa.Table) else [data]
    return batches[0] if len(batches) == 1 else None


def _as_arrays(data: Any, schema: Schema) -> dict[str, Any]:
    """One Arrow array per column, of the type that its values have."""
    import pyarrow as pa

    try:
        if type(data).__module__.partition(".")[0] == "pandas":  # its stream carries the index
            return _from_table(pa.Table.from_pandas(data, preserve_index=False))
        if hasattr(data, "__arrow_c_stream__"):
            return _from_table(pa.table(data))
        if hasattr(data, "__arrow_c_array__"):
            return _from_table(pa.table(pa.record_batch(data)))
        if isinstance(data, Mapping):
            return _from_columns(data, schema)
        if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
            return _from_columns(_pivot(data), schema, of_records=True)
    except (pa.ArrowException, OverflowError) as error:
        raise SchemaError(
            describe("metadata", expected="columns of one Arrow type each", got=str(error)[:300],
                     fix="give every row of a column the same type")
        ) from None  # fmt: skip
    raise SchemaError(
        describe("metadata",
                 expected="an Arrow table, a data frame, a dict of columns or a list of dicts",
                 got=type(data).__name__, fix="for one row pass [{'year': 2024}]")
    )  # fmt: skip


def _from_table(table: pa.Table) -> dict[str, Any]:
    if len(set(table.column_names)) < table.num_columns:
        raise SchemaError(
            describe("metadata", expected="each column once",
                     got=", ".join(table.column_names)[:300], fix="rename the repeated columns")
        )  # fmt: skip
    return {
        name: column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _pivot(records: Sequence[Any]) -> dict[str, list[Any]]:
    """Columns of a list of dicts, in order of first appearance; a missing key is None."""
    names: dict[Any, None] = {}
    for position, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise SchemaError(
                describe("metadata", expected="a dict per row",
                         got=f"{type(record).__name__} at position {position}",
                         fix="pass [{'year': 2024}, ...]")
            )  # fmt: skip
        names.update(dict.fromkeys(record))
    return {name: [record.get(name) for record in records] for name in names}


def _from_columns(
    columns: Mapping[Any, Any], schema: Schema, of_records: bool = False
) -> dict[str, Any]:
    if schema.columns is None:
        for name in columns:
            check_name(name)
    else:
        _refuse_unknown(columns, schema.columns)
    arrays = {}
    for name, values in columns.items():
        if not of_records and (isinstance(values, (str, bytes)) or not hasattr(values, "__len__")):
            raise SchemaError(
                describe(f"metadata column {name!r}", expected="a list or array of values",
                         got=f"{values!r:.100}", fix=f"for one row pass {{{name!r}: [value]}}")
            )  # fmt: skip
        field = None if schema.columns is None else schema.columns.field(name)
        arrays[name] = _inferred(name, values, field)
    return arrays


def _inferred(name: str, values: Any, field: pa.Field[Any] | None) -> Any:
    """Values as an Arrow array of the type that they have; `_cast` then changes it where nothing
    is lost. (Converting straight to the column's type would cut 1.5 to 1 and split text.)"""
    import pyarrow as pa

    try:
        if field is not None and _fits(values, field):
            return pa.array(values, field.type, from_pandas=True)
        try:
            return pa.array(values, from_pandas=True)
        except OverflowError:  # beyond int64: only a uint64 column can take it
            return pa.array(values, None if field is None else field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SchemaError(
            describe(f"metadata column {name!r}",
                     expected="values of one Arrow type" if field is None else str(field.type),
                     got=str(error)[:200], fix="give every row of the column the same type")
        ) from None  # fmt: skip


def _fits(values: Any, field: pa.Field[Any]) -> bool:
    """Whether every value is of the Python type that belongs to the column: the quick way for
    lists, a third of the cost of inferring the type first."""
    if type(values) is not list:
        return False
    expected = _PYTHON_TYPES.get(str(field.type))
    return expected is not None and expected.issuperset(map(type, values))


def _refuse_unknown(names: Iterable[Any], columns: pa.Schema) -> None:
    import difflib

    known = columns.names
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
            raise SchemaError(
                describe("metadata", expected=f"columns {', '.join(known)}"[:300], got=f"{name!r}",
                         fix=f"{hint}add it first: col.add_columns({{...}})")
            )  # fmt: skip


def _cast(array: pa.Array[Any], field: pa.Field[Any]) -> pa.Array[Any]:
    """The array in the column's type, or SchemaError where a value would change."""
    import pyarrow as pa

    if array.type == field.type:
        return array
    from_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    to_text = pa.types.is_string(field.type)
    try:
        if array.null_count < len(array) and (
            (to_text and columns_from({"x": array.type}).field(0).type != field.type)
            or (from_text and not (to_text or pa.types.is_timestamp(field.type)))
        ):
            raise pa.ArrowInvalid(f"{array.type} values")
        if isinstance(array, pa.DictionaryArray):  # Arrow decodes none of string views
            return array.dictionary.cast(field.type).take(array.indices)
        return array.cast(field.type)
    except (pa.ArrowException, SchemaError) as error:
        raise SchemaError(
            describe(f"metadata column {field.name!r}", expected=f"{field.type}",
                     got=f"{array.type} ({str(error)[:200]})", fix="convert the values first")
        ) from None  # fmt: skip


def _nulls(rows: int, columns: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.nulls(rows, f.type) for f in columns], schema=columns)

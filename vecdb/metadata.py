"""Metadata of every form that users bring, made into one Arrow record batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vecdb.errors import SchemaError, describe
from vecdb.schema import Schema, check_name, columns_from

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_metadata"]


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
    import pyarrow as pa

    if data is None:
        return (None if schema.columns is None else _nulls(rows, schema.columns)), schema
    table = _as_table(data, schema)
    if table.num_rows != rows and not (table.num_columns == 0 and rows == 0):
        raise SchemaError(
            describe(
                "metadata",
                expected=f"{rows} rows, as many as vectors",
                got=f"{table.num_rows}",
                fix="pass one metadata row per vector",
            )
        )
    if schema.columns is None:
        if not table.num_columns:
            return None, schema
        schema = dataclasses.replace(schema, columns=columns_from(table.schema))
    columns = schema.columns
    assert columns is not None
    _refuse_unknown(table.column_names, columns)
    arrays = [
        _cast(table.column(field.name), field)
        if field.name in table.column_names
        else pa.nulls(rows, field.type)
        for field in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns), schema


def _as_table(data: Any, schema: Schema) -> pa.Table:
    import pyarrow as pa

    try:
        if type(data).__module__.partition(".")[0] == "pandas":  # its stream carries the index
            return pa.Table.from_pandas(data, preserve_index=False)
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data)
        if hasattr(data, "__arrow_c_array__"):
            return pa.table(pa.record_batch(data))
        if isinstance(data, Mapping):
            return _from_columns(data, schema)
        if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
            return _from_columns(_pivot(data), schema, of_records=True)
    except (pa.ArrowException, OverflowError) as error:
        raise SchemaError(
            describe(
                "metadata",
                expected="columns of one Arrow type each",
                got=str(error)[:300],
                fix="give every row of a column the same type",
            )
        ) from None
    raise SchemaError(
        describe(
            "metadata",
            expected="an Arrow table, a data frame, a dict of columns or a list of dicts",
            got=type(data).__name__,
            fix="for one row pass [{'year': 2024}]",
        )
    )


def _pivot(records: Sequence[Any]) -> dict[str, list[Any]]:
    """Columns of a list of dicts, in order of first appearance; a missing key is None."""
    names: dict[Any, None] = {}
    for position, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise SchemaError(
                describe(
                    "metadata",
                    expected="a dict per row",
                    got=f"{type(record).__name__} at position {position}",
                    fix="pass [{'year': 2024}, ...]",
                )
            )
        names.update(dict.fromkeys(record))
    return {name: [record.get(name) for record in records] for name in names}


def _from_columns(columns: Mapping[Any, Any], schema: Schema, of_records: bool = False) -> pa.Table:
    import pyarrow as pa

    for name in columns:
        check_name(name)
    if schema.columns is not None:
        _refuse_unknown(list(columns), schema.columns)
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        if not of_records and (isinstance(values, (str, bytes)) or not hasattr(values, "__len__")):
            raise SchemaError(
                describe(
                    f"metadata column {name!r}",
                    expected="a list or array of values",
                    got=f"{values!r:.100}",
                    fix=f"for one row pass {{{name!r}: [value]}}",
                )
            )
        field = None if schema.columns is None else schema.columns.field(name)
        arrays[name] = _inferred(name, values, field)
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SchemaError(
            describe(
                "metadata",
                expected="columns of equal length",
                got=str(lengths)[:300],
                fix="give each column one value per vector",
            )
        )
    return pa.table(arrays)


def _inferred(name: str, values: Any, field: pa.Field[Any] | None) -> Any:
    """Values as an Arrow array of the type that they have; `_cast` then changes it where nothing
    is lost. (Converting straight to the column's type would cut 1.5 to 1 and split text.)"""
    import pyarrow as pa

    try:
        try:
            return pa.array(values, from_pandas=True)
        except OverflowError:  # beyond int64: only a uint64 column can take it
            return pa.array(values, None if field is None else field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SchemaError(
            describe(
                f"metadata column {name!r}",
                expected="values of one Arrow type" if field is None else str(field.type),
                got=str(error)[:200],
                fix="give every row of the column the same type",
            )
        ) from None


def _refuse_unknown(names: list[Any], columns: pa.Schema) -> None:
    import difflib

    for name in names:
        if name not in columns.names:
            near = difflib.get_close_matches(str(name), columns.names, 1)
            hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
            raise SchemaError(
                describe(
                    "metadata",
                    expected=f"columns {', '.join(columns.names)}"[:300],
                    got=f"{name!r}",
                    fix=f"{hint}add it first: col.add_columns({{...}})",
                )
            )


def _cast(column: pa.ChunkedArray[Any], field: pa.Field[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
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
        return array.cast(field.type)
    except (pa.ArrowException, SchemaError) as error:
        raise SchemaError(
            describe(
                f"metadata column {field.name!r}",
                expected=f"{field.type}",
                got=f"{array.type} ({str(error)[:200]})",
                fix="convert the values first",
            )
        ) from None


def _nulls(rows: int, columns: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.nulls(rows, f.type) for f in columns], schema=columns)

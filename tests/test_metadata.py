from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from vecdb.errors import SchemaError
from vecdb.metadata import as_metadata
from vecdb.schema import Schema, columns_from

PLAIN = Schema(dim=3)
COLUMNS = columns_from({"year": int, "lang": str, "tags": "list<string>"})
RECORDS = [{"year": 1999, "lang": "en", "tags": ["a"]}, {"year": None, "tags": []}]
WHOLE = {"year": [1999, None], "lang": ["en", None], "tags": [["a"], []]}


@pytest.mark.parametrize(
    "data",
    [
        RECORDS,
        WHOLE,
        pa.table(WHOLE),
        pa.record_batch(WHOLE),
        pl.DataFrame(WHOLE),
        pd.DataFrame({**WHOLE, "year": pd.array([1999, None], dtype="Int64")}),
    ],
    ids=["records", "columns", "table", "batch", "polars", "pandas"],
)
def test_metadata_of_every_kind_comes_out_as_the_same_batch(data: Any) -> None:
    for schema in (Schema(dim=3, columns=COLUMNS), PLAIN):
        batch, seen = as_metadata(data, 2, schema)
        assert batch is not None
        assert seen.columns == COLUMNS
        assert batch.schema == COLUMNS
        assert batch.to_pydict() == WHOLE


def test_a_pandas_index_is_no_column() -> None:
    frame = pd.DataFrame({"year": [1, 2, 3]}).iloc[[2, 0]]
    batch, _ = as_metadata(frame, 2, PLAIN)
    assert batch is not None
    assert batch.to_pydict() == {"year": [3, 1]}


def test_columns_left_out_are_null_and_come_in_the_schemas_order() -> None:
    batch, _ = as_metadata({"lang": ["en"], "year": [1]}, 1, Schema(dim=3, columns=COLUMNS))
    assert batch is not None
    assert batch.to_pylist() == [{"year": 1, "lang": "en", "tags": None}]
    batch, _ = as_metadata(None, 2, Schema(dim=3, columns=COLUMNS))
    assert batch is not None
    assert batch.column("year").null_count == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"year": [1]}, "rows"),
        (
            pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["year", "year"]),
            "each column once",
        ),
        ({"yeer": [1, 2]}, "did you mean 'year'"),
        ({"year": ["1999", "2000"]}, "'year': expected int64"),
        ({"year": [1.5, 2.5]}, "'year': expected int64"),
        ({"year": [2**63, 1]}, "'year'"),
        ({"lang": [1, 2]}, "'lang': expected string"),
        ({"tags": ["a", "b"]}, "'tags'"),
        ({"year": [1, 2], "lang": ["a"]}, "'lang': expected 2 rows"),
        ({"year": 3}, "list or array"),
        ({"lang": "ab"}, "list or array"),
        ([{"year": 1}, 5], "dict per row"),
        ("year", "a list of dicts"),
        (7, "a list of dicts"),
        ({"year": [1, "x"]}, "'year': expected int64"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        as_metadata(data, 2, Schema(dim=3, columns=COLUMNS))


def test_values_are_converted_only_where_nothing_changes() -> None:
    schema = Schema(dim=3, columns=columns_from({"t": "timestamp[us]", "x": float}))
    batch, _ = as_metadata({"t": ["2024-05-01"], "x": [3]}, 1, schema)
    assert batch is not None
    assert batch.to_pylist() == [{"t": dt.datetime(2024, 5, 1), "x": 3.0}]


def test_the_first_metadata_names_the_columns_and_refuses_reserved_names() -> None:
    with pytest.raises(SchemaError, match="reserved"):
        as_metadata({"id": [1]}, 1, PLAIN)
    with pytest.raises(SchemaError, match="column name"):
        as_metadata([{5: 1}], 1, PLAIN)

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import ArgumentError, SchemaError
from vecdb.schema import Hnsw, Schema, columns_from, type_from_name, type_name

NAMES = [
    "bool",
    "int8",
    "int64",
    "uint32",
    "float32",
    "float64",
    "string",
    "binary",
    "timestamp[s]",
    "timestamp[us, tz=UTC]",
    "timestamp[ns, tz=Europe/Paris]",
    "list<string>",
    "list<int64>",
]


@given(st.lists(st.sampled_from(NAMES), max_size=8), st.sampled_from(["cosine", "l2", "ip"]))
def test_a_schema_survives_json(kinds: list[str], metric: Any) -> None:
    columns = columns_from({f"c{i}": kind for i, kind in enumerate(kinds)})
    schema = Schema(dim=7, metric=metric, ids="string", index=Hnsw(M=8), columns=columns)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize("name", NAMES)
def test_a_type_name_names_its_type(name: str) -> None:
    kind = type_from_name(name)
    assert kind is not None
    assert type_name(kind) == name


@pytest.mark.parametrize(
    "kind",
    [pa.struct([("a", pa.int8())]), pa.decimal128(10), pa.list_(pa.list_(pa.int8())), "int", 3],
)
def test_a_type_that_cannot_be_stored_is_refused(kind: Any) -> None:
    with pytest.raises(SchemaError, match="column 'x'"):
        columns_from({"x": kind})


@pytest.mark.parametrize(
    ("given_type", "stored"),
    [
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.large_list(pa.large_string()), "list<string>"),
        (pa.date32(), "timestamp[s]"),
        (int, "int64"),
        (str, "string"),
    ],
)
def test_variants_of_a_type_are_stored_in_its_plain_form(given_type: Any, stored: str) -> None:
    assert type_name(columns_from({"x": given_type}).field("x").type) == stored


@pytest.mark.parametrize("name", ["id", "vector", "distance", "score", "query", "", "a\nb", 7])
def test_a_reserved_or_unprintable_column_name_is_refused(name: Any) -> None:
    with pytest.raises(SchemaError, match="column name"):
        columns_from([(name, "int64")])


def test_a_column_stands_once() -> None:
    with pytest.raises(SchemaError, match="twice"):
        columns_from([("a", "int64"), ("a", "string")])
    with pytest.raises(SchemaError, match="already"):
        Schema(dim=1, columns=columns_from({"a": int})).with_columns(columns_from({"a": int}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"dim": 1.5},
        {"dim": True},
        {"dim": 10**9},
        {"metric": "dot"},
        {"ids": "uuid"},
        {"dtype": "int8"},
        {"index": "hnsw"},
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Schema(**{"dim": 4, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"M": 3}, {"M": 65}, {"ef_construction": 7}, {"codes": "pq"}, {"seed": -1}]
)
def test_a_graph_parameter_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Hnsw(**wrong)

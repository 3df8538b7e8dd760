"""Filters against a naive three-valued evaluation in plain Python, in every spelling."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecdb.filter import columns, evaluate, leaves
from vecdb.filter.expr import And, Compare, Expr, Has, IsIn, IsNull, Match, Not, Or, col
from vecdb.filter.parse import parse
from vecdb.schema import Schema
from vecdb.segment import bitmap

COLUMNS = pa.schema(
    {
        "flag": pa.bool_(),
        "tiny": pa.int8(),
        "huge": pa.uint64(),
        "count": pa.int64(),
        "single": pa.float32(),
        "double": pa.float64(),
        "text": pa.string(),
        "blob": pa.binary(),
        "seen": pa.timestamp("ms"),
        "made": pa.timestamp("s", "UTC"),
        "tags": pa.list_(pa.string()),
        "sizes": pa.list_(pa.int32()),
    }
)
SCHEMA = Schema(dim=2, columns=COLUMNS)
TEXTS = ["", "a", "ab", "abc", "ba", "b%", "a_b", "\\", "ä", "日本", "a\nb", "'quoted'"]
NUMBERS = [-129, -1, 0, 1, 2, 7, 127, 128, 255, 2**53 + 1, 2**63 - 1, 2**64 - 1, 2**70]
FLOATS = [-math.inf, -1.5, -0.0, 0.1, 0.5, 1.0, 16777217.0, 1e39, 1e-50, math.inf]
TIMES = [dt.datetime(1969, 12, 31, 23, 59, 59), dt.datetime(2020, 5, 17), dt.datetime(2262, 1, 1)]


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Values that a row may hold in a column."""
    return {
        "flag": st.booleans(),
        "tiny": st.sampled_from([-128, -1, 0, 1, 7, 127]),
        "huge": st.sampled_from([0, 1, 2**53 + 1, 2**64 - 1]),
        "count": st.sampled_from([-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1]),
        "single": st.sampled_from([*FLOATS[:-2], math.inf, math.nan]),
        "double": st.sampled_from([*FLOATS, math.nan]),
        "text": st.sampled_from(TEXTS),
        "blob": st.sampled_from([b"", b"\0", b"\xff", b"ab"]),
        "seen": st.sampled_from(TIMES),
        "made": st.sampled_from([time.replace(tzinfo=dt.UTC) for time in TIMES]),
        "tags": st.lists(st.one_of(st.none(), st.sampled_from(TEXTS[:4])), max_size=3),
        "sizes": st.lists(st.one_of(st.none(), st.sampled_from([0, 1, 2**31 - 1])), max_size=3),
    }[name]


def operands_of(name: str) -> st.SearchStrategy[Any]:
    """Values that a filter may compare a column with: also ones the column can't hold."""
    if name in ("tiny", "huge", "count", "single", "double"):
        return st.one_of(st.sampled_from(NUMBERS), st.sampled_from(FLOATS))
    if name == "seen":
        return st.sampled_from([*TIMES, "2020-05-17", "2020-05-17T00:00:00.0000001"])
    if name == "made":
        return st.sampled_from(["2020-05-17", "2020-05-17 02:00:00+02:00", dt.date(2020, 5, 17)])
    if name == "sizes":
        return st.sampled_from([0, 1, 1.5, 2**40])
    return st.sampled_from(TEXTS[:4]) if name == "tags" else values_of(name)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A few rows with nulls, as arrays that begin behind the start of their buffers."""
    rows = draw(st.integers(0, 40))
    skip = draw(st.sampled_from([0, 3, 8]))
    arrays = [
        pa.array(
            draw(st.lists(st.one_of(st.none(), values_of(field.name)),
                          min_size=rows + skip, max_size=rows + skip)),
            field.type,
        ).slice(skip)
        for field in COLUMNS
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)


@st.composite
def leaves_of(draw: st.DrawFn) -> Expr:
    name = draw(st.sampled_from(COLUMNS.names))
    shape = draw(st.sampled_from(["null", "compare", "in", "other"]))
    if shape == "null":
        return IsNull(name)
    some = st.lists(operands_of(name), min_size=1, max_size=12)
    if name in ("tags", "sizes"):
        return Has(name, tuple(draw(some)), draw(st.booleans()))
    if shape == "in":
        return IsIn(name, tuple(draw(some)))
    if name == "text" and shape == "other":
        pattern = draw(
            st.sampled_from(["", "a", "b", "%", "a%", "_", "%b%", "a_b", r"a\_b", r"\\"])
        )
        kind = draw(st.sampled_from(["like", "startswith", "endswith", "contains"]))
        return Match(name, kind, pattern)
    ops = ["==", "!="] if name == "flag" else ["==", "!=", "<", "<=", ">", ">="]
    return Compare(name, draw(st.sampled_from(ops)), draw(operands_of(name)))


def trees() -> st.SearchStrategy[Expr]:
    def branch(children: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        some = st.lists(children, min_size=2, max_size=3).map(tuple)
        return st.one_of(some.map(And), some.map(Or), children.map(Not))

    return st.recursive(leaves_of(), branch, max_leaves=6)


# -- the oracle: True, False or None for one row ---------------------------------------------------


def holds(expr: Expr, row: dict[str, Any]) -> bool | None:  # noqa: PLR0911 - one per condition
    match expr:
        case Not(operand):
            found = holds(operand, row)
            return None if found is None else not found
        case And(operands):
            found_all = [holds(operand, row) for operand in operands]
            return False if False in found_all else None if None in found_all else True
        case Or(operands):
            found_all = [holds(operand, row) for operand in operands]
            return True if True in found_all else None if None in found_all else False
        case IsNull(name):
            return row[name] is None
    value = row[expr.column]
    if value is None:
        return None
    match expr:
        case Compare(_, op, operand):
            return compare(comparable(value), op, comparable(operand))
        case IsIn(_, values):
            return any(comparable(value) == comparable(other) for other in values)
        case Has(_, values, every):
            found_all = [any(v is not None and v == other for v in value) for other in values]
            return all(found_all) if every else any(found_all)
        case Match(_, kind, text):
            return matches(value, kind, text)
    raise AssertionError(expr)


def compare(left: Any, op: str, right: Any) -> bool:
    return {
        "==": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
        ">": left > right, ">=": left >= right,
    }[op]  # fmt: skip


def comparable(value: Any) -> Any:
    """Times as nanoseconds; Python compares everything else exactly."""
    if isinstance(value, str) and re.match(r"\d{4}-", value):
        fraction = value.partition(".")[2]
        moment = dt.datetime.fromisoformat(value.partition(".")[0])
        return comparable(moment) + int(fraction.ljust(9, "0") or 0)
    if isinstance(value, dt.datetime):
        value = value.replace(tzinfo=value.tzinfo or dt.UTC)
        return (
            (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000
        )
    if isinstance(value, dt.date):
        return comparable(dt.datetime(value.year, value.month, value.day))
    return value


def matches(value: str, kind: str, text: str) -> bool:
    if kind != "like":
        return {"startswith": value.startswith, "endswith": value.endswith,
                "contains": value.__contains__}[kind](text)  # fmt: skip
    pattern, literal = "", False
    for character in text:
        if not literal and character == "\\":
            literal = True
            continue
        special = {"%": ".*", "_": "."}.get(character) if not literal else None
        pattern += special or re.escape(character)
        literal = False
    return re.fullmatch(pattern, value, re.DOTALL) is not None


# -- other spellings -------------------------------------------------------------------------------


def as_sql(expr: Expr, params: list[Any]) -> str:  # noqa: PLR0911 - one per condition
    def value(given: Any) -> str:
        if isinstance(given, bool):
            return str(given).upper()
        if isinstance(given, int):
            return str(given)
        if isinstance(given, str):
            return "'" + given.replace("'", "''") + "'"
        params.append(given)
        return "?"

    match expr:
        case Not(operand):
            return f"NOT ({as_sql(operand, params)})"
        case And(operands) | Or(operands):
            word = " AND " if isinstance(expr, And) else " OR "
            return "(" + word.join(as_sql(operand, params) for operand in operands) + ")"
        case IsNull(name):
            return f'"{name}" IS NULL'
        case Compare(name, op, operand):
            return f'"{name}" {"=" if op == "==" else op} {value(operand)}'
        case IsIn(name, values):
            return f'"{name}" IN ({", ".join(map(value, values))})'
        case Has(name, values, every):
            listed = ", ".join(map(value, values))
            return f'has_{"all" if every else "any"}("{name}", [{listed}])'
        case Match(name, "like", text):
            return f'"{name}" LIKE {value(text)}'
        case Match(name, kind, text):
            function = {"startswith": "starts_with", "endswith": "ends_with"}.get(kind, kind)
            return f'{function}("{name}", {value(text)})'
    raise AssertionError(expr)


def as_mongo(expr: Expr) -> dict[str, Any]:  # noqa: PLR0911 - one per condition
    match expr:
        case Not(operand):
            return {"$not": as_mongo(operand)}
        case And(operands):
            return {"$and": [as_mongo(operand) for operand in operands]}
        case Or(operands):
            return {"$or": [as_mongo(operand) for operand in operands]}
        case IsNull(name):
            return {name: None}
        case Compare(name, op, operand):
            word = {"==": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[op]
            return {name: {f"${word}": operand}}
        case IsIn(name, values):
            return {name: {"$in": list(values)}}
        case Has(name, values, every):
            return {name: {f"$has_{'all' if every else 'any'}": list(values)}}
        case Match(name, kind, text):
            return {name: {f"${kind}": text}}
    raise AssertionError(expr)


def as_arrow(expr: Expr) -> pc.Expression:
    match expr:
        case Not(operand):
            return ~as_arrow(operand)
        case And(operands) | Or(operands):
            found = as_arrow(operands[0])
            for operand in operands[1:]:
                other = as_arrow(operand)
                found = found & other if isinstance(expr, And) else found | other
            return found
        case IsNull(name):
            return pc.field(name).is_null()
        case Compare(name, op, operand):
            return getattr(pc.field(name), {
                "==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__",
                ">=": "__ge__",
            }[op])(pc.scalar(operand))  # fmt: skip
        case IsIn(name, values):
            return pc.field(name).isin(pa.array(values))
        case Match(name, kind, text):
            function = {
                "like": pc.match_like, "startswith": pc.starts_with, "endswith": pc.ends_with,
                "contains": pc.match_substring,
            }[kind]  # fmt: skip
            return function(pc.field(name), text)
    raise AssertionError(expr)


def passing(expr: Expr, table: pa.RecordBatch) -> list[int]:
    found = {name: columns.column_data(table.column(name)) for name in table.schema.names}
    mask = evaluate.evaluate(expr, table.num_rows, found.__getitem__)
    assert len(mask) % 8 == 0
    assert len(mask) * 8 >= table.num_rows
    rows: list[int] = bitmap.rows_of(mask).tolist()
    return rows


@pytest.fixture(params=["plain", "small blocks, codes, tables"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path on a few rows: blocks of 8, text encoded at once, sets as lookup tables."""
    if request.param != "plain":
        monkeypatch.setattr(evaluate, "BLOCK", 8)
        monkeypatch.setattr(columns, "_SAMPLE", 4)
        monkeypatch.setattr(columns, "_repeats", lambda array: True)
        monkeypatch.setattr(leaves, "_FEW", 0)


@pytest.mark.usefixtures("small")
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), trees())
def test_a_filter_passes_the_rows_that_the_naive_evaluation_passes(
    table: pa.RecordBatch, expr: Expr
) -> None:
    rows = table.to_pylist()
    expected = [i for i, row in enumerate(rows) if holds(expr, row) is True]
    assert passing(parse(expr, SCHEMA), table) == expected


@settings(max_examples=200, deadline=None)
@given(trees())
def test_sql_text_means_the_same_tree(expr: Expr) -> None:
    params: list[Any] = []
    text = as_sql(expr, params)
    assert parse(text, SCHEMA, params or None) == parse(expr, SCHEMA)


@settings(max_examples=200, deadline=None)
@given(trees())
def test_a_mongo_dict_means_the_same_tree(expr: Expr) -> None:
    assert parse(as_mongo(expr), SCHEMA) == parse(expr, SCHEMA)


@settings(max_examples=200, deadline=None)
@given(trees())
def test_a_pyarrow_expression_means_the_same_tree(expr: Expr) -> None:
    try:
        written = as_arrow(expr)
    except (AssertionError, pa.ArrowException, OverflowError):
        return  # lists, and values that one Arrow array can't hold together
    assert parse(written, SCHEMA) == parse(expr, SCHEMA)


def test_a_long_set_of_values_is_found_by_bisection() -> None:
    numbers = np.arange(1000, dtype=np.int64) * 10**9
    table = pa.record_batch({"count": numbers})
    wanted = [int(number) for number in numbers[::7]] + [5, -(2**70)]
    expr = parse(col("count").isin(wanted), SCHEMA)
    assert passing(expr, table) == list(range(0, 1000, 7))


def test_an_unbounded_number_of_rows_is_cut_into_blocks() -> None:
    rows = 3 * evaluate.BLOCK + 17
    table = pa.record_batch({"count": np.arange(rows)})
    expr = parse(col("count").between(evaluate.BLOCK - 2, evaluate.BLOCK + 1), SCHEMA)
    assert passing(expr, table) == list(range(evaluate.BLOCK - 2, evaluate.BLOCK + 2))


def test_repeated_text_is_encoded_and_distinct_text_is_not() -> None:
    repeated = columns.Texts(pa.array(["en", "fr", None] * 5000))
    distinct = columns.Texts(pa.array([f"text {i}" for i in range(15_000)]))
    assert repeated.codes is not None
    assert repeated.codes.dtype == np.uint8
    assert repeated.nbytes >= 15_000
    assert distinct.codes is None
    assert distinct.nbytes == 0

"""SQL text means here what it means to SQLite, nulls included."""

from __future__ import annotations

import sqlite3
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.filter.columns import column_data
from vecdb.filter.evaluate import evaluate
from vecdb.filter.parse import parse
from vecdb.schema import Schema
from vecdb.segment import bitmap

COLUMNS = pa.schema({"year": pa.int64(), "price": pa.float64(), "lang": pa.string()})
SCHEMA = Schema(dim=2, columns=COLUMNS)
YEARS, PRICES, LANGS = [1999, 2010, 2011], [-0.5, 0.0, 2.5], ["en", "EN", "fr", "", "e%"]
ROWS = [
    (year, price, lang)
    for year in [*YEARS, None] for price in [*PRICES, None] for lang in [*LANGS, None]
]  # fmt: skip


def literals(name: str) -> st.SearchStrategy[str]:
    if name == "lang":
        return st.sampled_from([f"'{lang}'" for lang in LANGS])
    return st.sampled_from([str(value) for value in [*YEARS, *PRICES]])


@st.composite
def conditions(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(COLUMNS.names))
    value = literals(name)
    match draw(st.sampled_from(["compare", "in", "between", "null", "like"])):
        case "compare":
            operator = draw(st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]))
            sides = [name, draw(value)]
            return f" {operator} ".join(draw(st.permutations(sides)))
        case "in":
            listed = ", ".join(draw(st.lists(value, min_size=1, max_size=3)))
            return f"{name} {draw(st.sampled_from(['IN', 'NOT IN']))} ({listed})"
        case "between":
            word = draw(st.sampled_from(["BETWEEN", "NOT BETWEEN"]))
            return f"{name} {word} {draw(value)} AND {draw(value)}"
        case "null":
            return f"{name} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
    pattern = draw(st.sampled_from(["e%", "%n", "_n", "%", "", "e_", "E%"]))
    return f"lang {draw(st.sampled_from(['LIKE', 'NOT LIKE']))} '{pattern}'"


def filters() -> st.SearchStrategy[str]:
    def branch(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        joined = st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(" ".join)
        return st.one_of(joined, inner.map("({})".format), inner.map("NOT {}".format))

    return st.recursive(conditions(), branch, max_leaves=6)


def by_sqlite(text: str) -> list[int]:
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA case_sensitive_like = ON")
    base.execute("CREATE TABLE rows (year INTEGER, price REAL, lang TEXT)")
    base.executemany("INSERT INTO rows VALUES (?, ?, ?)", ROWS)
    found = base.execute(f"SELECT rowid - 1 FROM rows WHERE {text} ORDER BY rowid").fetchall()
    base.close()
    return [row for (row,) in found]


@settings(max_examples=300, deadline=None)
@given(filters())
def test_a_filter_passes_the_rows_that_sqlite_selects(text: str) -> None:
    years, prices, langs = zip(*ROWS, strict=True)
    table = pa.table({"year": years, "price": prices, "lang": langs}, schema=COLUMNS)

    def data(name: str) -> Any:
        return column_data(table.column(name).combine_chunks())

    mask = evaluate(parse(text, SCHEMA), len(ROWS), data)
    assert bitmap.rows_of(mask).tolist() == by_sqlite(text), text

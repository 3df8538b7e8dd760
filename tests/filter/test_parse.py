"""Every spelling: what it accepts, and what it says about what it refuses."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb import FilterError, col
from vecdb.filter.expr import And, Expr, Or
from vecdb.filter.parse import parse
from vecdb.schema import Schema, columns_from

SCHEMA = Schema(
    dim=3,
    columns=columns_from({
        "year": int, "small": "uint8", "price": float, "lang": str, "archived": bool, "raw": bytes,
        "seen": "timestamp[us]", "made": "timestamp[s, tz=UTC]", "tags": "list<string>",
    }),
)  # fmt: skip


def bound(where: Any, params: Any = None) -> Expr:
    return parse(where, SCHEMA, params)


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("year > 2010", col("year") > 2010),
        ("2010 < year", col("year") > 2010),
        ("year <> -3", col("year") != -3),
        ('"year" == 2010', col("year") == 2010),
        ("price >= 1.5e3", col("price") >= 1500.0),
        ("lang = 'it''s'", col("lang") == "it's"),
        ("year BETWEEN 1 AND (2)", col("year").between(1, 2)),
        ("year NOT BETWEEN 1 AND 2", ~col("year").between(1, 2)),
        ("lang IN ('en', 'fr')", col("lang").isin(["en", "fr"])),
        ("lang NOT IN ('en')", ~col("lang").isin(["en"])),
        ("year IS NULL", col("year").is_null()),
        ("year IS NOT NULL", col("year").is_not_null()),
        ("archived", col("archived") == True),  # noqa: E712
        ("NOT archived", ~col("archived")),
        ("archived IS TRUE", col("archived").is_not_null() & col("archived")),
        ("archived = FALSE", col("archived") == False),  # noqa: E712
        ("lang LIKE 'a%'", col("lang").like("a%")),
        ("lang NOT LIKE 'a%'", ~col("lang").like("a%")),
        ("starts_with(lang, 'a')", col("lang").startswith("a")),
        ("ends_with(lang, 'a')", col("lang").endswith("a")),
        ("contains(lang, 'a')", col("lang").contains("a")),
        ("has(tags, 'a')", col("tags").has("a")),
        ("HAS_ANY(tags, ('a', 'b'))", col("tags").has_any(["a", "b"])),
        ("has_all(tags, ['a', 'b'])", col("tags").has_all(["a", "b"])),
        ("has_any(tags, ('a'))", col("tags").has_any(["a"])),
        ("seen > '2024-05-31'", col("seen") > dt.date(2024, 5, 31)),
        ("seen > TIMESTAMP '2024-05-31 12:00:00'", col("seen") > dt.datetime(2024, 5, 31, 12)),
        ("id = 5", col("id") == 5),
        ("TRUE", And(())),
        ("FALSE", Or(())),
        ("year > 1 AND (year < 5 OR archived) -- why", (col("year") > 1) & ((col("year") < 5)
                                                                          | col("archived"))),
    ],
)  # fmt: skip
def test_sql_is_translated(text: str, expr: Expr) -> None:
    assert bound(text) == bound(expr)


@pytest.mark.parametrize(
    ("text", "params", "expr"),
    [
        ("year > ? AND lang = ?", [2010, "en"], (col("year") > 2010) & (col("lang") == "en")),
        ("year > :y", {"y": 2010}, col("year") > 2010),
        ("lang IN ?", [["en", "fr"]], col("lang").isin(["en", "fr"])),
        ("lang IN (:a, :b)", {"a": "en", "b": "fr"}, col("lang").isin(["en", "fr"])),
        ("seen > ?", [np.datetime64("2024-05-31")], col("seen") > "2024-05-31"),
        ("has_any(tags, :tags)", {"tags": ("a", "b")}, col("tags").has_any(["a", "b"])),
    ],
)
def test_sql_takes_parameters(text: str, params: Any, expr: Expr) -> None:
    assert bound(text, params) == bound(expr)


@pytest.mark.parametrize(
    ("where", "expr"),
    [
        ({"year": 2010}, col("year") == 2010),
        ({"year": {"$gt": 1, "$lte": 5}}, (col("year") > 1) & (col("year") <= 5)),
        ({"year": 1, "lang": "en"}, (col("year") == 1) & (col("lang") == "en")),
        ({"year": None}, col("year").is_null()),
        ({"year": {"$ne": None}}, col("year").is_not_null()),
        ({"year": {"$ne": 5}}, col("year") != 5),
        ({"year": {"$nin": [5, 6]}}, ~col("year").isin([5, 6])),
        ({"year": {"$between": [1, 2]}}, col("year").between(1, 2)),
        ({"year": {"$exists": False}}, col("year").is_null()),
        ({"year": {"$not": {"$gt": 5}}}, ~(col("year") > 5)),
        ({"$nor": [{"year": 1}, {"year": 2}]}, ~((col("year") == 1) | (col("year") == 2))),
        ({"lang": {"$contains": "e"}}, col("lang").contains("e")),
        ({"tags": {"$contains": "e"}}, col("tags").has("e")),
        ({"tags": {"$has": "e"}}, col("tags").has("e")),
        ({}, And(())),
    ],
)
def test_a_dict_is_translated(where: dict[str, Any], expr: Expr) -> None:
    assert bound(where) == bound(expr)


def test_a_pyarrow_expression_is_translated() -> None:
    year = pc.field("year")
    assert bound((year > 1) & ~(year == 5)) == bound((col("year") > 1) & ~(col("year") == 5))
    assert bound(pc.scalar(5) < year) == bound(col("year") > 5)
    assert bound(pc.field("archived")) == bound(col("archived"))
    assert bound(pc.scalar(True)) == And(())
    assert bound(year.is_valid()) == bound(col("year").is_not_null())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (col("yeer") > 3, "did you mean 'year'"),
        ("yeer > 3", "did you mean 'year'"),
        ("year > 1e", "the number '1e'"),
        ({"yeer": 3}, "did you mean 'year'"),
        (pc.field("yeer") > 3, "did you mean 'year'"),
        (col("year") > "3", "column 'year' (int64): expected a number, got str '3'"),
        (col("year") == True, "column 'year' (int64)"),  # noqa: E712
        (col("lang") > 5, "column 'lang' (string): expected text, got int 5"),
        (col("archived") > True, "column 'archived' (bool): expected == or !="),
        (col("archived") == 1, "True or False"),
        (col("raw") == "text", "expected bytes"),
        (col("raw").contains("a"), "expected a text column"),
        (col("year").like("a%"), "expected a text column"),
        (col("lang").like("a\\"), "backslash"),
        (col("tags") == "a", ".has("),
        (col("tags").isin(["a"]), ".has_any("),
        (col("lang").has("a"), "expected a list column"),
        (col("tags").has(5), "expected text"),
        (col("year") == None, "is_null()"),  # noqa: E711
        (col("year").isin([1, None]), "is_null()"),
        (col("price").isin([math.nan]), "nan"),
        (col("seen") > "yesterday", "YYYY-MM-DD"),
        (col("seen") > "2024-02-30", "YYYY-MM-DD"),
        (col("seen") > 5, "ISO text"),
        (col("seen") > "2024-02-03T00:00:00Z", "without a zone"),
        (col("seen") > dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "without a zone"),
        (col("seen") == np.datetime64("NaT", "s"), "ISO text"),
        ("year >", "correct the text"),
        ("when > 3", "double quotes"),
        ("", "0 statements"),
        ("year > 3; DROP TABLE x", "2 statements"),
        ("year IN (SELECT 1)", "query"),
        ("year IN ()", "without values"),
        ("EXISTS (SELECT 1)", "EXISTS"),
        ("year + 1 > 3", "where a column was expected"),
        ("lower(lang) = 'a'", "LOWER(lang)"),
        ("year > small", "where a value was expected"),
        ('lang = "en"', "single quotes"),
        ("t.year > 3", "table"),
        ("lang ILIKE 'a'", "did you mean 'LIKE'"),
        ("year BETWEEN SYMMETRIC 1 AND 2", "symmetric"),
        ("CASE WHEN archived THEN TRUE END", "CASE"),
        ("year = CAST('3' AS INT)", "CAST"),
        ("year > ?", "without a value"),
        ("year > :y", "params={'y': ...}"),
        ("has(tags)", "1 arguments"),
        ("has_any(tags, 'a', 'b')", "write has_any(column, (value, ...))"),
        ("year IS 3", "IS"),
        ("year IS DISTINCT FROM 3", "NULLSAFENEQ"),
        ({"year": {"$gtt": 3}}, "did you mean '$gt'"),
        ({"$annd": []}, "did you mean '$and'"),
        ({"$and": {}}, "a list of dicts"),
        ({"$and": [3]}, "a dict"),
        ({"year": {}}, "an operator"),
        ({"year": {"$in": 3}}, "a list of values"),
        ({"year": {"$between": 3}}, "two ends"),
        ({"year": {"$exists": 1}}, "true or false"),
        ({"year": {"$not": 3}}, "a dict of operators"),
        ({3: 4}, "column names"),
        (pc.field("year").cast("int8") > 3, "cast"),
        (pc.field("year") + 1 > 3, "add_checked"),
        (pc.field(0) > 3, "by name"),
        (pc.field("a", "b") > 3, "by name"),
        (pc.equal(pc.field("year"), pc.field("small")), "two columns"),
        (pc.field("price").is_null(nan_is_null=True), "nan_is_null"),
        (pc.match_substring(pc.field("lang"), "a", ignore_case=True), "ignore_case"),
        (pc.field("year").isin([1, None]), "is_null()"),
        (pc.is_nan(pc.field("price")), "is_nan"),
        (pc.scalar(3), "compare a column"),
        (5, "got int 5"),
        (None, "got NoneType"),
    ],
    ids=str,
)
def test_what_can_not_be_meant_is_refused_with_the_fix(where: Any, said: str) -> None:
    with pytest.raises(FilterError, match="Fix: ") as caught:
        bound(where)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("where", "params", "said"),
    [
        ("year > ?", [1, 2], "too many"),
        ("year > ? AND year < ?", [1], "without a value"),
        ("year > :y", {"x": 1}, ":y"),
        (col("year") > 3, [1], "SQL text"),
    ],
)
def test_parameters_must_match_the_text(where: Any, params: Any, said: str) -> None:
    with pytest.raises(FilterError, match="Fix: ") as caught:
        bound(where, params)
    assert said in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"year": 1}
    for _ in range(levels):
        where = {"$not": {"$and": [where, {"year": 2}]}}
    return where


@pytest.mark.parametrize(
    "where",
    [
        "(" * 5000 + "archived" + ")" * 5000,
        "NOT " * 5000 + "archived",
        " AND ".join(["archived"] * 10_001),
        Or(tuple(col("year") == i for i in range(10_001))),
        nested(40),
        nested(3000),
        "x" * 2_000_000,
    ],
    ids=["parentheses", "nots", "long chain", "wide tree", "deep dict", "deeper", "long text"],
)
def test_a_filter_too_deep_or_too_large_is_refused(where: Any) -> None:
    with pytest.raises(FilterError):
        bound(where)


WORDS = """
    year lang tags archived > = <> 1 -2 'en' ( ) , AND OR NOT IN IS NULL LIKE BETWEEN ? : :a has
    contains SELECT FROM CASE END ; -- /* . * + [ ] { } $ @ TRUE ANY ALL CAST AS x'ab' ESCAPE
    INTERVAL DATE EXISTS " ' OVER FILTER WITHIN GROUP LIMIT UNION VALUES
"""
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
KEYS = st.sampled_from(
    ["year", "lang", "tags", "$and", "$or", "$not", "$in", "$eq", "$has", "$gt", "$contains", 5]
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join))
def test_no_text_does_worse_than_a_filter_error(text: str) -> None:
    with contextlib.suppress(FilterError):
        assert isinstance(bound(text), Expr)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, DOCUMENTS, max_size=3))
def test_no_dict_does_worse_than_a_filter_error(where: dict[Any, Any]) -> None:
    with contextlib.suppress(FilterError):
        assert isinstance(bound(where), Expr)


def test_ids_are_a_column_of_their_own_type() -> None:
    texts = Schema(dim=3, ids="string")
    assert parse("id = 'a'", texts, None) == (col("id") == "a")
    with pytest.raises(FilterError, match="expected a number"):
        parse("id = 'a'", Schema(dim=3))
    with pytest.raises(FilterError, match="expected text"):
        parse("id = 5", texts)


def test_times_are_one_value_however_they_are_written() -> None:
    import pandas as pd

    moment = dt.datetime(2024, 5, 31, 10, 30, tzinfo=dt.UTC)
    for written in [
        "2024-05-31T10:30Z", "2024-05-31 12:30:00+02:00", "2024-05-31T05:30:00.000-05",
        "2024-05-31T10:30", moment, pd.Timestamp(moment), np.datetime64("2024-05-31T10:30"),
        pa.scalar(moment),
    ]:  # fmt: skip
        assert bound(col("made") == written) == bound(col("made") == moment)
    assert bound(col("seen") == pd.Timestamp("2024-05-31T00:00:00.000000001")) == bound(
        col("seen") == "2024-05-31T00:00:00.000000001"
    )


def test_equal_filters_are_equal_keys() -> None:
    assert bound(col("year") > 5) == bound(col("year") > np.int32(5)) == bound("year > 5")
    assert bound(~~(col("year") != 5)) == bound(~(col("year") == 5))
    assert hash(bound("year > 5 AND archived")) == hash(bound((col("year") > 5) & col("archived")))


def test_a_tree_used_before_means_the_same_and_is_bound_anew_for_another_schema() -> None:
    tree, fresh = ((col("year") > 2010) & ~(col("year") == 3.0) for _ in range(2))
    first = bound(tree)
    assert bound(tree) is first
    other = parse(tree, Schema(dim=3, columns=columns_from({"year": float})))
    assert other is not first
    assert tree == fresh
    assert hash(tree) == hash(fresh)
    assert pickle.loads(pickle.dumps(tree)) == fresh
    with pytest.raises(FilterError, match="year"):
        parse(tree, Schema(dim=3, columns=columns_from({"year": str})))


def test_trees_that_are_equal_in_python_are_still_checked_each_by_itself() -> None:
    bound(col("archived") == True)  # noqa: E712
    with pytest.raises(FilterError, match="archived"):
        bound(col("archived") == 1)

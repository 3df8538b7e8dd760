"""The tree: operators, helpful refusals, value semantics."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb import FilterError, col
from vecdb.filter.expr import And, Compare, Not, Or

TREES = [
    (col("year") > 2010) & ~col("lang").isin(["en", "fr"]),
    col("year").between(1, 5) | col("year").is_null() | col("year").is_not_null(),
    col("name").like("a%") & col("name").startswith("a") & col("name").endswith("b"),
    ~col("archived") & (col("tags").has("x") | col("tags").has_any(["y", "z"])),
    col("tags").has_all(["y", "z"]) & col("name").contains("quo'te"),
]


@pytest.mark.parametrize("tree", TREES, ids=repr)
def test_a_tree_prints_as_the_code_that_makes_it(tree: Any) -> None:
    assert eval(repr(tree), {"col": col}) == tree


@pytest.mark.parametrize("tree", TREES, ids=repr)
def test_a_tree_pickles_and_equals_and_hashes_by_value(tree: Any) -> None:
    copy = pickle.loads(pickle.dumps(tree))
    assert copy == tree
    assert hash(copy) == hash(tree)


def test_chains_of_one_operator_stay_flat() -> None:
    a, b, c = col("a") > 1, col("b") > 1, col("c") > 1
    assert (a & b) & c == a & (b & c) == And((a, b, c))
    assert a | b | c == Or((a, b, c))
    assert ~~a == a
    assert ~(a & b) == Not(And((a, b)))


def test_the_value_may_stand_on_the_left() -> None:
    assert (col("year") > 2010) == (col("year") > 2010)
    assert (np.int64(2010) >= col("year")) == (col("year") <= 2010)


def test_a_bare_column_is_a_condition() -> None:
    assert col("a") & col("b") == And((Compare("a", "==", True), Compare("b", "==", True)))
    assert (col("a") > 1) | col("b") == Or((col("a") > 1, Compare("b", "==", True)))
    assert ~col("a") == Not(Compare("a", "==", True))


def test_values_come_from_any_kind_of_list() -> None:
    expected = col("a").isin([1, 2])
    for values in [(1, 2), np.array([1, 2]), pa.array([1, 2]), range(1, 3), iter([1, 2])]:
        assert col("a").isin(values) == expected


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: (col("a") > 1) and (col("b") > 2), "&"),
        (lambda: not col("a"), "~"),
        (lambda: 1 < col("a") < 5, "between"),
        (lambda: col("a") > 1 & col("b"), "parentheses"),
        (lambda: (col("a") > 1) & 5, "parentheses"),
        (lambda: 5 | (col("a") > 1), "parentheses"),
        (lambda: 5 | col("a"), "parentheses"),
        (lambda: col("a") > col("b"), "two columns"),
        (lambda: "x" in col("a"), "contains"),
        (lambda: col(3), "name of a column"),  # type: ignore[arg-type]
        (lambda: col("a").isin("abc"), "list of values"),
        (lambda: col("a").has_any(5), "list of values"),  # type: ignore[arg-type]
    ],
)
def test_a_slip_of_the_pen_is_explained(write: Callable[[], object], said: str) -> None:
    with pytest.raises(FilterError, match="Fix: ") as caught:
        write()
    assert said in str(caught.value)


def test_columns_are_neither_hashable_nor_iterable() -> None:
    with pytest.raises(TypeError):
        hash(col("a"))
    with pytest.raises(TypeError):
        list(col("a"))  # type: ignore[call-overload]


def test_a_long_list_of_values_prints_short() -> None:
    assert "... 980 more" in repr(col("a").isin(range(1000)))

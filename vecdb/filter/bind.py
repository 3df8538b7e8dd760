"""Binding: a filter checked against the columns it names, its values made canonical.

Everything that can be wrong with a filter is found here, before a row is read. In a bound tree
every value has one Python type per column type (:mod:`vecdb.filter.values`), nested conjunctions
are flat, double negations gone, and ``!=`` is a negated ``==``: filters that are written
differently but mean the same are mostly the same key of the mask cache.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from vecdb.errors import FilterError, describe
from vecdb.filter.expr import (
    And,
    Compare,
    Expr,
    Has,
    IsIn,
    IsNull,
    Match,
    Not,
    Operator,
    Or,
    Predicate,
    all_of,
    any_of,
)
from vecdb.filter.values import kind_of, number_type, plain_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from vecdb.schema import IdType

__all__ = ["MAX_DEPTH", "MAX_NODES", "bind"]

MAX_DEPTH = 64
MAX_NODES = 10_000


def bind(expr: Expr, columns: pa.Schema | None, ids: IdType) -> Expr:
    """The same filter with checked columns, operators and values.

    Raises
    ------
    FilterError
        An unknown column, an operator or value that does not fit the column's type, or a tree
        deeper than 64 or larger than 10,000 conditions.
    """
    return _Binder(columns, ids).bind(expr, 1)


class _Binder:
    def __init__(self, columns: pa.Schema | None, ids: IdType) -> None:
        self._columns = columns
        self._ids = ids
        self._nodes = 0

    def bind(self, expr: Expr, depth: int) -> Expr:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise FilterError(
                describe("filter", expected=f"at most {MAX_DEPTH} levels and {MAX_NODES:,} "
                         "conditions", got="more", fix="use isin([...]) for long lists of values")
            )  # fmt: skip
        match expr:
            case And(operands):
                return all_of([self.bind(operand, depth + 1) for operand in operands])
            case Or(operands):
                return any_of([self.bind(operand, depth + 1) for operand in operands])
            case Not(operand):
                return ~self.bind(operand, depth + 1)
        return self._leaf(expr)

    def _leaf(self, expr: Expr) -> Expr:
        match expr:
            case IsNull(column):
                self._type(column)
                return expr
            case Compare(column, op, value):
                return self._compare(column, op, value)
            case IsIn(column, values):
                kind = self._scalar_type(column, "isin", has="has_any")
                return IsIn(column, _distinct(column, kind, values))
            case Match(column, how, text):
                return self._match(column, how, text)
            case Has(column, values, every):
                return Has(column, _distinct(column, self._list_type(column), values), every)
            case Predicate():
                return self._predicate(expr)
        raise FilterError(
            describe("filter", expected="a condition made with col()", got=repr(expr)[:100],
                     fix="write col('year') > 2010")
        )  # fmt: skip

    def _compare(self, column: str, op: Operator, value: object) -> Expr:
        if op not in ("==", "!=", "<", "<=", ">", ">="):
            raise unknown_operator(op, ["==", "!=", "<", "<=", ">", ">="])
        kind = self._scalar_type(column, op, has="has")
        if kind_of(kind) == "bool" and op not in ("==", "!="):
            raise misfit(column, kind, "== or !=", f"{op}", f"write col({column!r}) == True")
        if op == "!=":
            return Not(Compare(column, "==", plain_value(column, kind, value)))
        return Compare(column, op, plain_value(column, kind, value))

    def _predicate(self, expr: Predicate) -> Expr:
        from vecdb.kernels.predicate import compiled

        dtypes = []
        for column in expr.columns:
            kind = self._scalar_type(column, "a predicate", has="has")
            if kind_of(kind) not in ("bool", "int", "float", "timestamp"):
                fix = "test it with == or isin(...), and combine both with &"
                raise misfit(column, kind, "a numeric column", "a predicate", fix)
            dtypes.append(number_type(kind))
        compiled(expr.function, tuple(dtypes))  # now, so that errors come before any row is read
        return expr

    def _match(self, column: str, kind: str, text: object) -> Expr:
        if kind not in ("like", "startswith", "endswith", "contains"):
            raise unknown_operator(kind, ["like", "startswith", "endswith", "contains"])
        data_type = self._scalar_type(column, kind, has="has")
        if str(data_type) != "string":
            raise misfit(column, data_type, "a text column", f"{kind}", "compare with == < > isin")
        bound = plain_value(column, data_type, text)
        if kind == "like" and _dangling_escape(bound):
            raise misfit(column, data_type, "a character after each \\", repr(text),
                         r"write \\ for a backslash")  # fmt: skip
        return Match(column, kind, bound)  # type: ignore[arg-type]

    def _type(self, column: str) -> pa.DataType:
        import pyarrow as pa

        if column == "id":
            return pa.int64() if self._ids == "int64" else pa.string()
        names = [] if self._columns is None else self._columns.names
        if self._columns is None or column not in names:
            raise unknown_column(column, [*names, "id"])
        found: pa.DataType = self._columns.field(column).type
        return found

    def _scalar_type(self, column: str, op: str, *, has: str) -> pa.DataType:
        kind = self._type(column)
        if kind_of(kind) == "list":
            raise misfit(column, kind, f".{has}(...)", op, f"write col({column!r}).{has}(...)")
        return kind

    def _list_type(self, column: str) -> pa.DataType:
        kind = self._type(column)
        if kind_of(kind) != "list":
            fix = f"write col({column!r}) == value, or .contains(text) for a part of a text"
            raise misfit(column, kind, "a list column", "has", fix)
        inner: pa.DataType = kind.value_type  # type: ignore[attr-defined]
        return inner


def unknown_column(name: object, known: Sequence[str]) -> FilterError:
    """The error for a column that the collection does not have."""
    near = difflib.get_close_matches(str(name), known, 1)
    fix = f"did you mean {near[0]!r}?" if near else "see col.schema for the names"
    expected = f"one of the columns {', '.join(known)}"[:300]
    return FilterError(describe("filter", expected=expected, got=f"{name!r}", fix=fix))


def unknown_operator(name: object, known: Sequence[str]) -> FilterError:
    """The error for an operator that the language does not have."""
    near = difflib.get_close_matches(str(name), known, 1)
    fix = f"did you mean {near[0]!r}?" if near else "write the filter with one of these"
    expected = f"one of the operators {', '.join(known)}"
    return FilterError(describe("filter", expected=expected, got=f"{str(name)[:100]!r}", fix=fix))


def misfit(column: str, kind: object, expected: str, got: str, fix: str) -> FilterError:
    """The error for an operator or value that does not fit a column."""
    subject = f"column {column!r} ({kind})"
    return FilterError(describe(subject, expected=expected, got=got, fix=fix))


def _distinct(column: str, kind: pa.DataType, values: Sequence[object]) -> tuple[object, ...]:
    return tuple(dict.fromkeys(plain_value(column, kind, value) for value in values))


def _dangling_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1

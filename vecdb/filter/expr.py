"""The filter language: one small immutable tree, whatever spelling it was written in.

    >>> import vecdb
    >>> (vecdb.col("year") > 2010) & ~vecdb.col("lang").isin(["en", "fr"])
    (col('year') > 2010) & ~col('lang').isin(['en', 'fr'])

SQL text and Mongo-style dicts are translated into the same tree (``vecdb.filter.parse``). Its
meaning is SQL's: a condition on a null is neither true nor false, and a row passes when the whole
filter is true. Trees hold plain values, never SQL text, compare by value and pickle; a
:func:`predicate` alone holds code, that of the program itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NoReturn

from vecdb.errors import FilterError, describe

__all__ = ["And", "Column", "Compare", "Expr", "Has", "IsIn", "IsNull", "Match", "Not", "Or",
           "Predicate", "col", "predicate"]  # fmt: skip

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
MatchKind = Literal["like", "startswith", "endswith", "contains"]


class Expr:
    """A condition on the metadata of a row. Combine conditions with ``&``, ``|`` and ``~``."""

    __slots__ = ("_bound",)
    _bound: tuple[Any, Expr]  # a schema and what the tree means under it, once it was used

    def __and__(self, other: Expr | Column) -> Expr:
        return all_of([self, as_expr(other)])

    def __rand__(self, other: Expr | Column) -> Expr:
        return all_of([as_expr(other), self])

    def __or__(self, other: Expr | Column) -> Expr:
        return any_of([self, as_expr(other)])

    def __ror__(self, other: Expr | Column) -> Expr:
        return any_of([as_expr(other), self])

    def __invert__(self) -> Expr:
        return self.operand if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise _no_truth_value()


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Compare(Expr):
    """`column` `op` `value`."""

    column: str
    op: Operator
    value: Any

    def __repr__(self) -> str:
        return f"col({self.column!r}) {self.op} {self.value!r}"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class IsIn(Expr):
    """The value of `column` is one of `values`."""

    column: str
    values: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"col({self.column!r}).isin({_listed(self.values)})"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class IsNull(Expr):
    """The row has no value in `column`; the one condition that is never unknown."""

    column: str

    def __repr__(self) -> str:
        return f"col({self.column!r}).is_null()"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Match(Expr):
    """Text in `column` is like a pattern, or starts with, ends with or contains `text`."""

    column: str
    kind: MatchKind
    text: str

    def __repr__(self) -> str:
        return f"col({self.column!r}).{self.kind}({self.text!r})"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Has(Expr):
    """The list in `column` holds any (or, with `every`, each) of `values`."""

    column: str
    values: tuple[Any, ...]
    every: bool

    def __repr__(self) -> str:
        if len(self.values) == 1:
            return f"col({self.column!r}).has({self.values[0]!r})"
        return f"col({self.column!r}).has_{'all' if self.every else 'any'}({_listed(self.values)})"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Predicate(Expr):
    """`function` of the values of `columns` is true; made by :func:`predicate`."""

    function: Callable[..., Any]
    columns: tuple[str, ...]

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", "function")
        return f"predicate({', '.join([name, *map(repr, self.columns)])})"


def predicate(function: Callable[..., Any], *columns: str) -> Predicate:
    """A condition of your own on numeric columns, compiled by numba and run without the GIL.

    >>> recent = vecdb.predicate(lambda year, price: price < 2.0 * (year - 1990), "year", "price")
    >>> col.search(query, where=recent & (vecdb.col("lang") == "en"))

    It is called for every row that has a value in all of the columns, once per filter and segment;
    the rows that passed are then remembered. So the same function must always say the same.

    Parameters
    ----------
    function : callable
        Takes a number per column (bool, int or float; a timestamp as the int64 that is stored) and
        returns a bool. A plain function, or one that ``numba.njit`` made.
    *columns : str
        Names of its columns.

    Raises
    ------
    FilterError
        No function or no columns here; when it is used: a column that is not numeric, or a function
        that numba can't compile for the columns' types.
    """
    if not callable(function) or not columns or not all(isinstance(c, str) for c in columns):
        raise FilterError(
            describe("predicate", expected="a function and the names of its columns",
                     got=f"{function!r:.100}, {columns!r:.100}",
                     fix="write vecdb.predicate(lambda year: year % 4 == 0, 'year')")
        )  # fmt: skip
    return Predicate(function, columns)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class And(Expr):
    """Every operand is true; true when there is none."""

    operands: tuple[Expr, ...]

    def __repr__(self) -> str:
        return " & ".join(_inner(operand) for operand in self.operands) or "And(())"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Or(Expr):
    """At least one operand is true; false when there is none."""

    operands: tuple[Expr, ...]

    def __repr__(self) -> str:
        return " | ".join(_inner(operand) for operand in self.operands) or "Or(())"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Not(Expr):
    """The operand is false; of an unknown operand the negation is unknown too."""

    operand: Expr

    def __repr__(self) -> str:
        return f"~{_inner(self.operand)}"


class Column:
    """A metadata column, or ``"id"``, in a filter; made by :func:`col`.

    ``== != < <= > >=`` compare with a value. A bare boolean column is a condition of its own:
    ``~col("archived")``.
    """

    __slots__ = ("name",)
    __array_ufunc__ = None  # np.int64(3) < col("x") must come to Column.__gt__
    __hash__ = None  # type: ignore[assignment]  # == makes a condition
    __iter__ = None

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise FilterError(
                describe("col()", expected="the name of a column", got=repr(name)[:100],
                         fix="write col('year')")
            )  # fmt: skip
        self.name = name

    def __eq__(self, value: object) -> Expr:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: object) -> Expr:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: object) -> Expr:
        return self._compare("<", value)

    def __le__(self, value: object) -> Expr:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Expr:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Expr:
        return self._compare(">=", value)

    def isin(self, values: Iterable[Any]) -> Expr:
        """The value is one of `values`."""
        return IsIn(self.name, _values(values, f"col({self.name!r}).isin()"))

    def between(self, low: Any, high: Any) -> Expr:
        """``low <= value <= high``: both ends belong to it."""
        return And((self._compare(">=", low), self._compare("<=", high)))

    def is_null(self) -> Expr:
        """The row has no value here."""
        return IsNull(self.name)

    def is_not_null(self) -> Expr:
        """The row has a value here."""
        return Not(IsNull(self.name))

    def like(self, pattern: str) -> Expr:
        r"""SQL's LIKE: ``%`` is any text, ``_`` one character, ``\`` makes the next one literal."""
        return Match(self.name, "like", pattern)

    def startswith(self, text: str) -> Expr:
        """The text begins with `text`, letter case counting."""
        return Match(self.name, "startswith", text)

    def endswith(self, text: str) -> Expr:
        """The text ends with `text`, letter case counting."""
        return Match(self.name, "endswith", text)

    def contains(self, text: str) -> Expr:
        """The text has `text` in it, letter case counting. For lists see :meth:`has`."""
        return Match(self.name, "contains", text)

    def has(self, value: Any) -> Expr:
        """The list holds `value`."""
        return Has(self.name, (value,), every=True)

    def has_any(self, values: Iterable[Any]) -> Expr:
        """The list holds at least one of `values`."""
        return Has(self.name, _values(values, f"col({self.name!r}).has_any()"), every=False)

    def has_all(self, values: Iterable[Any]) -> Expr:
        """The list holds each of `values`."""
        return Has(self.name, _values(values, f"col({self.name!r}).has_all()"), every=True)

    def __and__(self, other: Expr | Column) -> Expr:
        return all_of([as_expr(self), as_expr(other)])

    def __rand__(self, other: Expr | Column) -> Expr:
        return all_of([as_expr(other), as_expr(self)])

    def __or__(self, other: Expr | Column) -> Expr:
        return any_of([as_expr(self), as_expr(other)])

    def __ror__(self, other: Expr | Column) -> Expr:
        return any_of([as_expr(other), as_expr(self)])

    def __invert__(self) -> Expr:
        return ~as_expr(self)

    def __bool__(self) -> bool:
        raise _no_truth_value()

    def __contains__(self, value: object) -> NoReturn:
        raise FilterError(
            describe("filter", expected="a method of the column", got=f"{value!r} in {self!r}",
                     fix="for text write .contains(...), for lists .has(...)")
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"col({self.name!r})"

    def _compare(self, op: Operator, value: object) -> Expr:
        if isinstance(value, (Column, Expr)):
            raise FilterError(
                describe(f"{self!r} {op}", expected="a value", got=repr(value)[:100],
                         fix="two columns can't be compared; store the difference as a column")
            )  # fmt: skip
        return Compare(self.name, op, value)


def col(name: str) -> Column:
    """A column of the metadata for use in a filter.

    Parameters
    ----------
    name : str
        A metadata column, or ``"id"`` for the row's id.

    Examples
    --------
    >>> collection.search(query, where=(col("year") >= 2010) & (col("lang") == "en"))
    """
    return Column(name)


def all_of(operands: Iterable[Expr]) -> Expr:
    """The conjunction of any number of conditions, nested conjunctions made flat."""
    flat = tuple(_flat(operands, And))
    return flat[0] if len(flat) == 1 else And(flat)


def any_of(operands: Iterable[Expr]) -> Expr:
    """The disjunction of any number of conditions, nested disjunctions made flat."""
    flat = tuple(_flat(operands, Or))
    return flat[0] if len(flat) == 1 else Or(flat)


def as_expr(value: object) -> Expr:
    """A condition; a bare column becomes ``column == True``."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Column):
        return Compare(value.name, "==", True)
    raise FilterError(
        describe("filter", expected="a condition on each side of & and |", got=repr(value)[:100],
                 fix="put comparisons in parentheses: (col('a') > 1) & (col('b') < 2)")
    )  # fmt: skip


def _flat(operands: Iterable[Expr], kind: type[And | Or]) -> Iterator[Expr]:
    for operand in operands:
        if isinstance(operand, kind):
            yield from operand.operands
        else:
            yield operand


def _values(values: object, subject: str) -> tuple[Any, ...]:
    listed = values.tolist() if hasattr(values, "tolist") else values  # NumPy, Arrow, pandas
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Iterable):
        raise FilterError(
            describe(subject, expected="a list of values", got=repr(values)[:100],
                     fix=f"write [{values!r:.100}]")
        )  # fmt: skip
    return tuple(listed)


def _no_truth_value() -> FilterError:
    return FilterError(
        describe("filter", expected="conditions joined by & | ~",
                 got="and, or, not, `if`, or a chain like 1 < col('x') < 5",
                 fix="write (col('a') > 1) & ~(col('b') < 2), or col('x').between(1, 5)")
    )  # fmt: skip


def _inner(operand: Expr) -> str:
    simple = isinstance(operand, (IsIn, IsNull, Match, Has, Not))
    return repr(operand) if simple else f"({operand!r})"


def _listed(values: tuple[Any, ...]) -> str:
    shown = ", ".join(repr(value) for value in values[:20])
    return f"[{shown}]" if len(values) <= 20 else f"[{shown}, ... {len(values) - 20} more]"

"""Filters written as Mongo-style dicts: ``{"year": {"$gt": 2010}, "lang": "en"}``.

Several keys of one dict are joined by AND. ``{"field": None}`` and ``{"$eq": None}`` mean IS NULL.
Everything else means what it means in SQL: ``$ne`` and ``$nin`` do not match rows without a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vecdb.errors import FilterError, describe
from vecdb.filter.bind import MAX_DEPTH, unknown_operator
from vecdb.filter.expr import Column, Expr, all_of, any_of, col

__all__ = ["from_mongo"]


def from_mongo(where: Mapping[Any, Any], lists: frozenset[str] = frozenset()) -> Expr:
    """The tree of a Mongo-style dict.

    Parameters
    ----------
    where : mapping
        ``{field: value}``, ``{field: {operator: value, ...}}`` or ``{"$and": [...]}``.
    lists : frozenset of str
        Names of the list columns: there ``$contains`` asks for an element, elsewhere for a part
        of the text.

    Raises
    ------
    FilterError
        An unknown operator, or a value of the wrong shape.
    """
    return _document(where, lists, 1)


def _document(where: Any, lists: frozenset[str], depth: int) -> Expr:
    if not isinstance(where, Mapping):
        raise _wrong("filter", "a dict", where, '{"year": {"$gt": 2010}}')
    if depth > MAX_DEPTH:
        raise FilterError(
            describe("filter", expected=f"at most {MAX_DEPTH} levels", got="more",
                     fix="use $in for long lists of values")
        )  # fmt: skip
    return all_of(_entry(key, value, lists, depth) for key, value in where.items())


def _entry(key: Any, value: Any, lists: frozenset[str], depth: int) -> Expr:
    if not isinstance(key, str):
        raise _wrong("filter", "column names as keys", key, '{"year": 2010}')
    if not key.startswith("$"):
        return _field(col(key), value, key in lists, depth)
    if key not in _LOGICAL:
        raise unknown_operator(key, [*_LOGICAL, *_OPERATORS])
    if key == "$not":
        return ~_document(value, lists, depth + 1)
    if not isinstance(value, (list, tuple)):
        raise _wrong(key, "a list of dicts", value, f'{{"{key}": [{{"year": 2010}}, ...]}}')
    operands = [_document(operand, lists, depth + 1) for operand in value]
    if key == "$and":
        return all_of(operands)
    return any_of(operands) if key == "$or" else ~any_of(operands)


def _field(column: Column, value: Any, is_list: bool, depth: int) -> Expr:
    if not isinstance(value, Mapping):
        return _equal(column, value)
    if not value:
        raise _wrong(f"column {column.name!r}", "an operator", value, '{"$gt": 2010}')
    conditions = []
    for operator, operand in value.items():
        if operator == "$not":
            if depth > MAX_DEPTH or not isinstance(operand, Mapping):
                raise _wrong("$not", "a dict of operators", operand, '{"$not": {"$gt": 2010}}')
            conditions.append(~_field(column, operand, is_list, depth + 1))
        elif operator == "$contains":
            conditions.append((column.has if is_list else column.contains)(operand))
        elif operator in _OPERATORS:
            conditions.append(_OPERATORS[operator](column, operand))
        else:
            raise unknown_operator(operator, ["$not", "$contains", *_OPERATORS])
    return all_of(conditions)


def _equal(column: Column, value: Any) -> Expr:
    return column.is_null() if value is None else column == value


def _exists(column: Column, value: Any) -> Expr:
    if not isinstance(value, bool):
        raise _wrong("$exists", "true or false", value, '{"$exists": true}')
    return column.is_not_null() if value else column.is_null()


def _between(column: Column, value: Any) -> Expr:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise _wrong("$between", "two ends", value, '{"$between": [2010, 2020]}')
    return column.between(*value)


def _listed(make: Callable[[Column, Any], Expr]) -> Callable[[Column, Any], Expr]:
    def checked(column: Column, value: Any) -> Expr:
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
            raise _wrong(f"column {column.name!r}", "a list of values", value, '{"$in": [1, 2]}')
        return make(column, value)

    return checked


_LOGICAL = ("$and", "$or", "$nor", "$not")
_OPERATORS: dict[str, Callable[[Column, Any], Expr]] = {
    "$eq": _equal,
    "$ne": lambda column, value: ~_equal(column, value),
    "$gt": lambda column, value: column > value,
    "$gte": lambda column, value: column >= value,
    "$lt": lambda column, value: column < value,
    "$lte": lambda column, value: column <= value,
    "$between": _between,
    "$in": _listed(Column.isin),
    "$nin": _listed(lambda column, values: ~column.isin(values)),
    "$exists": _exists,
    "$like": Column.like,
    "$startswith": Column.startswith,
    "$endswith": Column.endswith,
    "$has": Column.has,
    "$has_any": _listed(Column.has_any),
    "$has_all": _listed(Column.has_all),
}


def _wrong(subject: str, expected: str, got: Any, example: str) -> FilterError:
    return FilterError(
        describe(subject, expected=expected, got=repr(got)[:100], fix=f"write {example}")
    )

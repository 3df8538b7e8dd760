"""A `where=` argument of any spelling as one bound tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vecdb.errors import FilterError, describe
from vecdb.filter.bind import bind
from vecdb.filter.expr import Column, Expr, as_expr
from vecdb.filter.mongo import from_mongo
from vecdb.filter.sql import Params, from_sql

if TYPE_CHECKING:
    from vecdb.schema import Schema

__all__ = ["parse"]


def parse(where: Any, schema: Schema, params: Params = None) -> Expr:
    """The bound tree of a filter.

    Parameters
    ----------
    where : Expr, str, mapping or pyarrow.compute.Expression
        ``col("year") > 2010``, ``"year > 2010"``, ``{"year": {"$gt": 2010}}`` or
        ``pc.field("year") > 2010``.
    schema : Schema
        Its columns and id type are what the filter is checked against.
    params : sequence or mapping, optional
        Values for the ``?`` or ``:name`` of SQL text.

    Raises
    ------
    FilterError
        The filter can't be read, names an unknown column, or does not fit a column's type.
    """
    if params is None and isinstance(where, str):
        return _parse_text(where, schema)
    if params is None and isinstance(where, Expr):
        return _parse_tree(where, schema)
    return _bound(where, schema, params)


def _bound(where: Any, schema: Schema, params: Params = None) -> Expr:
    """As :func:`parse`, without a memory."""
    if isinstance(where, str):
        return bind(from_sql(where, params), schema.columns, schema.ids)
    if params is not None:
        raise FilterError(
            describe("params", expected="SQL text as the filter", got=type(where).__name__,
                     fix="put the values into the filter itself")
        )  # fmt: skip
    if isinstance(where, (Expr, Column)):
        tree = as_expr(where)
    elif isinstance(where, Mapping):
        tree = from_mongo(where, _list_columns(schema))
    elif _is_arrow(where):
        from vecdb.filter.arrow import from_arrow

        tree = from_arrow(where)
    else:
        raise FilterError(
            describe("filter", expected="col(...), SQL text, a dict or a pyarrow expression",
                     got=f"{type(where).__name__} {where!r:.100}", fix="write col('year') > 2010")
        )  # fmt: skip
    return bind(tree, schema.columns, schema.ids)


def _parse_text(text: str, schema: Schema) -> Expr:
    """As :func:`_bound`, remembered for the schema object that it was bound to last: parsing takes
    longer than many a filtered search."""
    found = _RECENT.get(text)
    if found is not None and found[0] is schema:
        return found[1]
    expr = _bound(text, schema)
    if len(_RECENT) >= _MAX_RECENT:
        _RECENT.clear()
    _RECENT[text] = (schema, expr)
    return expr


def _parse_tree(tree: Expr, schema: Schema) -> Expr:
    """As :func:`_bound`, remembered by the tree itself: trees that are equal in Python, such as
    ``col("n") == 1`` and ``col("n") == True``, need not be equally right."""
    found: tuple[Schema, Expr] | None = getattr(tree, "_bound", None)
    if found is not None and found[0] is schema:
        return found[1]
    expr = _bound(tree, schema)
    object.__setattr__(tree, "_bound", (schema, expr))  # a memory, no part of its value
    return expr


_RECENT: dict[str, tuple[Schema, Expr]] = {}
_MAX_RECENT = 256


def _list_columns(schema: Schema) -> frozenset[str]:
    if schema.columns is None:
        return frozenset()
    return frozenset(f.name for f in schema.columns if str(f.type).startswith("list"))


def _is_arrow(where: object) -> bool:
    kind = type(where)
    return kind.__module__.startswith("pyarrow") and kind.__name__ == "Expression"

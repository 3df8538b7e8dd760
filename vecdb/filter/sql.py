"""Filters written as SQL text: ``"year > 2010 AND lang IN ('en', 'fr') AND NOT archived"``.

The text is parsed by sqlglot, and only the node types below are translated; anything else that SQL
has (subqueries, arithmetic, other functions) is refused by name. No SQL is ever run.

======================================  =================================================
``= != <> < <= > >=``, ``BETWEEN``      a column against a value
``IN (...)``, ``NOT IN (...)``          values, or one parameter that is a list
``IS NULL``, ``IS TRUE``, ``IS FALSE``  also with NOT
``LIKE``                                ``%`` any text, ``_`` one character, ``\\`` escapes
``starts_with(c, t)``, ``ends_with``,   parts of a text
``contains``
``has(c, v)``, ``has_any(c, (...))``,   elements of a list
``has_all``
``AND OR NOT ( )``, ``TRUE``, ``FALSE``
``?`` and ``:name``                     parameters
``TIMESTAMP '...'``, ``DATE '...'``     the same as the bare text
======================================  =================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vecdb.errors import FilterError, describe
from vecdb.filter.bind import MAX_DEPTH, MAX_NODES, unknown_operator
from vecdb.filter.expr import Column, Expr, all_of, any_of, as_expr, col
from vecdb.forking import load

__all__ = ["SQL_PARSER", "from_sql"]

SQL_PARSER = "sqlglot"
"""The module whose import, 100 ms and more, the first filter written as text waits for."""

MAX_TEXT = 1_000_000  # characters; sqlglot needs about 1 us for each
_COMPARE = {"EQ": "==", "NEQ": "!=", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TEXT = {"STARTS_WITH": "startswith", "ENDS_WITH": "endswith", "CONTAINS": "contains"}
_LISTS = ("HAS", "HAS_ANY", "HAS_ALL")
_CORRECT = (
    "correct the text; a column named like a word of SQL, or with spaces, goes into double quotes"
)

Params = Sequence[Any] | Mapping[str, Any] | None


def from_sql(text: str, params: Params = None) -> Expr:
    """The tree of a condition in SQL.

    Parameters
    ----------
    text : str
        What could stand behind WHERE.
    params : sequence or mapping, optional
        Values of the ``?`` or of the ``:name`` parameters.

    Raises
    ------
    FilterError
        The text can't be parsed, has something that filters do not have, or lacks a parameter.
    """
    if len(text) > MAX_TEXT:
        raise _refused(f"text of {len(text):,} characters", "pass long lists by params=")
    return _Translator(params).translate(_parse(text))


def _parse(text: str) -> Any:
    load(SQL_PARSER)
    import sqlglot

    try:
        statements = sqlglot.parse(text)
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        reason = str(error).replace("\x1b[4m", "").replace("\x1b[0m", "").splitlines()
        raise _refused(f"{text!r:.200} ({reason[0][:200]})", _CORRECT) from None
    if len(statements) != 1 or statements[0] is None:
        count = sum(statement is not None for statement in statements)
        raise _refused(f"{count} statements in {text!r:.200}", "write one condition")
    return statements[0]


class _Translator:
    def __init__(self, params: Params) -> None:
        self._named = params if isinstance(params, Mapping) else {}
        listed = params is not None and not isinstance(params, Mapping)
        self._unused = list(params) if listed else []  # type: ignore[arg-type]
        self._depth = 0

    def translate(self, node: Any) -> Expr:
        expr = self._condition(node)
        if self._unused:
            raise _refused(f"{len(self._unused)} parameters too many", "pass one value per ?")
        return expr

    def _condition(self, node: Any) -> Expr:
        self._depth += 1
        if self._depth > 2 * MAX_DEPTH:  # parentheses are levels here but not in the tree
            raise _refused("too many levels", f"stay under {MAX_DEPTH}")
        kind = type(node).__name__
        method = getattr(self, f"_on_{kind.lower()}", None)
        if kind in _COMPARE:
            expr = self._compare(node, _COMPARE[kind])
        elif method is not None:
            expr = method(node)
        elif (name := _function(node)) in _TEXT or name in _LISTS:
            expr = self._call(node, name)
        else:
            raise _unknown(node)
        self._depth -= 1
        return expr

    def _on_paren(self, node: Any) -> Expr:
        return self._condition(node.this)

    def _on_and(self, node: Any) -> Expr:
        return all_of([self._condition(operand) for operand in _chain(node)])

    def _on_or(self, node: Any) -> Expr:
        return any_of([self._condition(operand) for operand in _chain(node)])

    def _on_not(self, node: Any) -> Expr:
        return ~self._condition(node.this)

    def _on_column(self, node: Any) -> Expr:
        return as_expr(_column(node))

    def _on_boolean(self, node: Any) -> Expr:
        return all_of([]) if node.this else any_of([])

    def _on_between(self, node: Any) -> Expr:
        _only(node, "this", "low", "high")
        low, high = self._value(node.args["low"]), self._value(node.args["high"])
        return _column(node.this).between(low, high)

    def _on_in(self, node: Any) -> Expr:
        _only(node, "this", "expressions", "field")
        if node.args.get("field") is not None:
            values = self._value(node.args["field"])
        else:
            values = [self._value(value) for value in node.expressions]
            if not values:
                raise _refused("IN () without values", "list at least one value")
        return _column(node.this).isin(values)

    def _on_is(self, node: Any) -> Expr:
        column, what = _column(node.this), node.expression
        if type(what).__name__ == "Null":
            return column.is_null()
        if type(what).__name__ == "Boolean":  # never unknown: a null is neither TRUE nor FALSE
            return column.is_not_null() & (column == bool(what.this))
        raise _unknown(node)

    def _on_like(self, node: Any) -> Expr:
        _only(node, "this", "expression", "negate")
        like = _column(node.this).like(self._value(node.expression))
        return ~like if node.args.get("negate") else like  # older sqlglot wraps it in Not

    def _call(self, node: Any, name: str) -> Expr:
        arguments = [value for value in _arguments(node) if value is not None]
        if len(arguments) != 2:
            value = "(value, ...)" if name in _LISTS[1:] else "value"
            raise _refused(f"{name.lower()}() with {len(arguments)} arguments",
                           f"write {name.lower()}(column, {value})")  # fmt: skip
        column = _column(arguments[0])
        if name in _TEXT:
            return getattr(column, _TEXT[name])(self._value(arguments[1]))  # type: ignore[no-any-return]
        if name == "HAS":
            return column.has(self._value(arguments[1]))
        values = self._list(arguments[1])
        return column.has_any(values) if name == "HAS_ANY" else column.has_all(values)

    def _compare(self, node: Any, op: str) -> Expr:
        left, right = node.this, node.expression
        if type(left).__name__ != "Column" and type(right).__name__ == "Column":
            left, right, op = right, left, _FLIPPED[op]
        return _column(left)._compare(op, self._value(right))  # type: ignore[arg-type]

    def _list(self, node: Any) -> Any:
        if type(node).__name__ in ("Tuple", "Array"):
            return [self._value(value) for value in node.expressions]
        if type(node).__name__ == "Paren":
            return [self._value(node.this)]
        return self._value(node)

    def _value(self, node: Any) -> Any:
        match type(node).__name__:
            case "Literal":
                value = node.this if node.is_string else _number(node.this)
            case "Neg" if type(node.this).__name__ == "Literal" and not node.this.is_string:
                value = -_number(node.this.this)
            case "Boolean":
                value = bool(node.this)
            case "Null":
                value = None
            case "Placeholder":
                value = self._parameter(node)
            case "Paren":
                value = self._value(node.this)
            case "Cast" if str(node.args["to"]) in ("TIMESTAMP", "DATE", "TIMESTAMPTZ"):
                value = self._value(node.this)
            case "Column":
                raise _refused(
                    f"column {_column(node).name!r} where a value was expected",
                    "compare a column with a value; text goes into single quotes",
                )
            case _:
                raise _unknown(node)
        return value

    def _parameter(self, node: Any) -> Any:
        name = node.args.get("this")
        if name is None:
            if not self._unused:
                raise _refused("a ? without a value", "pass params=[...], one value per ?")
            return self._unused.pop(0)
        if name not in self._named:
            raise _refused(f"parameter :{name} without a value",
                           f"pass params={{{name!r}: ...}}")  # fmt: skip
        return self._named[name]


def _chain(node: Any) -> list[Any]:
    """The operands of a AND b AND c, left to right; the parser nests them to the left."""
    operands: list[Any] = []
    kind = type(node)
    while type(node) is kind:
        operands.append(node.expression)
        node = node.this
        if len(operands) > MAX_NODES:
            raise _refused(f"more than {MAX_NODES:,} conditions", "use IN (...) for long lists")
    operands.append(node)
    return operands[::-1]


def _column(node: Any) -> Column:
    if type(node).__name__ == "Paren":
        return _column(node.this)
    if type(node).__name__ != "Column":
        raise _refused(f"{node.sql()!r:.200} where a column was expected",
                       "compare a column with a value")  # fmt: skip
    _only(node, "this")
    return col(node.name)


def _function(node: Any) -> str:
    """The upper-case name of a function call, "" for anything else."""
    if type(node).__name__ == "Anonymous":
        return str(node.this).upper()
    return str(node.sql_name()).upper() if hasattr(node, "sql_name") else ""


def _arguments(node: Any) -> list[Any]:
    if type(node).__name__ == "Anonymous":
        return list(node.expressions)
    return [node.args[name] for name in ("this", "expression") if name in node.args]


def _number(text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise _refused(f"the number {text!r:.40}", "write it out, such as 1e3")


def _only(node: Any, *known: str) -> None:
    """Refuse a node that carries more than is translated, such as BETWEEN SYMMETRIC."""
    if extra := [name for name, value in node.args.items() if value and name not in known]:
        raise _refused(f"{node.sql()!r:.200} ({', '.join(extra)})", "leave it out")


def _unknown(node: Any) -> FilterError:
    name = _function(node) or type(node).__name__.upper()
    known = ["=", "!=", "<", "<=", ">", ">=", "BETWEEN", "IN", "IS NULL", "LIKE", "AND", "OR",
             "NOT", *_TEXT, *_LISTS]  # fmt: skip
    return unknown_operator(name, known)


def _refused(got: str, fix: str) -> FilterError:
    return FilterError(describe("filter", expected="a condition in SQL", got=got, fix=fix))

"""Filters written as ``pyarrow.compute.Expression``.

pyarrow shows no tree, but it serialises one: an IPC file of one row, whose schema metadata lists
the tree in prefix order (``call``/``field_ref``/``literal``/``options``/``end``) and whose columns
hold literals and options. The list has repeated keys, which only Arrow's C data interface hands
out. Reading it gives our own checked tree: nothing is handed to Arrow to run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vecdb.errors import FilterError, describe
from vecdb.filter.bind import MAX_DEPTH, unknown_operator
from vecdb.filter.expr import Column, Expr, all_of, any_of, as_expr, col

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

__all__ = ["from_arrow"]

_COMPARE = {
    "equal": ("==", "=="),
    "not_equal": ("!=", "!="),
    "less": ("<", ">"),
    "less_equal": ("<=", ">="),
    "greater": (">", "<"),
    "greater_equal": (">=", "<="),
}
_LOGICAL: dict[str, Callable[[list[Expr]], Expr]] = {"and_kleene": all_of, "or_kleene": any_of}
_ON_COLUMN: dict[str, Callable[[Column, dict[str, Any]], Expr]] = {
    "is_null": lambda column, _: column.is_null(),
    "is_valid": lambda column, _: column.is_not_null(),
    "is_in": lambda column, options: column.isin(options["value_set"]),
    "starts_with": lambda column, options: column.startswith(options["pattern"]),
    "ends_with": lambda column, options: column.endswith(options["pattern"]),
    "match_substring": lambda column, options: column.contains(options["pattern"]),
    "match_like": lambda column, options: column.like(options["pattern"]),
}


def from_arrow(expression: pc.Expression) -> Expr:
    """The tree of a pyarrow expression.

    Raises
    ------
    FilterError
        A function or an option that filters do not have.
    """
    import pyarrow as pa

    try:
        reduced: Any = expression.__reduce__()
    except pa.ArrowException as error:  # a column by its number
        raise _refused(str(error)[:200], "refer to columns by name") from None
    batch = pa.ipc.open_file(reduced[1][0]).get_batch(0)
    return _condition(_Reader(batch).read(1))


class _Call:
    def __init__(self, name: str, arguments: list[Any], options: dict[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.options = options


class _Value:
    def __init__(self, value: Any) -> None:
        self.value = value


class _Reader:
    """The serialised list back into nested calls."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._items: Iterator[tuple[str, str]] = iter(_metadata(batch.schema))

    def read(self, depth: int) -> Any:
        key, text = next(self._items)
        return self._node(key, text, depth)

    def _node(self, key: str, text: str, depth: int) -> Any:
        if depth > 2 * MAX_DEPTH:
            raise _refused("too many levels", f"stay under {MAX_DEPTH}")
        if key == "field_ref":
            return col(text)
        if key == "literal":
            return _Value(self._batch.column(int(text))[0].as_py())
        if key != "call":
            raise _refused(f"a {key}", "refer to columns by name")
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        for key, value in self._items:  # noqa: PLR1704 - the loop moves on to the arguments
            if key == "end":
                break
            if key == "options":
                options = self._batch.column(int(value))[0].as_py()
            else:
                arguments.append(self._node(key, value, depth + 1))
        return _Call(text, arguments, options)


def _condition(node: Any) -> Expr:
    if isinstance(node, Column):
        return as_expr(node)
    if isinstance(node, _Call):
        return _call(node)
    if isinstance(node.value, bool):
        return all_of([]) if node.value else any_of([])
    raise _refused(f"the value {node.value!r:.100}", "compare a column with it")


def _call(node: _Call) -> Expr:
    name, arguments = node.name, node.arguments
    for option in ("ignore_case", "nan_is_null"):
        if node.options.get(option):
            raise _refused(f"{name}({option}=True)", "leave the option out")
    if name in _COMPARE:
        return _compare(name, *arguments)
    if name in _LOGICAL:
        return _LOGICAL[name]([_condition(argument) for argument in arguments])
    if name == "invert":
        return ~_condition(arguments[0])
    if name in _ON_COLUMN:
        return _ON_COLUMN[name](_column(arguments[0]), node.options)
    raise unknown_operator(name, [*_COMPARE, *_LOGICAL, "invert", *_ON_COLUMN])


def _compare(name: str, left: Any, right: Any) -> Expr:
    op, flipped = _COMPARE[name]
    if isinstance(left, _Value) and isinstance(right, Column):
        left, right, op = right, left, flipped
    if not isinstance(right, _Value):
        raise _refused(f"{name} of two columns", "compare a column with a value")
    return _column(left)._compare(op, right.value)  # type: ignore[arg-type]


def _column(node: Any) -> Column:
    if isinstance(node, Column):
        return node
    what = f"{node.name}(...)" if isinstance(node, _Call) else repr(getattr(node, "value", node))
    raise _refused(f"{what} where a column was expected", "leave casts and functions out")


def _refused(got: str, fix: str) -> FilterError:
    expected = "a pyarrow expression of columns and values"
    return FilterError(describe("filter", expected=expected, got=got, fix=fix))


class _ArrowSchema(ctypes.Structure):
    """The head of struct ArrowSchema (Arrow C data interface)."""

    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
    )


def _metadata(schema: pa.Schema) -> list[tuple[str, str]]:
    """Key-value metadata in order, repeated keys included (``Schema.metadata`` is a dict)."""
    capsule = schema.__arrow_c_schema__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    at = _ArrowSchema.from_address(pointer(capsule, b"arrow_schema")).metadata
    if not at:
        return []

    def number() -> int:
        nonlocal at
        value = ctypes.c_int32.from_address(at).value
        at += 4
        return value

    def text() -> str:
        nonlocal at
        length = number()
        value = ctypes.string_at(at, length).decode()
        at += length
        return value

    return [(text(), text()) for _ in range(number())]

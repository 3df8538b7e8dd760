"""A bound filter evaluated over the rows of one segment, as a bitmap.

SQL's three-valued logic needs no third value here: NOT is pushed down to the conditions (De Morgan
holds for it), a condition on a null passes neither plain nor negated, and so one bitmap, "true", is
enough. Blocks of 65,536 rows keep the intermediate flags in the second-level cache, and zones that
their zone maps settle are not read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.filter.bitmap import pack_into
from vecdb.filter.columns import Bools, Ids, Numbers
from vecdb.filter.expr import (
    And,
    Compare,
    Expr,
    Has,
    IsIn,
    IsNull,
    Match,
    Not,
    Or,
    Predicate,
)
from vecdb.filter.leaves import Test, all_tests, any_test, constant, leaf_test
from vecdb.segment import bitmap
from vecdb.segment.columns import ZONE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from vecdb.filter.columns import ColumnData
    from vecdb.filter.zones import Zones

__all__ = ["TimeUpError", "evaluate"]

BLOCK = 65_536
_TIMED = 16_384  # rows of a block under a deadline: a search in text takes .5 ms for so many


class TimeUpError(Exception):
    """The deadline came before all rows were looked at. No user sees it."""


def evaluate(
    expr: Expr,
    rows: int,
    column: Callable[[str], ColumnData | Ids],
    zones: Zones | None = None,
    deadline_ns: int = 0,
) -> npt.NDArray[np.uint8]:
    """The rows for which a bound filter is true, as a bitmap.

    Parameters
    ----------
    expr : Expr
        Bound to the columns (:func:`vecdb.filter.parse.parse`).
    rows : int
        Number of rows of the segment.
    column : callable
        Gives a column of the segment by name.
    zones : Zones, optional
        What is known beforehand (:func:`vecdb.filter.zones.judge`).
    deadline_ns : int
        Value of ``time.monotonic_ns()`` after which no further block is looked at; 0 for none.

    Raises
    ------
    TimeUpError
        It came.
    """
    if zones is None:
        passing = np.zeros(bitmap.nbytes(rows), np.uint8)
        runs = [(0, rows)]
    else:
        passing = _settled(zones, rows)
        runs = _unsettled(zones, rows)
    if runs:
        test = _test(expr, column, negated=False)
        size = _TIMED if deadline_ns else BLOCK
        for first, last in runs:
            for start in range(first, last, size):
                if deadline_ns and time.monotonic_ns() > deadline_ns:
                    raise TimeUpError
                pack_into(passing, start, test(start, min(start + size, last)))
    return passing


def _settled(zones: Zones, rows: int) -> npt.NDArray[np.uint8]:
    """The bitmap with the zones set in which every row passes."""
    passing = np.zeros((len(zones.surely), ZONE_ROWS // 8), np.uint8)
    passing[zones.surely] = 255
    bits = passing.reshape(-1)[: bitmap.nbytes(rows)]
    if rows % 64:
        bits.view(np.uint64)[-1] &= np.uint64((1 << rows % 64) - 1)
    return bits


def _unsettled(zones: Zones, rows: int) -> list[tuple[int, int]]:
    """Runs of rows that must be looked at."""
    open_zones = zones.maybe & ~zones.surely
    edges = np.flatnonzero(np.diff(open_zones, prepend=False, append=False)) * ZONE_ROWS
    ends = np.minimum(edges, rows).tolist()
    return list(zip(ends[::2], ends[1::2], strict=True))


def _test(expr: Expr, column: Callable[[str], ColumnData | Ids], *, negated: bool) -> Test:
    match expr:
        case Not(operand):
            return _test(operand, column, negated=not negated)
        case And(operands) | Or(operands):
            tests = [_test(operand, column, negated=negated) for operand in operands]
            return all_tests(tests) if isinstance(expr, And) != negated else any_test(tests)
        case IsNull(name):
            return _null(column(name), passes=not negated)
        case Compare() | IsIn() | Match() | Has():
            data = column(expr.column)
            return _known(leaf_test(expr, data), [data], negated=negated)
        case Predicate(_, names):
            columns = [column(name) for name in names]
            return _known(_predicate(expr, columns), columns, negated=negated)
    raise AssertionError(expr)


def _null(data: ColumnData | Ids, *, passes: bool) -> Test:
    """IS NULL when `passes`, IS NOT NULL otherwise."""
    if data.never_null:
        return constant(not passes)

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        valid = data.valid(start, stop)
        return ~valid if passes else valid

    return test


def _predicate(expr: Predicate, columns: Sequence[ColumnData | Ids]) -> Test:
    from vecdb.kernels.predicate import compiled

    holds = compiled(expr.function, tuple(_values(data, 0, 0).dtype for data in columns))
    return lambda start, stop: holds(*(_values(data, start, stop) for data in columns))


def _values(data: ColumnData | Ids, start: int, stop: int) -> npt.NDArray[Any]:
    """What a predicate sees of a column."""
    if isinstance(data, Bools):
        return data.flags(start, stop)
    assert isinstance(data, (Numbers, Ids))
    return data.numbers(start, stop)


def _known(holds: Test, columns: Sequence[ColumnData | Ids], *, negated: bool) -> Test:
    """A condition, or its negation, on the rows that have a value in its columns."""
    partial = [data for data in columns if not data.never_null]
    if not partial and not negated:
        return holds

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        flags = holds(start, stop)
        if negated:
            np.logical_not(flags, out=flags)
        for data in partial:
            flags &= data.valid(start, stop)
        return flags

    return test

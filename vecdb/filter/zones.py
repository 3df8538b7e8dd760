"""What the zone maps of a segment say about a filter before a row is read.

For each zone of 4,096 rows: may any row pass, and do all pass for sure. Zones that are settled so
are not read at all; on sorted columns (dates, growing ids) that is nearly every zone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb.filter.expr import And, Compare, Expr, IsIn, IsNull, Not, Or
from vecdb.filter.values import interval, kind_of
from vecdb.segment.columns import ZONE_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.segment.columns import BlockStats

__all__ = ["Zones", "judge"]

_MANY = 32  # values of a set that are looked up one by one; of more only the span is


class Zones(NamedTuple):
    """Per zone: whether some row may pass, and whether every row passes."""

    maybe: npt.NDArray[np.bool_]
    surely: npt.NDArray[np.bool_]


class Stats(NamedTuple):
    """Zone maps of a column and its type."""

    blocks: BlockStats
    type: pa.DataType


def judge(
    expr: Expr, rows: int, stats: Callable[[str], Stats | None], *, negated: bool = False
) -> Zones:
    """What is known about a bound filter (or its negation) from zone maps alone."""
    match expr:
        case Not(operand):
            return judge(operand, rows, stats, negated=not negated)
        case And(operands) | Or(operands):
            both = [judge(operand, rows, stats, negated=negated) for operand in operands]
            join = np.logical_and if isinstance(expr, And) != negated else np.logical_or
            start = np.full(-(-rows // ZONE_ROWS), join is np.logical_and)
            return Zones(
                join.reduce([start, *(zones.maybe for zones in both)]),
                join.reduce([start, *(zones.surely for zones in both)]),
            )
        case Compare(name) | IsIn(name) | IsNull(name) if (known := stats(name)) is not None:
            if isinstance(expr, IsNull):
                return _null(known.blocks, rows, passes=not negated)
            return _leaf(expr, known, negated=negated)
    zones = -(-rows // ZONE_ROWS)
    return Zones(np.ones(zones, np.bool_), np.zeros(zones, np.bool_))


def _null(blocks: BlockStats, rows: int, *, passes: bool) -> Zones:
    sizes = np.full(len(blocks.null_count), ZONE_ROWS)
    if rows % ZONE_ROWS:
        sizes[-1] = rows % ZONE_ROWS
    some, every = blocks.null_count > 0, blocks.null_count == sizes
    return Zones(some, every) if passes else Zones(~every, ~some)


def _leaf(leaf: Compare | IsIn, known: Stats, *, negated: bool) -> Zones:
    blocks, has_nan = known.blocks, kind_of(known.type) == "float"
    touched = np.zeros(len(blocks.null_count), np.bool_)  # a value may be inside an interval
    covered = touched.copy()  # every value, NaN left aside, is
    for low, high in _intervals(leaf, known.type):
        if low <= high:
            touched |= (blocks.maximum >= low) & (blocks.minimum <= high)
            covered |= (blocks.minimum >= low) & (blocks.maximum <= high)
    if isinstance(leaf, IsIn) and len(leaf.values) > _MANY:
        covered[:] = False
    full = blocks.null_count == 0
    if not negated:  # NaN is in no interval
        return Zones(touched, covered & full & (not has_nan))
    return Zones(~covered | has_nan, ~touched & full)


def _intervals(leaf: Compare | IsIn, data_type: pa.DataType) -> list[tuple[Any, Any]]:
    if kind_of(data_type) == "bool":
        wanted = (leaf.value,) if isinstance(leaf, Compare) else leaf.values
        return [(int(value), int(value)) for value in wanted]
    if isinstance(leaf, Compare):
        return [interval(leaf.op, leaf.value, data_type)]
    found = [interval("==", value, data_type) for value in leaf.values]
    if len(found) <= _MANY:
        return found
    real = [low for low, high in found if low <= high]
    return [(min(real), max(real))] if real else []

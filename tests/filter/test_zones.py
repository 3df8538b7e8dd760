"""Zone maps: they may only save work, never change an answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb import col
from vecdb.filter import columns
from vecdb.filter.evaluate import evaluate
from vecdb.filter.expr import Expr
from vecdb.filter.parse import parse
from vecdb.filter.zones import Stats, judge
from vecdb.schema import Schema
from vecdb.segment.columns import ZONE_ROWS, BlockStats

ROWS = 3 * ZONE_ROWS + 100
RNG = np.random.default_rng(5)


def sparse(values: Any, missing: Any) -> pa.Array[Any]:
    return pa.array(values, mask=np.asarray(missing))


TABLE = pa.record_batch(
    {
        "sorted": pa.array(np.arange(ROWS, dtype=np.int32)),
        "constant": pa.array(np.repeat([7, 8, 7, 7], [ZONE_ROWS] * 3 + [100])),
        "gappy": sparse(np.arange(ROWS), np.arange(ROWS) < ZONE_ROWS + 5),
        "real": pa.array(np.where(np.arange(ROWS) % 100 == 3, np.nan, np.arange(ROWS) / ROWS)),
        "nan": pa.array(np.full(ROWS, np.nan)),
        "flag": sparse(np.arange(ROWS) > ZONE_ROWS, np.arange(ROWS) % 7 == 0),
        "stamp": pa.array(np.arange(ROWS) * 10**6, pa.timestamp("us")),
        "random": pa.array(RNG.integers(0, 100, ROWS)),
    }
)
SCHEMA = Schema(dim=2, columns=TABLE.schema)
FILTERS = [
    col("sorted") < 50,
    col("sorted").between(ZONE_ROWS, 2 * ZONE_ROWS - 1),
    col("sorted") >= 0,
    col("sorted") > ROWS,
    col("sorted") != 5000,
    col("sorted").isin([3, 5000, ROWS - 1]),
    ~col("sorted").isin(range(0, 100, 2)),
    col("constant") == 7,
    col("constant") != 7,
    col("constant").isin([7, 8]),
    ~col("constant").isin([7, 8]),
    col("gappy").is_null(),
    col("gappy").is_not_null(),
    col("gappy") >= 0,
    ~(col("gappy") >= 0),
    col("real") <= 1,
    ~(col("real") <= 1),
    ~(col("real") > 1),
    col("nan") == 1,
    col("nan") != 1,
    col("flag"),
    ~col("flag"),
    col("flag").isin([True, False]),
    col("stamp") < "1970-01-01T01:00",
    (col("sorted") > 5000) & (col("random") < 10),
    ~((col("sorted") > 5000) | (col("random") < 10)),
    ((col("sorted") < 10) & (col("flag") == False)) | (col("gappy") > ROWS - 10),  # noqa: E712
]


LIMITS: dict[str, tuple[Any, Any]] = {
    "float64": (-math.inf, math.inf),
    "uint8": (0, 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


def block_stats(array: pa.Array[Any]) -> BlockStats:
    """The zone maps of a column, computed the slow way."""
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    if not pa.types.is_boolean(array.type):
        dtype = columns.column_data(array).numbers(0, 0).dtype  # type: ignore[attr-defined]
    low, high = LIMITS[dtype.name]
    least, greatest, nulls = [], [], []
    for start in range(0, len(array), ZONE_ROWS):
        zone = array[start : start + ZONE_ROWS]
        if pa.types.is_timestamp(array.type):
            zone = zone.cast(pa.int64())
        values = [v for v in zone.to_pylist() if v is not None and not math.isnan(v)]
        least.append(min(values, default=high))
        greatest.append(max(values, default=low))
        nulls.append(zone.null_count)
    return BlockStats(np.array(least, dtype), np.array(greatest, dtype), np.array(nulls, np.uint16))


STATS = {
    field.name: Stats(block_stats(TABLE.column(field.name)), field.type) for field in TABLE.schema
}
DATA = {name: columns.column_data(TABLE.column(name)) for name in TABLE.schema.names}


@pytest.mark.parametrize("where", FILTERS, ids=repr)
def test_zone_maps_change_no_answer(where: Expr) -> None:
    expr = parse(where, SCHEMA)
    plain = evaluate(expr, ROWS, DATA.__getitem__)
    zones = judge(expr, ROWS, STATS.get)
    np.testing.assert_array_equal(evaluate(expr, ROWS, DATA.__getitem__, zones), plain)
    assert not (zones.surely & ~zones.maybe).any()


def test_settled_zones_are_not_read() -> None:
    for where in (col("sorted") >= 0, col("sorted") > ROWS, col("gappy") < 0):
        expr = parse(where, SCHEMA)
        evaluate(expr, ROWS, {}.__getitem__, judge(expr, ROWS, STATS.get))  # no column at hand
    window = judge(parse(col("sorted").between(5000, 5001), SCHEMA), ROWS, STATS.get)
    assert window.maybe.tolist() == [False, True, False, False]
    sure = judge(parse(col("sorted") >= 5000, SCHEMA), ROWS, STATS.get)
    assert sure.surely.tolist() == [False, False, True, True]


def test_columns_without_zone_maps_are_read() -> None:
    zones = judge(parse(col("random") < 10, SCHEMA), ROWS, lambda name: None)
    assert zones.maybe.all()
    assert not zones.surely.any()

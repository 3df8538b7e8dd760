"""Values in filters: one plain Python type per column type, and closed intervals of them.

=============  =====================================================================
column         plain value
=============  =====================================================================
bool           bool
int, float     int or float, compared by exact value whatever the column's width
string         str
binary         bytes
timestamp      int, nanoseconds since 1970-01-01 UTC (unbounded: a column in seconds
               reaches further than 64 bits of nanoseconds)
=============  =====================================================================

A comparison with a number or a time is a closed interval of the stored values
(:func:`interval`), which takes care of fractions against integer columns, of values outside the
column's range and of float32 rounding once and for all.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import FilterError, describe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Interval", "interval", "kind_of", "plain_value"]

Interval = tuple[Any, Any]  # both ends belong to it; low > high is the empty one
_EMPTY: Interval = (1, 0)
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXAMPLES = {
    "bool": "True or False",
    "int": "a number",
    "float": "a number",
    "string": "text",
    "binary": "bytes",
    "timestamp": "ISO text such as '2024-05-31T12:00:00', a datetime or a date",
}
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)?)?"
)


def kind_of(data_type: pa.DataType) -> str:
    """``bool, int, float, string, binary, timestamp`` or ``list``."""
    name = str(data_type)
    if name in ("bool", "string", "binary"):
        return name
    for kind in ("timestamp", "list"):
        if name.startswith(kind):
            return kind
    return "float" if name in ("float", "double", "halffloat") else "int"


def number_type(data_type: pa.DataType) -> np.dtype[Any]:
    """The NumPy type in which a column of bools, numbers or timestamps is stored."""
    if kind_of(data_type) == "timestamp":
        return np.dtype(np.int64)
    return np.dtype(data_type.to_pandas_dtype())


def plain_value(column: str, data_type: pa.DataType, value: Any) -> Any:
    """`value` as the plain type of the column.

    Raises
    ------
    FilterError
        A value of another type, null, or NaN.
    """
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    elif hasattr(value, "as_py"):  # an Arrow scalar
        value = value.as_py()
    kind = kind_of(data_type)
    if value is None:
        raise FilterError(
            describe(f"column {column!r} ({data_type})", expected=_EXAMPLES[kind], got="null",
                     fix=f"write col({column!r}).is_null() (SQL: {column} IS NULL)")
        )  # fmt: skip
    plain = _CONVERT[kind](value)
    if plain is None:
        raise FilterError(
            describe(f"column {column!r} ({data_type})", expected=_EXAMPLES[kind],
                     got=f"{type(value).__name__} {value!r:.100}", fix=_fix(kind, value))
        )  # fmt: skip
    if kind == "timestamp" and getattr(data_type, "tz", None) is None and _has_zone(value):
        raise FilterError(
            describe(f"column {column!r} ({data_type})", expected="a time without a zone",
                     got=f"{value!s:.100}", fix="leave the offset out: the column has no time zone")
        )  # fmt: skip
    return plain


def interval(op: str, value: Any, data_type: pa.DataType) -> Interval:
    """The stored values of a number or timestamp column for which ``stored op value`` is true.

    `op` is one of ``== < <= > >=``; both ends are of the column's own range and precision.
    """
    kind = kind_of(data_type)
    if kind == "float":
        return _float_interval(op, value, np.float32 if str(data_type) == "float" else np.float64)
    if kind == "timestamp":
        value = Fraction(value, _NANOSECONDS[data_type.unit])  # type: ignore[attr-defined]
        low, high = -(2**63), 2**63 - 1
    else:
        bits, signed = data_type.bit_width, str(data_type).startswith("int")
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    value = min(max(value, low - 1), high + 1)  # also brings infinities into reach
    match op:
        case "==":
            found = (math.ceil(value), math.floor(value))
        case "<":
            found = (low, math.ceil(value) - 1)
        case "<=":
            found = (low, math.floor(value))
        case ">":
            found = (math.floor(value) + 1, high)
        case _:
            found = (math.ceil(value), high)
    clipped = (max(found[0], low), min(found[1], high))
    return clipped if clipped[0] <= clipped[1] else _EMPTY


def _float_interval(op: str, value: float, dtype: Any) -> Interval:
    below, above = _neighbours(value, dtype)  # below <= value <= above, equal when representable
    infinity = dtype(np.inf)
    if op == "==":
        return (below, above) if below == above else _EMPTY
    if op in ("<", "<="):
        if op == "<" and below == above:  # the value is stored as it is and does not belong
            if below == -infinity:
                return _EMPTY
            below = np.nextafter(below, -infinity)
        return (-infinity, below)
    if op == ">" and below == above:
        if above == infinity:
            return _EMPTY
        above = np.nextafter(above, infinity)
    return (above, infinity)


def _neighbours(value: float, dtype: Any) -> tuple[Any, Any]:
    """The greatest `dtype` number <= value and the smallest >= value."""
    infinity = dtype(np.inf)
    try:
        with np.errstate(over="ignore"):
            near = dtype(value)
    except OverflowError:  # an int beyond float64
        near = infinity if value > 0 else -infinity
    exact = float(near)  # Python compares int and float by exact value
    if exact == value:
        return near, near
    if exact < value:
        return near, np.nextafter(near, infinity)
    return np.nextafter(near, -infinity), near


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return value


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str) else None


def _bytes(value: Any) -> bytes | None:
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


def _time(value: Any) -> int | None:
    """Nanoseconds since the epoch; a time without a zone is taken as UTC."""
    if isinstance(value, str):
        return _iso_time(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else _datetime64(value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=dt.UTC)
        since: dt.timedelta = value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        micros = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
        return micros * 1000 + int(getattr(value, "nanosecond", 0))  # pandas keeps nanoseconds
    if isinstance(value, dt.date):
        return int((value - dt.date(1970, 1, 1)).days) * 86_400 * 10**9
    return None


def _iso_time(text: str) -> int | None:
    match = _ISO.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = dt.datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
        )
    except ValueError:
        return None
    whole = _time(moment)
    assert whole is not None
    return whole + int((fraction or "0").ljust(9, "0")) - _offset(zone)


def _offset(zone: str | None) -> int:
    """Nanoseconds that a zone such as +02:00 is ahead of UTC."""
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return (minutes if zone[0] == "+" else -minutes) * 60 * 10**9


def _datetime64(value: np.datetime64) -> int:
    unit, step = np.datetime_data(value.dtype)
    if unit in _NANOSECONDS:
        return int(value.astype(np.int64)) * step * _NANOSECONDS[unit]
    return int(value.astype("datetime64[s]").astype(np.int64)) * 10**9


def _has_zone(value: Any) -> bool:
    if isinstance(value, str):
        match = _ISO.fullmatch(value.strip())
        return match is not None and match[8] is not None
    return getattr(value, "tzinfo", None) is not None


def _fix(kind: str, value: Any) -> str:
    if kind in ("int", "float") and isinstance(value, str):
        return "leave out the quotes"
    if kind == "string":
        return "put it in quotes"
    if kind == "timestamp":
        return "write the time as YYYY-MM-DD or YYYY-MM-DDThh:mm:ss"
    return "convert the value"


_CONVERT = {
    "bool": _bool,
    "int": _number,
    "float": _number,
    "string": _text,
    "binary": _bytes,
    "timestamp": _time,
}

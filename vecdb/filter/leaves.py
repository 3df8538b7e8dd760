"""One condition on one column as a test of a range of rows.

A test returns a fresh bool array; what it says about rows without a value does not matter, they are
masked by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.filter.columns import Bools, ColumnData, Ids, Lists, Numbers, Texts
from vecdb.filter.expr import Compare, Has, IsIn, Match
from vecdb.filter.values import interval
from vecdb.forking import load

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Test", "all_tests", "any_test", "constant", "leaf_test"]

Test = Callable[[int, int], "npt.NDArray[np.bool_]"]
_TABLE_SPAN = 1 << 20  # a set of integers that span less becomes a lookup table
_ORDER = {"==": "equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_MATCH = {
    "like": "match_like",
    "startswith": "starts_with",
    "endswith": "ends_with",
    "contains": "match_substring",
}
_FEW = 8  # values that are compared one by one: faster than a table, which is gathered from


def leaf_test(leaf: Compare | IsIn | Match | Has, data: ColumnData | Ids) -> Test:
    """The test of a bound condition."""
    if isinstance(leaf, Has):
        assert isinstance(data, Lists)
        return _has(leaf, data)
    if isinstance(data, Ids):
        return _id(leaf, data)
    if isinstance(data, Texts):
        return _text(leaf, data)
    assert not isinstance(leaf, Match)
    if isinstance(data, Bools):
        return _bool(leaf, data)
    assert isinstance(data, Numbers)
    if isinstance(leaf, Compare):
        return _between(data, *interval(leaf.op, leaf.value, data.type))
    return _number_in(data, [interval("==", value, data.type) for value in leaf.values])


def constant(value: bool) -> Test:
    """The test that says the same about every row."""
    return lambda start, stop: np.full(stop - start, value)


def _id(leaf: Compare | IsIn | Match, data: Ids) -> Test:
    """Ids are looked up, not compared, where the filter names them."""
    if isinstance(leaf, Match) or (isinstance(leaf, Compare) and leaf.op != "=="):
        if data.textual:
            return lambda start, stop: _matches(data.texts(start, stop), leaf)
        assert isinstance(leaf, Compare)
        return _between(data, *interval(leaf.op, leaf.value, data.type))
    rows = data.find((leaf.value,) if isinstance(leaf, Compare) else leaf.values)

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        flags = np.zeros(stop - start, np.bool_)
        first, last = np.searchsorted(rows, (start, stop))
        flags[rows[first:last] - start] = True
        return flags

    return test


def _bool(leaf: Compare | IsIn, data: Bools) -> Test:
    wanted = {leaf.value} if isinstance(leaf, Compare) else set(leaf.values)
    if len(wanted) != 1:
        return constant(bool(wanted))
    if wanted == {True}:
        return data.flags
    return lambda start, stop: ~data.flags(start, stop)


def _between(data: Numbers | Ids, low: Any, high: Any) -> Test:
    if low > high:
        return constant(False)
    if low == high:
        return lambda start, stop: data.numbers(start, stop) == low
    least, greatest = _range(data)
    if low == least:
        return lambda start, stop: data.numbers(start, stop) <= high
    if high == greatest:
        return lambda start, stop: data.numbers(start, stop) >= low

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        numbers = data.numbers(start, stop)
        flags: npt.NDArray[np.bool_] = numbers >= low
        flags &= numbers <= high
        return flags

    return test


def _range(data: Numbers | Ids) -> tuple[Any, Any]:
    dtype = data.numbers(0, 0).dtype
    if dtype.kind == "f":
        return -np.inf, np.inf
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _number_in(data: Numbers, wanted: Sequence[tuple[Any, Any]]) -> Test:
    dtype = data.numbers(0, 0).dtype
    values = np.unique(np.array([low for low, high in wanted if low <= high], dtype))
    if not len(values):
        return constant(False)
    if len(values) <= _FEW:
        return any_test([_between(data, value, value) for value in values])
    least, greatest = values[0], values[-1]
    if dtype.kind in "iu" and int(greatest) - int(least) < _TABLE_SPAN:
        table = np.zeros(int(greatest) - int(least) + 1, np.bool_)
        table[(values - least).astype(np.int64)] = True

        def look_up(start: int, stop: int) -> npt.NDArray[np.bool_]:
            numbers = data.numbers(start, stop)
            inside = np.clip(numbers, least, greatest)
            flags: npt.NDArray[np.bool_] = table[(inside - least).astype(np.int64)]
            flags &= numbers == inside
            return flags

        return look_up

    def bisect(start: int, stop: int) -> npt.NDArray[np.bool_]:
        numbers = data.numbers(start, stop)
        at = np.searchsorted(values, numbers).clip(max=len(values) - 1)
        found: npt.NDArray[np.bool_] = values[at] == numbers
        return found

    return bisect


def _text(leaf: Compare | IsIn | Match, data: Texts) -> Test:
    if data.codes is None:
        return lambda start, stop: _matches(data.array.slice(start, stop - start), leaf)
    codes, table = data.codes, _matches(data.dictionary, leaf)
    passing = np.flatnonzero(table)
    if len(passing) in (0, len(table)):
        return constant(len(passing) > 0)
    if len(passing) <= _FEW:
        return any_test([_is_code(codes, code) for code in passing.astype(codes.dtype)])
    return lambda start, stop: table.take(codes[start:stop], mode="clip")


def _is_code(codes: npt.NDArray[Any], code: Any) -> Test:
    return lambda start, stop: codes[start:stop] == code


def _matches(texts: Any, leaf: Compare | IsIn | Match) -> npt.NDArray[np.bool_]:
    """The condition on an Arrow array of text or bytes; False for nulls."""
    load("pyarrow.compute")
    import pyarrow as pa
    import pyarrow.compute as pc

    flags: Any
    match leaf:
        case Compare(_, op, value):
            flags = pc.call_function(_ORDER[op], [texts, pa.scalar(value, texts.type)])
        case IsIn(_, values):
            flags = pc.is_in(texts, pa.array(values, texts.type))
        case Match(_, kind, text):
            flags = pc.call_function(_MATCH[kind], [texts], pc.MatchSubstringOptions(text))
    filled: npt.NDArray[np.bool_] = flags.fill_null(False).to_numpy(zero_copy_only=False)
    return filled


def _has(leaf: Has, data: Lists) -> Test:
    if not leaf.every:
        return _holds(data, leaf.values)
    return all_tests([_holds(data, (value,)) for value in leaf.values])


def _holds(data: Lists, values: tuple[Any, ...]) -> Test:
    """Whether any element of a row's list is one of the values; a null element is none."""
    elements, offsets = data.elements, data.offsets
    test = leaf_test(IsIn("element", values), elements)

    def any_element(start: int, stop: int) -> npt.NDArray[np.bool_]:
        bounds = offsets[start : stop + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        hits = test(first, last)
        if not elements.never_null:
            hits &= elements.valid(first, last)
        before = np.zeros(len(hits) + 1, np.int32)
        np.cumsum(hits, out=before[1:])
        found: npt.NDArray[np.bool_] = np.diff(before[bounds - first]) > 0
        return found

    return any_element


def any_test(tests: Sequence[Test]) -> Test:
    """True where any of the tests is."""

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        flags = tests[0](start, stop)
        for other in tests[1:]:
            flags |= other(start, stop)
        return flags

    return test if tests else constant(False)


def all_tests(tests: Sequence[Test]) -> Test:
    """True where all of the tests are; stops at the first that leaves no row of the block."""

    def test(start: int, stop: int) -> npt.NDArray[np.bool_]:
        flags = tests[0](start, stop)
        for other in tests[1:]:
            if not flags.any():
                break
            flags &= other(start, stop)
        return flags

    return test if tests else constant(True)

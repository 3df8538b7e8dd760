"""Live bitmaps against boolean arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.segment import bitmap


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 63, 64, 65, 1000])
def test_all_live_sets_the_rows_and_leaves_the_padding_clear(rows: int) -> None:
    live = bitmap.all_live(rows)
    assert len(live) % 8 == 0
    assert bitmap.live_rows(live) == rows
    assert bitmap.rows_of(live).tolist() == list(range(rows))


@given(st.integers(1, 200), st.integers(0, 200), st.data())
def test_clearing_and_extending_match_a_boolean_array(
    rows: int, more: int, data: st.DataObject
) -> None:
    dead = data.draw(st.lists(st.integers(0, rows - 1), unique=True))
    later = data.draw(st.lists(st.integers(0, rows + more - 1), unique=True))
    model = np.ones(rows + more, np.bool_)
    model[dead] = False
    live = bitmap.cleared(None, rows, np.array(dead, np.int64))
    before = live.copy()
    longer = bitmap.extended(live, rows, rows + more)
    np.testing.assert_array_equal(bitmap.rows_of(longer), np.flatnonzero(model))
    model[later] = False
    final = bitmap.cleared(longer, rows + more, np.array(later, np.int64))
    np.testing.assert_array_equal(bitmap.rows_of(final), np.flatnonzero(model))
    np.testing.assert_array_equal(bitmap.test(final, np.arange(rows + more)), model)
    np.testing.assert_array_equal(live, before)  # a shared bitmap is never changed in place

"""Long tests in parts: tests with seeds of their own, so that a run can be gone on with.

``VECDB_TEST_PARTS=7:20`` goes on with the seventh part; parts beyond the last one, ``20:40``, are
other histories of the same kind.
"""

from __future__ import annotations

import os

import pytest


def parts(count: int) -> pytest.MarkDecorator:
    """Parameter `part` of a long test, a number that all of its seeds follow from."""
    first, _, stop = os.environ.get("VECDB_TEST_PARTS", f"0:{count}").partition(":")
    return pytest.mark.parametrize("part", range(int(first), int(stop)))

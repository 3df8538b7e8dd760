"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_folder() -> Path:
    """The folder of large real data sets, named by VECDB_DATA; a test that needs it is skipped
    without."""
    folder = os.environ.get("VECDB_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VECDB_DATA names no folder of data sets")
    return Path(folder)

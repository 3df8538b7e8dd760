"""Makes the helpers in ``breaking/`` importable and gives the tests their shared tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from breaking import inject
from breaking.farm import Farm
from breaking.model import SMALL


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    """Processes that may be killed: forked from one that has vecdb and its kernels loaded."""
    with Farm() as running:
        yield running


@pytest.fixture
def small_store() -> Iterator[None]:
    """Memtables and graphs so small that a few dozen rows flush, merge and index."""
    with inject.sizes(**SMALL):
        yield

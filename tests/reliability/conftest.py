"""Makes the helpers in ``breaking/`` importable and gives the tests their shared tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from breaking import inject, probe
from breaking.farm import Farm
from breaking.model import SMALL


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    """Processes that may be killed: forked from one that has vecdb and its kernels loaded."""
    with Farm() as running:
        yield running


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with every kind of file in under 64 KB, to be copied and never written to."""
    path = tmp_path_factory.mktemp("intact") / "store"
    probe.build(path)
    files = {p.name.split("-")[0] for p in path.iterdir()}
    assert files == {"LOCK", "MANIFEST", "wal", "seg", "idx", "del"}
    assert sum(p.stat().st_size for p in path.iterdir()) <= 64 << 10
    return path


@pytest.fixture
def small_store() -> Iterator[None]:
    """Memtables and graphs so small that a few dozen rows flush, merge and index."""
    with inject.sizes(**SMALL):
        yield

"""The engine's own tests once interpreted, the store's once with every array access checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def run(folder: str, cache: Path, **environment: str) -> None:
    """pytest over a folder in a process of its own, with its own kernel cache."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
         str(TESTS / folder)],
        env=os.environ | environment | {"NUMBA_CACHE_DIR": str(cache)},
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.long
@pytest.mark.parametrize("folder", ["kernels", "graph"])
def test_kernels_are_right_when_interpreted(folder: str, tmp_path: Path) -> None:
    """Ten minutes: Python reads every index out of range that compiled code would not."""
    run(folder, tmp_path, NUMBA_DISABLE_JIT="1")


@pytest.mark.long
@pytest.mark.parametrize("folder", ["store", "graph", "kernels"])
def test_no_array_is_read_out_of_bounds(folder: str, tmp_path: Path) -> None:
    """Ten minutes, most of them to compile the checks."""
    run(folder, tmp_path, NUMBA_BOUNDSCHECK="1")

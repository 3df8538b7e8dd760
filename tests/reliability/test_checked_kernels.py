"""The engine's own tests once interpreted; they and the store's once with every access checked.

Interpreted code is a thousand times slower, so graphs are tried at a few dozen rows
(``tests/graph/test_tiny.py``) and scans without their largest sets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
FEW_ROWS = "not 2000 and not threads_split and not the_clock"
KERNELS = ["kernels/test_leaves.py", "kernels/test_scan.py", "graph/test_tiny.py"]


def run(paths: list[str], cache: Path, *options: str, **environment: str) -> None:
    """pytest over some files in a process of its own, with its own kernel cache."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", *options,
         *(str(TESTS / path) for path in paths)],
        env=os.environ | environment | {"NUMBA_CACHE_DIR": str(cache)},
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_kernels_are_right_when_interpreted(tmp_path: Path) -> None:
    """Python reads no index beyond an array's end, which compiled code would."""
    # what wraps around in a register is a warning in NumPy
    options = ["-W", "ignore:overflow:RuntimeWarning", "-k", FEW_ROWS]
    run(KERNELS, tmp_path, *options, NUMBA_DISABLE_JIT="1")


def test_nothing_is_read_out_of_bounds(tmp_path: Path) -> None:
    """Half of the time goes into compiling the checks."""
    run([*KERNELS, "store"], tmp_path, NUMBA_BOUNDSCHECK="1")


@pytest.mark.long
def test_no_test_of_the_graph_reads_out_of_bounds(tmp_path: Path) -> None:
    """A minute."""
    run(["graph", "quant"], tmp_path, NUMBA_BOUNDSCHECK="1")

"""The engine's own tests once interpreted; they and the store's once with every access checked.

Interpreted code is a thousand times slower, so these tests take few rows there, and what can't be
tried with few is left out. Run long: ``pytest -m long tests/reliability/test_checked_kernels.py``,
half an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
KERNELS = ["kernels/test_leaves.py", "kernels/test_scan.py", "graph/test_tiny.py"]
# steps of a build and a search that the tiny graphs take, too, looked at one by one
STEPS = [
    "graph/test_insert.py", "graph/test_nearest.py", "kernels/test_codes.py",
    "kernels/test_hashing.py", "kernels/test_pick.py", "kernels/test_clock.py",
    "kernels/test_memory.py",
]  # fmt: skip
FEW = (
    "not (2000 or 900 or threads_split or the_clock or two_threads or few_rows_through)"
    " and not (test_nearest and (5 or 32 or 100)) and not (test_codes and not 70-20-normal)"
)
# all other files, with fewer rows; test_gate.py is about compiling, test_machines.py runs kernels
# interpreted itself
REST = {
    "kernels/test_codes.py": "not (2000 or 900 or two_threads or few_rows_through)",
    "kernels/test_files.py": "",
    "graph/test_build.py": "",
    "graph/test_calibrate.py": "",
    "graph/test_islands.py": "not (rim or too_many or lost)",  # a small graph has no rim
    "graph/test_layout.py": "",
    "graph/test_levels.py": "not tight_clusters",  # of 4,000 rows
    "graph/test_nearest.py": "",
    "graph/test_visited.py": "not of_all_sizes",  # 400 searches
    # budgets, counters and chance are those of walks through thousands of rows
    "graph/test_search.py": "not (budget or counters or chance)",
    "graph/test_seeds.py": "",
    "quant/test_neighbours.py": "not few_directions",  # of 4,000 rows
    "quant/test_record.py": "",
}
NOT_INTERPRETED = {"kernels/test_gate.py", "kernels/test_machines.py"}


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


def interpret(paths: list[str], cache: Path, selection: str) -> None:
    """Python reads no index beyond an array's end, which compiled code would."""
    # what wraps around in a register, or is no number, is a warning in NumPy
    options = ["-o", "faulthandler_timeout=0"]
    for said in ("overflow", "invalid value"):
        options += ["-W", f"ignore:{said}:RuntimeWarning"]
    run(paths, cache, *options, "-k", selection, NUMBA_DISABLE_JIT="1")


def test_kernels_are_right_when_interpreted(tmp_path: Path) -> None:
    interpret(KERNELS + STEPS, tmp_path, FEW)


def test_every_file_of_the_engine_is_run_interpreted() -> None:
    files = {
        str(path.relative_to(TESTS))
        for folder in ("kernels", "graph", "quant")
        for path in (TESTS / folder).glob("test_*.py")
    }
    assert files == {*KERNELS, *STEPS, *REST, *NOT_INTERPRETED}


@pytest.mark.long
@pytest.mark.parametrize("file", REST)
def test_the_rest_of_the_engine_is_right_when_interpreted(file: str, tmp_path: Path) -> None:
    """One to seven minutes each."""
    interpret([file], tmp_path, REST[file])


def test_nothing_is_read_out_of_bounds(tmp_path: Path) -> None:
    """Half of the time goes into compiling the checks."""
    run([*KERNELS, "graph/test_nearest.py", "store"], tmp_path, NUMBA_BOUNDSCHECK="1")


@pytest.mark.long
def test_no_test_of_the_graph_reads_out_of_bounds(tmp_path: Path) -> None:
    """A minute."""
    run(["graph", "quant"], tmp_path, NUMBA_BOUNDSCHECK="1")

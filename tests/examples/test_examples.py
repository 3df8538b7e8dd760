"""Every example runs to its end and prints what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.filterwarnings("default")  # notebooks' own machinery may warn


def run(name: str, *arguments: str | Path, folder: Path) -> str:
    """What the example prints, run in `folder` as a person would."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quickstart_finds_filters_deletes_and_reopens(tmp_path: Path) -> None:
    out = run("quickstart.py", tmp_path, folder=tmp_path)
    assert "added 20,000 words" in out
    assert "violin" in out
    assert "eruption" in out
    assert "deleted 5,136 rare words" in out
    table = out[out.index("distance  word") :]
    assert "piano" not in table
    assert "violin" in table
    assert (tmp_path / "words.vdb").is_dir()


def test_an_agent_recalls_what_it_was_told_and_forgets_what_is_old(tmp_path: Path) -> None:
    out = run("agent_memory.py", folder=tmp_path)
    lines = out.splitlines()
    for question, answer in {
        "What must I never cook or eat?": "allergic to peanuts",
        "What instrument does my child practice?": "Ada plays the violin",
        "When does the plane depart?": "The flight to Lisbon",
        "Was the vehicle repaired?": "The garage replaced the brakes",
    }.items():
        assert answer in lines[lines.index(question) + 1]
    assert "forgot 4 notes" in out
    assert "violin" not in out[out.index("forgot") :]


def test_a_reader_in_another_process_follows_the_writer(tmp_path: Path) -> None:
    out = run("two_processes.py", folder=tmp_path)
    assert "refreshed, 5,000 -> 10,000 rows" in out
    assert "refreshed, 15,000 -> 20,000 rows" in out
    assert "may not write" in out


def test_a_npy_of_ones_own_is_loaded_and_measured(tmp_path: Path) -> None:
    data = EXAMPLES / "data"
    out = run(
        "your_npy.py", data / "words.npy", data / "words.parquet", tmp_path / "own", folder=tmp_path
    )
    assert "20,000 x 100 float16" in out
    recall = float(out.rsplit(":", 1)[1])
    assert 0.9 <= recall <= 1
    assert (tmp_path / "own").is_dir()


def test_the_tour_runs_and_is_stored_without_outputs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    tour = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    code = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    nbclient.NotebookClient(
        tour, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    ).execute()
    assert all(cell.outputs for cell in code[1:])

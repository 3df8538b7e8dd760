"""Every snippet of the README runs, and CI runs exactly its commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_python_snippets_run_in_order(tmp_path: Path) -> None:
    script = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pruned" in done.stdout


def test_the_first_snippet_has_twelve_lines() -> None:
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= 12


def test_there_are_two_commands_and_ci_reads_them() -> None:
    assert len(blocks("sh")) == 2
    assert all(block.startswith("python3 -m venv .venv") for block in blocks("sh"))
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "readme 1" in ci
    assert "readme 2" in ci


def test_every_file_that_the_readme_names_is_there() -> None:
    root = Path(__file__).parents[1]
    for name in re.findall(r"`((?:bench|examples|vecdb|tests)/[\w/.]+)`", README):
        assert (root / name).exists(), name
    for name in re.findall(r"`(\w+\.(?:py|ipynb))`", README):
        assert (root / "examples" / name).exists(), name

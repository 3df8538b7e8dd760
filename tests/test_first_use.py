"""The first minutes on a machine: nothing compiled, nowhere to keep what is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import numpy as np, vecdb
rows = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
with vecdb.create({path!r}, dim=8, metric="l2") as col:
    col.add(rows)
    hits = col.search(rows[17], k=3)
    truth = np.argsort(((rows - rows[17]) ** 2).sum(1))[:3]
    assert hits.ids.tolist() == truth.tolist(), hits
    print(hits.plan.compiled)
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )


def test_without_a_kernel_cache_the_first_search_is_right_and_does_not_wait(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    done = run(SCRIPT.format(path=str(tmp_path / "a.vdb")), NUMBA_CACHE_DIR=str(cache))
    assert done.stdout.strip() == "False"  # NumPy answered while the kernels were compiling
    assert done.stderr == ""


def test_nothing_of_the_kernel_cache_lands_in_a_store(tmp_path: Path) -> None:
    run(SCRIPT.format(path=str(tmp_path / "a.vdb")) + "\nvecdb.warmup()")
    names = {path.name.partition("-")[0] for path in (tmp_path / "a.vdb").rglob("*")}
    assert names <= {"LOCK", "MANIFEST", "wal", "seg", "idx", "del"}


def test_closing_does_not_wait_for_the_compiler(tmp_path: Path) -> None:
    """The background would build a graph, which takes kernels that this machine has not."""
    script = """
import time, numpy as np, vecdb
from vecdb import kernels
from vecdb.store import background, compaction
background._SETTLE = compaction._QUIET = 0
compaction.INDEX_ROWS = 40
col = vecdb.create({path!r}, dim=8)
col.add(np.random.default_rng(0).standard_normal((50, 8), np.float32))
col.flush()
while not kernels._gate.compiling:
    time.sleep(0.01)
col.close()
assert not kernels.ready()
"""
    cache = tmp_path / "cache"
    cache.mkdir()
    run(script.format(path=str(tmp_path / "a.vdb")), NUMBA_CACHE_DIR=str(cache))


def test_a_forked_child_searches_while_the_parent_compiles(tmp_path: Path) -> None:
    script = """
import os, time, warnings, numpy as np, vecdb
from vecdb import kernels
warnings.simplefilter("ignore")
rows = np.eye(8, dtype=np.float32)
col = vecdb.create({path!r}, dim=8)
col.add(rows)
while not kernels._gate.compiling:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    hits = col.search(rows[3], k=1)
    refused = False
    try:
        col.add(rows)
    except vecdb.ClosedError:
        refused = True
    os._exit(0 if hits.ids.tolist() == [3] and refused else 1)
assert os.waitpid(child, 0)[1] == 0
assert col.search(rows[4], k=1).ids.tolist() == [4]
"""
    cache = tmp_path / "cache"
    cache.mkdir()
    run(script.format(path=str(tmp_path / "a.vdb")), NUMBA_CACHE_DIR=str(cache))

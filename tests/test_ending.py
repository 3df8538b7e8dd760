"""A process that ends while vecdb works behind its back waits for that work: Arrow in a thread that
goes on would abort it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vecdb

# a step, named by where it stands, that is in its midst when the main thread comes to its end
SLOW = """
import faulthandler, sys, threading, time
faulthandler.dump_traceback_later(30, exit=True)
import numpy as np, vecdb
from vecdb.filter import masks
from vecdb.store import compaction
path, place, name = sys.argv[1:]
begun = threading.Event()
step = getattr(eval(place), name)
def slow(*args):
    print("begun", flush=True)
    begun.set()
    time.sleep(0.5)
    found = step(*args)
    print("over", flush=True)
    return found
setattr(eval(place), name, slow)
col = vecdb.open(path, "w")
one = np.ones(4, np.float32)
"""
READ = """
others = [vecdb.open(path, "r") for _ in range(3)]
for reader in others:
    assert not reader.search(one, where={"year": 2001}, timeout=0.005).plan.complete
assert begun.wait(20)
"""
COMPACT = """
col.add(one[None], metadata=[{"year": 1}])
begun.clear()
for _ in range(2):
    col.add(np.ones((3, 4), np.float32), metadata=[{"year": 1}] * 3)
    col.flush()
assert begun.wait(20)
"""


@pytest.mark.parametrize(
    ("where", "work"),
    [("masks column_data", READ), ("compaction.Compactor step", COMPACT)],
    ids=["columns read behind searches", "compaction"],
)
def test_the_end_of_a_process_waits_for_what_is_being_done_and_begins_nothing(
    tmp_path: Path, where: str, work: str
) -> None:
    path = tmp_path / "store"
    with vecdb.create(path, 4, "l2", schema={"year": "int64"}) as col:
        col.add(np.ones((3, 4), np.float32), metadata=[{"year": 2000 + i} for i in range(3)])
    command = [sys.executable, "-c", SLOW + work, str(path), *where.split()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not run.stderr, run.stderr
    assert run.returncode == 0
    said = run.stdout.split()
    assert said[-2:] == ["begun", "over"]
    assert len(said) == 2 or work == COMPACT  # which has looked at what it found, too


def test_a_write_that_would_wait_for_a_thread_that_has_ended_is_refused(tmp_path: Path) -> None:
    script = """
import atexit, sys
atexit.register(lambda: late())
import numpy as np, vecdb
from vecdb.store import memtable
memtable.MAX_ROWS = 16
col = vecdb.create(sys.argv[1], 4, "l2")
def late():
    try:
        for _ in range(20):
            col.add(np.ones((4, 4), np.float32))
    except vecdb.ClosedError as error:
        print(error)
    col.close()
"""
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not run.stderr, run.stderr
    assert run.returncode == 0
    assert "before exit handlers run" in run.stdout
    with vecdb.open(tmp_path / "store") as col:
        assert len(col) == 48  # three memtables, each with what it has room for


def test_a_forked_child_does_not_wait_for_threads_that_it_lacks() -> None:
    script = """
import os, sys, threading
from vecdb import ending
go_on = threading.Event()
ending.start("test", go_on.wait, go_on.set)
child = os.fork()
if child == 0:
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}  # of forking beside threads
    run = subprocess.run([sys.executable, "-c", script], timeout=20, env=environment, check=False)
    assert run.returncode == 0

"""A fork while another thread imports what vecdb puts off: the child must not wait for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.forking import patience

# forks while the step, in another thread, is about to import the module; the child imports it too
SCRIPT = """
import faulthandler, importlib, os, sys, threading, time
import numpy as np
import vecdb
path, module, step = sys.argv[1:]
begun = threading.Event()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == module and threading.current_thread() is thread:
            begun.set()
            time.sleep(0.3)
one = np.ones(4, np.float32)
writer = vecdb.create(path + ".new", dim=4)
thread = threading.Thread(target=exec, args=(step, globals()))
sys.meta_path.insert(0, Slow())
thread.start()
assert begun.wait(20), "the step does not import the module"
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(5, exit=True)
    importlib.import_module(module)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
print("sound", flush=True)
os._exit(0)  # the step may compile kernels
"""
STEPS = [
    ("pyarrow", "vecdb.create(path + '.other', dim=4, schema={'a': 'int64'})"),
    ("pyarrow", "vecdb.open(path)"),
    ("pyarrow", "writer.add([one], [1])"),
    ("pyarrow", "vecdb.open(path + '.plain').get([1])"),
    ("pyarrow", "vecdb.open(path + '.plain', 'w').optimize()"),
    ("pyarrow.compute", "vecdb.open(path + '.plain').search(one, 2).to_arrow()"),
    ("pyarrow.compute", "vecdb.open(path).search(one, 2, select=['t'])"),
    ("pyarrow.compute", "vecdb.open(path).query(vecdb.col('t') == 'a')"),
    ("sqlglot", "vecdb.open(path).query('a > 1')"),
    ("numba", "vecdb.warmup()"),
]


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    vectors = np.random.default_rng(1).random((9, 4), np.float32)
    with vecdb.create(path, dim=4, schema={"a": "int64", "t": "string"}) as col:
        col.add(vectors, metadata={"a": np.arange(9), "t": ["a"] * 9})
        col.flush()
    with vecdb.create(f"{path}.plain", dim=4) as col:
        col.add(vectors[:5])
        col.flush()
        col.add(vectors[5:])
    return path


@pytest.mark.parametrize(("module", "step"), STEPS)
def test_a_child_born_during_an_import_of_vecdb_can_import_the_same(
    module: str, step: str, stores: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(stores), module, step],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "sound\n", done.stderr[-3000:]


def test_a_wait_for_another_thread_leaves_that_one_time_to_hand_the_interpreter_back() -> None:
    now = time.monotonic_ns()
    assert patience(now) == 0
    assert 0 < patience(now + 10**11) <= 100 - sys.getswitchinterval()
    short = sys.getswitchinterval() / 10
    assert patience(now + int(short * 1e9)) <= short / 2

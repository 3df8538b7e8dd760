"""The gate in front of numba: what is imported when, and what a forked child may do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vecdb import kernels

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_gate_and_the_reference_import_no_numba():
    code = "import sys, vecdb.kernels, vecdb.kernels.reference; print('numba' in sys.modules)"
    assert python(code) == "False"


def test_what_other_libraries_import_too_is_there_before_the_background_begins():
    code = (
        "import sys, vecdb.kernels as k; k.start_background()\n"
        "print('numpy.random' in sys.modules, 'numba' in sys.modules)\n"
        "import os; sys.stdout.flush(); os._exit(0)"
    )
    assert python(code) == "True False"


def test_warming_up_in_the_background_ends_ready():
    code = (
        "import time, vecdb.kernels as k\n"
        "k.start_background(); k.start_background()\n"
        "end = time.monotonic() + 200\n"
        "while not k.ready() and time.monotonic() < end: time.sleep(.05)\n"
        "print(k.ready(), k.warmup() < 1)"
    )
    assert python(code) == "True True"


def test_nothing_is_compiled_once_the_process_is_about_to_end():
    """numba's LLVM would hear too late of the end, and wait at it for a lock that nobody opens."""
    code = """
import atexit, sys, threading, time
ended = threading.Event()
def late():  # the last of the exit handlers
    ended.set()
    time.sleep(1)
    print("llvmlite.binding" in sys.modules, "numba" in sys.modules)
atexit.register(late)
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "llvmlite.binding":
            assert ended.wait(60)
sys.meta_path.insert(0, Slow())
import vecdb.kernels as k
k.start_background()
"""
    assert python(code) == "True False"


def test_who_waits_for_the_kernels_may_give_up(tmp_path):
    code = (
        "import vecdb.kernels as k\n"
        "asked = []\n"
        "print(k.wait(lambda: asked.append(1) or len(asked) > 3), k.ready())\n"
        "import os, sys; sys.stdout.flush(); os._exit(0)"
    )
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "False False"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_during_the_compilation_answers_and_does_not_hang():
    code = (
        "import os, sys, time, vecdb.kernels as k, numpy as np\n"
        "k.start_background()\n"
        "time.sleep(.2)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    from vecdb.kernels import reference\n"
        "    rows = reference.scan(np.eye(3, dtype='f4'), np.eye(3, dtype='f4'), 1, 'l2')[0]\n"
        "    k.start_background()\n"
        "    os._exit(0 if rows.ravel().tolist() == [0, 1, 2] else 1)\n"
        "print(os.waitpid(pid, 0)[1])\n"
        "sys.stdout.flush(); os._exit(0)"
    )
    assert python(code) == "0"


def test_without_a_folder_to_write_to_kernels_are_compiled_uncached():
    code = (
        "import vecdb.kernels as k\n"
        "k._writable = lambda folder: False\n"
        "from vecdb.kernels import jit, pools\n"  # all of them would take half a minute
        "print(jit.FOLDER, pools.pool_key(0, 5))"
    )
    assert python(code) == "None 5"


def test_the_cache_folder_changes_with_the_kernels_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    first = kernels.cache_folder()
    assert first == kernels.cache_folder()
    package = tmp_path / "vecdb"
    for folder in ("kernels", "quant", "graph"):
        (package / folder).mkdir(parents=True)
    (package / "graph" / "keys.py").write_text("changed")
    monkeypatch.setattr(kernels, "__file__", str(package / "kernels" / "__init__.py"))
    second = kernels.cache_folder()
    assert Path(first).parent == Path(second).parent == tmp_path
    assert first != second


def _kernels_of(tree: ast.Module) -> tuple[set[str], set[ast.AST]]:
    """Names of a module's kernels that are no entries, and all kernels."""
    inner, every = set(), set()
    for function in ast.walk(tree):
        for by in getattr(function, "decorator_list", []):
            if isinstance(by, ast.Call) and getattr(by.func, "id", "") == "jit" and by.args:
                every.add(function)
                if not any(word.arg == "entry" for word in by.keywords):
                    inner.add(function.name)
    return inner, every


def _used(node: ast.AST, kernels: set[ast.AST]) -> set[str]:
    """Names that are read outside of kernels."""
    if node in kernels:
        return set()
    name = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set()
    return name.union(*(_used(child, kernels) for child in ast.iter_child_nodes(node)))


def test_every_kernel_that_python_calls_is_an_entry_and_there_after_the_warm_up():
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for part in ("kernels", "quant", "graph", "segment", "filter", "query")
        for path in (ROOT / "vecdb" / part).glob("*.py")
    }
    inner = {name: _kernels_of(tree)[0] for name, tree in trees.items()}
    inner["vecdb.kernels.leaves"] = inner["vecdb.kernels.avx512"] | inner["vecdb.kernels.portable"]
    assert "walk" in inner["vecdb.graph.traverse"]
    for name, tree in trees.items():
        here = set(inner[name])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                here |= inner.get(node.module or "", set()) & {each.name for each in node.names}
        called = _used(tree, _kernels_of(tree)[1]) & here
        assert not called, f"{name}: {called}"


def test_a_kernel_that_is_no_entry_is_compiled_when_it_is_needed_and_as_declared(tmp_path):
    (tmp_path / "made.py").write_text(
        "from vecdb.kernels.jit import jit\n"
        "@jit('i8(i8)')\n"
        "def twice(x): return 2 * x\n"
        "@jit('i8(i8)')\n"
        "def alone(x): return x + 1\n"
        "@jit('i8(i4)', entry=True)\n"
        "def fourfold(x): return twice(twice(x))\n"
    )
    code = (
        "import made\n"
        "of = lambda kernel: [str(each) for each in kernel.signatures]\n"
        "print(of(made.alone), of(made.twice), made.fourfold(3), made.alone(3), of(made.alone))"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    found = python(code, PYTHONPATH=path, NUMBA_CACHE_DIR=str(tmp_path))
    assert found == "[] ['(int64,)'] 12 4 ['(int64,)']"
    again = python(code, PYTHONPATH=path, NUMBA_CACHE_DIR=str(tmp_path))
    assert again == "[] [] 12 4 ['(int64,)']"  # the cached entry contains what it calls

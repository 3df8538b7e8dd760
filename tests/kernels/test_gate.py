"""The gate in front of numba: what is imported when, and what a forked child may do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_warming_up_in_the_background_ends_ready():
    code = (
        "import time, vecdb.kernels as k\n"
        "k.start_background(); k.start_background()\n"
        "end = time.monotonic() + 200\n"
        "while not k.ready() and time.monotonic() < end: time.sleep(.05)\n"
        "print(k.ready(), k.warmup() < 1)"
    )
    assert python(code) == "True True"


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


def test_a_cache_folder_that_cannot_be_written_is_not_used(tmp_path):
    code = (
        "import os, pathlib, vecdb.kernels as k\n"
        "k._writable = lambda folder: False\n"
        "k._choose_cache()\n"
        "from vecdb.kernels import jit\n"
        "print(jit.CACHE)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"

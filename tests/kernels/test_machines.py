"""The same engine on other machines: interpreted, without AVX-512, and the code LLVM makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vecdb.kernels.jit import AVX512, NEEDED

ROOT = Path(__file__).parents[2]
SEARCH = """
import sys, numpy as np
from vecdb import graph
from vecdb.kernels import jit
from vecdb.kernels.codes import Codes, encode
from vecdb.kernels.scan import scan
rng = np.random.default_rng(0)
rows = rng.standard_normal((60, 40)).astype("f4")
queries = rng.standard_normal((3, 40)).astype("f4")
found = []
for metric in ("l2", "cosine", "ip"):
    built = graph.build(rows, metric, ef_construction=16, codes="2bit")
    found.append(graph.search(built, rows, queries, 5, 60, metric=metric).rows)
    found.append(scan(rows, queries, 5, metric)[0])
    codes = Codes.empty(*rows.shape)
    encode(rows, metric, codes, 0, len(rows))
    found.append(scan(rows, queries, 5, metric, codes=codes)[0])
np.save(sys.argv[1], np.stack(found))
print(jit.AVX512, jit.INTERPRETED)
"""
BASELINE = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+cx16"
ASSEMBLY = """
from vecdb.kernels import avx512
for name in ("distance4", "project"):
    kernel = getattr(avx512, name)
    vars(kernel).get("_compile_for_args", int)()  # distance4 waits for its first call
    text = kernel.inspect_asm(kernel.signatures[0])
    print(name, "zmm" in text)
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    path = tmp_path_factory.mktemp("machine") / "found.npy"
    run(SEARCH, str(path))
    return np.load(path)


def test_interpreted_kernels_find_the_same_rows(answers, tmp_path):
    assert run(SEARCH, str(tmp_path / "x.npy"), NUMBA_DISABLE_JIT="1") == "False True"
    assert (np.load(tmp_path / "x.npy") == answers).all()


@pytest.mark.skipif(sys.platform == "darwin" or os.uname().machine != "x86_64", reason="x86-64")
def test_a_cpu_without_avx512_finds_the_same_rows(answers, tmp_path):
    said = run(
        SEARCH, str(tmp_path / "x.npy"), NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=BASELINE,
        NUMBA_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert said == "False False"
    assert (np.load(tmp_path / "x.npy") == answers).all()


@pytest.mark.skipif(not AVX512, reason="this CPU has no AVX-512")
@pytest.mark.parametrize("cpu", ["znver4", "icelake-server", "sapphirerapids"])
def test_the_leaves_use_512_bit_registers(cpu, tmp_path):
    features = BASELINE + "".join(f",+{name}" for name in sorted(NEEDED | {"avx512dq"}))
    said = run(
        ASSEMBLY, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path)
    )
    assert said.split() == ["distance4", "True", "project", "True"]

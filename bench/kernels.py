"""Cosine at 1,024 dims: one pair against the scalar loop, one-to-many against numkong and simsimd.

    python -m bench.kernels

One pair is timed inside compiled code (64 rows that stay in the first cache levels), against the
loop that a person writes: three sums over float32, no fast math. One-to-many is one call from
Python: a query against 4,096 rows; vecdb also keeps the 10 best, the others return all distances.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from bench.harness import Report, exclusive, summary
from vecdb.kernels.leaves import distance
from vecdb.kernels.scan import METRICS, rescore, scan

DIM, ROWS, PAIRS, PASSES = 1024, 4096, 64, 9
_COSINE = METRICS["cosine"]


@numba.njit(nogil=True)
def vecdb_pairs(data: int, query: int, norm: float, repeats: int) -> float:
    total = np.float32(0)
    for i in range(repeats):
        total += distance(_COSINE, False, data + (i % PAIRS) * 4 * DIM, query, DIM, norm)
    return total


@numba.njit(nogil=True)
def scalar_pairs(rows: Any, query: Any, repeats: int) -> float:
    total = np.float32(0)
    for i in range(repeats):
        row = rows[i % PAIRS]
        dot = norm = other = np.float32(0)
        for j in range(DIM):
            dot += row[j] * query[j]
            norm += row[j] * row[j]
            other += query[j] * query[j]
        total += np.float32(1) - dot / np.sqrt(norm * other)
    return total


def seconds(call: Callable[[], Any], at_least: float = 0.05) -> float:
    """Seconds of one call, the mean over `at_least` seconds of calls."""
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < at_least:
        call()
        calls += 1
    return spent / calls


def main() -> None:
    report = Report("kernels", ("numkong", "simsimd"))
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    query = rng.standard_normal(DIM, dtype=np.float32)
    norm = np.float32(np.linalg.norm(query))
    data, asked, block = rows.ctypes.data, query.ctypes.data, query[None]
    every = np.arange(ROWS)[None]
    repeats = 20_000

    pairs = {
        "vecdb": lambda: vecdb_pairs(data, asked, norm, repeats),
        "scalar loop": lambda: scalar_pairs(rows, query, repeats // 10),
    }
    many: dict[str, Callable[[], Any]] = {
        "vecdb scan": lambda: scan(rows, block, 10, "cosine"),
        "vecdb distances": lambda: rescore(rows, block, every, "cosine"),
        "numpy": lambda: 1 - rows @ query / np.linalg.norm(rows, axis=1) / norm,
    }
    many |= _rivals(block, rows)
    measured: dict[str, list[float]] = defaultdict(list)
    for call in (*pairs.values(), *many.values()):
        call()  # compile, load, warm
    for _ in range(PASSES):
        with exclusive():
            measured["vecdb"].append(1e9 * seconds(pairs["vecdb"]) / repeats)
            measured["scalar loop"].append(1e9 * seconds(pairs["scalar loop"]) / (repeats // 10))
            for name, call in many.items():
                measured[f"{name} x {ROWS}"].append(1e9 * seconds(call) / ROWS)
    base = summary(measured["scalar loop"])["median"]
    for name, values in measured.items():
        kind = "one to many" if "x" in name.split() else "one pair"
        figures = summary(values)
        extra = {"scalar_ratio": base / figures["median"]} if kind == "one pair" else {}
        report.line(what=kind, name=name, dim=DIM, ns_per_distance=figures, **extra)


def _rivals(block: Any, rows: Any) -> dict[str, Callable[[], Any]]:
    import numkong
    import simsimd

    return {
        "numkong": lambda: numkong.cdist(block, rows, "angular"),
        "simsimd": lambda: simsimd.cdist(block, rows, "cosine"),
    }


if __name__ == "__main__":
    main()

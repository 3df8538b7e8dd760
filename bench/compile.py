"""Compiling the kernels: cold, from the cache, and what the first search of a process waits for.

    python -m bench.compile

Each figure is a fresh process with a kernel cache of its own: seconds of ``vecdb.warmup()`` with an
empty cache, the same with the cache that run left, and the first graph search after that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict

from bench.harness import Report, exclusive, summary

_WARM = "import vecdb; print(vecdb.warmup())"
_FILL = """
import numpy as np, vecdb
vecdb.warmup()
with vecdb.create({path!r}, dim=64, sync="os") as col:
    col.add(np.random.default_rng(0).standard_normal((20_000, 64), dtype=np.float32))
    col.optimize()
"""
_FIRST = """
import time, numpy as np, vecdb
query = np.ones(64, dtype=np.float32)
vecdb.warmup()
col = vecdb.open({path!r})
start = time.perf_counter()
col.search(query, 10)
print(time.perf_counter() - start)
"""


def seconds(code: str, cache: str) -> float:
    """What `code` prints in a new Python that caches kernels in `cache`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    )
    return float(done.stdout or "nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=2)
    given = parser.parse_args()
    report = Report("compile")
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.passes):
        with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
            store, cache = f"{folder}/store", f"{folder}/cache"
            with exclusive():
                figures["cold_compile_s"].append(seconds(_WARM, cache))
                seconds(_FILL.format(path=store), cache)
            for _ in range(3):
                with exclusive():
                    figures["cached_warmup_s"].append(seconds(_WARM, cache))
                    figures["first_search_s"].append(seconds(_FIRST.format(path=store), cache))
    report.line(**{what: summary(values) for what, values in figures.items()})


if __name__ == "__main__":
    main()

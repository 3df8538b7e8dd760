"""Python's share of a single search call: microseconds over the engine's own.

    python -m bench.overhead --set glove-100-angular

The same 1,000 queries through ``Collection.search`` one a call, and as one batch of the same
collection, on one thread; the difference per query is what a call costs beside its kernel. Both at
a small and at a usual beam width, in alternating passes of CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from bench import datasets
from bench.engine import K
from bench.harness import Report, exclusive, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--passes", type=int, default=9)
    given = parser.parse_args()

    import vecdb

    vecdb.warmup()
    report = Report("overhead")
    data = datasets.load(given.set, given.rows)
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        path = Path(folder) / "store"
        with vecdb.create(path, data.train.shape[1], data.metric, sync="os") as writer:  # type: ignore[arg-type]
            writer.add(data.train)
            writer.optimize()
        with vecdb.open(path, threads=1) as col:
            for _ in range(given.passes):
                for ef in (10, 64):
                    with exclusive():
                        start = time.process_time()
                        for query in data.test:
                            col.search(query, K, ef_search=ef)
                        middle = time.process_time()
                        col.search(data.test, K, ef_search=ef)
                        end = time.process_time()
                    spent["call", ef].append(1e6 * (middle - start) / len(data.test))
                    spent["batch", ef].append(1e6 * (end - middle) / len(data.test))
    for ef in (10, 64):
        pairs = zip(spent["call", ef], spent["batch", ef], strict=True)
        report.line(
            set=data.name,
            ef=ef,
            call_us=summary(spent["call", ef]),
            batch_us=summary(spent["batch", ef]),
            overhead_us=summary(a - b for a, b in pairs),
        )


if __name__ == "__main__":
    main()

"""How long three clauses over many rows take, new and remembered.

    python -m bench.filter_speed [--rows 1000000]

``first`` is the median of filters that were never asked before, over columns that were;
``columns`` the very first one, which reads and encodes the columns too; ``again`` the median of one
filter asked again and again, as text and as a tree. Microseconds of :meth:`vecdb.Collection.query`
with ``limit=0``, which evaluates the filter and gathers nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import vecdb
from bench.harness import Report, summary

LANGUAGES = ("en", "fr", "de", "es", "it", "nl", "pl", "sv")


def store(path: Path, rows: int) -> Any:
    """Rows of two dimensions with a year, a language and a flag; one segment, no graph."""
    rng = np.random.default_rng(0)
    columns = {
        "year": rng.integers(1990, 2025, rows),
        "lang": rng.choice(LANGUAGES, rows).tolist(),
        "archived": rng.random(rows) < 0.3,
    }
    with vecdb.create(path, 2, "l2") as made:
        made.add(rng.random((rows, 2), dtype=np.float32), metadata=columns)
        made.flush()
        assert len(made._store.snapshot.parts) == 1
    return vecdb.open(path, threads=1)


def microseconds(run: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    run()
    return 1e6 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    vecdb.warmup()
    report = Report("filter_speed")
    with TemporaryDirectory() as folder, store(Path(folder) / "store", rows) as opened:
        texts = [
            f"year > {year} AND lang IN ('{lang}', 'fr') AND NOT archived"
            for year in range(1995, 2020)
            for lang in LANGUAGES[2:4]
        ]
        took = [microseconds(lambda text=text: opened.query(text, limit=0)) for text in texts]
        report.line(rows=rows, what="columns", us=took[0])
        report.line(rows=rows, what="first", us=summary(took[1:]))
        tree = (
            (vecdb.col("year") > 2000) & vecdb.col("lang").isin(["en", "fr"])
            & ~vecdb.col("archived")
        )  # fmt: skip
        for name, where in (("text", texts[0]), ("tree", tree)):
            opened.query(where, limit=0)
            again = [microseconds(lambda w=where: opened.query(w, limit=0)) for _ in range(50)]
            report.line(rows=rows, what="again", spelled=name, us=summary(again))


if __name__ == "__main__":
    main()

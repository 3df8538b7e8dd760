"""Rows per second of building an index with two threads, codes and node rows included.

    python -m bench.build --set glove-100-angular

Libraries take turns, each pass in a fresh process; wall-clock time. vecdb's kernels are compiled
before the clock starts (bench.compile measures that). What the index is worth is bench.engine's
business.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from bench.engine import PACKAGES, Subject
from bench.harness import Contest, Report, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--only", default="vecdb,hnswlib,SymphonyQG,glass", help="libraries")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    report = Report("build", PACKAGES)
    rates: dict[str, list[float]] = defaultdict(list)
    names = given.only.split(",")
    for turn in range(given.passes):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        with Contest(report, Subject, order, given.set, given.rows, given.threads) as contest:
            for name, built in contest.round("build"):
                rates[name].append(built["rows_per_s"])
    base = summary(rates["hnswlib"])["median"] if "hnswlib" in rates else None
    for name, values in rates.items():
        figures = summary(values)
        ratio = {"to_hnswlib": figures["median"] / base} if base else {}
        report.line(set=given.set, library=name, threads=given.threads, rows_per_s=figures, **ratio)


if __name__ == "__main__":
    main()

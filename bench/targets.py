"""How near `target_recall` comes to what was asked, on queries that the store never held.

    python -m bench.targets text-384-angular [--targets .9 .95 .99] [--keep FOLDER]

The filters are those of :mod:`bench.filter_data`; ``random`` is asked by all queries of the set,
the others by the 200 nearest to the anchor or furthest from it. A line is one target and filter:
the recall with the standard error of its mean over the queries, nodes and rows looked at per query,
and the strategy. Where the planner scans, the recall is that of a scan whatever was asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import vecdb
from bench.filter_data import KINDS, K, distances, rows_of
from bench.filter_rivals import Vecdb
from bench.harness import Report

SHARES = (0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)
SOME = 200  # queries of a favoured or excluded neighbourhood


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source")
    parser.add_argument("--targets", nargs="*", type=float, default=[0.9, 0.95, 0.99])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    rows = rows_of(asked.source)
    data = rows.data
    anchor = data.train[np.argmin(rows.rank)]
    order = np.argsort(distances(data, anchor, data.test), kind="stable")
    chosen = {"random": order, "favoured": order[:SOME], "excluded": order[-SOME:]}
    report = Report(f"targets-{data.name}")
    with TemporaryDirectory() as fresh:
        folder = Path(fresh) if asked.keep is None else asked.keep / data.name
        folder.mkdir(parents=True, exist_ok=True)
        Vecdb(rows, folder)  # makes the store where there is none
        with vecdb.open(folder / "vecdb", threads=1) as store:
            for kind in asked.kinds:
                column, _ = rows.column(kind)
                queries = data.test[chosen[kind]]
                for share in asked.shares:
                    where = vecdb.col(column) < share if share < 1 else None
                    truth = store.search(queries, K, where=where, exact=True).distances[:, -1:]
                    reach = truth + 1e-5 * np.maximum(np.abs(truth), 1e-3)
                    for target in asked.targets:
                        found = store.search(queries, K, where=where, target_recall=target)
                        hits = (found.distances <= reach).sum(axis=1).clip(max=K) / K
                        report.line(
                            kind=kind, share=share, target=target, recall=hits.mean(),
                            error=hits.std() / np.sqrt(len(hits)),
                            visited=found.plan.visited / len(hits), strategy=found.plan.strategy,
                        )  # fmt: skip


if __name__ == "__main__":
    main()

"""Resident memory while searching, from an index on the disk in a fresh process.

    python -m bench.memory --set glove-100-angular

Built and saved in one process, loaded and searched (every query of the set, ef 64) in another;
the figure is what that process grew by since its imports. For vecdb the pages of mapped files that
a search touched are counted apart (`mapped_mib`): the system may take them back at any time.
`hot_mib` leaves out what is mapped of the float32 rows (`rows_mib`): a search reads a dozen of
them, and the system maps the 64 KiB around each; hnswlib reads its own at every step.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench import datasets
from bench.engine import K
from bench.harness import Contest, Report

EF = 64
LAYOUTS = {
    "vecdb": "auto",
    "vecdb int8": "int8",
    "vecdb 1bit": "1bit",
    "vecdb 2bit": "2bit",
    "vecdb 4bit": "4bit",
}


class Maker:
    """Builds one index and saves it; lives in its own process."""

    def __init__(self, name: str, folder: Path, source: str, rows: int | None) -> None:
        self._name, self._path = name, folder / name
        self._data = datasets.load(source, rows)

    def make(self) -> float:
        """MiB on the disk."""
        data = self._data
        if self._name == "hnswlib":
            import hnswlib

            index = hnswlib.Index(data.metric, data.train.shape[1])
            index.init_index(len(data.train), ef_construction=200, M=16)
            index.add_items(data.train, num_threads=2)
            index.save_index(str(self._path))
            return self._path.stat().st_size / 2**20
        import vecdb

        vecdb.warmup()
        layout = vecdb.Hnsw(codes=LAYOUTS[self._name])  # type: ignore[arg-type]
        dim = data.train.shape[1]
        with vecdb.create(self._path, dim, data.metric, index=layout, sync="os") as col:
            for first in range(0, len(data.train), 50_000):
                col.add(data.train[first : first + 50_000])
            col.optimize()
        return sum(file.stat().st_size for file in self._path.iterdir()) / 2**20


class Searcher:
    """Loads one index and searches it; lives in its own process."""

    def __init__(self, name: str, folder: Path, source: str, rows: int | None) -> None:
        self._path, self._name = folder / name, name
        data = datasets.load(source, rows)
        self._queries, self._metric, self._dim = data.test.copy(), data.metric, data.train.shape[1]
        if name == "hnswlib":
            import hnswlib  # noqa: F401
        else:
            import vecdb

            vecdb.warmup()

    def measure(self) -> dict[str, float]:
        """Growth in MiB of anonymous memory and of mapped files."""
        before = _resident()
        index = self._load()
        for _ in range(2):
            index(self._queries)
        after = _resident()
        grown = {f"{kind}_mib": (after[kind] - before[kind]) / 1024 for kind in after}
        total, rows = sum(grown.values()), _mapped_of(str(self._path / "seg-")) / 1024
        return grown | {"total_mib": total, "rows_mib": rows, "hot_mib": total - rows}

    def _load(self) -> Any:
        if self._name == "hnswlib":
            import hnswlib

            index = hnswlib.Index(self._metric, self._dim)
            index.load_index(str(self._path))
            index.set_ef(EF)
            return lambda queries: index.knn_query(queries, K, num_threads=1)
        import vecdb

        col = vecdb.open(self._path, threads=1)
        return lambda queries: col.search(queries, K, ef_search=EF)


def _resident() -> dict[str, int]:
    """KiB of this process in memory: its own (anonymous) and pages of mapped files."""
    kinds = {"RssAnon": "own", "RssFile": "mapped"}
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {kinds[p[0][:-1]]: int(p[1]) for p in lines if p and p[0][:-1] in kinds}


def _mapped_of(prefix: str) -> int:
    """KiB in memory of the mapped files whose paths begin so."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            inside = prefix in line
        elif inside and first == "Rss:":
            total += int(line.split()[1])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--only", default="hnswlib,vecdb,vecdb 1bit", help="comma separated")
    given = parser.parse_args()
    report = Report("memory", ("hnswlib",))
    names = given.only.split(",")
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as temporary:
        folder = Path(temporary)
        with Contest(report, Maker, names, folder, given.set, given.rows) as contest:
            disk = dict(contest.round("make", timed=False))
        with Contest(report, Searcher, list(disk), folder, given.set, given.rows) as contest:
            for name, grown in contest.round("measure", timed=False):
                report.line(set=given.set, library=name, disk_mib=disk[name], **grown)


if __name__ == "__main__":
    main()

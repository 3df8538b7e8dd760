"""Hot swaps under load: whole versions of a collection replaced while threads search it.

    python -m bench.swaps --seconds 10

One thread replaces every row (`upsert`) and puts the new version into a segment of its own
(`flush`), which takes the place of the old one: one swap. Meanwhile other threads search, and check
that every answer has k rows with the true distances of one version, one no older than the one
before. The store leaves syncing to the system: a swap that waits for the disk is
bound by its fsyncs.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import vecdb
from bench.harness import Report, exclusive

K, SCALES = 10, 64


class Swapping:
    """A collection that changes as a whole, and threads that watch it."""

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        self._base = rng.standard_normal((rows, dim), dtype=np.float32)
        self._query = rng.standard_normal(dim, dtype=np.float32)
        self._truth = np.stack([self._nearest(version) for version in range(SCALES)])
        self._col = vecdb.create(path, dim, "l2", sync="os")
        self._stop = threading.Event()
        self.swaps = self.searches = 0
        self.errors: list[str] = []
        self._found: list[list[np.ndarray]] = []  # of each thread
        self._swap()

    def run(self, seconds: float, threads: int) -> float:
        """Swap as fast as possible for so long; the seconds that it took."""
        searching = [threading.Thread(target=self._search) for _ in range(threads)]
        for thread in searching:
            thread.start()
        start, self.swaps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self._swap()
        spent = time.perf_counter() - start
        self._stop.set()
        for thread in searching:
            thread.join()
        self._col.close()
        for found in self._found:
            self.searches += len(found)
            self._check(np.reshape(found, (-1, K)))
        return spent

    def _rows(self, version: int) -> np.ndarray:
        return self._base * np.float32(1 + version % SCALES / SCALES)

    def _nearest(self, version: int) -> np.ndarray:
        distances = np.square(self._rows(version) - self._query).sum(axis=1)
        return np.sort(distances)[:K]

    def _swap(self) -> None:
        self._col.upsert(self._rows(self.swaps), np.arange(len(self._base)))
        self._col.flush()
        self.swaps += 1

    def _search(self) -> None:
        """Search until told to stop; the answers are kept, and checked when the clock has stopped,
        for a check would hold the interpreter longer than its search."""
        found: list[np.ndarray] = []
        self._found.append(found)
        try:
            while not self._stop.is_set():
                found.append(self._col.search(self._query, K).distances)
        except BaseException as error:
            self.errors.append(repr(error)[:300])

    def _check(self, found: np.ndarray) -> None:
        """Every answer is that of one version, and none is older than the one before it."""
        versions = np.full(len(found), -1)
        for number, truth in enumerate(self._truth):
            versions[np.all(np.abs(found / truth - 1) < 1e-5, axis=1)] = number
        wrong = np.flatnonzero(versions < 0)
        if len(wrong):
            self.errors.append(f"not the {K} nearest of any version: {found[wrong[0]]}")
        if np.any((versions[1:] - versions[:-1]) % SCALES >= SCALES // 2):
            self.errors.append("a thread went back to an older version")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2, help="that search")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--dim", type=int, default=32)
    given = parser.parse_args()
    report = Report("swaps")
    vecdb.warmup()
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder, exclusive():
        subject = Swapping(Path(folder) / "store", given.rows, given.dim)
        spent = subject.run(given.seconds, given.threads)
    report.line(
        swaps_per_s=subject.swaps / spent,
        searches_per_s=subject.searches / spent,
        errors=len(subject.errors),
        first_error=subject.errors[:1],
        threads=given.threads,
        rows=given.rows,
        dim=given.dim,
    )


if __name__ == "__main__":
    main()

"""Hot swaps under load: whole versions of a collection replaced while threads search it.

    python -m bench.swaps --seconds 10

One thread replaces every row (`upsert`) and puts the new version into a segment of its own
(`flush`), which takes the place of the old one: one swap. Meanwhile other threads search. Every
answer must have k rows with the true distances of one version, of the newest one that was there
when the search began or of a later one. The store leaves syncing to the system: a swap that waits
for the disk is bound by its fsyncs.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np

import vecdb
from bench.harness import Report, exclusive

K, SCALES = 10, 64


class Swapping:
    """A collection that changes as a whole, and threads that watch it."""

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        base = rng.standard_normal((rows, dim), dtype=np.float32)
        self._query = rng.standard_normal(dim, dtype=np.float32)
        self._ids = np.arange(rows)
        scales = np.float32(1) + np.arange(SCALES, dtype=np.float32) / np.float32(SCALES)
        self._versions = [base * scale for scale in scales]
        self._truth = np.stack([self._nearest(version) for version in self._versions])
        self._col = vecdb.create(path, dim, "l2", sync="os")
        self._stop = threading.Event()
        self._written = self.swaps = self.searches = 0
        self.errors: list[str] = []
        # of each thread: distances, and the versions written before and after the search
        self._found: list[list[tuple[np.ndarray, int, int]]] = []
        self._swap()

    def run(self, seconds: float, threads: int) -> float:
        """Swap as fast as possible for so long; the seconds that it took."""
        searching = [threading.Thread(target=self._search) for _ in range(threads)]
        for thread in searching:
            thread.start()
        start, first = time.perf_counter(), self._written
        while time.perf_counter() - start < seconds:
            self._swap()
        spent = time.perf_counter() - start
        self.swaps = self._written - first
        self._stop.set()
        for thread in searching:
            thread.join()
        self._col.close()
        for found in self._found:
            self.searches += len(found)
            self._check(found)
        return spent

    def _nearest(self, rows: np.ndarray) -> np.ndarray:
        return np.sort(np.square(rows - self._query).sum(axis=1))[:K]

    def _swap(self) -> None:
        self._col.upsert(self._versions[self._written % SCALES], self._ids)
        self._col.flush()
        self._written += 1

    def _search(self) -> None:
        """Search until told to stop; the answers are kept, and checked when the clock has stopped,
        for a check would hold the interpreter longer than its search."""
        found: list[tuple[np.ndarray, int, int]] = []
        self._found.append(found)
        try:
            while not self._stop.is_set():
                before = self._written
                distances = self._col.search(self._query, K).distances
                found.append((distances, before, self._written))
        except BaseException as error:
            self.errors.append(repr(error)[:300])
            traceback.print_exc()

    def _check(self, answers: list[tuple[np.ndarray, int, int]]) -> None:
        """Every answer is that of one version: the last that was complete when the search began, a
        later one, or the one that was being written when it ended."""
        found = np.array([distances for distances, _, _ in answers]).reshape(-1, K)
        before, after = np.array([span for _, *span in answers], np.int64).reshape(-1, 2).T
        versions = np.full(len(found), -1)
        for number, truth in enumerate(self._truth):
            versions[np.all(np.abs(found / truth - 1) < 1e-5, axis=1)] = number
        wrong = np.flatnonzero(versions < 0)
        if len(wrong):
            self.errors.append(f"not the {K} nearest of any version: {found[wrong[0]]}")
        late = np.flatnonzero((versions - (before - 1)) % SCALES > after - (before - 1))
        if len(late):
            i = late[0]
            span = f"{before[i]} to {after[i]} versions"
            self.errors.append(f"version {versions[i]} (of {SCALES}) in a search over {span}")


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

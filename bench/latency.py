"""Eight clients on one index: latency under the same offered load, vecdb against hnswlib.

    python -m bench.latency --set glove-100-angular

Eight threads of one process send single queries at random moments (Poisson arrivals), whether or
not earlier ones are answered; latency runs from the moment a query was due. Both libraries search
with the smallest beam that reaches recall .95, and both get the same load: `--load` times what
hnswlib answers with all eight clients busy. vecdb goes through the public API.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import defaultdict

import numpy as np

from bench import datasets
from bench.datasets import Floats
from bench.engine import K
from bench.harness import Contest, Report, summary
from bench.rivals import Hnswlib, Ids, Library, VecdbCollection

RECALL = 0.95


class Serving(VecdbCollection):
    """The collection as it opens by default, with its pool of one thread a core."""

    search_threads = None

    def search(self, queries: Floats, k: int, ef: float) -> Ids:
        """As answered: a client's query comes alone, and finds k rows."""
        if len(queries) > 1:
            return super().search(queries, k, ef)
        return self._col.search(queries[0], k, ef_search=int(ef)).ids[None]


LIBRARIES: dict[str, type[Library]] = {"vecdb": Serving, "hnswlib": Hnswlib}


class Server:
    """One library that answers `clients` threads; lives in its own process."""

    def __init__(self, name: str, source: str, rows: int | None, clients: int) -> None:
        self._data = datasets.load(source, rows)
        self._library = LIBRARIES[name]()
        self._library.build(self._data.train, self._data.metric, 2)
        self._clients = clients
        best = datasets.truth(self._data, K)
        for ef in self._library.beams:
            ids = self._library.search(self._data.test, K, ef)
            self._recall, self._ef = datasets.recall(self._data, ids, best), ef
            if self._recall >= RECALL:
                break

    def chosen(self) -> dict[str, float]:
        """The beam width and its recall."""
        return {"ef": self._ef, "recall": self._recall}

    def capacity(self, seconds: float) -> float:
        """Queries per second with every client asking again at once."""
        end, counts = time.perf_counter() + seconds, [0] * self._clients

        def client(me: int) -> None:
            while time.perf_counter() < end:
                self._ask(me + counts[me])
                counts[me] += 1

        self._run(client)
        return sum(counts) / seconds

    def serve(self, rate: float, seconds: float, seed: int) -> dict[str, float]:
        """Milliseconds of latency when `rate` queries a second arrive in all."""
        spent: list[list[float]] = [[] for _ in range(self._clients)]
        start = time.perf_counter() + 0.05

        def client(me: int) -> None:
            rng = np.random.default_rng((seed, me))
            gaps = rng.exponential(self._clients / rate, int(rate / self._clients * seconds))
            for i, due in enumerate(start + np.cumsum(gaps)):
                if (wait := due - time.perf_counter()) > 0:
                    time.sleep(wait)
                self._ask(me + i)
                spent[me].append(time.perf_counter() - due)

        self._run(client)
        took = 1000 * np.concatenate(spent)
        names, ranks = ("p50_ms", "p99_ms", "p999_ms"), (50, 99, 99.9)
        return dict(zip(names, np.percentile(took, ranks).tolist(), strict=True))

    def _ask(self, i: int) -> None:
        at = i * 31 % len(self._data.test)
        self._library.search(self._data.test[at : at + 1], K, self._ef)

    def _run(self, client: object) -> None:
        threads = [threading.Thread(target=client, args=(me,)) for me in range(self._clients)]  # type: ignore[arg-type]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def run(source: str, rows: int | None, load: float, seconds: float, passes: int) -> None:
    """Measure capacities, then alternate passes at the same offered load."""
    report = Report("latency", ("hnswlib",))
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with Contest(report, Server, list(LIBRARIES), source, rows, 8) as contest:
        chosen = dict(contest.round("chosen", timed=False))
        for _ in range(passes):
            for name, qps in contest.round("capacity", seconds):
                figures[name]["capacity_qps"].append(qps)
        rate = load * summary(figures["hnswlib"]["capacity_qps"])["median"]
        for turn in range(passes):
            for name, spent in contest.round("serve", rate, seconds, turn):
                for what, value in spent.items():
                    figures[name][what].append(value)
    for name, found in figures.items():
        spread = {what: summary(values) for what, values in found.items()}
        report.line(set=source, library=name, clients=8, offered_qps=rate, **chosen[name], **spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default="sift-like", help="see bench/datasets.py")
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument("--load", type=float, default=0.8, help="share of hnswlib's capacity")
    parser.add_argument("--seconds", type=float, default=4, help="of a pass")
    parser.add_argument("--passes", type=int, default=5)
    given = parser.parse_args()
    run(given.set, given.rows, given.load, given.seconds, given.passes)


if __name__ == "__main__":
    main()

"""How far the answers can be trusted: recall on the user's own rows, with an interval.

Recall is measured per query against an exact scan of the same rows under the same filter. Hits are
counted by distance, so that ties cost nothing. The interval is Wilson's (1927), over an effective
number of trials: the k hits of one query are not independent of each other, so the number of trials
is that at which independent hits would vary as much as the queries did, n to n k.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from vecdb.filter.masks import live
from vecdb.query.execute import Answer, Request, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vecdb.filter.masks import Allowed
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

__all__ = ["Recall", "hits_per_query", "measure", "sample_rows", "wilson"]

_Z = 1.959964  # 95 %
_TOLERANCE = 1e-5  # two float32 sums of one distance differ by so much of it
_TIMED = 50  # queries that are timed one by one


@dataclasses.dataclass(frozen=True, slots=True)
class Recall:
    """Measured recall at k; NaN where there was no query, or no row, to measure it with.

    Attributes
    ----------
    recall : float
        Mean share of the true k nearest rows that were found, 0 to 1.
    low, high : float
        95 % interval of the mean.
    k : int
        Neighbours asked for.
    queries : int
        Number of queries measured.
    worst : float
        Recall of the worst query.
    search_ms, exact_ms : float
        Median milliseconds of one query, as searched and by exact scan.
    selectivity : float
        Share of the rows that pass the filter.
    stored : bool
        Whether the queries were rows of the collection. These are easier to find than new queries,
        which missed 2.4 to 7 times as much on our data sets: give queries of your own where you
        have any.
    """

    recall: float
    low: float
    high: float
    k: int
    queries: int
    worst: float
    search_ms: float
    exact_ms: float
    selectivity: float
    stored: bool

    def __str__(self) -> str:
        return (
            f"recall@{self.k} = {self.recall:.3f} (95 % interval {self.low:.3f} to "
            f"{self.high:.3f}, {self.queries} "
            f"{'stored rows' if self.stored else 'queries'}, worst {self.worst:.2f}); "
            f"{self.search_ms:.3g} ms a query, exact {self.exact_ms:.3g} ms"
        )


def measure(
    snapshot: Snapshot,
    request: Request,
    workers: Workers,
    *,
    itself: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] | None = None,
) -> Recall:
    """Recall of `request` as it is against the same request with ``exact=True``.

    Parameters
    ----------
    itself : (parts, rows), optional
        Where the queries are rows of the collection: the row that each of them is, which counts
        as no hit of its own.
    """
    k = request.k
    passing = live(snapshot) if request.allowed is None else request.allowed
    if not len(request.queries) or not any(part.count for part in passing):
        nothing = float("nan")
        return Recall(nothing, 0, 1, k, 0, nothing, nothing, nothing, nothing, itself is not None)
    wider = dataclasses.replace(request, k=k + 1) if itself is not None else request
    exactly = dataclasses.replace(wider, exact=True)
    found = _without_itself(search(snapshot, wider, workers), itself, k)
    truth = _without_itself(search(snapshot, exactly, workers), itself, k)
    shares = hits_per_query(found, truth)
    low, high = wilson(shares, k)
    plan = search(snapshot, dataclasses.replace(request, queries=request.queries[:1]), workers).plan
    return Recall(
        recall=float(shares.mean()),
        low=low,
        high=high,
        k=k,
        queries=len(shares),
        worst=float(shares.min()),
        search_ms=_median_ms(snapshot, request, workers),
        exact_ms=_median_ms(snapshot, dataclasses.replace(request, exact=True), workers),
        selectivity=plan.selectivity,
        stored=itself is not None,
    )


def sample_rows(
    snapshot: Snapshot, allowed: Sequence[Allowed] | None, count: int, seed: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Up to `count` different allowed rows, drawn evenly over all parts, as (parts, rows)."""
    from vecdb.segment import bitmap

    chosen = live(snapshot) if allowed is None else allowed
    starts = np.cumsum([0, *(part.count for part in chosen)])
    total = int(starts[-1])
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(total, size=min(count, total), replace=False))
    parts = (np.searchsorted(starts, places, side="right") - 1).astype(np.int32)
    rows = places - starts[parts]
    for number in np.unique(parts).tolist():
        bits = chosen[number].bits
        if bits is not None:
            mine = parts == number
            rows[mine] = bitmap.rows_of(bits)[rows[mine]]
    return parts, rows


def hits_per_query(found: Answer, truth: Answer) -> npt.NDArray[np.float64]:
    """Share of the true neighbours that each query found; 1 where there are none to find."""
    there = truth.rows >= 0
    worst = np.where(there, truth.distances, np.float32(-3e38)).max(axis=1)
    reach = worst + _TOLERANCE * np.maximum(np.abs(worst), 1e-3)
    hits = ((found.rows >= 0) & (found.distances <= reach[:, None])).sum(axis=1)
    wanted = there.sum(axis=1)
    return np.where(wanted > 0, np.minimum(hits, wanted) / np.maximum(wanted, 1), 1.0)


def wilson(shares: npt.NDArray[np.float64], k: int) -> tuple[float, float]:
    """95 % interval of the mean of per-query shares out of k."""
    n, p = len(shares), float(shares.mean())
    variance = float(shares.var(ddof=1)) if n > 1 else 0.0
    trials = float(n)
    if variance > 0:
        trials = min(max(p * (1 - p) * n / variance, n), n * k)
    centre = (p + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    spread = _Z / (1 + _Z**2 / trials)
    spread *= float(np.sqrt(p * (1 - p) / trials + _Z**2 / (4 * trials**2)))
    return max(0.0, min(p, centre - spread)), min(1.0, max(p, centre + spread))


def _without_itself(
    answer: Answer, itself: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] | None, k: int
) -> Answer:
    """The answer with k columns, the row that the query is taken out."""
    if itself is None:
        return answer
    parts, rows = itself
    same = (answer.parts == parts[:, None]) & (answer.rows == rows[:, None])
    order = np.argsort(same, axis=1, kind="stable")[:, :k]
    return Answer(
        np.take_along_axis(answer.parts, order, axis=1),
        np.take_along_axis(np.where(same, -1, answer.rows), order, axis=1),
        np.take_along_axis(np.where(same, np.inf, answer.distances), order, axis=1),
        answer.plan,
    )


def _median_ms(snapshot: Snapshot, request: Request, workers: Workers) -> float:
    times = []
    for i in range(min(_TIMED, len(request.queries))):
        one = dataclasses.replace(request, queries=request.queries[i : i + 1])
        started = time.perf_counter()
        search(snapshot, one, workers)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))

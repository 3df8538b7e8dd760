"""How wide a beam must be for a wanted recall: a curve measured on a segment's own rows.

A sample of the rows is searched with growing beams and compared with an exact scan; a row is no
hit of its own, and what it misses is scaled to what new queries miss. The curve is measured at the
first search that asks for a recall (some seconds for 100,000 rows) and kept as long as the segment.
A filtered walk weighs as many matching rows as a walk without a filter weighs rows, so that the
same beam serves every selectivity.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import ArgumentError, describe

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.segment import Segment
    from vecdb.workers import Workers

__all__ = ["BEAMS", "beam_for", "check_target"]

BEAMS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_SAMPLE = 512
_COMPARED = 40_000_000  # rows times queries of the exact scan, at most
_SURE = 0.9995  # recall after which wider beams are not measured
# Stored rows are easier to find than new queries, for the graph links them to their neighbours: at
# beams of 16 to 128 new queries missed 3.7, 6, 7 and 4 times as much (GloVe), 2.6, 6, 6 and 2.4
# times (text). Recall of stored rows must therefore be so much nearer to 1.
_EASIER = 5.0

_Curve = tuple["npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]  # beams, recall


def check_target(target: Any) -> float | None:
    """A wanted recall, 0 < target < 1, or None."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target < 1:
        raise ArgumentError(
            describe("target_recall", expected="a number between 0 and 1", got=repr(target),
                     fix="pass target_recall=0.95; for 1.0 pass exact=True")
        )  # fmt: skip
    return float(target)


def beam_for(data: Segment, metric: str, k: int, target: float, workers: Workers) -> int:
    """The narrowest beam whose measured recall at `k` reaches the target."""
    curves = _CURVES.setdefault(data, {})
    if k not in curves:
        curves[k] = _measure(data, metric, k, workers)
    beams, recall = curves[k]
    missing = (1 - target) / _EASIER
    place = int(np.searchsorted(recall, 1 - missing))
    if place == 0:
        return int(beams[0])
    if place == len(recall):  # beyond what was measured: the misses fall as the beam grows
        return int(beams[-1] * max(1.0, (1 - recall[-1]) / missing))
    share = (1 - missing - recall[place - 1]) / (recall[place] - recall[place - 1])
    return int(np.ceil(beams[place - 1] + share * (beams[place] - beams[place - 1])))


_CURVES: weakref.WeakKeyDictionary[Any, dict[int, _Curve]] = weakref.WeakKeyDictionary()


def _measure(data: Segment, metric: str, k: int, workers: Workers) -> _Curve:
    from vecdb import graph
    from vecdb.kernels.scan import scan

    index = data.graph
    assert index is not None
    count = min(_SAMPLE, data.rows, max(16, _COMPARED // data.rows))
    rows = np.sort(np.random.default_rng(0).choice(data.rows, count, replace=False))
    queries = data.vectors[rows].astype(np.float32)
    true_rows, true, _ = scan(data.vectors, queries, k + 1, metric, workers=workers)
    true = _others(true_rows, true, rows)
    reach = np.where(np.isfinite(true), true, np.float32(-3e38)).max(axis=1, initial=-3e38)
    reach += 1e-5 * np.maximum(np.abs(reach), 1e-3)
    wanted = np.isfinite(true).sum()
    beams: list[int] = []
    recall: list[float] = []
    for beam in (beam for beam in BEAMS if beam > k or beam == BEAMS[-1]):
        found = graph.search(
            index, data.vectors, queries, k + 1, beam, metric=metric, workers=workers
        )
        near = _others(found.rows, found.distances, rows) <= reach[:, None]
        beams.append(max(beam, k))
        recall.append(float(np.minimum(near.sum(axis=1), k).sum() / max(1, wanted)))
        if recall[-1] >= _SURE:
            break
    return np.array(beams, float), np.maximum.accumulate(recall)


def _others(
    found: npt.NDArray[np.int64], distances: npt.NDArray[np.float32], own: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The k distances to rows other than the query's own, ascending, out of k + 1."""
    away = np.where(found == own[:, None], np.float32(np.inf), distances)
    return np.sort(away, axis=1)[:, :-1]

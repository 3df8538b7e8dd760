"""What a walk is to be given for a wanted recall, from what :mod:`vecdb.graph.calibrate` measured.

By classes of the k-th distance a barred row tells less than a row that the graph never held: at
slack 1.1 six classes of text rows missed .3 / 1.4 / 2.4 / 3.0 / 3.8 / 6.0 % of the neighbours when
left out, .9 / 2.0 / 2.7 / 3.9 / 3.4 / 5.6 % when barred; of GloVe .7 / .9 / 1.8 / 3.7 / 7.3 / 16.6
against 1.1 / 2.5 / 2.7 / 4.8 / 7.7 / 11.1 %. Hence the misses of a class are taken times their
ratio to the mean's. Its root would do for rows left out; but queries may be unlike the rows, those
of GloVe miss 1.6 times as many as rows of their class, and most of them are far from all rows. With
the ratio itself, no filter and .05 allowed, text, Fashion and GloVe missed 5.0 / 6.0 / 6.4 %, with
its root 4.7 / 6.0 / 7.2, without it 4.5 / 5.9 / 8.0. What they have in common is made up for by
aiming at a share of the misses that are allowed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.layout import Graph

__all__ = ["CAP", "SHARES", "SLACKS", "Effort", "effort_for", "kept"]

SHARES = (1.0, 0.6, 0.3, 0.1)
SLACKS = (1.0, 1.03, 1.06, 1.1, 1.15, 1.21, 1.28, 1.4, 1.6, 2.0, 3.0)
CAP = 1024  # nodes that may wait in a bounded walk

_UNSEEN = 1e-4  # share of misses that a sample of so many hits can't tell from none
_SAFETY = (0.72, 2.0)  # share of the allowed misses that is aimed at: constant, and times them


class Effort(NamedTuple):
    """What a bounded walk takes: its slack and its beam, as :func:`vecdb.graph.search.search` wants
    them, and the nodes that it will expand on average."""

    slack: NDArray[np.float32]
    beam: int
    hops: float


class _Level(NamedTuple):
    """What a recall takes under filters of one share: upper edges of the classes, the slack that
    each needs, the mean hops, and the greatest recall that was measured."""

    edges: NDArray[np.float64]
    slack: NDArray[np.float64]
    hops: float
    reach: float


def kept(graph: Graph, k: int) -> dict[str, Any] | None:
    """The calibration that is kept in the graph's meta; None when there is none of this kind."""
    found = graph.meta.get("calibration")
    if not isinstance(found, dict) or found.get("k") != k or found.get("slacks") != list(SLACKS):
        return None
    if found.get("asked") != ("rows" if graph.queries is None else "queries"):
        return None
    for kind, count in (("shares", len(SHARES)), ("hidden", len(SHARES) - 1)):
        curves = found.get(kind)
        if not isinstance(curves, list) or len(curves) != count or not all(map(_sound, curves)):
            return None
    return found


def effort_for(calibration: dict[str, Any], share: float, target: float) -> Effort | None:
    """What a recall takes under a filter that passes a share of the rows; None where more is wanted
    than was ever measured, so that no walk can be relied on."""
    by_rows = calibration["asked"] == "rows"
    wanted = _aim(target) if by_rows else target
    levels, hidden = (
        [_level(calibration["slacks"], found, wanted, by_rows) for found in calibration[kind]]
        for kind in ("shares", "hidden")
    )
    hidden = [levels[0], *hidden]
    weights = _between(share)
    reach = np.array([level.reach for level in levels])
    if min(reach[0], weights @ reach) < wanted:
        return None
    edges = np.unique(np.concatenate([level.edges for level in (*levels, *hidden)]))
    slack, behind = (
        np.array([level.slack[np.searchsorted(level.edges, edges)] for level in some])
        for some in (levels, hidden)
    )
    bound = np.array(
        [edges, slack[0], _between(math.sqrt(share)) @ slack, weights @ slack, weights @ behind],
        np.float32,
    )
    hops = float(weights @ [level.hops for level in levels])
    return Effort(bound, CAP, hops * max(1.0, SHARES[-1] / share))


def _level(slacks: list[float], found: dict[str, Any], wanted: float, by_rows: bool) -> _Level:
    """What a recall takes by one share's measurements, made with rows or with queries."""
    steps = np.array(slacks[: len(found["hops"][0])])
    curves = np.minimum(np.array(found["recall"]), 1 - _UNSEEN)
    apart = _apart(curves) if by_rows else curves
    needed = np.array([_slack(recall, steps, wanted) for recall in apart])
    hops = float(np.mean([
        np.interp(slack, steps, own) for slack, own in zip(needed, found["hops"], strict=True)
    ]))  # fmt: skip
    edges = np.array([*found["edges"], np.inf])
    return _Level(edges, needed, hops, float(curves.max(axis=1).mean()))


def _apart(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Recall of new queries by class, from that of barred rows; all classes are of one size."""
    missed = 1 - curves
    sharper = missed * missed / missed.mean(axis=0)
    return np.asarray(1 - np.clip(sharper, _UNSEEN, 1 - _UNSEEN))


def _aim(target: float) -> float:
    """The recall on rows that new queries are to find `target` with."""
    missed = 1 - target
    return 1 - missed * min(1.0, _SAFETY[0] + _SAFETY[1] * missed)


def _between(share: float) -> NDArray[np.float64]:
    """The weight of each of :data:`SHARES`, linear between two of them in the logarithm."""
    known = -np.log(SHARES)
    return np.array([
        np.interp(-np.log(share), known, np.eye(len(known))[i]) for i in range(len(known))
    ])  # fmt: skip


def _slack(recall: NDArray[np.float64], slacks: NDArray[np.float64], target: float) -> float:
    """Where the curve reaches the target; misses fall geometrically between two slacks."""
    missed = np.log(1 - np.maximum.accumulate(recall))
    return float(np.interp(-np.log(1 - target), -missed, slacks))


def _sound(entry: Any) -> bool:
    """Whether one share's measurements are what :mod:`vecdb.graph.calibrate` writes."""
    if not isinstance(entry, dict):
        return False
    try:
        edges, hops = (np.array(entry[name], np.float64) for name in ("edges", "hops"))
        recall = np.array(entry["recall"], np.float64)
    except (KeyError, TypeError, ValueError):
        return False
    if edges.ndim != 1 or hops.ndim != 2 or len(hops) != len(edges) + 1 or not hops.size:
        return False
    if recall.shape != hops.shape or hops.shape[1] > len(SLACKS):
        return False
    finite = all(np.isfinite(values).all() for values in (edges, hops, recall))
    return finite and 0 <= recall.min() <= recall.max() <= 1

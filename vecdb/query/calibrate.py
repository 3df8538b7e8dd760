"""Wanted recall: the work that it takes on a segment, from the calibration kept with its graph.

A large graph is calibrated for ten neighbours when it is built, any for the `k` of a call of
:meth:`vecdb.Collection.calibrate`; anything else at the first search that asks for it, which is
then kept as long as the segment is open.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

from vecdb.errors import ArgumentError, describe

if TYPE_CHECKING:
    from vecdb.graph import Effort
    from vecdb.segment import Segment
    from vecdb.workers import Workers

__all__ = ["check_target", "effort_of"]


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


def effort_of(
    data: Segment, k: int, target: float, matching: int, workers: Workers, *, timed: bool
) -> Effort | str:
    """What a walk takes to find the share `target` of the `k` nearest of the matching rows; or why
    no walk can be relied on: the graph is not that good, or its calibration is not known yet and
    `timed` forbids to take seconds for it."""
    from vecdb import graph

    index = data.graph
    assert index is not None
    known = _KNOWN.setdefault(data, {})
    step = round(_STEPS * math.log2(matching / data.rows))
    effort = known.get((k, target, step))
    if effort is None:
        calibration = known.get(k) or graph.kept(index, k)
        if calibration is None and timed:
            return "the timeout leaves no time to calibrate"
        if calibration is None:
            calibration = graph.calibrate(index, data.vectors, k, workers)
        known[k] = calibration
        effort = graph.effort_for(calibration, 2 ** (step / _STEPS), target)
        effort = effort or f"a recall of {target} is beyond what walks of this graph have shown"
        if len(known) < _MOST:
            known[k, target, step] = effort
    return effort


_KNOWN: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()
_MOST = 1000
_STEPS = 4  # in which the share that matches falls by half, for what is kept

"""The choice between a scan of the rows that match and a walk over the graph.

A scan costs as many rows as match, counted; it reads the graph's records, a byte a dimension, and
rescores the best. A walk expands about as many matching nodes as its beam, and stones between them,
as many for each as the share that matches asks for. Where a walk comes by too few matching rows
for its answer to be believed (it began in the midst of what the filter hides, and the nearest that
match may lie in many directions), a scan follows. With a wanted recall it does so only for want of
k rows, or of the rows that the filter cuts off (:mod:`vecdb.query.islands`): the calibration has
seen such filters.

Where the scan is cheaper by that count but long enough, a walk with as many nodes as it costs is
tried first, for the rows that match may be those around the query: of 900 queries in the midst of
10 % of the text set seven in ten took 36 nodes on average instead of 6,400 rows; in the midst of
5 % of Fashion-MNIST a search took 35 us instead of 123. Where the rows are elsewhere eight nodes
show it: 149 us instead of 121 under a random filter.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from vecdb import kernels
from vecdb.query.costs import Costs, costs_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vecdb.graph import Effort
    from vecdb.segment import Segment

__all__ = ["DEFAULT_EF", "Choice", "choose", "walkable"]

DEFAULT_EF = 64
_SURELY = 1024  # beam up to which an unfiltered walk is not compared with a scan
_LONG = 32_768  # records whose scan is a matter of milliseconds
_TRIED = 12  # nodes that a walk given up after a first look costs, its setup included
_LITTLE = 5  # times as long as that must a scan be for a walk to be tried
ENOUGH = 0.7  # share of the beam that a walk must have met in matching rows


class Choice(NamedTuple):
    """What to run on a part, and why.

    Attributes
    ----------
    strategy : {"scan", "graph"}
    beam : int
        Matching nodes that may wait in a walk; 0 for a scan.
    need : int
        Matching rows that a walk must have met for its answer to be believed; 0 when it is
        believed with k rows.
    reason : str
    slack : array or None
        Of a bounded walk.
    exact : bool
        Whether a scan, also one that follows a walk, reads the rows themselves, not the graph's
        records.
    budget : int
        Nodes after which a walk gives way to a scan; 0 for none.
    """

    strategy: Literal["scan", "graph"]
    beam: int
    need: int
    reason: str
    slack: npt.NDArray[np.float32] | None = None
    exact: bool = False
    budget: int = 0


def choose(
    data: Segment,
    matching: int,
    k: int,
    ef_search: int | None,
    metric: str,
    *,
    exact: bool,
    effort: Effort | str | None = None,
    timed: bool = False,
) -> Choice:
    """The cheapest way to the `k` nearest of the `matching` rows of a part, with a beam, or with
    the effort that a wanted recall takes (a sentence where no walk will do); `timed` under a
    deadline, which a scan of the records does not look at."""
    hindrance = "exact=True" if exact else _hindrance(data)
    if hindrance or isinstance(effort, str):
        return Choice("scan", 0, 0, hindrance or str(effort), exact=True)
    slack, long = None, timed and matching > _LONG
    if effort is None:
        beam = least = max(k, ef_search or DEFAULT_EF)
        need, hops = min(max(k, int(ENOUGH * beam)), matching), beam * data.rows / matching
        if matching == data.rows and beam <= _SURELY:
            return Choice("graph", beam, k, "every row matches")
    else:
        slack, beam, hops = effort
        need, least = 0, k
    costs = costs_of(data, metric)
    scanned, reason = _cheaper(costs, matching, hops)
    budget = 0
    if scanned:
        budget = 0 if long or matching == data.rows else _budget(costs, matching, least)
        if not budget:
            return Choice("scan", 0, 0, reason, exact=long)
        reason += ", unless the rows around the query match"
    return Choice("graph", beam, need, reason, slack, exact=long, budget=budget)


@lru_cache(1024)
def _cheaper(costs: Costs, matching: int, hops: float) -> tuple[bool, str]:
    """Whether a scan of the matching rows costs less than a walk, and the sentence that says it."""
    scan = costs.scan_ns(matching)
    if scan <= costs.walk_ns(hops):
        return True, f"a scan ({scan / 1e6:.2g} ms) costs less than a walk"
    return False, f"a walk costs less than a scan ({scan / 1e6:.2g} ms)"


@lru_cache(1024)
def _budget(costs: Costs, matching: int, least: int) -> int:
    """Nodes of a walk that cost as much as a scan, when it is worth trying one that expands at
    `least` so many; 0 when it is not. In half octaves, for searches are prepared for each."""
    scan = costs.scan_ns(matching)
    if scan < _LITTLE * costs.walk_ns(_TRIED) or scan < 2 * costs.walk_ns(least):
        return 0
    return int(2 ** (round(2 * math.log2(scan / costs.step_ns)) / 2))


def walkable(data: Segment) -> bool:
    """Whether a part has a graph that can be walked now."""
    return not _hindrance(data)


def _hindrance(data: Segment) -> str:
    """Why the graph can't be walked; empty when it can."""
    if not data.indexed:
        return "no graph yet"
    if not kernels.ready():
        return "kernels are still compiling"
    return "the graph is damaged" if data.graph is None else ""

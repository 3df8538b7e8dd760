"""The choice between an exact scan of the rows that match and a walk over the graph.

A scan costs as many rows as match, counted. A walk must meet enough matching rows, the wanted beam,
before its best can be believed; how far it has to go for them depends on the share of matching rows
*around the query*, which no count tells: a filter may favour the query's neighbourhood or exclude
it. So a walk begins with a short beam, looks at the share it met, and only then goes on with the
beam that this share asks for, or gives up for the scan when that is cheaper. The whole costs at
most the probe and twice the scan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from vecdb import kernels
from vecdb.query.costs import costs_of

if TYPE_CHECKING:
    from vecdb.query.costs import Costs
    from vecdb.segment import Segment

__all__ = ["DEFAULT_EF", "ENOUGH", "Choice", "choose", "first_beam", "next_beam", "walkable"]

DEFAULT_EF = 64
ENOUGH = 0.7  # share of the wanted beam that a walk must have met in matching rows
_PROBE = 2  # beams; what a first walk may take
_PROBE_SHARE = 0.1  # of a scan, the most that a probe without good prospects may cost
_SLACK = 1.2  # a second walk goes further than the share it saw asks for


class Choice(NamedTuple):
    """What to run on a part, and why; `beam` is the number of matching rows that a walk must
    weigh, 0 for a scan."""

    strategy: Literal["scan", "graph"]
    beam: int
    reason: str


def choose(
    data: Segment, matching: int, k: int, ef_search: int | None, metric: str, *, exact: bool
) -> Choice:
    """The cheapest way to the `k` nearest of the `matching` rows of a part."""
    hindrance = "exact=True" if exact else _hindrance(data)
    if hindrance:
        return Choice("scan", 0, hindrance)
    beam = max(k, ef_search or DEFAULT_EF)
    if matching == data.rows:
        return Choice("graph", beam, "every row matches")
    costs = costs_of(data, metric)
    scan = costs.scan_ns(matching)
    probe = costs.walk_ns(first_beam(beam, data.rows, matching))
    whole = costs.walk_ns(-(-beam * data.rows // matching))
    if scan <= min(probe, whole) or (scan < whole and probe > _PROBE_SHARE * scan):
        return Choice("scan", 0, f"a scan ({scan / 1e6:.2g} ms) costs less than a walk")
    return Choice("graph", beam, f"a walk may cost less than a scan ({scan / 1e6:.2g} ms)")


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


def first_beam(beam: int, rows: int, matching: int) -> int:
    """Beam of the first walk: what the counted share asks for, within the limits of a probe."""
    return min(-(-beam * rows // matching), _PROBE * beam)


def next_beam(beam: int, walked: int, met: float, matching: int, costs: Costs) -> int:
    """Beam of the second walk after one of `walked` met so many matching rows; 0 for a scan."""
    wider = int(_SLACK * beam * walked / max(met, 0.5))
    return wider if costs.walk_ns(wider) < costs.scan_ns(matching) else 0

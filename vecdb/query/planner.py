"""The choice between an exact scan of the rows that match and a walk over the graph.

A scan of m rows costs m times the price of a row. On a graph of n rows the beam must be wide enough
to meet the wanted number of matching rows: where a share m / n of them matches, it is widened by
n / m, and every step costs the price of a hop. The cheaper one is taken. For a filter that is
independent of the query the two cost the same where ``m = sqrt(ef n hop / row)``: 2,800 of 64,000
rows, 11,000 of a million.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from vecdb import kernels

if TYPE_CHECKING:
    from vecdb.segment import Segment

__all__ = ["DEFAULT_EF", "Choice", "choose"]

DEFAULT_EF = 64
_ROW_NS = (12.0, 0.10)  # of a scanned row: fixed, and per float32 dimension
_HOP_NS = (120.0, 0.65)  # of an expanded node with its 32 neighbours: fixed, and per dimension


class Choice(NamedTuple):
    """What to run on a part, and why; `ef` is 0 for a scan."""

    strategy: Literal["scan", "graph"]
    ef: int
    reason: str


def choose(
    data: Segment, matching: int, k: int, ef_search: int | None, *, exact: bool = False
) -> Choice:
    """The cheapest way to the `k` nearest of the `matching` rows of a part."""
    if exact:
        return Choice("scan", 0, "exact=True")
    if not data.indexed:
        return Choice("scan", 0, "no graph yet")
    if not kernels.ready():
        return Choice("scan", 0, "kernels are still compiling")
    wanted = max(k, ef_search or DEFAULT_EF)
    ef = min(data.rows, -(-wanted * data.rows // matching))
    dim = data.vectors.shape[1]
    scan_ns = matching * (_ROW_NS[0] + _ROW_NS[1] * dim)
    graph_ns = ef * (_HOP_NS[0] + _HOP_NS[1] * dim)
    if scan_ns <= graph_ns:
        return Choice("scan", 0, f"a scan ({scan_ns / 1e6:.2g} ms) costs less than a walk")
    if data.graph is None:
        return Choice("scan", 0, "the graph is damaged")
    return Choice("graph", ef, f"a walk ({graph_ns / 1e6:.2g} ms) costs less than a scan")

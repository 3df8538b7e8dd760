"""What a search did: the account that every answer carries as ``hits.plan``."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["PartPlan", "Plan"]


class PartPlan(NamedTuple):
    """How one part of the store (a segment, or the rows still in memory) was searched.

    Attributes
    ----------
    strategy : str
        ``"graph"`` or ``"scan"``.
    rows : int
        Rows of the part, deleted ones included.
    matching : int
        Rows that are live and pass the filter, counted.
    ef_search : int
        Beam width on the graph; 0 for a scan.
    scanned : int
        Queries that were compared with every row that matches: all of an exact scan, and of a graph
        search those that it left short of k rows or gave up because a scan costs less.
    reason : str
        Why this strategy was chosen.
    """

    strategy: str
    rows: int
    matching: int
    ef_search: int
    scanned: int
    reason: str


class Plan(NamedTuple):
    """How an answer came about, summed over all queries of the call and all parts of the store.

    Attributes
    ----------
    rows : int
        Live rows of the collection.
    matching : int
        Live rows that pass the filter; counted, not estimated.
    queries : int
        Number of queries.
    visited : int
        Nodes whose neighbours were looked at, plus rows scanned.
    estimated : int
        Distances estimated from codes.
    computed : int
        Distances computed in full; in a scan, those too whose bound proved that they need not be.
    complete : bool
        False when a timeout ended the search before it was done.
    compiled : bool
        False while the kernels were still compiling and NumPy answered instead (right, slower).
    parts : tuple of PartPlan
        Part by part, those without a matching row left out.
    """

    rows: int
    matching: int
    queries: int
    visited: int
    estimated: int
    computed: int
    complete: bool
    compiled: bool
    parts: tuple[PartPlan, ...]

    @property
    def strategy(self) -> str:
        """``"graph"``, ``"scan"`` or ``"graph+scan"`` (fresh rows are always scanned)."""
        used = {part.strategy for part in self.parts}
        if any(part.scanned for part in self.parts):
            used.add("scan")
        return "+".join(sorted(used)) or "scan"

    @property
    def selectivity(self) -> float:
        """Share of the live rows that pass the filter; 1.0 without one."""
        return self.matching / self.rows if self.rows else 1.0

    @property
    def pruned(self) -> float:
        """Share of the estimated distances that were never computed in full, 0 to 1."""
        return 1.0 - min(1.0, self.computed / self.estimated) if self.estimated else 0.0

    @property
    def ef_search(self) -> int:
        """Widest beam used on a graph; 0 when every part was scanned."""
        return max((part.ef_search for part in self.parts), default=0)

    @property
    def exact(self) -> bool:
        """Whether every row that matches was compared with every query."""
        return self.complete and all(
            part.strategy == "scan" and part.scanned == self.queries for part in self.parts
        )

    def after(self, earlier: Plan) -> Plan:
        """This plan with the work of an earlier round of the same search added."""
        return self._replace(
            visited=self.visited + earlier.visited,
            estimated=self.estimated + earlier.estimated,
            computed=self.computed + earlier.computed,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values."""
        summary = {
            name: getattr(self, name)
            for name in ("strategy", "selectivity", "pruned", "ef_search", "exact")
        }
        parts = [part._asdict() for part in self.parts]
        return {**self._asdict(), **summary, "parts": parts}

    def __str__(self) -> str:
        """The plan as a few lines for a person."""
        lines = [
            f"{self.strategy} over {self.matching:,} of {self.rows:,} rows "
            f"({self.selectivity:.2%}), {self.queries} queries, "
            f"{'complete' if self.complete else 'ended by the timeout'}",
            f"  visited {self.visited:,}, estimated {self.estimated:,} distances, computed "
            f"{self.computed:,} in full (pruned {self.pruned:.1%})",
        ]
        lines += [
            f"  part {number}: {part.strategy}"
            + (f", ef_search {part.ef_search}" if part.ef_search else "")
            + f", {part.matching:,} of {part.rows:,} rows match: {part.reason}"
            + (
                f"; {part.scanned} queries scanned after all"
                if part.scanned and part.strategy == "graph"
                else ""
            )
            for number, part in enumerate(self.parts)
        ]
        return "\n".join(lines)

"""What a search did: the account that every answer carries as ``hits.plan``."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["Plan"]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How an answer came about, summed over all queries of the call and all parts of the store.

    Attributes
    ----------
    strategy : str
        ``"graph"``, ``"scan"`` or ``"graph+scan"`` (fresh rows are always scanned).
    rows : int
        Live rows that the search could return before the filter.
    visited : int
        Nodes whose neighbours were looked at, plus rows scanned.
    estimated : int
        Distances estimated from codes.
    computed : int
        Distances computed in full.
    pruned : float
        Share of the estimated distances that never had to be computed in full, 0 to 1.
    selectivity : float
        Share of live rows that pass the filter; 1.0 without one.
    ef_search : int
        Beam width used on graphs; 0 when every part was scanned.
    complete : bool
        False when a timeout ended the search before it was done.
    compiled : bool
        False while the kernels were still compiling and NumPy answered instead (right, slower).
    """

    strategy: str
    rows: int
    visited: int
    estimated: int
    computed: int
    selectivity: float
    ef_search: int
    complete: bool
    compiled: bool

    @property
    def pruned(self) -> float:
        """Share of the estimated distances that were never computed in full."""
        return 1.0 - min(1.0, self.computed / self.estimated) if self.estimated else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields, `pruned` included, as plain Python values."""
        return {**dataclasses.asdict(self), "pruned": self.pruned}

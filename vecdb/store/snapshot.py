"""What a search sees: an immutable list of parts, each with the bitmap of its live rows.

The store swaps its current snapshot by one reference; a search takes it once and never locks.
A snapshot keeps the files of its segments mapped, so nothing that happens later changes it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.segment import bitmap

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.schema import Schema
    from vecdb.segment import Segment
    from vecdb.store.memtable import MemtableView

__all__ = ["Part", "Snapshot"]

_ANY_ID = (0, 2**63 - 1)
_ROUTED = 8  # parts from which on id bounds are compared before any part is looked into


class Part:
    """A run of rows and which of them are live.

    Attributes
    ----------
    data : Segment or MemtableView
        The rows.
    live : ndarray or None
        uint8 bitmap, LSB first, padded to 8 bytes; None when every row is live.
    live_rows : int
        Number of live rows.
    bounds : (int, int) or None
        Least and greatest int64 id in `data`; None when unknown.
    """

    __slots__ = ("bounds", "data", "live", "live_rows")

    def __init__(
        self,
        data: Segment | MemtableView,
        live: npt.NDArray[np.uint8] | None,
        live_rows: int,
        bounds: tuple[int, int] | None = None,
    ) -> None:
        self.data = data
        self.live = live
        self.live_rows = live_rows
        self.bounds = bounds

    @property
    def segment(self) -> Segment:
        """`data` of a part that is known to be a segment's."""
        segment: Any = self.data
        return segment  # type: ignore[no-any-return]

    def find(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Row of each id, -1 where it is absent or deleted."""
        rows = self.data.ids.find(ids)
        if self.live is not None:
            known = np.flatnonzero(rows >= 0)
            dead = ~bitmap.test(self.live, rows[known])
            if dead.any():
                rows[known[dead]] = -1
        return rows

    def without(self, rows: npt.NDArray[np.int64]) -> Part:
        """This part with more rows deleted (each of them live now)."""
        if not len(rows):
            return self
        if len(rows) == self.live_rows:
            live = np.zeros(bitmap.nbytes(self.data.rows), np.uint8)
        else:
            live = bitmap.cleared(self.live, self.data.rows, rows)
        return Part(self.data, live, self.live_rows - len(rows), self.bounds)


@dataclasses.dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Snapshot:
    """The collection at one sequence number; immutable and safe to share between threads.

    Attributes
    ----------
    schema : Schema
    generation : int
        Of the manifest that it rests on.
    sequence : int
        Number of the last record that it contains.
    parts : tuple of Part
        Segments, oldest first, then memtables.
    rows : int
        Number of live rows.
    order : int
        Grows with every change within one handle; a later snapshot has a greater one.
    memo : dict
        What searches have prepared for it; the store does not look into it.
    """

    schema: Schema
    generation: int
    sequence: int
    parts: tuple[Part, ...]
    rows: int
    order: int
    memo: dict[Any, Any] = dataclasses.field(default_factory=dict)
    _bounds: npt.NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return (
            f"Snapshot(sequence={self.sequence}, generation={self.generation}, "
            f"rows={self.rows}, parts={len(self.parts)})"
        )

    @property
    def id_bounds(self) -> npt.NDArray[np.int64]:
        """(2, parts): the least and the greatest int64 id that each part may hold."""
        if self._bounds is None:
            flat = [bound for part in self.parts for bound in part.bounds or _ANY_ID]
            self._bounds = np.array(flat, np.int64).reshape(-1, 2).T
        return self._bounds

    def find(self, ids: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Where each id is: its part's number (int32) and row (int64), -1 when not there."""
        part = row = np.full(len(ids), -1, np.int64)
        missing: Any = None  # all of them
        for number in self._candidates(ids):
            if missing is None:
                row = self.parts[number].find(ids)
                part = np.where(row >= 0, number, -1)
            else:
                rows = self.parts[number].find(ids[missing])
                part[missing] = np.where(rows >= 0, number, -1)
                row[missing] = rows
            if not len(missing := (row < 0).nonzero()[0]):
                break
        return part.astype(np.int32), row

    def _candidates(self, ids: npt.NDArray[Any]) -> Any:
        """Numbers of the parts that may hold one of the ids, newest first."""
        if len(self.parts) < _ROUTED or ids.dtype != np.int64 or not len(ids):
            return range(len(self.parts) - 1, -1, -1)
        lows, highs = self.id_bounds
        least, greatest = (ids[0], ids[0]) if len(ids) == 1 else (ids.min(), ids.max())
        return ((lows <= greatest) & (highs >= least)).nonzero()[0][::-1].tolist()

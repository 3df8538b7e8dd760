"""Why a row is, or is not, in an answer: its true rank, and what kept it out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.filter.expr import And, Expr
from vecdb.filter.masks import Allowed, allowed_by, live, without
from vecdb.kernels import reference
from vecdb.query.execute import Request, search
from vecdb.segment import bitmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vecdb.store import Snapshot
    from vecdb.workers import Workers

__all__ = ["Why", "why"]

_BLOCK_BYTES = 32 << 20  # of vectors at a time
_WIDEST = 65_536  # beam after which a row counts as out of the graph's reach


@dataclasses.dataclass(frozen=True, slots=True)
class Why:
    """One row seen from one query.

    Attributes
    ----------
    id : int or str
    found : bool
        Whether the search returns the row.
    reason : str
        ``"found"``, ``"absent"``, ``"deleted"``, ``"filtered out"``, ``"beyond k"``,
        ``"missed by the graph"`` or ``"unreachable"``. A deleted row is ``"deleted"`` for as long
        as its bytes are there; once a flush or a compaction has removed them nothing tells that it
        ever was, and it is ``"absent"`` like an id that was never added.
    position : int or None
        Place in the answer, from 1.
    rank : int or None
        True rank among the rows that match, from 1, by comparison with every one of them.
    distance : float or None
    failed : tuple of str
        The conditions of the filter that the row does not meet.
    ef_needed : int or None
        Of a row that the graph missed: a beam width that finds it.
    """

    id: int | str
    found: bool
    reason: str
    position: int | None = None
    rank: int | None = None
    distance: float | None = None
    failed: tuple[str, ...] = ()
    ef_needed: int | None = None

    def __str__(self) -> str:
        lines = [f"row {self.id!r}: {self.reason}"]
        if self.position is not None:
            lines.append(f"  at position {self.position} of the answer")
        if self.rank is not None:
            lines.append(f"  true rank {self.rank:,} at distance {self.distance:.6g}")
        lines += [f"  does not meet {condition}" for condition in self.failed]
        if self.ef_needed is not None:
            lines.append(f"  found with ef_search={self.ef_needed}, or exact=True")
        return "\n".join(lines)


def why(
    snapshot: Snapshot,
    request: Request,
    workers: Workers,
    ids: npt.NDArray[Any],
    where: Expr | None,
) -> Why:
    """Why the row of the one id in `ids` is or is not in the answer to a request of one query.

    Every row that matches is read once, for the true rank.
    """
    identifier = ids.tolist()[0]
    parts, rows = snapshot.find(ids)
    if parts[0] < 0:
        dead = any((part.data.ids.find(ids) >= 0).any() for part in snapshot.parts)
        return Why(identifier, False, "deleted" if dead else "absent")
    part, row = int(parts[0]), int(rows[0])
    allowed = live(snapshot) if request.allowed is None else request.allowed
    own = snapshot.parts[part].data.vectors[row : row + 1]
    metric = snapshot.schema.metric
    distance = reference.distances(request.queries, own, metric)[0, 0]
    if not _set(allowed[part].bits, row):
        failed = _failed(snapshot, where, part, row)
        return Why(identifier, False, "filtered out", distance=float(distance), failed=failed)
    others = without(allowed, snapshot, parts, rows)  # a block's rounding may differ from one row's
    rank = 1 + _closer(snapshot, others, request.queries, float(distance))
    position = _position(snapshot, request, workers, part, row)
    told = Why(identifier, position is not None, "found", position, rank, float(distance))
    if position is not None:
        return told
    if rank > request.k or distance > request.radius:
        return dataclasses.replace(told, reason="beyond k")
    needed = _beam(snapshot, request, workers, part, row)
    reason = "unreachable" if needed is None else "missed by the graph"
    return dataclasses.replace(told, reason=reason, ef_needed=needed)


def _failed(snapshot: Snapshot, where: Expr | None, part: int, row: int) -> tuple[str, ...]:
    """The operands of the filter that the row does not meet."""
    if where is None:
        return ()
    operands = where.operands if isinstance(where, And) else (where,)
    return tuple(
        repr(operand)
        for operand in operands
        if not _set(allowed_by(operand, snapshot)[part].bits, row)
    )


def _closer(
    snapshot: Snapshot,
    allowed: Sequence[Allowed],
    query: npt.NDArray[np.float32],
    distance: float,
) -> int:
    """Number of allowed rows that are strictly closer."""
    count = 0
    step = max(1, _BLOCK_BYTES // (4 * snapshot.schema.dim))
    for part, passing in zip(snapshot.parts, allowed, strict=True):
        vectors = part.data.vectors
        for start in range(0, part.data.rows, step):
            near = reference.distances(query, vectors[start : start + step], snapshot.schema.metric)
            closer = near[0] < distance
            if passing.bits is not None:
                rows = start + np.flatnonzero(closer)
                count += int(bitmap.test(passing.bits, rows).sum())
            else:
                count += int(closer.sum())
    return count


def _position(
    snapshot: Snapshot, request: Request, workers: Workers, part: int, row: int
) -> int | None:
    answer = search(snapshot, request, workers)
    places = np.flatnonzero((answer.parts[0] == part) & (answer.rows[0] == row))
    return int(places[0]) + 1 if len(places) else None


def _beam(
    snapshot: Snapshot, request: Request, workers: Workers, part: int, row: int
) -> int | None:
    """A beam width, doubled from the one that missed the row, that finds it."""
    ef = max(request.k, request.ef_search or 64)
    while ef < min(_WIDEST, 2 * snapshot.rows):
        ef *= 2
        wider = dataclasses.replace(request, ef_search=ef)
        if _position(snapshot, wider, workers, part, row) is not None:
            return ef
    return None


def _set(bits: npt.NDArray[np.uint8] | None, row: int) -> bool:
    return bits is None or bool(bitmap.test(bits, np.array([row]))[0])

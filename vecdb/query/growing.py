"""Searches whose number of neighbours is not known beforehand.

Everything within a radius, and the best row of each group, are found by asking for more and more
neighbours, four times as many each round, until the answer cannot change any more or all rows that
match have come.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.errors import SchemaError, describe
from vecdb.filter.masks import live
from vecdb.query.execute import Answer, Request, search
from vecdb.query.gather import gather

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from vecdb.store import Snapshot
    from vecdb.workers import Workers

    _Rows = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]  # parts and rows in them

__all__ = ["search_groups", "search_within"]

_FIRST = 64  # neighbours asked for in the first round of a radius search
_FACTOR = 4
_NONE = np.empty(0, np.int32), np.empty(0, np.int64)


def search_within(snapshot: Snapshot, request: Request, workers: Workers) -> Answer:
    """All rows within ``request.radius`` of every query; `k` is ignored."""
    answer = _grow(
        snapshot,
        dataclasses.replace(request, k=_FIRST),
        workers,
        lambda answer: bool((answer.rows[:, -1] < 0).all()),
    )
    width = max(1, int((answer.rows >= 0).sum(axis=1).max(initial=0)))
    return _columns(answer, width)


def search_groups(
    snapshot: Snapshot,
    request: Request,
    workers: Workers,
    column: str,
    *,
    everything: bool = False,
    before: npt.NDArray[Any] | None = None,
) -> Answer:
    """The best row of each of the `k` nearest groups: rows that agree in `column`.

    Rows without a value are one group of their own. With `everything` it is all groups within the
    radius, whatever `k`; groups of the ids in `before` are left out.

    Raises
    ------
    SchemaError
        There is no such column, or it holds lists.
    """
    _check_column(snapshot, column)
    ids = np.empty(0, np.int64) if before is None else before
    earlier = _known(*snapshot.find(ids)) if len(ids) else _NONE
    picked: list[npt.NDArray[np.int64]] = []

    def enough(answer: Answer) -> bool:
        groups = _groups(snapshot, answer, column, earlier)
        picked[:] = [_firsts(row, None if everything else request.k) for row in groups]
        if everything:
            return bool((answer.rows[:, -1] < 0).all())
        return all(len(found) == request.k for found in picked)

    first = _FIRST if everything else _FACTOR * (request.k + len(ids))
    answer = _grow(snapshot, dataclasses.replace(request, k=first), workers, enough)
    enough(answer)
    width = max(1, *map(len, picked)) if everything and picked else request.k
    places = np.full((len(picked), width), answer.rows.shape[1], np.int64)
    for query, found in enumerate(picked):
        places[query, : len(found)] = found
    return _columns(answer, width, places)


def _grow(
    snapshot: Snapshot, request: Request, workers: Workers, enough: Callable[[Answer], bool]
) -> Answer:
    """Search with growing k until it is enough, all rows are there, or time is up."""
    allowed = live(snapshot) if request.allowed is None else request.allowed
    matching = max(1, sum(part.count for part in allowed))
    k = min(request.k, matching)
    answer = search(snapshot, dataclasses.replace(request, k=k), workers)
    while k < matching and answer.plan.complete and not enough(answer):
        k = min(_FACTOR * k, matching)
        more = search(snapshot, dataclasses.replace(request, k=k), workers)
        answer = dataclasses.replace(more, plan=more.plan.after(answer.plan))
    return answer


def _columns(answer: Answer, width: int, places: npt.NDArray[np.int64] | None = None) -> Answer:
    """The answer's columns at `places` (one past the last: none), or its first `width`."""

    def picked(array: npt.NDArray[Any], none: Any) -> npt.NDArray[Any]:
        if places is None:
            return array[:, :width]
        padded = np.concatenate([array, np.full((len(array), 1), none, array.dtype)], axis=1)
        return np.take_along_axis(padded, places, axis=1)

    return Answer(
        picked(answer.parts, -1),
        picked(answer.rows, -1),
        picked(answer.distances, np.inf),
        answer.plan,
    )


def _groups(
    snapshot: Snapshot, answer: Answer, column: str, earlier: _Rows
) -> npt.NDArray[np.int64]:
    """The number of each hit's group, shape as the answer's rows; -1 where there is no hit, or an
    earlier row is of its group."""
    there = answer.rows >= 0
    parts = np.concatenate([earlier[0], answer.parts[there]])
    rows = np.concatenate([earlier[1], answer.rows[there]])
    values = gather(snapshot, parts, rows, [column]).column(column)
    codes: Any = values.combine_chunks().dictionary_encode(null_encoding="encode")
    numbers = codes.indices.to_numpy()
    known, own = np.split(numbers, [len(earlier[0])])
    groups = np.full(answer.rows.shape, -1, np.int64)
    groups[there] = np.where(np.isin(own, known), -1, own)
    return groups


def _known(parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]) -> _Rows:
    """Those of the rows that are there."""
    return parts[parts >= 0], rows[parts >= 0]


def _firsts(groups: npt.NDArray[np.int64], k: int | None) -> npt.NDArray[np.int64]:
    """Places of the first hit of each of the first k groups, or of all, best first."""
    numbers, places = np.unique(groups, return_index=True)
    return np.sort(places[numbers >= 0])[:k]


def _check_column(snapshot: Snapshot, column: str) -> None:
    columns = snapshot.schema.columns
    known = [] if columns is None else [f.name for f in columns if "list" not in str(f.type)]
    if column not in known:
        raise SchemaError(
            describe("group_by", expected=f"one of the columns {', '.join(known)}"[:300],
                     got=repr(column), fix="group by a metadata column that holds no lists")
        )  # fmt: skip

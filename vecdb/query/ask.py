"""What a user asks, checked and made into a :class:`Question`; and its answer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.batch import as_ids, as_queries
from vecdb.errors import ArgumentError, NotFoundError, describe
from vecdb.filter import masks
from vecdb.query import execute, growing
from vecdb.query.calibrate import check_target
from vecdb.query.gather import check_count
from vecdb.query.neighbours import vectors_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.filter.sql import Params
    from vecdb.query.execute import Answer, Request
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

__all__ = ["Question", "answer", "ask"]


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A checked search.

    Attributes
    ----------
    request : Request
    single : bool
        Whether one query came, not a batch.
    group_by : str or None
        Return the best row of each group.
    everything : bool
        Return all rows within the radius, however many.
    before : ndarray or None
        Ids of the earlier pages.
    """

    request: Request
    single: bool
    group_by: str | None = None
    everything: bool = False
    before: npt.NDArray[Any] | None = None


def ask(
    snapshot: Snapshot,
    query: Any,
    k: int | None,
    *,
    where: Any = None,
    params: Params = None,
    ef_search: int | None = None,
    target_recall: float | None = None,
    exact: bool = False,
    timeout: float | None = None,
    radius: float | None = None,
    group_by: str | None = None,
    after: Any = None,
    query_id: Any = None,
) -> Question:
    """The question behind the arguments of :meth:`vecdb.Collection.search`."""
    schema, until = snapshot.schema, execute.deadline(timeout)  # the filter's time counts as well
    if k is None and radius is None:
        raise ArgumentError(
            describe("k", expected="a number of rows", got="None",
                     fix="pass k=10; k=None means all rows within a radius")
        )  # fmt: skip
    allowed = None
    if where is not None or params is not None:
        allowed = masks.allowed(where, snapshot, params, until)
    if query_id is None:
        queries, single = as_queries(query, schema)
    else:
        queries, allowed = _by_row(snapshot, query, query_id, allowed)
        single = True
    before = None
    if after is not None:
        before, allowed = _later(snapshot, after, allowed, single=single)
    if ef_search is not None and target_recall is not None:
        raise ArgumentError(
            describe("target_recall", expected="no ef_search beside it", got="both",
                     fix="target_recall chooses the beam; leave ef_search out")
        )  # fmt: skip
    wanted = 1 if k is None else min(check_count("k", k, low=1), max(1, snapshot.rows))
    request = execute.Request(
        queries,
        wanted,
        ef_search if ef_search is None else check_count("ef_search", ef_search, low=1),
        exact,
        allowed,
        _radius(radius),
        until,
        check_target(target_recall),
    )
    return Question(request, single, group_by, k is None, before)


def answer(snapshot: Snapshot, question: Question, workers: Workers) -> Answer:
    """Search for what was asked."""
    if question.group_by is not None:
        return growing.search_groups(
            snapshot, question.request, workers, question.group_by,
            everything=question.everything, before=question.before,
        )  # fmt: skip
    if question.everything:
        return growing.search_within(snapshot, question.request, workers)
    return execute.search(snapshot, question.request, workers)


def _by_row(
    snapshot: Snapshot, query: Any, query_id: Any, allowed: masks.Passing | None
) -> tuple[npt.NDArray[np.float32], masks.Passing]:
    """The vector of a stored row as the query; the row itself is no hit."""
    ids = as_ids(query_id, snapshot.schema, "query_id")
    if query is not None or len(ids) != 1:
        raise ArgumentError(
            describe("query_id", expected="one id, and no query beside it",
                     got=f"{len(ids)} ids" if query is None else "both",
                     fix="for many rows pass col.get(ids, vectors=True)['vector'] as the query")
        )  # fmt: skip
    parts, rows = snapshot.find(ids)
    if parts[0] < 0:
        raise NotFoundError(
            describe("query_id", expected="an id of this collection", got=repr(ids.tolist()[0]),
                     fix="look for it with query(where=...)")
        )  # fmt: skip
    chosen = masks.live(snapshot) if allowed is None else allowed
    return vectors_of(snapshot, parts, rows), masks.without(chosen, snapshot, parts, rows)


def _later(
    snapshot: Snapshot, after: Any, allowed: masks.Passing | None, *, single: bool
) -> tuple[npt.NDArray[Any], masks.Passing]:
    """The ids of the pages so far, and what is allowed without them.

    What was returned is taken out by id, and nothing else is: no row comes twice, and a row that
    an earlier, approximate page missed still has its chance.
    """
    if not single:
        raise ArgumentError(
            describe("after", expected="one query", got="a batch", fix="page query by query")
        )
    ids = as_ids(getattr(after, "seen", after), snapshot.schema, "after")
    chosen = masks.live(snapshot) if allowed is None else allowed
    return ids, masks.without(chosen, snapshot, *snapshot.find(ids))


def _radius(radius: float | None) -> float:
    if radius is None:
        return float("inf")
    number = isinstance(radius, (int, float, np.number)) and not isinstance(radius, bool)
    if not number or np.isnan(radius):
        raise ArgumentError(
            describe("radius", expected="a distance", got=repr(radius),
                     fix="pass the greatest distance that a hit may have")
        )  # fmt: skip
    return float(radius)

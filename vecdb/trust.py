"""How far a collection's answers can be trusted, and what is asked of all of its rows at once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb import batch as _batch
from vecdb.errors import ArgumentError, describe
from vecdb.filter import masks
from vecdb.filter.parse import parse
from vecdb.progress import bar
from vecdb.query import execute, gather
from vecdb.query.ask import ask
from vecdb.query.neighbours import Duplicates, KnnGraph, knn_graph, near_duplicates, vectors_of
from vecdb.query.recall import Recall, measure, sample_rows
from vecdb.query.why import Why, why
from vecdb.store import Snapshot, Store
from vecdb.workers import Workers

if TYPE_CHECKING:
    from vecdb.filter.sql import Params

__all__ = ["Trust"]


class Trust:
    """Measured recall, the reason for a single row, duplicates and the graph of neighbours."""

    _store: Store
    _workers: Workers

    def recall(
        self,
        k: int = 10,
        sample: int = 200,
        where: Any = None,
        *,
        queries: Any = None,
        params: Params = None,
        ef_search: int | None = None,
        target_recall: float | None = None,
        seed: int = 0,
    ) -> Recall:
        """Measure recall at `k` against exact search, on these rows and this filter.

        Parameters
        ----------
        k : int
            Neighbours asked for.
        sample : int
            Number of stored rows that are drawn as queries; a row is no hit of its own.
        where, params, ef_search, target_recall
            As in :meth:`search`; the sample is drawn from the rows that pass.
        queries : array_like, optional
            (n, dim) queries of your own instead of a sample: the better measure, for stored rows
            are easier to find than new queries, which missed 2.4 to 7 times as much on our sets.
        seed : int
            Of the sample.

        Returns
        -------
        Recall
            Mean, 95 % interval, worst query, and the latencies of both searches.
        """
        snapshot = self._store.snapshot
        allowed = masks.allowed(where, snapshot, params)
        itself = None
        if queries is None:
            count = gather.check_count("sample", sample, low=1)
            itself = sample_rows(snapshot, allowed, count, seed)
            queries = vectors_of(snapshot, *itself)
        question = ask(snapshot, queries, k, ef_search=ef_search, target_recall=target_recall)
        request = dataclasses.replace(question.request, allowed=allowed)
        return measure(snapshot, request, self._workers, itself=itself)

    def why(self, query: Any, id: Any, k: int = 10, **asked: Any) -> Why:  # noqa: A002
        """Why the row `id` is, or is not, in the answer to a search.

        Parameters
        ----------
        query, k
            As in :meth:`search`, with one query; so are `where`, `params`, `ef_search`, `exact`
            and `radius`.
        id : int or str
            The row in question.

        Returns
        -------
        Why
            The true rank and distance, and the reason: found, absent (never added, or deleted and
            since compacted away), deleted, filtered out (by which conditions), beyond k, missed by
            the graph (and which ``ef_search`` finds it), or unreachable.
        """
        snapshot = self._store.snapshot
        ids = _batch.as_ids(id, snapshot.schema, "id")
        question = ask(snapshot, query, k, **asked)
        if len(ids) != 1 or not question.single:
            raise ArgumentError(
                describe(
                    "why",
                    expected="one query and one id",
                    got=f"{len(question.request.queries)} queries and {len(ids)} ids",
                    fix="call it for each of them",
                )
            )
        where = asked.get("where")
        bound = None if where is None else parse(where, snapshot.schema, asked.get("params"))
        return why(snapshot, question.request, self._workers, ids, bound)

    def knn_graph(
        self,
        k: int = 10,
        *,
        where: Any = None,
        params: Params = None,
        ef_search: int | None = None,
        progress: bool = False,
    ) -> KnnGraph:
        """The `k` nearest other rows of every row (that passes the filter), in CSR form.

        Returns
        -------
        KnnGraph
            ``ids``, ``indptr``, ``indices``, ``distances``, ``to_arrow()``, and a measured
            ``recall``. For SciPy: ``csr_array((g.distances, g.indices, g.indptr))``.
        """
        snapshot = self._store.snapshot
        with bar(progress, "knn_graph") as report:
            request = self._all_rows(snapshot, k, where, params, ef_search, np.inf)
            return knn_graph(snapshot, request, self._workers, report)

    def near_duplicates(
        self,
        threshold: float,
        *,
        where: Any = None,
        params: Params = None,
        ef_search: int | None = None,
        progress: bool = False,
    ) -> Duplicates:
        """All pairs of rows (that pass the filter) whose distance is at most `threshold`.

        Returns
        -------
        Duplicates
            ``pairs``, a table of ``id, neighbour, distance`` with each pair once, closest first,
            and the measured ``recall`` of the searches that found them.
        """
        snapshot = self._store.snapshot
        with bar(progress, "near_duplicates") as report:
            request = self._all_rows(snapshot, 1, where, params, ef_search, threshold)
            return near_duplicates(snapshot, request, self._workers, report)

    def _all_rows(
        self,
        snapshot: Snapshot,
        k: int,
        where: Any,
        params: Params,
        ef_search: int | None,
        radius: float,
    ) -> execute.Request:
        """A request for the neighbours of every row, whose queries are still to come."""
        none = np.empty((0, self._store.schema.dim), np.float32)
        return ask(
            snapshot, none, k, where=where, params=params, ef_search=ef_search, radius=radius
        ).request

"""The reading half of a collection: searches, rows, and how far to trust the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb import batch as _batch
from vecdb.errors import ArgumentError, NotFoundError, describe
from vecdb.filter import masks
from vecdb.filter.parse import parse
from vecdb.hits import BatchHits, Hits
from vecdb.progress import bar
from vecdb.query import execute, gather
from vecdb.query.ask import answer, ask
from vecdb.query.neighbours import Duplicates, KnnGraph, knn_graph, near_duplicates, vectors_of
from vecdb.query.recall import Recall, measure, sample_rows
from vecdb.query.single import search_single
from vecdb.query.why import Why, why
from vecdb.store import Snapshot, Store
from vecdb.vectors import Vectors
from vecdb.workers import Workers

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.filter.sql import Params
    from vecdb.query.plan import Plan

__all__ = ["Reading"]


class Reading:
    """What every open collection answers; :class:`~vecdb.collection.Collection` adds the rest.

    Each call takes the store's current snapshot once and works on it alone, without a lock.
    """

    _store: Store
    _workers: Workers

    def search(
        self,
        query: Any = None,
        k: int | None = 10,
        *,
        where: Any = None,
        params: Params = None,
        ef_search: int | None = None,
        target_recall: float | None = None,
        exact: bool = False,
        select: str | Sequence[str] | None = None,
        timeout: float | None = None,
        radius: float | None = None,
        group_by: str | None = None,
        after: Any = None,
        query_id: Any = None,
    ) -> Any:
        """The `k` nearest rows of one query or of many.

        Parameters
        ----------
        query : array_like
            (dim,) for one query or (n, dim) for a batch. The two are never mixed up: a 2-D query
            of one row gives a batch of one.
        k : int or None
            Number of rows wanted; fewer come back when fewer match, never otherwise. None: all
            rows within `radius`.
        where : filter, optional
            ``vecdb.col("year") > 2010``, ``"year > 2010 AND lang IN ('en', 'fr')"``,
            ``{"year": {"$gt": 2010}}``, or a ``pyarrow.compute`` expression.
        params : list or dict, optional
            Values of the ``?`` or ``:name`` in a filter written as SQL.
        ef_search : int, optional
            Beam width of the graph search (at least k): more finds more and takes longer.
        target_recall : float, optional
            Wanted recall, between 0 and 1, instead of a beam width: each query is walked as far as
            a calibration on each segment's own rows says that it takes, and compared with every
            row where no walk was seen to find so many. Large segments keep a calibration for k=10;
            any other is made by the first search that needs it.
        exact : bool
            Compare with every row; the answer is exact.
        select : list of str, optional
            Metadata columns (and ``"vector"``) that the tables of the answer carry; ``"*"`` for
            all.
        timeout : float, optional
            Seconds after which the search ends with what it has; ``plan.complete`` is then False.
        radius : float, optional
            Greatest distance of a hit.
        group_by : str, optional
            Return the best row of each of the `k` nearest groups of rows that agree in this column.
        after : Hits or ids, optional
            The page before: its rows, and those of the pages before it, do not come again; nor do
            their groups, with `group_by`.
        query_id : id, optional
            Search by the vector of this row, instead of `query`; the row itself is no hit.

        Returns
        -------
        Hits or BatchHits
            For a 1-D or a 2-D query.

        Raises
        ------
        DimensionError, SchemaError
            A query of the wrong shape or dtype, with NaN or Inf, or zero under cosine.
        FilterError
            A filter that does not fit the columns.
        """
        snapshot = self._store.snapshot
        plain = select is None and not exact and timeout is None and radius is None
        if plain and group_by is None and after is None and query_id is None:
            quick = search_single(
                snapshot,
                query,
                k,
                self._workers,
                where=where,
                params=params,
                ef_search=ef_search,
                target_recall=target_recall,
            )
            if quick is not None:
                return Hits(quick.ids, quick.distances, snapshot.schema.metric, quick.plan)
        question = ask(
            snapshot,
            query,
            k,
            where=where,
            params=params,
            ef_search=ef_search,
            target_recall=target_recall,
            exact=exact,
            timeout=timeout,
            radius=radius,
            group_by=group_by,
            after=after,
            query_id=query_id,
        )
        found = answer(snapshot, question, self._workers)
        names = gather.columns_of(select, snapshot.schema, ())
        if question.single:
            return _hits(snapshot, found, names, question.before)
        return _batch_hits(snapshot, found, names, found.rows.shape[1] if k is None else k)

    def explain(self, query: Any, k: int = 10, **asked: Any) -> Plan:
        """Search, and tell how: the plan, part by part, with the reason for each choice.

        Parameters are those of :meth:`search`; ``print(col.explain(query, where=...))`` is meant
        for people, its fields and ``to_dict()`` for programs.
        """
        plan: Plan = self.search(query, k, **asked).plan
        return plan

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
            The true rank and distance, and the reason: found, absent, deleted, filtered out (by
            which conditions), beyond k, missed by the graph (and which ``ef_search`` finds it), or
            unreachable.
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

    def get(
        self, ids: Any, vectors: bool = False, select: str | Sequence[str] | None = None
    ) -> pa.Table:
        """Rows by id, in the order of `ids`.

        Parameters
        ----------
        ids : array_like
            One id or many; an id may be repeated.
        vectors : bool
            Add the column ``vector`` (fixed-size list of float32).
        select : list of str, optional
            Metadata columns; all when left out.

        Returns
        -------
        pyarrow.Table
            Columns ``id``, the metadata, and ``vector``.

        Raises
        ------
        NotFoundError
            An id does not exist; the message names it.
        """
        snapshot = self._store.snapshot
        wanted = _batch.as_ids(ids, snapshot.schema)
        parts, rows = snapshot.find(wanted)
        missing = wanted[parts < 0]
        if len(missing):
            raise NotFoundError(
                describe(
                    "ids",
                    expected="ids of this collection",
                    got=", ".join(repr(i) for i in missing[:5].tolist())
                    + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                    fix="look for it with query(where=...), or refresh() a reader",
                )
            )
        names = gather.columns_of(select, snapshot.schema, _metadata(snapshot))
        if vectors and "vector" not in names:
            names.append("vector")
        return gather.gather(snapshot, parts, rows, names)

    def query(
        self,
        where: Any = None,
        select: str | Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        params: Params = None,
    ) -> pa.Table:
        """Rows by metadata, without a vector, in the order in which they are stored.

        Parameters
        ----------
        where : filter, optional
            See :meth:`search`; all rows when left out.
        select : list of str, optional
            Metadata columns, and ``"vector"``; all metadata when left out.
        limit, offset : int
            Rows to return at most, and to skip before the first.
        params : list or dict, optional
            Values of the parameters in a filter written as SQL.

        Returns
        -------
        pyarrow.Table
            Columns ``id`` and the selected ones. Without a filter and deleted rows the columns are
            views on the mapped files, not copies.
        """
        snapshot = self._store.snapshot
        names = gather.columns_of(select, snapshot.schema, _metadata(snapshot))
        if limit is not None:
            limit = gather.check_count("limit", limit, low=0)
        offset = gather.check_count("offset", offset, low=0)
        bits = [allowed.bits for allowed in masks.allowed(where, snapshot, params)]
        return gather.page(snapshot, bits, names, limit, offset)

    def batches(
        self, select: str | Sequence[str] | None = None, size: int = 16_384
    ) -> Iterator[pa.RecordBatch]:
        """All rows of this moment's state in batches of at most `size`, for export.

        Parameters
        ----------
        select : list of str, optional
            Metadata columns; all of them, and ``"vector"``, when left out.

        Yields
        ------
        pyarrow.RecordBatch
            Columns ``id`` and the selected ones; at least one batch, empty for an empty store.
        """
        import pyarrow as pa

        snapshot = self._store.snapshot
        names = gather.columns_of(select, snapshot.schema, [*_metadata(snapshot), "vector"])
        live = [part.live for part in snapshot.parts]
        for start in range(0, max(snapshot.rows, 1), gather.check_count("size", size, low=1)):
            table = gather.page(snapshot, live, names, size, start)
            yield from table.combine_chunks().to_batches() or [
                pa.RecordBatch.from_pylist([], schema=table.schema)
            ]

    @property
    def vectors(self) -> Vectors:
        """All live vectors, (rows, dim), read-only, in the order of :meth:`query`; slices are
        views on the mapped files and stay valid after :meth:`close`."""
        return Vectors(self._store.snapshot)

    def __len__(self) -> int:
        return self._store.snapshot.rows

    def __contains__(self, identifier: object) -> bool:
        snapshot = self._store.snapshot
        parts, _ = snapshot.find(_batch.as_ids(identifier, snapshot.schema))
        return bool((parts >= 0).all())

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


def _hits(
    snapshot: Snapshot,
    answer: execute.Answer,
    names: list[str],
    before: npt.NDArray[Any] | None = None,
) -> Hits:
    parts, rows, distances = answer.parts[0], answer.rows[0], answer.distances[0]
    count = int(np.count_nonzero(rows >= 0))
    parts, rows = parts[:count], rows[:count]
    return Hits(
        gather.ids(snapshot, parts, rows),
        distances[:count],
        snapshot.schema.metric,
        answer.plan,
        gather.gather(snapshot, parts, rows, names).drop_columns("id") if names else None,
        before=before,
    )


def _batch_hits(snapshot: Snapshot, answer: execute.Answer, names: list[str], k: int) -> BatchHits:
    found = answer.rows >= 0
    parts, rows = answer.parts[found], answer.rows[found]
    pad: Any = None if snapshot.schema.ids == "string" else -1
    ids = np.full((len(found), k), pad, object if pad is None else np.int64)
    distances = np.full((len(found), k), np.inf, np.float32)
    where = np.nonzero(found)
    ids[where] = gather.ids(snapshot, parts, rows)
    distances[where] = answer.distances[found]
    return BatchHits(
        ids,
        distances,
        snapshot.schema.metric,
        answer.plan,
        gather.gather(snapshot, parts, rows, names).drop_columns("id") if names else None,
        counts=found.sum(axis=1, dtype=np.int64),
    )


def _metadata(snapshot: Snapshot) -> list[str]:
    return [] if snapshot.schema.columns is None else snapshot.schema.columns.names

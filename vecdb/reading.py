"""The reading half of a collection: searches and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb import batch as _batch
from vecdb.errors import NotFoundError, describe
from vecdb.filter import masks
from vecdb.hits import BatchHits, Hits
from vecdb.query import execute, gather
from vecdb.query.ask import answer, ask
from vecdb.query.single import search_single
from vecdb.store import Snapshot
from vecdb.trust import Trust
from vecdb.turns import give_way
from vecdb.vectors import Vectors

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.filter.sql import Params
    from vecdb.query.plan import Plan

__all__ = ["Reading"]


class Reading(Trust):
    """What every open collection answers; :class:`~vecdb.collection.Collection` adds the rest.

    Each call takes the store's current snapshot once and works on it alone, without a lock.
    """

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
            a calibration says that it takes, and compared with every row where no walk was seen to
            find so many. It is made on each segment's own rows, or on the queries that
            :meth:`calibrate` was given. Large segments keep one for k=10; any other is made by the
            first search that needs it.
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
        give_way()
        snapshot = self._store.snapshot
        usual: dict[str, Any] = {
            "where": where, "params": params, "ef_search": ef_search,
            "target_recall": target_recall,
        }  # fmt: skip
        plain = select is None and not exact and timeout is None and radius is None
        if plain and group_by is None and after is None and query_id is None:
            quick = search_single(snapshot, query, k, self._workers, **usual)
            if quick is not None:
                return Hits(quick.ids, quick.distances, snapshot.schema.metric, quick.plan)
        question = ask(
            snapshot, query, k, **usual, exact=exact, timeout=timeout, radius=radius,
            group_by=group_by, after=after, query_id=query_id,
        )  # fmt: skip
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
        return gather.gather(snapshot, parts, rows, names, self._workers)

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

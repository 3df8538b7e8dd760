"""The public face: :func:`create`, :func:`open` and :class:`Collection`.

This module turns what a user passes into what the layers below take, and what they give back
into :class:`~vecdb.hits.Hits` and Arrow tables. It holds no data and no locks of its own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from vecdb import batch as _batch
from vecdb import kernels
from vecdb.errors import ArgumentError, NotFoundError, describe
from vecdb.filter import masks
from vecdb.filter.parse import parse
from vecdb.hits import BatchHits, Hits
from vecdb.metadata import as_metadata
from vecdb.progress import bar
from vecdb.query import execute, gather
from vecdb.query.ask import answer, ask
from vecdb.query.neighbours import Duplicates, KnnGraph, knn_graph, near_duplicates, vectors_of
from vecdb.query.recall import Recall, measure, sample_rows
from vecdb.query.why import Why, why
from vecdb.schema import (
    Hnsw,
    IdType,
    Metric,
    Schema,
    VectorType,
    check_choice,
    columns_from,
)
from vecdb.store import Snapshot, Store
from vecdb.vectors import Vectors
from vecdb.workers import Workers

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.filter.sql import Params
    from vecdb.query.plan import Plan

__all__ = ["Collection", "create", "open"]

_open = open  # the built-in, before `open` below takes its name


def create(
    path: str | os.PathLike[str],
    dim: int,
    metric: Metric = "cosine",
    *,
    schema: Any = None,
    ids: IdType = "int64",
    dtype: VectorType = "float32",
    index: Hnsw | None = None,
    sync: Literal["full", "os"] = "full",
    threads: int | None = None,
    exist_ok: bool = False,
) -> Collection:
    """Create a collection and open it for writing.

    Parameters
    ----------
    path : path
        A folder that does not exist yet, or is empty.
    dim : int
        Number of dimensions of every vector, 1 to 65,536.
    metric : {"cosine", "l2", "ip"}
        Distance, lower is closer: ``1 - cos``, the squared Euclidean distance, or ``-dot``.
    schema : pyarrow.Schema or dict, optional
        Metadata columns, ``{"year": "int64", "tags": "list<string>"}``. When left out, they are
        taken from the first metadata that is added.
    ids : {"int64", "string"}
        Type of the row ids. int64 ids are 0 or greater and may be assigned by vecdb.
    dtype : {"float32", "float16"}
        Type in which vectors are stored.
    index : Hnsw, optional
        Parameters of the graph.
    sync : {"full", "os"}
        When a write is acknowledged: ``"full"``, on the disk (survives power loss); ``"os"``, with
        the operating system (survives the process, not the machine).
    threads : int, optional
        Size of the thread pool, the number of cores when left out.
    exist_ok : bool
        Open the collection if there is one with the same dim, metric, ids and dtype.

    Returns
    -------
    Collection

    Raises
    ------
    ExistsError
        There is a collection, a file, or a folder with other files at `path`.
    ArgumentError, SchemaError
        A parameter out of range; nothing was written.
    """
    wanted = Schema(
        dim=int(dim) if isinstance(dim, np.integer) else dim,
        metric=metric,
        ids=ids,
        dtype=dtype,
        index=Hnsw() if index is None else index,
        columns=None if schema is None else columns_from(schema),
    )
    check_choice("sync", sync, ("full", "os"))
    workers = Workers(threads)
    kernels.start_background()
    return Collection(
        Store.create(_path(path), wanted, sync=sync, workers=workers, exist_ok=exist_ok), workers
    )


def open(  # noqa: A001 - the name is the point: vecdb.open
    path: str | os.PathLike[str],
    mode: Literal["r", "w"] = "r",
    *,
    threads: int | None = None,
    verify: Literal["fast", "full"] = "fast",
) -> Collection:
    """Open a collection.

    Parameters
    ----------
    path : path
        The folder that :func:`create` made.
    mode : {"r", "w"}
        ``"r"``: read; any number of processes, also while one writes. ``"w"``: read and write;
        one process at a time.
    threads : int, optional
        Size of the thread pool, the number of cores when left out.
    verify : {"fast", "full"}
        ``"fast"`` checks the manifest and every file's length and footer, and other parts when
        they are first used; ``"full"`` reads and checks every byte now.

    Returns
    -------
    Collection

    Raises
    ------
    NotFoundError
        There is no collection at `path`.
    LockedError
        ``mode="w"`` while another process writes; the message holds its pid.
    CorruptionError, VersionError
        A file is damaged or missing, or was written by a newer vecdb.
    """
    check_choice("mode", mode, ("r", "w"))
    check_choice("verify", verify, ("fast", "full"))
    workers = Workers(threads)
    store = Store.open(_path(path), mode, workers=workers, verify=verify)
    kernels.start_background()  # only now: importing numba would hold the GIL while files open
    return Collection(store, workers)


class Collection:
    """Vectors with ids and metadata, searched by similarity. Made by :func:`create` or `open`.

    Threads may share a handle: searches run on an immutable snapshot and take no lock; writes are
    serialised. Use it in a ``with`` statement, or call :meth:`close`.
    """

    def __init__(self, store: Store, workers: Workers) -> None:
        self._store = store
        self._workers = workers

    # -- writing ---------------------------------------------------------------------------------

    def add(
        self,
        vectors: Any,
        ids: Any = None,
        metadata: Any = None,
        progress: bool = False,
    ) -> npt.NDArray[Any]:
        """Add new rows; all of them or, after an error, none.

        Parameters
        ----------
        vectors : array_like
            (n, dim) float32; float64 and float16 are converted. Also an Arrow FixedSizeList.
        ids : array_like, optional
            (n,) new ids. Left out with int64 ids, the next free numbers are taken.
        metadata : optional
            n rows: an Arrow table, pandas or polars frame, dict of columns, or list of dicts.
            Columns that are left out are null.
        progress : bool
            Show a progress bar (needs tqdm) for large additions.

        Returns
        -------
        ndarray
            (n,) the ids of the rows.

        Raises
        ------
        DimensionError, SchemaError
            Wrong shape, dtype, NaN, Inf, a zero row under cosine, metadata that does not fit.
        DuplicateIdError
            An id is in the collection already, or twice in `ids`; use :meth:`upsert` to replace.
        ReadOnlyError, ClosedError, StorageError
            The handle can't write, or the disk refused.
        """
        return self._write(vectors, ids, metadata, replace=False, progress=progress)

    def upsert(self, vectors: Any, ids: Any, metadata: Any = None) -> npt.NDArray[Any]:
        """Add rows, replacing those whose ids exist: vectors and metadata, whole rows at once.

        Parameters, returns and raises as :meth:`add`; `ids` must be given.
        """
        if ids is None:
            raise ArgumentError(
                describe(
                    "ids",
                    expected="the ids of the rows to replace or add",
                    got="None",
                    fix="pass ids=, or use add()",
                )
            )
        return self._write(vectors, ids, metadata, replace=True, progress=False)

    def delete(self, ids: Any = None, where: Any = None) -> int:
        """Delete rows by id or by filter.

        Parameters
        ----------
        ids : array_like, optional
            Ids to delete; those that do not exist are passed over.
        where : filter, optional
            Rows to delete, see :meth:`search`. Exactly one of `ids` and `where` must be given.

        Returns
        -------
        int
            Number of rows deleted.
        """
        if (ids is None) == (where is None):
            raise ArgumentError(
                describe(
                    "delete",
                    expected="either ids= or where=",
                    got="both" if ids is not None else "neither",
                    fix='pass ids=[...], or where="year < 2000"',
                )
            )
        self._store.check_writable()
        if ids is None:
            snapshot = self._store.snapshot
            found = [
                part.data.ids.get(gather.bitmap_rows(allowed.bits, part.data.rows))
                for part, allowed in zip(
                    snapshot.parts, masks.allowed(where, snapshot), strict=True
                )
            ]
            targets = np.concatenate(found) if found else np.empty(0, np.int64)
        else:
            targets = _batch.as_ids(ids, self._store.schema)
        return self._store.delete(targets)

    def add_columns(self, columns: Any) -> None:
        """Add metadata columns; rows that are there already read null.

        Parameters
        ----------
        columns : pyarrow.Schema or dict
            As `schema` of :func:`create`.
        """
        self._store.add_columns(columns_from(columns))

    def flush(self) -> None:
        """Write the rows in memory into a segment and start a new WAL."""
        self._store.flush()

    def optimize(self, progress: bool = False) -> None:
        """Merge segments, drop deleted rows and build graphs; back when all is done."""
        with bar(progress, "optimize") as report:
            self._store.optimize(report)

    # -- reading ---------------------------------------------------------------------------------

    def search(
        self,
        query: Any = None,
        k: int | None = 10,
        *,
        where: Any = None,
        params: Params = None,
        ef_search: int | None = None,
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
            The page before: its rows, and those of the pages before it, do not come again.
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
        question = ask(
            snapshot,
            query,
            k,
            where=where,
            params=params,
            ef_search=ef_search,
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
        seed: int = 0,
    ) -> Recall:
        """Measure recall at `k` against exact search, on these rows and this filter.

        Parameters
        ----------
        k : int
            Neighbours asked for.
        sample : int
            Number of stored rows that are drawn as queries; a row is no hit of its own.
        where, params, ef_search
            As in :meth:`search`; the sample is drawn from the rows that pass.
        queries : array_like, optional
            (n, dim) queries of your own instead of a sample: the better measure, since stored rows
            are a little easier to find than new queries.
        seed : int
            Of the sample.

        Returns
        -------
        Recall
            Mean, 95 % interval, worst query, and the latencies of both searches.
        """
        snapshot = self._store.snapshot
        allowed = None if where is None else masks.allowed(where, snapshot, params)
        itself = None
        if queries is None:
            count = gather.check_count("sample", sample, low=1)
            itself = sample_rows(snapshot, allowed, count, seed)
            queries = vectors_of(snapshot, *itself)
        question = ask(snapshot, queries, k, ef_search=ef_search)
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
            request = self._all_rows(snapshot, k, where, ef_search, np.inf)
            return knn_graph(snapshot, request, self._workers, report)

    def near_duplicates(
        self,
        threshold: float,
        *,
        where: Any = None,
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
            request = self._all_rows(snapshot, 1, where, ef_search, threshold)
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
        bits = [allowed.bits for allowed in masks.allowed(where, snapshot)]
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
        snapshot = self._store.snapshot
        names = gather.columns_of(select, snapshot.schema, [*_metadata(snapshot), "vector"])
        live = [part.live for part in snapshot.parts]
        for start in range(0, max(snapshot.rows, 1), gather.check_count("size", size, low=1)):
            table = gather.page(snapshot, live, names, size, start)
            yield from table.combine_chunks().to_batches() or [
                gather.empty_table(snapshot.schema, names).to_batches()[0]
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

    # -- versions --------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Move a reader on to the newest state; True when there was something new."""
        return self._store.refresh()

    def snapshot(self) -> Collection:
        """A read-only handle that stays at this moment's state, whatever is written later."""
        return Collection(self._store.pinned(), Workers(self._workers.threads))

    # -- care ------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Figures about the collection: rows, segments, tombstones, index, bytes, WAL."""
        return self._store.stats()

    def verify(self) -> dict[str, Any]:
        """Read and check every byte; a report that names each damaged file."""
        return self._store.verify()

    @property
    def state(self) -> str:
        """``"created" | "recovering" | "running" | "closing" | "closed" | "poisoned"``."""
        return self._store.state

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(state)`` at every change of :attr:`state`; returns the way to stop."""
        return self._store.subscribe(callback)

    def close(self) -> None:
        """Finish background work and release the files. Closing twice is fine."""
        self._store.close()
        self._workers.close()

    # -- properties ------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The folder of the collection."""
        return str(self._store.path)

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return self._store.schema.dim

    @property
    def metric(self) -> Metric:
        """``"cosine"``, ``"l2"`` or ``"ip"``."""
        return self._store.schema.metric

    @property
    def schema(self) -> pa.Schema:
        """The metadata columns as a pyarrow schema."""
        import pyarrow as pa

        columns = self._store.schema.columns
        return pa.schema([]) if columns is None else columns

    @property
    def mode(self) -> str:
        """``"r"`` or ``"w"``."""
        return self._store.mode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.state == "closed":
            return f"vecdb.Collection({self.path!r}, closed)"
        s = self.stats()
        return (
            f"vecdb.Collection({self.path!r}, rows={s['rows']:,}, dim={self.dim}, "
            f"metric={self.metric!r}, segments={s['segments']}, tombstones={s['tombstones']:,}, "
            f"indexed={s['indexed']:.0%}, bytes={s['bytes']:,}, mode={self.mode!r})"
        )

    def _repr_html_(self) -> str:
        from vecdb.card import html_card

        return html_card(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by path and version: the copy is a reader of the same state or a later one."""
        return _reopen, (self.path, self._store.version, self._workers.threads)

    def _all_rows(
        self, snapshot: Snapshot, k: int, where: Any, ef_search: int | None, radius: float
    ) -> execute.Request:
        """A request for the neighbours of every row, whose queries are still to come."""
        none = np.empty((0, self.dim), np.float32)
        return ask(snapshot, none, k, where=where, ef_search=ef_search, radius=radius).request

    def _write(
        self, vectors: Any, ids: Any, metadata: Any, *, replace: bool, progress: bool
    ) -> npt.NDArray[Any]:
        store = self._store
        store.check_writable()
        rows = _batch.as_vectors(vectors, store.schema)
        if ids is not None:
            given = _batch.as_ids(ids, store.schema)
            _batch.refuse_unmatched(given, len(rows))
            _batch.refuse_duplicates(given)
        elif store.schema.ids == "string":
            raise ArgumentError(
                describe(
                    "ids",
                    expected="one text id per row (ids='string')",
                    got="None",
                    fix="pass ids=[...], or create the collection with ids='int64'",
                )
            )
        columns, schema = as_metadata(metadata, len(rows), store.schema)
        if ids is None:
            first = store.next_id(len(rows))
            given = np.arange(first, first + len(rows), dtype=np.int64)
        if len(rows):
            batch = _batch.Batch(given, rows, columns)
            with bar(progress, "add") as report:
                store.append(batch, replace=replace, schema=schema)
        return given


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


def _path(path: str | os.PathLike[str]) -> str:
    found = os.fspath(path)
    if not isinstance(found, str) or not found or "\0" in found:
        raise ArgumentError(
            describe("path", expected="the path of a folder", got=repr(path), fix="pass a str")
        )
    return found


def _reopen(path: str, version: Any, threads: int) -> Collection:
    workers = Workers(threads)
    kernels.start_background()
    return Collection(Store.reopen(path, version, workers=workers), workers)

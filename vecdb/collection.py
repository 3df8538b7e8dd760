"""The public face: :func:`create`, :func:`open` and :class:`Collection` (reading: its own module).

This module turns what a user passes into what the layers below take, and what they give back
into :class:`~vecdb.hits.Hits` and Arrow tables. It holds no data and no locks of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from vecdb import batch as _batch
from vecdb import kernels
from vecdb.ending import start
from vecdb.errors import ArgumentError, describe
from vecdb.filter import masks
from vecdb.fingerprint import Guard
from vecdb.metadata import as_metadata
from vecdb.progress import bar
from vecdb.query import gather
from vecdb.reading import Reading
from vecdb.schema import (
    Hnsw,
    IdType,
    Metric,
    Schema,
    VectorType,
    check_choice,
    columns_from,
)
from vecdb.store import Store
from vecdb.workers import Workers

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.filter.sql import Params

__all__ = ["Collection", "create", "open"]

_CALIBRATING = 100  # queries; of fewer a recall says little


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
    model: str | None = None,
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
    model : str, optional
        Name of the embedding model, kept with the collection: :meth:`Collection.add` warns about
        vectors of another one.

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
        model=model,
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


class Collection(Reading):
    """Vectors with ids and metadata, searched by similarity. Made by :func:`create` or `open`.

    Threads may share a handle: searches run on an immutable snapshot and take no lock; writes are
    serialised. Use it in a ``with`` statement, or call :meth:`close`.
    """

    def __init__(self, store: Store, workers: Workers) -> None:
        self._store = store
        self._workers = workers
        self._guard = Guard()

    # -- writing ---------------------------------------------------------------------------------

    def add(
        self,
        vectors: Any,
        ids: Any = None,
        metadata: Any = None,
        progress: bool = False,
        *,
        model: str | None = None,
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
        model : str, optional
            Name of the model that made the vectors.

        Returns
        -------
        ndarray
            (n,) the ids of the rows.

        Warns
        -----
        ModelWarning
            `model` is not that of :func:`create`, or 64 vectors or more are unlike the stored ones
            in length or in their spread over the dimensions.

        Raises
        ------
        DimensionError, SchemaError
            Wrong shape, dtype, NaN, Inf, a zero row under cosine, metadata that does not fit.
        DuplicateIdError
            An id is in the collection already, or twice in `ids`; use :meth:`upsert` to replace.
        ReadOnlyError, ClosedError, StorageError
            The handle can't write, or the disk refused.
        """
        return self._write(vectors, ids, metadata, model, replace=False, progress=progress)

    def upsert(
        self, vectors: Any, ids: Any, metadata: Any = None, *, model: str | None = None
    ) -> npt.NDArray[Any]:
        """Add rows, replacing those whose ids exist: vectors and metadata, whole rows at once.

        Parameters, returns and raises as :meth:`add`; `ids` must be given.
        """
        if ids is None:
            raise ArgumentError(
                describe("ids", expected="the ids of the rows to replace or add", got="None",
                         fix="pass ids=, or use add()")
            )  # fmt: skip
        return self._write(vectors, ids, metadata, model, replace=True, progress=False)

    def delete(self, ids: Any = None, where: Any = None, *, params: Params = None) -> int:
        """Delete rows by id or by filter.

        Parameters
        ----------
        ids : array_like, optional
            Ids to delete; those that do not exist are passed over.
        where : filter, optional
            Rows to delete, see :meth:`search`. Exactly one of `ids` and `where` must be given.
        params : list or dict, optional
            Values of the parameters in a filter written as SQL.

        Returns
        -------
        int
            Number of rows deleted.
        """
        if (ids is None) == (where is None):
            raise ArgumentError(
                describe("delete", expected="either ids= or where=",
                         got="both" if ids is not None else "neither",
                         fix='pass ids=[...], or where="year < 2000"')
            )  # fmt: skip
        self._store.check_writable()
        if ids is None:
            snapshot = self._store.snapshot
            found = [
                part.data.ids.get(gather.bitmap_rows(allowed.bits, part.data.rows))
                for part, allowed in zip(
                    snapshot.parts, masks.allowed(where, snapshot, params), strict=True
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

    def calibrate(self, queries: Any, k: int = 10) -> int:
        """Have `target_recall` mean what it says for the queries that this collection is asked.

        A graph is calibrated on its own rows unless told better, and queries may miss more
        neighbours than rows do, or fewer. This measures the queries instead, without a filter and
        under filters that pass or hide the rows around them. A sample of up to 2,000 queries is
        kept in every graph's index file, which is written anew. When segments are merged later or
        get a graph, the new graph is calibrated on the same queries; the next call replaces them.

        Parameters
        ----------
        queries : array_like
            (n, dim), 100 or more, as :meth:`search` is asked. The error of a recall falls as the
            root of their number.
        k : int
            Number of rows asked for of which the calibration is kept; for any other the first
            search makes one, with the same queries.

        Returns
        -------
        int
            Number of graphs, those included that were built for this; 0 while all segments are so
            small that their rows are compared one by one.

        Raises
        ------
        ArgumentError, DimensionError, SchemaError
            Fewer queries, or such as :meth:`search` refuses; nothing was changed.
        ReadOnlyError, ClosedError
            The handle can't write.
        """
        self._store.check_writable()
        asked, single = _batch.as_queries(queries, self._store.schema)
        if single or len(asked) < _CALIBRATING:
            raise ArgumentError(
                describe("queries", expected=f"{_CALIBRATING} or more", got=len(asked),
                         fix="pass a larger sample of what the collection is asked")
            )  # fmt: skip
        wanted = gather.check_count("k", k, low=1)
        return self._store.calibrate(asked, min(wanted, max(1, len(self))))

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
        """Call ``callback(state)`` at every change of :attr:`state`; returns the way to stop.

        An error in a callback is logged and changes nothing.
        """
        return self._store.subscribe(callback)

    def close(self) -> None:
        """Finish background work and release the files. Closing twice is fine."""
        self._store.close()
        self._workers.close()

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """A writer that is dropped lets go of its lock: a notebook's cell may be run again.

        At the end of the process the names of this module may be gone already; `ending` is not.
        """
        store = getattr(self, "_store", None)
        if store is None or store.mode != "w" or ending():
            return
        if threading.current_thread().name.startswith("vecdb-"):  # it can't wait for itself
            start("close", store.close)
        else:
            self.close()

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
        _ = self._store.snapshot  # raises ClosedError
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

    def _write(
        self,
        vectors: Any,
        ids: Any,
        metadata: Any,
        model: str | None,
        *,
        replace: bool,
        progress: bool,
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
                describe("ids", expected="one text id per row (ids='string')", got="None",
                         fix="pass ids=[...], or create the collection with ids='int64'")
            )  # fmt: skip
        columns, schema = as_metadata(metadata, len(rows), store.schema)
        self._guard.check(store.snapshot, rows, model)
        if ids is None:
            first = store.next_id(len(rows))
            given = np.arange(first, first + len(rows), dtype=np.int64)
        if len(rows):
            batch = _batch.Batch(given, rows, columns)
            with bar(progress, "add") as report:
                store.append(batch, replace=replace, schema=schema, progress=report)
        return given


def _path(path: str | os.PathLike[str]) -> str:
    found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(found, str) or not found or "\0" in found:
        raise ArgumentError(
            describe("path", expected="the path of a folder", got=repr(path), fix="pass a str")
        )
    return found


def _reopen(path: str, version: Any, threads: int) -> Collection:
    workers = Workers(threads)
    kernels.start_background()
    return Collection(Store.reopen(path, version, workers=workers), workers)

"""The durable store: one writer, any number of readers, one directory of immutable files."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vecdb.errors import (
    ArgumentError,
    ClosedError,
    CorruptionError,
    NotFoundError,
    ReadOnlyError,
    describe,
)
from vecdb.schema import check_choice
from vecdb.segment.fs import Directory
from vecdb.store.background import Background
from vecdb.store.compaction import Compactor
from vecdb.store.founding import (
    exists,
    make_folder,
    not_found,
    refuse_foreign,
    refuse_other_kind,
    what_is_at,
    write_first_files,
)
from vecdb.store.lock import WriterLock
from vecdb.store.manifest import newest_generation
from vecdb.store.reader import Pinned, Reader
from vecdb.store.recovery import recover
from vecdb.store.stats import file_stats, snapshot_stats
from vecdb.store.verifying import verify_snapshot
from vecdb.store.writer import Writer

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.batch import Batch
    from vecdb.progress import Report
    from vecdb.schema import Schema
    from vecdb.store.snapshot import Snapshot
    from vecdb.workers import Workers

__all__ = ["State", "Store"]

_log = logging.getLogger("vecdb")

Sync = Literal["full", "os"]
State = Literal["created", "recovering", "running", "closing", "closed", "poisoned"]


class Store:
    """An open store; made by :meth:`create` and :meth:`open`.

    Attributes
    ----------
    path : Path
    mode : "r" or "w"
    state : str
        "created" | "recovering" | "running" | "closing" | "closed" | "poisoned".
    """

    def __init__(self, path: str | os.PathLike[str], mode: Literal["r", "w"], workers: Workers):
        self.path = Path(path).absolute()
        self.mode = mode
        self.workers = workers
        self.state: State = "created"
        self._pid = os.getpid()
        self._observers: list[Callable[[State], None]] = []
        self._life = threading.Lock()
        self._directory: Directory | None = None
        self._core: Reader | Writer | Pinned | None = None
        self._lock: WriterLock | None = None
        self._background: Background | None = None
        self._compactor: Compactor | None = None
        self._recovered = {"recovered_records": 0, "recovered_torn_bytes": 0}

    # -- opening -------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        schema: Schema,
        *,
        sync: Sync = "full",
        workers: Workers,
        exist_ok: bool = False,
    ) -> Store:
        """Create a store and open it for writing.

        Raises
        ------
        ExistsError
            There is something at `path` already, and not (with `exist_ok`) a store.
        SchemaError
            With `exist_ok`: the store there holds something else.
        """
        self = cls(path, "w", workers)
        make_folder(self.path)
        directory = Directory(self.path)
        there = newest_generation(directory) > 0
        if not there:
            refuse_foreign(directory)
            lock = WriterLock(directory)
            try:
                there = newest_generation(directory) > 0  # another process was quicker
                if not there:
                    write_first_files(directory, schema, sync)
            finally:
                lock.release()
        if there and not exist_ok:
            raise exists(self.path)
        directory.close()
        self._open()
        try:
            refuse_other_kind(self.path, self.schema, schema)
        except BaseException:
            self.close()
            raise
        return self

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Literal["r", "w"] = "r",
        *,
        workers: Workers,
        verify: Literal["fast", "full"] = "fast",
    ) -> Store:
        """Open a store to read, in any number of processes, or as its one writer.

        Parameters
        ----------
        verify : "fast" or "full"
            "full" hashes every byte before anything is answered. A damaged index is no error: it
            is left aside, with a warning.

        Raises
        ------
        NotFoundError, LockedError, CorruptionError, VersionError, StorageError
        """
        check_choice("mode", mode, ("r", "w"))
        self = cls(path, mode, workers)
        self._open()
        if verify == "full":
            try:
                self._verify_rows()
            except BaseException:
                self.close()
                raise
        return self

    def _verify_rows(self) -> None:
        """Hash every byte; raises CorruptionError unless all rows are as they were written."""
        parts = self.snapshot.parts
        problems = [problem for part in parts for problem in part.data.verify_rows()]
        if problems:
            raise CorruptionError("; ".join(problems))
        for part in parts:
            part.data.check_index()

    def _open(self) -> None:
        found = what_is_at(self.path)
        if found != "a folder":
            raise not_found(self.path, found)
        directory = self._directory = Directory(self.path)
        self._become("recovering")
        try:
            if self.mode == "r":
                self._core = Reader(directory)
            else:
                self._open_writer(directory)
        except BaseException:
            self._release()
            self._become("closed")
            raise
        self._become("running")

    def _open_writer(self, directory: Directory) -> None:
        if newest_generation(directory) == 0:
            raise not_found(self.path, "a folder without a manifest")
        directory.refuse_unwritable()
        self._lock = WriterLock(directory)
        found = recover(directory)
        self._recovered = {
            "recovered_records": found.records, "recovered_torn_bytes": found.torn_bytes,
        }  # fmt: skip
        self._core = writer = Writer(
            directory, found.manifest, found.state, found.wal, self._on_failure
        )
        while found.checkpoint and writer.flush_oldest():
            pass
        for part in writer.state.segments:
            part.segment.on_damage(writer.wake)
        self._compactor = Compactor(writer, self.workers)
        self._background = Background(writer, self._compactor)

    # -- reading -------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot: one reference, no lock. A handle that is closing has none: threads
        that went on searching would keep the interpreter from the one that closes."""
        core = self._core
        if core is None or self.state == "closing":
            raise self._closed()
        return core.published

    @property
    def schema(self) -> Schema:
        """The schema of the current snapshot."""
        return self.snapshot.schema

    def refresh(self) -> bool:
        """Move a reader on to the newest state; whether there was one. A writer is always there."""
        core = self._core
        if core is None:
            raise self._closed()
        return core.refresh() if isinstance(core, Reader) else False

    def verify(self) -> dict[str, Any]:
        """Hash every byte of every file of the snapshot.

        Returns
        -------
        dict
            ``ok``, ``files`` and ``bytes`` checked, and ``problems``, each naming its file.
        """
        return verify_snapshot(self.snapshot)

    def stats(self) -> dict[str, Any]:
        """Figures: rows, segments, index, tombstones, bytes on disk by kind, recovery."""
        stats = snapshot_stats(self.snapshot)
        if self._directory is None:  # pinned: its files may be unlinked already
            stats["bytes"] = sum(part.data.nbytes for part in self.snapshot.parts)
        else:
            stats |= file_stats(self._directory)
        return stats | self._recovered

    @property
    def version(self) -> tuple[int, bool]:
        """Sequence number of the snapshot, and whether this handle stays at it: what a pickle
        keeps, see :meth:`reopen`."""
        return self.snapshot.sequence, isinstance(self._core, Pinned)

    def pinned(self) -> Store:
        """A handle that stays at the current snapshot; its files stay mapped until it is closed."""
        other = Store(self.path, "r", self.workers)
        other._core = Pinned(self.snapshot)
        other._become("running")
        return other

    @classmethod
    def reopen(
        cls, path: str | os.PathLike[str], version: tuple[int, bool], *, workers: Workers
    ) -> Store:
        """A reader that sees at least what a handle of that :attr:`version` saw; a pinned one
        exactly that.

        Raises
        ------
        NotFoundError
            The store at `path` is older, or (pinned) has moved on.
        """
        self = cls.open(path, "r", workers=workers)
        sequence, pinned = version
        found = self.snapshot.sequence
        if found < sequence or (pinned and found != sequence):
            self.close()
            raise NotFoundError(
                describe(str(path), expected=f"the version with sequence {sequence}",
                         got=f"sequence {found}", fix="open the collection anew by its path")
            )  # fmt: skip
        return self.pinned() if pinned else self

    # -- writing -------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise ReadOnlyError, ClosedError or PoisonedError when this handle can't write."""
        self._writer().check_writable()

    def append(
        self,
        batch: Batch,
        *,
        replace: bool = False,
        schema: Schema | None = None,
        progress: Report | None = None,
    ) -> None:
        """Add rows; back when they are durable and visible.

        Parameters
        ----------
        replace : bool
            Delete the rows that have one of the ids first, in one atomic step.
        schema : Schema, optional
            The schema whose columns were inferred from a first metadata.
        progress : callable, optional
            Called as ``progress(rows done, rows)`` while a batch is written that no memtable holds.

        Raises
        ------
        DuplicateIdError
            Without `replace`: an id is in the store already; nothing was written.
        """
        self._writer().append(batch, replace=replace, schema=schema, progress=progress)

    def delete(self, ids: npt.NDArray[Any]) -> int:
        """Delete rows by id; back when that is durable. Returns how many there were."""
        return self._writer().delete(ids)

    def add_columns(self, columns: pa.Schema) -> None:
        """Add metadata columns; rows that are there already read null."""
        self._writer().add_columns(columns)

    def next_id(self, count: int = 1) -> int:
        """The first of `count` consecutive ids that are free and that no other caller gets."""
        return self._writer().next_id(count)

    def flush(self) -> None:
        """Put everything into segments."""
        self._writer().flush()

    def optimize(self, progress: Report | None = None) -> None:
        """Compact and index until nothing is left to do; `progress(done, total)` in rows."""
        writer, compactor = self._writer(), self._compactor
        if compactor is None:  # another thread closes the store
            raise self._closed()
        writer.flush()
        compactor.optimize(progress)

    def calibrate(self, queries: npt.NDArray[Any], k: int) -> int:
        """Calibrate all graphs on queries, (n, dim); returns how many there are."""
        writer, compactor = self._writer(), self._compactor
        if compactor is None:  # another thread closes the store
            raise self._closed()
        writer.flush()
        return compactor.calibrate(queries, k)

    # -- life ----------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[State], None]) -> Callable[[], None]:
        """Call `callback(state)` at each change of :attr:`state`; returns what ends that.

        An error of a callback is logged: it must not stop a close half-way.
        """
        if not callable(callback):
            raise ArgumentError(
                describe("subscribe", expected="a function of one argument",
                         got=repr(callback)[:100], fix="pass print, for a start")
            )  # fmt: skip
        self._observers.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):  # ended before
                self._observers.remove(callback)

        return end

    def close(self) -> None:
        """Flush and let go of the files; views that were handed out stay valid. Twice is fine."""
        if self._pid != os.getpid():  # a forked child: locks may be held by threads it hasn't got
            self._core = None
            self.state = "closed"
            return
        with self._life:
            if self.state in ("closed", "closing"):
                return
            sound = self.state == "running"
            self._become("closing")
        try:
            if isinstance(self._core, Writer):
                self._close_writer(self._core, flush=sound)
        finally:
            self._release()
            self._become("closed")

    def _close_writer(self, writer: Writer, *, flush: bool) -> None:
        assert self._background is not None
        assert self._compactor is not None
        self._compactor.close()
        self._background.stop()
        try:
            if flush and writer.failure is None:
                writer.flush()
                self._compactor.merge_small()
        finally:
            writer.close()

    def _release(self) -> None:
        if self._core is not None:
            self._core.close()
        self._core = None
        self._background = self._compactor = None
        if self._lock is not None:
            self._lock.release()
        if self._directory is not None:
            self._directory.close()

    def _writer(self) -> Writer:
        core = self._core
        if core is None:
            raise self._closed()
        if not isinstance(core, Writer):
            raise ReadOnlyError(
                describe(str(self.path), expected="a handle that can write", got="mode='r'",
                         fix="open it with mode='w'")
            )  # fmt: skip
        if self._pid != os.getpid():
            raise ClosedError(
                describe(str(self.path), expected="the process that opened it",
                         got="a forked child", fix="open it with mode='r' in the child")
            )  # fmt: skip
        return core

    def _closed(self) -> ClosedError:
        return ClosedError(
            describe(str(self.path), expected="an open collection", got=self.state,
                     fix="open it again with vecdb.open")
        )  # fmt: skip

    def _become(self, state: State) -> None:
        self.state = state
        for callback in list(self._observers):
            try:
                callback(state)
            except Exception:
                _log.exception("an observer of %s failed", self.path)

    def _on_failure(self, error: BaseException) -> None:
        if self.state == "running":
            self._become("poisoned")

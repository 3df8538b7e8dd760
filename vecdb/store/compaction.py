"""Compaction and indexing: fewer segments, no dead rows, a graph for every large segment.

Segments are merged size-tiered: tier 0 holds up to 1,024 rows and each further tier four times
as many; four segments of a tier become one. So there are at most three of each size, a row is
rewritten log4(n) times, and 50 sessions of one added row leave a handful of files. None grows
beyond what half of the memory can build a graph of (:mod:`vecdb.segment.memory`). A segment
with a fifth of its rows deleted is rewritten alone. Vectors are checked and
copied in one pass; :func:`vecdb.store.commit.new_segment` says what is held in memory.

A merged segment whose sources had graphs gets its graph, grown from theirs, before it takes
their place, so that no search meets a large segment without one. Queries that graphs were
calibrated on stand in their indexes, and every graph that is built later is calibrated on them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vecdb.errors import Cancelled, ClosedError, CorruptionError, StorageError
from vecdb.segment import Segment, bitmap
from vecdb.segment.format import Header, Kind
from vecdb.segment.index import write_index
from vecdb.segment.memory import indexable_rows
from vecdb.store import names
from vecdb.store.commit import Edit, commit, new_segment
from vecdb.store.snapshot import Part

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.graph import Graph
    from vecdb.progress import Report
    from vecdb.store.writer import Writer
    from vecdb.workers import Workers

__all__ = ["INDEX_ROWS", "SEGMENT_ROWS", "Compactor"]

_log = logging.getLogger("vecdb")

INDEX_ROWS = 2_000  # fewer rows are scanned exactly as fast as a graph is walked
SEGMENT_ROWS = 64 << 20  # a segment is not merged beyond this, whatever the memory
_TEXT_BYTES = (1 << 31) - 1  # nor beyond what Arrow's 32-bit offsets reach
_FANOUT = 4  # segments of a tier that become one
_TIER_ROWS = 1_024  # of the lowest tier
_SMALL_ROWS = 4_096  # merging up to here takes milliseconds: done before a store is closed
_DEAD_SHARE = 0.2  # of deleted rows from which on a segment is rewritten
_QUIET = 1.0  # seconds without a large batch before an index build takes the cores
_SOON = 0.5  # seconds after a deletion in which a commit of the writer's own is expected
_RETRY = 60.0  # seconds until work is tried again that memory or disk had no room for
_CALIBRATED_ROWS = 20_000  # fewer are calibrated in a moment when a recall is first asked for
_CALIBRATED_K = 10
_BACKLOG_ROWS = 1_000_000  # rows without a graph that end the wait for quiet


class _Questions(NamedTuple):
    """What graphs are calibrated on: queries, or rows of their own where there are none."""

    queries: npt.NDArray[np.float32] | None = None
    k: int = _CALIBRATED_K


class Compactor:
    """Merges and indexes one writer's segments, in the background or on demand."""

    def __init__(self, writer: Writer, workers: Workers) -> None:
        self._writer = writer
        self._workers = workers
        self._lock = threading.Lock()  # one merge or build at a time
        self._interrupted = False
        self._foreground = False  # optimize() is at work: only close() ends it early
        self._closed = False
        self._spoiled: set[int] = set()  # damaged segments: never copied under fresh checksums

    def step(self) -> float | None:
        """Do one thing that is worth doing.

        Returns
        -------
        float or None
            Seconds to wait before the next step: 0 after work was done, None when nothing is left.
        """
        with self._lock:
            try:
                return self._step()
            except Cancelled:
                return None
            except (MemoryError, StorageError) as error:
                if self._writer.failure is not None:
                    raise
                _log.warning("compaction or index build put off: %s", error or "out of memory")
                return _RETRY

    def merge_small(self) -> None:
        """Merge what takes only milliseconds."""
        with self._lock:
            while group := self._tier_to_merge(_SMALL_ROWS):
                with self._sparing(group):
                    self._merge(group)

    def optimize(self, progress: Report | None = None) -> None:
        """Merge and index everything: as few segments as caps allow, no dead rows, all graphs.

        Raises
        ------
        CorruptionError
            A segment is damaged; it was left as it is.
        ClosedError
            The store is being closed.
        """
        with self._in_foreground():
            while not self._closed and (group := self._group_to_pack()):
                self._merge(group, index=True, progress=progress)
            while not self._closed:
                part = self._part_to_index(self._writer.state.segments)
                if part is None:
                    break
                self._index(part, self._questions(), progress)

    def calibrate(self, queries: npt.NDArray[np.float32], k: int) -> int:
        """Calibrate every graph on queries, those that are missing and are built now, too.

        Returns
        -------
        int
            Number of graphs.

        Raises
        ------
        CorruptionError, ClosedError
            As :meth:`optimize`.
        """
        asked, done = _Questions(queries, k), 0
        with self._in_foreground():
            for part in self._writer.state.segments:
                if self._closed:
                    break
                if part.segment.indexed or part.data.rows >= INDEX_ROWS:
                    self._index(part, asked)
                    done += 1
        return done

    @contextlib.contextmanager
    def _in_foreground(self) -> Iterator[None]:
        """For work that a caller waits for, in place of the background's."""
        self.interrupt()
        with self._lock:
            self._interrupted, self._foreground = False, True
            try:
                yield
            except Cancelled:
                pass
            finally:
                self._foreground = False
            if self._closed:
                raise ClosedError(
                    "the collection was closed. Fix: open it again and repeat the call"
                )

    def interrupt(self) -> None:
        """Make a build that is going on in the background give up soon."""
        self._interrupted = True

    def close(self) -> None:
        """End a build soon, that of an optimize(), too; back when nothing is at work."""
        self._closed = True
        with self._lock:
            pass

    def _gives_up(self) -> bool:
        return self._closed or (self._interrupted and not self._foreground)

    def _step(self) -> float | None:
        if self._closed:
            return None
        if group := self._tier_to_merge(self._most_rows) or self._part_to_rewrite():
            with self._sparing(group):
                self._merge(group, index=any(part.segment.indexed for part in group))
            return 0.0
        part = self._part_to_index(self._parts())
        if part is None:
            return self._drop_emptied()
        quiet = time.monotonic() - self._writer.last_bulk
        waiting = sum(p.live_rows for p in self._parts() if not p.segment.indexed)
        if quiet < _QUIET and waiting < _BACKLOG_ROWS:
            return _QUIET - quiet
        with self._sparing([part]):
            self._index(part, self._questions())
        return 0.0

    def _drop_emptied(self) -> float | None:
        """Drop segments without a live row, once no commit has done so in passing: who replaces
        all rows would have two commits a time, and had half the swaps of bench.swaps so."""
        emptied = [part for part in self._writer.state.segments if not part.live_rows]
        if not emptied:
            return None
        rest = self._writer.last_kill + _SOON - time.monotonic()
        if rest > 0:
            return rest
        self._merge(emptied)
        return 0.0

    @contextlib.contextmanager
    def _sparing(self, group: list[Part]) -> Iterator[None]:
        """Leave damaged segments of the group alone from now on, in place of an error."""
        try:
            yield
        except CorruptionError as error:
            bad = {part.segment.id for part in group if part.segment.verify_rows()}
            self._spoiled |= bad or {part.segment.id for part in group}
            _log.error("left out of compaction: %s", error)

    # -- choosing --------------------------------------------------------------------------------

    def _parts(self) -> list[Part]:
        """The segments worth a look: with live rows, and not known to be damaged."""
        segments = self._writer.state.segments
        return [p for p in segments if p.live_rows and p.segment.id not in self._spoiled]

    @property
    def _most_rows(self) -> int:
        """Rows beyond which segments are not merged."""
        return min(SEGMENT_ROWS, indexable_rows(self._writer.state.schema))

    def _tier_to_merge(self, limit: int) -> list[Part]:
        """The segments of the lowest tier that has enough of them, oldest first."""
        tiers: dict[int, list[Part]] = {}
        most = self._most_rows
        for part in self._parts():
            if part.live_rows <= min(limit, most // 2):
                tiers.setdefault(_tier(part.live_rows), []).append(part)
        for tier in sorted(tiers):
            group = _first_that_fit(tiers[tier], most)
            if len(group) >= _FANOUT:
                return group
        return []

    def _part_to_rewrite(self) -> list[Part]:
        for part in self._parts():
            if part.data.rows - part.live_rows > _DEAD_SHARE * part.data.rows:
                return [part]
        return []

    @staticmethod
    def _part_to_index(parts: Iterable[Part]) -> Part | None:
        """The largest segment that should have a graph and has none."""
        wanting = [p for p in parts if p.data.rows >= INDEX_ROWS and not p.segment.indexed]
        return max(wanting, key=lambda part: part.live_rows, default=None)

    def _group_to_pack(self) -> list[Part]:
        """Segments that fit into one and are not one without dead rows yet."""
        rest = list(self._writer.state.segments)
        while rest:
            group = _first_that_fit(rest, self._most_rows)
            if len(group) > 1 or group[0].live is not None:
                return group
            rest = rest[1:]
        return []

    # -- doing -----------------------------------------------------------------------------------

    def _merge(
        self, group: list[Part], *, index: bool = False, progress: Report | None = None
    ) -> None:
        """Replace the group by one segment of its live rows, with a graph when asked for."""
        rows = sum(part.live_rows for part in group)
        added = new_segment(self._writer, group) if rows else None
        try:
            if added is not None and index and rows >= INDEX_ROWS:
                built = self._build(added.segment, _seeds(group), self._questions(), progress)
                segment = self._with_index(added.segment, built)
                added = Part(segment, None, rows, added.bounds)
            removed = frozenset(part.segment.id for part in group)
            commit(self._writer, Edit(removed=removed, added=added, sources=tuple(group)))
        except BaseException:
            # an interrupt may also come when the commit is done and only old files are left to go
            current = {part.segment.id for part in self._writer.state.segments}
            unused = added is not None and added.segment.id not in current
            if added is not None and unused and self._writer.failure is None:
                for file in added.segment.files:
                    self._writer.directory.unlink(file.path.name)
            raise

    def _index(self, part: Part, asked: _Questions, progress: Report | None = None) -> None:
        """Give a segment a graph; one that has a sound one gets it calibrated anew."""
        segment = part.segment
        segment.check_vectors()
        graph = segment.checked_graph()
        if graph is None:
            graph = self._build(segment, [], asked, progress)
        else:
            graph = self._calibrated(graph, segment, asked)
        commit(self._writer, Edit(indexed=self._with_index(segment, graph)))

    def _build(
        self,
        segment: Segment,
        seeds: list[tuple[Graph, npt.NDArray[np.int64]]],
        asked: _Questions,
        progress: Report | None,
    ) -> Graph:
        from vecdb import kernels

        if not kernels.wait(self._gives_up):
            raise Cancelled("there were no kernels yet")
        from vecdb import graph  # not before: it would compile them itself

        schema = segment.schema
        with segment.streaming():
            built = graph.build(
                segment.vectors,
                schema.metric,
                M=schema.index.M,
                ef_construction=schema.index.ef_construction,
                codes=schema.index.codes,
                seed=schema.index.seed,
                workers=self._workers,
                progress=progress,
                cancel=self._gives_up,
                seeds=seeds,
            )
        small = built.rows < _CALIBRATED_ROWS and asked.queries is None
        return built if small else self._calibrated(built, segment, asked)

    def _calibrated(self, index: Graph, segment: Segment, asked: _Questions) -> Graph:
        """The graph of a segment with a calibration."""
        from vecdb import graph

        if asked.queries is not None:
            index = index.with_queries(asked.queries)
        with segment.streaming():
            calibration = graph.calibrate(index, segment.vectors, asked.k, self._workers)
        index.meta["calibration"] = calibration
        return index

    def _questions(self) -> _Questions:
        """What graphs are calibrated on: the queries that came with the newest index."""
        segments = [part.segment for part in self._writer.state.segments if part.segment.indexed]
        newest = sorted(segments, key=lambda each: each.index.id if each.index else 0)[::-1]
        for graph in (segment.graph for segment in newest):
            if graph is not None and graph.queries is not None:
                calibration = graph.meta.get("calibration")
                k = calibration.get("k") if isinstance(calibration, dict) else None
                if not isinstance(k, int) or not 0 < k <= graph.rows:
                    k = _CALIBRATED_K
                return _Questions(np.array(graph.queries), k)
        return _Questions()

    def _with_index(self, segment: Segment, graph: Graph) -> Segment:
        """The segment with a graph, written and durable."""
        writer = self._writer
        number = writer.take_file_number()
        name = names.container(Kind.INDEX, number)
        header = Header(Kind.INDEX, writer.manifest.uuid, number, segment.id)
        indexed = segment.with_index(write_index(writer.directory, name, header, graph))
        indexed.on_damage(writer.wake)
        return indexed


def _tier(rows: int) -> int:
    tier = 0
    while rows > _TIER_ROWS:
        rows = -(-rows // _FANOUT)
        tier += 1
    return tier


def _first_that_fit(parts: Iterable[Part], most: int) -> list[Part]:
    """The first parts, at least one, that one segment of at most so many rows can hold."""
    group: list[Part] = []
    rows = text = 0
    for part in parts:
        rows += part.live_rows
        text += part.segment.text_bytes
        if group and (rows > most or text > _TEXT_BYTES):
            break
        group.append(part)
    return group


def _seeds(group: list[Part]) -> list[tuple[Graph, npt.NDArray[np.int64]]]:
    """The graphs of merged segments, each with the new row of every old one, -1 where deleted."""
    seeds = []
    base = 0
    for part in group:
        graph = part.segment.checked_graph()
        if graph is not None:
            moved = np.arange(base, base + part.data.rows)
            if part.live is not None:
                moved = np.full(part.data.rows, -1, np.int64)
                moved[bitmap.rows_of(part.live)] = np.arange(base, base + part.live_rows)
            seeds.append((graph, moved))
        base += part.live_rows
    return seeds

"""The index file of a segment (``idx-``): its graph and codes, one section per array.

An index is derived data. Whatever is wrong with it, the segment answers by exact scan and the
index is built anew; it never makes a distance wrong.

A graph whose sections have up to 16 MiB each is hashed before it is used. Of a larger one this
holds for sections up to 1 MiB, the others are used at once and hashed meanwhile by a thread: the
first search in a graph of a million rows would wait 0.1 s otherwise.
Until damage is found it can cost recall, no more: a search checks each link that it follows and
takes its distances from the vectors. When the open indexes exceed a quarter of memory together,
none is read for this: it would take the disk and push out what searches need; there ``verify()``
or ``verify="full"`` looks.

Searches touch the few float rows that they rescore where the segment is mapped, or read them: see
:mod:`vecdb.kernels.files`. They are read where the graph is in its compact layout, which is there
to save memory (SIFT-like 200,000 x 128: 66 MiB instead of 164, 97 us a query instead of 83), and
where the open segments and indexes exceed three quarters of memory together: then many rows are on
the disk.
"""

from __future__ import annotations

import _thread
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vecdb.errors import CorruptionError
from vecdb.segment import format as f
from vecdb.segment.memory import usable_memory
from vecdb.segment.sparse import little_endian
from vecdb.segment.writer import ContainerWriter

if TYPE_CHECKING:
    from vecdb.graph import Graph
    from vecdb.segment.container import Container
    from vecdb.segment.fs import Directory

__all__ = ["Index", "open_graph", "write_index"]

_log = logging.getLogger("vecdb")
_DTYPE = re.compile(r"[<|]([iu][1248]|f[248])")
_MAX_AXES = 3
HASHED_BYTES = 16 << 20  # hashed in a millisecond; a graph of 10,000 rows of 128 dimensions
_AT_ONCE = 1 << 20  # what is hashed before it is used of a graph with larger sections
_STEP = 16  # blocks that a check in the background hashes before it asks whether to go on

_PAUSE = 0.5  # seconds that the first searches have the disk for themselves
_FITS = 0.75  # of memory, that files may have and still be there when they are needed again
_SHARE = 0.25  # of memory, that indexes may have to be checked in the background

_turn = threading.Lock()  # one check in the background at a time
_lengths: dict[int, int] = {}  # of the index files that are open
_with_rows: dict[int, int] = {}  # of each together with its segment


def _after_fork() -> None:
    global _turn  # noqa: PLW0603 - a thread that held it is not there in the child
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Index:
    """A segment's index file, and the graph in it from its first use on.

    Shared by all segment objects over the same rows, also those of older snapshots.

    Attributes
    ----------
    file : Container
    sound : bool
        False for good once a byte has proved damaged. Searches that were planned before may still
        ask for the graph.
    on_damage : weakref.WeakMethod or None
        Called when that happens, in whatever thread, if its object is still there: held for good,
        a store would keep the mappings of its files until a garbage collection.
    """

    def __init__(self, file: Container, segment: Container, rows: int, dim: int) -> None:
        self.file = file
        self._segment = segment
        self.sound = True
        self.on_damage: weakref.WeakMethod[Callable[[], None]] | None = None
        self._rows = rows
        self._dim = dim
        self._opened = False
        self._graph: Graph | None = None
        _lengths[id(self)] = file.length
        _with_rows[id(self)] = file.length + segment.length

    def __del__(self, _known: tuple[dict[int, int], ...] = (_lengths, _with_rows)) -> None:
        for known in _known:
            known.pop(id(self), None)

    @property
    def graph(self) -> Graph | None:
        """The graph; None when it was damaged at its first use."""
        if not self._opened:
            self._open()
        return self._graph

    def checked_graph(self) -> Graph | None:
        """The graph with every byte hashed and every link checked; None when it is damaged."""
        if not self.sound:
            return None
        try:
            return open_graph(self.file, self._rows, self._dim, verify=True)
        except CorruptionError as error:
            self.give_up(error)
            return None

    def check(self) -> None:
        """Hash every byte now, which needs no look into the graph."""
        try:
            for name in self.file.sections:
                self.file.verify(name)
        except CorruptionError as error:
            self.give_up(error)

    def give_up(self, error: CorruptionError) -> None:
        """Take the index for damaged."""
        if self.sound:
            self.sound = False
            _log.warning("exact scan until the index is rebuilt: %s", error)
            callback = None if self.on_damage is None else self.on_damage()
            if callback is not None:
                callback()

    def _open(self) -> None:
        # two threads may do this at once: no lock, which a forked child could find held for good
        try:
            graph = open_graph(self.file, self._rows, self._dim)
            self._choose_source(graph)
            self._graph = graph
            self._check_the_rest()
        except CorruptionError as error:
            self.give_up(error)
        self._opened = True

    def _choose_source(self, graph: Graph) -> None:
        """Have the graph's searches read float rows, not touch them, where that is better."""
        mapping, vectors = self._segment.mapping, self._segment.sections.get("vectors")
        if mapping.descriptor < 0 or vectors is None:
            return
        scarce = sum(list(_with_rows.values())) > _FITS * usable_memory()
        if scarce or graph.meta["bits"] == 0:
            descriptor, flags = mapping.reading(scarce)
            graph.read_rows_from(mapping, descriptor, vectors.offset, flags)

    def _check_the_rest(self) -> None:
        """Have the sections hashed that were too large to wait for."""
        file = self.file
        rest = [(n, s.blocks) for n, s in file.sections.items() if not file.verified(n)]
        if rest and sum(list(_lengths.values())) <= _SHARE * usable_memory():
            # threading.Thread would wait until the thread runs: up to 2 ms of the first search
            _thread.start_new_thread(_check, (weakref.ref(self), rest))


def _check(index: weakref.ref[Index], sections: list[tuple[str, int]]) -> None:
    """Hash sections, given with their numbers of blocks, for as long as somebody uses the index."""
    time.sleep(_PAUSE)
    with _turn:
        for name, blocks in sections:
            for start in range(0, blocks, _STEP):
                if not _goes_on(index(), name, start, min(start + _STEP, blocks)):
                    return


def _goes_on(index: Index | None, name: str, start: int, stop: int) -> bool:
    """Hash some blocks; False when they are damaged or nobody uses the index any more."""
    if index is None or not index.sound:
        return False
    try:
        index.file.verify_blocks(name, start, stop)
        index.file.release_blocks(name, start, stop)
    except CorruptionError as error:
        index.give_up(error)
        return False
    return True


def write_index(directory: Directory, name: str, header: f.Header, graph: Graph) -> Container:
    """Write a graph's arrays, make them durable and map them."""
    writer = ContainerWriter(directory, name, header)
    try:
        described = {}
        for key, array in graph.arrays.items():
            little = little_endian(array, array.dtype)
            writer.add(key, little, f.PAGE)
            described[key] = [little.dtype.str, list(little.shape)]
        return writer.finish({"rows": graph.rows, "arrays": described, "graph": graph.meta})
    except BaseException:
        writer.abandon()
        raise


def open_graph(container: Container, rows: int, dim: int, *, verify: bool = False) -> Graph:
    """The graph over the mapped file.

    When no section is larger than :data:`HASHED_BYTES`, and with `verify`, all are hashed and every
    link is checked. Else small sections are, and of a large one the block hashes, 8 bytes a MiB.

    Raises
    ------
    CorruptionError
        Naming the file.
    """
    from vecdb.graph import Graph

    meta = container.meta
    described = meta.get("arrays")
    facts = meta.get("graph")
    if meta.get("rows") != rows or not isinstance(described, dict) or not isinstance(facts, dict):
        raise container.damaged(f"an index of {rows} rows", f"{meta.get('rows')!r}"[:40])
    whole = verify or all(s.length <= HASHED_BYTES for s in container.sections.values())
    arrays = {name: _array(container, name, entry) for name, entry in described.items()}
    container.verify(*[n for n, array in arrays.items() if whole or array.nbytes <= _AT_ONCE])
    for name in arrays:
        container.check_block_hashes(name)
    try:
        return Graph.from_arrays(arrays, facts, rows, dim, check_links=whole)
    except (ValueError, TypeError, KeyError) as error:
        raise container.damaged("a usable graph", str(error)[:200]) from None


def _array(container: Container, name: str, entry: Any) -> Any:
    """A section, not hashed yet."""
    try:
        kind, shape = entry
        extents = tuple(int(extent) for extent in shape)
    except (TypeError, ValueError, OverflowError):
        raise container.damaged(f"dtype and shape of {name!r}", f"{entry!r}"[:80]) from None
    if (
        not isinstance(kind, str)
        or not _DTYPE.fullmatch(kind)
        or len(extents) > _MAX_AXES
        or any(extent < 0 for extent in extents)
    ):
        raise container.damaged(f"dtype and shape of {name!r}", f"{entry!r}"[:80])
    return container.array(name, kind, extents, verify=False)

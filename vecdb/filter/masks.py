"""A `where=` argument of any spelling as one bitmap per part of a snapshot.

Masks and encoded columns are cached per segment, which never changes; deletions are laid over them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.ending import is_near, start
from vecdb.filter.columns import ColumnData, Ids, column_data
from vecdb.filter.evaluate import TimeUpError, evaluate
from vecdb.filter.parse import parse
from vecdb.filter.sql import SQL_PARSER
from vecdb.filter.zones import Stats, judge
from vecdb.forking import load_in_time, patience
from vecdb.segment import bitmap
from vecdb.segment.columns import ZONE_ROWS, BlockStats
from vecdb.workers import cores

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from vecdb.filter.expr import Expr
    from vecdb.filter.sql import Params
    from vecdb.segment import Segment
    from vecdb.store import Part, Snapshot

__all__ = ["Allowed", "Passing", "allowed", "allowed_by", "live", "without"]

_log = logging.getLogger("vecdb")
_ZERO = np.uint8(0)
CACHE_BYTES = 256 << 20  # of masks and codes, in this process
_ENTRY_BYTES = 1024  # of an entry itself and of what searches prepare under it


def _new_turns() -> None:
    """Columns are read behind searches by as many threads as leave a core to those who search: with
    two cores and one of them 5 ms came to 7 at the worst in bench.deadlines, to 17 with no limit.
    """
    global _turns  # noqa: PLW0603 - in a forked child the threads that had a turn are not there
    _turns = threading.Semaphore(max(cores() - 1, 1))


_turns: threading.Semaphore
_new_turns()
os.register_at_fork(after_in_child=_new_turns)


@dataclasses.dataclass(frozen=True, slots=True)
class Allowed:
    """The rows of one part that a search may return.

    Attributes
    ----------
    bits : ndarray or None
        uint8 bitmap, LSB first, padded to 8 bytes (longer where no row is allowed); None when every
        row is.
    count : int
        Number of allowed rows.
    memo : dict
        What searches have found out about them.
    """

    bits: npt.NDArray[np.uint8] | None
    count: int
    memo: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)


class Passing(list[Allowed]):
    """For each part the rows that a search may return.

    Attributes
    ----------
    complete : bool
        False, and no row passes, when the deadline came before all had been looked at.
    memo : dict
        What searches have prepared for them; it goes when the cached masks go.
    """

    __slots__ = ("complete", "memo")

    def __init__(self, parts: Iterable[Allowed], *, complete: bool = True) -> None:
        super().__init__(parts)
        self.complete = complete
        self.memo: dict[Any, Any] = {}


def live(snapshot: Snapshot) -> Passing:
    """For each part the rows that are not deleted; the snapshot remembers them."""
    known: Passing | None = snapshot.memo.get("live")
    if known is None:
        known = Passing([Allowed(part.live, part.live_rows) for part in snapshot.parts])
        snapshot.memo["live"] = known
    return known


def allowed(where: Any, snapshot: Snapshot, params: Params = None, deadline_ns: int = 0) -> Passing:
    """For each part the rows that pass the filter and are not deleted.

    A filter that a deadline, a time of ``time.monotonic_ns``, overtakes passes nothing.

    Raises
    ------
    FilterError
        The filter can't be read, or does not fit the columns.
    """
    if where is None and params is None:
        return live(snapshot)
    if deadline_ns and isinstance(where, str) and not load_in_time(SQL_PARSER, deadline_ns):
        return Passing(_none(snapshot), complete=False)
    return allowed_by(parse(where, snapshot.schema, params), snapshot, deadline_ns)


def allowed_by(expr: Expr, snapshot: Snapshot, deadline_ns: int = 0) -> Passing:
    """As :func:`allowed`, of a bound filter."""
    known: Passing | None = _CACHE.get(snapshot, expr)
    if known is not None:
        return known
    textual = snapshot.schema.ids == "string"
    some, every = _by_ids(expr, snapshot)
    found = Passing(_none(snapshot))
    try:
        for i, part in enumerate(snapshot.parts):
            if every[i]:
                found[i] = Allowed(part.live, part.live_rows)
            elif some[i]:
                found[i] = _allowed_part(expr, part, textual, deadline_ns)
    except TimeUpError:
        return Passing(_none(snapshot), complete=False)
    held = sum(each.bits.nbytes for each in found if each.bits is not None and each.count)
    _CACHE.put(snapshot, expr, found, held)
    return found


def without(
    allowed: Passing,
    snapshot: Snapshot,
    parts: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
) -> Passing:
    """The same rows without ``(parts[i], rows[i])``."""
    changed = Passing(allowed, complete=allowed.complete)
    for number in np.unique(parts[parts >= 0]).tolist():
        data = snapshot.parts[number].data
        bits = bitmap.cleared(allowed[number].bits, data.rows, rows[parts == number])
        changed[number] = Allowed(bits, bitmap.live_rows(bits))
    return changed


def _none(snapshot: Snapshot) -> list[Allowed]:
    """For each part no row."""
    most = max([part.data.rows for part in snapshot.parts], default=0)
    nothing = Allowed(np.broadcast_to(_ZERO, bitmap.nbytes(most)), 0)  # one for all parts
    return [nothing] * len(snapshot.parts)


def _by_ids(expr: Expr, snapshot: Snapshot) -> tuple[list[bool], list[bool]]:
    """For each part whether some row may pass and whether all do, by its least and greatest id.

    The parts are judged as if each were a zone; those that are ruled out
    are so before a byte of theirs is read, and without a bitmap of a bit a row.
    """
    import pyarrow as pa

    parts, (lows, highs) = snapshot.parts, snapshot.id_bounds
    ids = Stats(BlockStats(lows, highs, np.zeros(len(parts), np.uint16)), pa.int64())
    usable = snapshot.schema.ids == "int64"
    zones = judge(
        expr, len(parts) * ZONE_ROWS, lambda name: ids if usable and name == "id" else None
    )
    return zones.maybe.tolist(), zones.surely.tolist()


def _allowed_part(expr: Expr, part: Part, textual: bool, deadline_ns: int) -> Allowed:
    if part.live is None:
        return _passing(expr, part.segment, textual, deadline_ns)
    found: Allowed | None = _CACHE.get(part.live, expr)  # a live bitmap belongs to one part
    if found is None:
        passing = _passing(expr, part.segment, textual, deadline_ns)
        bits = part.live if passing.bits is None else passing.bits & part.live
        found = Allowed(bits, bitmap.live_rows(bits))
        _CACHE.put(part.live, expr, found, bits.nbytes)
    return found


def _passing(expr: Expr, data: Segment, textual: bool, deadline_ns: int) -> Allowed:
    """The rows that pass, deleted ones too."""
    found: Allowed | None = _CACHE.get(data, expr)
    if found is None:
        zones = judge(expr, data.rows, lambda name: _stats(data, name))
        bits = evaluate(
            expr, data.rows, lambda name: _column(data, name, textual, deadline_ns), zones,
            deadline_ns,
        )  # fmt: skip
        count = bitmap.live_rows(bits)
        found = Allowed(bits if count < data.rows else None, count)
        _CACHE.put(data, expr, found, bits.nbytes)
    return found


def _stats(data: Segment, name: str) -> Stats | None:
    blocks = None if name == "id" else data.block_stats(name)
    return None if blocks is None else Stats(blocks, data.columns.field(name).type)


def _column(data: Segment, name: str, textual: bool, deadline_ns: int) -> ColumnData | Ids:
    column: ColumnData | Ids | None = _CACHE.get(data, name)
    if column is not None:
        return column
    if deadline_ns:
        return _in_time(data, name, textual, deadline_ns)
    return _made(data, name, textual)


def _made(data: Segment, name: str, textual: bool) -> ColumnData | Ids:
    """The column, read and put into the cache."""
    column = Ids(data.ids, textual) if name == "id" else column_data(data.column(name))
    _CACHE.put(data, name, column, column.nbytes)
    return column


def _in_time(data: Segment, name: str, textual: bool, deadline_ns: int) -> ColumnData | Ids:
    """The column, read on a thread of its own: when the deadline comes first, the thread goes on
    for the next search that wants it."""
    key = "reading", name, os.getpid()  # a forked child has no such thread
    done: threading.Event | None = _CACHE.get(data, key)
    if done is None or done.is_set():
        done = threading.Event()
        _CACHE.put(data, key, done, 0)
        start("column", partial(_read, data, name, textual, done))
    if not done.wait(patience(deadline_ns)):
        raise TimeUpError
    column: ColumnData | Ids | None = _CACHE.get(data, name)
    return _made(data, name, textual) if column is None else column


def _read(data: Segment, name: str, textual: bool, done: threading.Event) -> None:
    try:
        with _turns:
            if not is_near():
                _made(data, name, textual)
    except Exception:
        _log.debug("column %s could not be read ahead", name, exc_info=True)  # who waits meets it
    finally:
        done.set()


class _Cache:
    """Values that belong to an object and a key, the oldest dropped first when bytes run over.

    No lock: each step on the dict is atomic, and a value lost to a race is computed again. An
    owner is held weakly, and its values (views on its mapping among them) go when it goes. The
    bytes are summed up anew only when an eighth of the limit has been added.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[tuple[int, Any], tuple[weakref.ref[Any], Any, int]] = {}
        self._added = 0  # bytes since the last look at all of them; a race may lose some

    def get(self, owner: object, key: Any) -> Any:
        full = (id(owner), key)
        entry = self._entries.get(full)
        if entry is None or entry[0]() is not owner:
            return None
        return entry[1]

    def put(self, owner: object, key: Any, value: Any, nbytes: int) -> None:
        entries, added = self._entries, (id(owner), key)

        def forget(ref: weakref.ref[Any]) -> None:
            entry = entries.get(added)
            if entry is not None and entry[0] is ref:  # else another object got the same id
                entries.pop(added, None)

        entries[added] = (weakref.ref(owner, forget), value, nbytes + _ENTRY_BYTES)
        self._added += nbytes + _ENTRY_BYTES
        if self._added > self._limit // 8:
            self._added = 0
            self._trim(added)

    def _trim(self, newest: tuple[int, Any]) -> None:
        """Drop the oldest until the limit holds; what was just made is used at least once."""
        # a list of keys allocates nothing on its way: items() did, and a collection that came just
        # then forgot owners, which changed the dict
        held = [(full, entry) for full in list(self._entries) if (entry := self._entries.get(full))]
        total = sum(entry[2] for _, entry in held)
        for full, (_, _, size) in held:
            if total > self._limit and full != newest:
                self._entries.pop(full, None)
                total -= size


_CACHE = _Cache(CACHE_BYTES)

"""Opens a store that may be damaged and says what a user would get; runs in farm children."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from breaking import damage, inject, model

Say = Callable[[str], None]
QUERIES = model.vectors_of(np.arange(3), np.arange(3) + 5)
Change = list[Any]  # ["flip", name, byte, bit], ["cut", name, length], ["zero", name, page] ...


def build(
    path: Path, *, rows: int = 44, writes: int = 2, sizes: Any = None, **options: Any
) -> None:
    """A store of every kind of file in under 64 KB: a graph, deleted rows, a log of 5 records.

    It is a copy of an open one, so that the log has not been flushed. `sizes` and `options` are
    those of :func:`inject.sizes` and :func:`model.make`.
    """
    origin = path.parent / f"{path.name}.origin"
    quiet = {"store_compaction___QUIET": 1_000, "store_compaction___DEAD_SHARE": 1}
    with (
        inject.sizes(**model.SMALL | quiet | (sizes or {})),  # nothing happens in the background
        inject.calls(inject.NoSync()),
    ):
        col = model.make(origin, **options)
        model.apply(col, model.Op("add", dict.fromkeys(range(100, 100 + rows), 1)))
        col.optimize()
        model.apply(col, model.Op("add", {3: 2, 9: 2, 5: 2}))
        model.apply(col, model.Op("delete", {103: 0, 110: 0}))
        col.flush()
        for step in range(writes):
            model.apply(col, model.Op("add", {10 + step: 3, 20 + step: 3}))
            model.apply(col, model.Op("upsert", {3: 4 + step, 104: 4}))
        model.apply(col, model.Op("delete", {105: 0, 20: 0}))
        shutil.copytree(origin, path)
        col.close()
    shutil.rmtree(origin)


# sections stand side by side, which in other stores begin pages
DENSE = {"segment_format__PAGE": 64, "store_compaction__INDEX_ROWS": 8}
# and single rows of a few dozen are read without the rest, from blocks of their own
TALL = DENSE | {
    "segment_format__ROWS_BLOCK": 256,
    "segment_segment___ROWS_A_TAKE": 1,
    "segment_segment__SCARCE": 1,
    "segment_ids__SCARCE": 1,
}


def build_dense(path: Path) -> None:
    """A store of which every bit can be tried: fewer rows and records, all ways to store a column,
    and a torn tail that was set aside."""
    build(path, rows=12, writes=1, sizes=DENSE, schema=model.EVERY_WAY)
    (path / "torn-00000001.log").write_bytes(b"half of a record")


def build_tall(path: Path) -> None:
    """A store of what a dense one can't have: text ids, a graph with an upper level, sections of
    many blocks."""
    build(path, rows=260, writes=1, sizes=TALL, schema=model.EVERY_WAY, ids="string")


@dataclasses.dataclass(frozen=True)
class Known:
    """A content that a store may have, and what the queries' answers are then.

    Attributes
    ----------
    log : int
        Length of the log that tells so much.
    state : model.State
    table : pyarrow.Table
        Every row, checked against the model.
    ids : (n,) int64 array
        Ascending.
    away : (queries, n) float64 array
        Distance of the row of each id.
    passing : list of (str, list of int)
        Filters that the store has the columns for, and the ids that pass them.
    """

    log: int
    state: model.State
    table: Any
    ids: Any
    away: Any
    passing: list[tuple[str, list[int]]]

    @classmethod
    def of(cls, col: vecdb.Collection, log: int) -> Known:
        """The content of an undamaged store."""
        state = model.content(col)
        model.check_search(col, state)
        ids = np.sort(np.fromiter(state, np.int64, len(state)))
        rows = model.vectors_of(ids, [state[i] for i in ids.tolist()]).astype(np.float64)
        filters = model.FILTERS if "ratio" in col.schema.names else model.FILTERS[:1]
        passing = [(where, [i for i in ids.tolist() if of(i, state[i])]) for where, of in filters]
        away = ((rows - QUERIES[:, None]) ** 2).sum(axis=2)
        return cls(log, state, _rows(col), ids, away, passing)

    def check_search(self, col: vecdb.Collection, *, together: bool) -> None:
        """Searches find the nearest rows and tell their distances: exact ones together and one
        through the graph, or the other way round."""
        nearest = np.sort(self.away, axis=1)[:, :5]
        for exact in (True, False):
            count = len(QUERIES) if together == exact else 1
            asked = QUERIES if count > 1 else QUERIES[0]
            names, distances = map(np.atleast_2d, col.search(asked, 5, exact=exact))
            assert names.shape == nearest[:count].shape
            ids = np.reshape(model.numbers_of(names.flat), names.shape)
            assert all(len(set(row)) == len(row) for row in ids.tolist())
            places = np.searchsorted(self.ids, ids)
            assert (self.ids.take(places, mode="clip") == ids).all(), "an id from nowhere"
            _same(distances, np.take_along_axis(self.away[:count], places, axis=1))
            if exact:
                _same(distances, nearest[:count])

    def check_filters(self, col: vecdb.Collection) -> None:
        """Filters pass the rows that they should, by zone maps and by columns."""
        for where, ids in self.passing:
            found = col.query(where=where, select=["version"])
            assert sorted(model.numbers_of(found["id"].to_pylist())) == ids, where
            hits = col.search(QUERIES[0], 5, where=where)
            assert len(hits) == min(5, len(ids)), where
            assert set(model.numbers_of(hits.ids.tolist())) <= set(ids), where

    def check_row(self, number: int, row: dict[str, Any] | None) -> None:
        """A row, or None where there is none, is that of an id."""
        version = self.state.get(number)
        if version is None or row is None:
            assert version is row is None, "get"
            return
        wanted = model.metadata_of([number], [version], row.keys() & model.EVERY_WAY.keys())
        assert all(row[key] == values[0] for key, values in wanted.items()), "get"


def _same(found: Any, wanted: Any) -> None:
    assert (np.abs(found - wanted) <= 1e-5 + 1e-4 * wanted).all(), "distances"


def _rows(col: vecdb.Collection) -> Any:
    return col.query(select=[*col.schema.names, "vector"])


def _row(col: vecdb.Collection, number: int) -> dict[str, Any] | None:
    """The metadata of an id; None when there is no such row."""
    try:
        return col.get(model.names_of([number], col), select=col.schema.names).to_pylist()[0]
    except vecdb.NotFoundError:
        return None


def _read(col: vecdb.Collection, known: list[Known], *, together: bool) -> model.State:
    """Every row of a store and its answers to searches; an AssertionError when they are wrong."""
    number = int(known[0].ids[1])
    row = _row(col, number)  # first, while no column is open whole
    table = _rows(col)
    assert len(col) == len(table)
    for one in reversed(known):
        if table.equals(one.table):
            one.check_row(number, row)
            one.check_search(col, together=together)
            one.check_filters(col)
            return one.state
    state = model.content(col)
    model.check_search(col, state)
    return state


def history(path: Path) -> list[Known]:
    """Contents of the store after each record of its log, the oldest first."""
    found = []
    log = max(path.glob("wal-*.log"))
    whole = log.read_bytes()
    content = damage.records(log)
    for count in range(len(content) + 1):
        damage.rewrite_log(log, content[:count])
        with vecdb.open(path, threads=1) as col:
            found.append(Known.of(col, log.stat().st_size))
    damage.rewrite(log, whole)
    return found


def changed(data: bytes, change: Change) -> bytes:
    """The content of a file after a change."""
    kind = change[0]
    if kind == "flip":
        damaged = bytearray(data)
        damaged[change[2]] ^= 1 << change[3]
        return bytes(damaged)
    if kind == "cut":
        return data[: change[2]]
    start = change[2] * 4096
    return data[:start] + bytes(len(data[start : start + 4096])) + data[start + 4096 :]


def sweep(say: Say, path: str, seed: int, changes: list[Change], sizes: dict[str, int]) -> None:
    """Try changes one by one; says "n" before each, and what a wrong outcome was."""
    logging.getLogger("vecdb").setLevel(logging.CRITICAL)
    with inject.sizes(**sizes):
        _sweep(say, path, seed, changes)


def _sweep(say: Say, path: str, seed: int, changes: list[Change]) -> None:
    store = Path(path)
    known = history(store)
    vectors = _vector_bytes(store)
    rng = random.Random(seed)
    with inject.calls(inject.NoSync()):
        for number, change in enumerate(changes):
            say(f"at {number}")
            name = store / change[1]
            data = name.read_bytes()
            damage.rewrite(name, changed(data, change))
            wrong = _outcome(store, known, change, vectors, writer=rng.random() < 0.1)
            if wrong is not None:
                say(f"wrong {json.dumps(change)}: {wrong}")
            name.unlink()
            name.write_bytes(data)


def _outcome(
    store: Path,
    known: list[Known],
    change: Change,
    vectors: dict[str, range],
    *,
    writer: bool,
) -> Any:
    """What is wrong with how vecdb takes a damaged store; None when nothing is."""
    in_vectors = _inside(change, vectors)
    states = [one.state for one in known]
    log = max(store.glob("wal-*.log")).name
    # a log cut between two records is the log that it was before the later ones were written
    as_before = [one.state for one in known if change[0] == "cut" and change[1:] == [log, one.log]]
    for verify in ("full", "fast"):
        try:
            with vecdb.open(store, verify=verify, threads=1) as col:
                try:
                    state = _read(col, known, together=verify == "fast")
                except AssertionError as error:
                    if verify == "fast" and in_vectors and not col.verify()["ok"]:
                        continue
                    return f"verify={verify!r}: silently wrong rows ({error})"
        except (vecdb.CorruptionError, vecdb.VersionError) as error:
            if change[1] not in str(error):
                return f"verify={verify!r}: the error does not name the file: {error}"
            continue
        if state not in (as_before or states[-1:]) and not _reported(store, state, states):
            return f"verify={verify!r}: {model.difference(state, states[-1:])}"
    if not writer:
        return None
    return _as_writer(store, states, as_before or states[-1:], change[1], in_vectors)


def _reported(store: Path, state: model.State, states: list[model.State]) -> bool:
    """Whether an older content is what verify() calls a torn tail."""
    report = vecdb.store.verify(store)
    return state in states and (report["torn_bytes"] > 0 or not report["ok"])


def _as_writer(
    store: Path, states: list[model.State], right: list[model.State], name: str, in_vectors: bool
) -> Any:
    copy = store.parent / "copy"
    shutil.copytree(store, copy)
    try:
        with vecdb.open(copy, "w", threads=1) as col:
            if in_vectors and not col.verify()["ok"]:
                return None
            state = model.content(col)
            torn = col.stats()["recovered_torn_bytes"] > 0
        return None if state in right or (torn and state in states) else "writer: lost rows"
    except (vecdb.CorruptionError, vecdb.VersionError) as error:
        return None if name in str(error) else f"writer: the error does not name the file: {error}"
    finally:
        shutil.rmtree(copy)


def _vector_bytes(store: Path) -> dict[str, range]:
    """Where each segment file keeps its vectors."""
    found = {}
    for path in store.glob("seg-*.vdb"):
        container = damage.Container(path)
        start = container.offsets["vectors"]
        found[path.name] = range(start, start + len(container.sections["vectors"]))
    return found


def _inside(change: Change, vectors: dict[str, range]) -> bool:
    place = vectors.get(change[1], range(0))
    if change[0] == "flip":
        return change[2] in place
    return change[0] == "zero" and bool(
        set(place) & set(range(change[2] * 4096, change[2] * 4096 + 4096))
    )


def mend(say: Say, paths: list[str]) -> None:
    """Verify and repair stores that may say anything; says for each what verify finds, and how many
    rows the repaired one has; or the error's name."""
    logging.getLogger("vecdb").setLevel(logging.CRITICAL)
    with inject.calls(inject.NoSync()):
        for path in paths:
            target = Path(f"{path}.mended")
            try:
                verdict = "sound" if vecdb.store.verify(path)["ok"] else "damaged"
            except vecdb.VersionError:
                verdict = "VersionError"
            try:
                report = vecdb.store.repair(path, target)
                assert report["ok"], report["problems"]
                say(f"{verdict}, {report['rows']} rows")
            except (vecdb.VersionError, vecdb.NotFoundError) as error:
                say(f"{verdict}, {type(error).__name__}")
            shutil.rmtree(target, ignore_errors=True)


def refuse(say: Say, path: str) -> None:
    """Open and read a crafted store; says the error's name or the content, CPU ms, and MB."""
    logging.getLogger("vecdb").setLevel(logging.CRITICAL)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for mode in ("r", "w"):
        try:
            with vecdb.open(path, mode, threads=1) as col:
                state = model.content(col)
                model.check_search(col, state)
                outcome = f"content {json.dumps(state)}"
        except vecdb.VecdbError as error:
            outcome = f"{type(error).__name__} {error}"[:300]
        say(outcome.replace("\n", " "))
    say(f"{(time.process_time() - started) * 1000:.0f}")
    say(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")

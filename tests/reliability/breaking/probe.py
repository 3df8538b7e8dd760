"""Opens a store that may be damaged and says what a user would get; runs in farm children."""

from __future__ import annotations

import json
import logging
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vecdb
from breaking import damage, inject, model

Say = Callable[[str], None]
Change = list[Any]  # ["flip", name, byte, bit], ["cut", name, length], ["zero", name, page] ...


def build(path: Path) -> None:
    """A store of every kind of file in under 64 KB: a graph, deleted rows, a log of 5 records.

    It is a copy of an open one, so that the log has not been flushed.
    """
    origin = path.parent / f"{path.name}.origin"
    quiet = {"store_compaction___QUIET": 1_000, "store_compaction___DEAD_SHARE": 1}
    sizes = model.SMALL | quiet  # nothing happens in the background
    with inject.sizes(**sizes), inject.calls(inject.NoSync()):
        col = model.make(origin)
        model.apply(col, model.Op("add", dict.fromkeys(range(100, 144), 1)))
        col.optimize()
        model.apply(col, model.Op("add", {3: 2, 9: 2, 5: 2}))
        model.apply(col, model.Op("delete", {103: 0, 110: 0}))
        col.flush()
        for step in range(2):
            model.apply(col, model.Op("add", {10 + step: 3, 20 + step: 3}))
            model.apply(col, model.Op("upsert", {3: 4 + step, 104: 4}))
        model.apply(col, model.Op("delete", {105: 0, 20: 0}))
        shutil.copytree(origin, path)
        col.close()
    shutil.rmtree(origin)


def history(path: Path) -> list[model.State]:
    """Contents of the store after each record of its log, the oldest first."""
    found = []
    log = max(path.glob("wal-*.log"))
    whole = log.read_bytes()
    content = damage.records(log)
    for count in range(len(content) + 1):
        damage.rewrite_log(log, content[:count])
        with vecdb.open(path, threads=1) as col:
            found.append(model.content(col))
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


def sweep(say: Say, path: str, seed: int, changes: list[Change]) -> None:
    """Try changes one by one; says "n" before each, and what a wrong outcome was."""
    logging.getLogger("vecdb").setLevel(logging.CRITICAL)
    store = Path(path)
    states = history(store)
    vectors = _vector_bytes(store)
    rng = random.Random(seed)
    with inject.calls(inject.NoSync()):
        for number, change in enumerate(changes):
            say(f"at {number}")
            name = store / change[1]
            data = name.read_bytes()
            damage.rewrite(name, changed(data, change))
            wrong = _outcome(store, states, change, vectors, writer=rng.random() < 0.1)
            if wrong is not None:
                say(f"wrong {json.dumps(change)}: {wrong}")
            name.unlink()
            name.write_bytes(data)


def _outcome(
    store: Path,
    states: list[model.State],
    change: Change,
    vectors: dict[str, range],
    *,
    writer: bool,
) -> Any:
    """What is wrong with how vecdb takes a damaged store; None when nothing is."""
    in_vectors = _inside(change, vectors)
    for verify in ("full", "fast"):
        try:
            with vecdb.open(store, verify=verify, threads=1) as col:
                try:
                    state = model.content(col)
                    model.check_search(col, state)
                except AssertionError as error:
                    if verify == "fast" and in_vectors and not col.verify()["ok"]:
                        continue
                    return f"verify={verify!r}: silently wrong rows ({error})"
        except (vecdb.CorruptionError, vecdb.VersionError) as error:
            if change[1] not in str(error):
                return f"verify={verify!r}: the error does not name the file: {error}"
            continue
        if state != states[-1] and not _reported(store, state, states):
            return f"verify={verify!r}: {model.difference(state, states[-1:])}"
    return _as_writer(store, states, change[1], in_vectors) if writer else None


def _reported(store: Path, state: model.State, states: list[model.State]) -> bool:
    """Whether an older content is what verify() calls a torn tail."""
    report = vecdb.store.verify(store)
    return state in states and (report["torn_bytes"] > 0 or not report["ok"])


def _as_writer(store: Path, states: list[model.State], name: str, in_vectors: bool) -> Any:
    copy = store.parent / "copy"
    shutil.copytree(store, copy)
    try:
        with vecdb.open(copy, "w", threads=1) as col:
            if in_vectors and not col.verify()["ok"]:
                return None
            state = model.content(col)
            torn = col.stats()["recovered_torn_bytes"] > 0
        return None if state == states[-1] or (torn and state in states) else "writer: lost rows"
    except (vecdb.CorruptionError, vecdb.VersionError) as error:
        return None if name in str(error) else f"writer: the error does not name the file: {error}"
    finally:
        shutil.rmtree(copy)


def _vector_bytes(store: Path) -> dict[str, range]:
    """Where each segment file keeps its vectors."""
    found = {}
    for path in store.glob("seg-*.vdb"):
        section = damage.Container(path).sections["vectors"]
        found[path.name] = range(4096, 4096 + len(section))
    return found


def _inside(change: Change, vectors: dict[str, range]) -> bool:
    place = vectors.get(change[1], range(0))
    if change[0] == "flip":
        return change[2] in place
    return change[0] == "zero" and bool(
        set(place) & set(range(change[2] * 4096, change[2] * 4096 + 4096))
    )


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

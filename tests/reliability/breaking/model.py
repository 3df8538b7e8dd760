"""What a store must hold: a dict of id to version, and rows that are functions of the two.

A row's vector and metadata follow from its id and version, so a content is one small dict and
every read checks whole rows: no vector may meet another row's metadata.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vecdb

DIM = 8
COLUMNS = {"version": "int64", "tag": "string", "days": "list<int64>"}
EVERY_WAY = COLUMNS | {  # to store a column: numbers, text, bits, lists, with nulls and without
    "even": "bool",
    "words": "list<string>",
    "ratio": "float64",
    "small": "float32",
    "seen": "timestamp[ms, tz=UTC]",
    "raw": "binary",
}
State = dict[int, int]
# memtables, merges and graphs at a few dozen rows and at once, so that short workloads reach all of
# them
SMALL = {
    "store_background___SETTLE": 0,
    "store_memtable__MAX_ROWS": 48,
    "store_compaction__INDEX_ROWS": 40,
    "store_compaction___TIER_ROWS": 32,
    "store_compaction___QUIET": 0,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Op:
    """One call of the public API; `rows` maps ids to their new versions."""

    kind: str
    rows: State = dataclasses.field(default_factory=dict)
    version: int = 0


def vectors_of(ids: Any, versions: Any) -> np.ndarray:
    """(n, DIM) float32, different for every id and version, never zero."""
    seed = np.asarray(ids, np.int64)[:, None] * 7919 + np.asarray(versions, np.int64)[:, None] * 101
    return (np.sin((seed + 1) * (np.arange(DIM) + 1.5)) + 0.01).astype(np.float32)


def metadata_of(ids: Any, versions: Any, names: Iterable[str] = COLUMNS) -> dict[str, list[Any]]:
    """Columns of rows; every seventh tag is null."""
    pairs = [(int(i), int(v)) for i, v in zip(ids, versions, strict=True)]
    return {name: [_VALUE[name](i, v) for i, v in pairs] for name in names}


_VALUE: dict[str, Callable[[int, int], Any]] = {
    "version": lambda i, v: v,
    "tag": lambda i, v: None if i % 7 == 0 else f"tag {i % 5} ü {v}",
    "days": lambda i, v: [i, v] * (i % 3),
    "even": lambda i, v: None if i % 5 == 0 else i % 2 == 0,
    "words": lambda i, v: None if i % 6 == 0 else ["a", None, f"{v} ü"][: i % 4],
    "ratio": lambda i, v: i / 4 + v,
    "small": lambda i, v: None if i % 3 == 0 else -i / 8,
    "seen": lambda i, v: None if i % 4 == 0 else EPOCH + dt.timedelta(days=i, hours=v),
    "raw": lambda i, v: None if i % 5 == 1 else bytes([i % 256, v % 256]) * (i % 3),
}
EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
# filters that a row of an id and version passes or not; the second needs the columns of EVERY_WAY
FILTERS: list[tuple[str, Callable[[int, int], bool]]] = [
    ("version >= 3 OR tag LIKE 'tag 2%'", lambda i, v: v >= 3 or (i % 7 != 0 and i % 5 == 2)),
    (
        "ratio > 27 AND small <= -1 AND even = TRUE AND seen >= '2020-02-01'",
        lambda i, v: i / 4 + v > 27 and i % 3 != 0 and i >= 8 and i % 10 in (2, 4, 6, 8)
        and i % 4 != 0 and i * 24 + v >= 31 * 24,
    ),
]  # fmt: skip


def make(path: Path, **options: Any) -> vecdb.Collection:
    """An empty store for this model."""
    options = {"schema": COLUMNS, "index": vecdb.Hnsw(M=4, ef_construction=16)} | options
    return vecdb.create(path, DIM, "l2", **options)


def apply(col: vecdb.Collection, op: Op) -> None:
    """Make the call."""
    ids, versions = list(op.rows), list(op.rows.values())
    named = names_of(ids, col)
    if op.kind in ("add", "upsert"):
        rows = vectors_of(ids, versions), named, metadata_of(ids, versions, columns_of(col))
        getattr(col, op.kind)(*rows)
    elif op.kind == "delete":
        col.delete(named)
    elif op.kind == "delete where":
        col.delete(where=vecdb.col("version") == op.version)
    elif op.kind == "columns":
        col.add_columns({f"extra_{len(col.schema)}": "float64"})
    else:
        getattr(col, op.kind)()


def names_of(ids: list[int], col: vecdb.Collection) -> list[Any]:
    """The ids as the store has them: numbers, or in one of texts what tells them."""
    return [f"ü {i}" for i in ids] if col._store.schema.ids == "string" else ids


def numbers_of(names: Iterable[Any]) -> list[int]:
    """The inverse of :func:`names_of`."""
    return [int(name[2:]) if isinstance(name, str) else int(name) for name in names]


def columns_of(col: vecdb.Collection) -> list[str]:
    """The columns that rows tell the values of: the usual ones, and what else the store has."""
    return [name for name in EVERY_WAY if name in COLUMNS or name in col.schema.names]


def after(state: State, op: Op) -> State:
    """The content that the call leaves."""
    if op.kind in ("add", "upsert"):
        return state | op.rows
    if op.kind == "delete":
        return {i: v for i, v in state.items() if i not in op.rows}
    if op.kind == "delete where":
        return {i: v for i, v in state.items() if v != op.version}
    return state


def states(start: State, ops: list[Op]) -> list[State]:
    """The contents before the first call and after each one."""
    found = [start]
    for op in ops:
        found.append(after(found[-1], op))
    return found


def plan(seed: int, start: State, count: int, *, optimize: bool = True) -> list[Op]:
    """A random workload that can follow `start`: mostly small writes, now and then a large one."""
    rng = random.Random(seed)
    kinds = {"add": 8, "upsert": 6, "delete": 4, "delete where": 1, "flush": 3, "columns": 1}
    if optimize:
        kinds["optimize"] = 1
    state, ops = start, []
    for number in range(count):
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        if len(state) > 300:  # reading everything after every crash must stay cheap
            kind = "delete"
        version = seed % 1000 * 1000 + number
        # 60 rows are more than a memtable holds
        size = 200 if len(state) > 300 else rng.choice((1, 1, 3, 10, 30, 60))
        used = rng.sample(sorted(state), min(size, len(state)))
        fresh = [i for i in rng.sample(range(1_000_000), size) if i not in state]
        if kind == "add":
            op = Op(kind, dict.fromkeys(fresh, version))
        elif kind == "upsert":
            mixed = used[: size // 2 + 1] + fresh[: size // 2]
            op = Op(kind, dict.fromkeys(mixed, version) or {0: version})
        elif kind == "delete":
            op = Op(kind, dict.fromkeys(used, 0))
        else:
            op = Op(kind, version=state[used[0]] if used else 0)
        ops.append(op)
        state = after(state, op)
    return ops


def content(col: vecdb.Collection) -> State:
    """Read every row in full and return what the store holds.

    Raises
    ------
    AssertionError
        When a row is there twice, or is not as it was written.
    """
    names = columns_of(col)
    table = col.query(select=[*names, "vector"])
    ids = numbers_of(table.column("id").to_pylist())
    versions = table.column("version").to_numpy()
    state = dict(zip(ids, versions.tolist(), strict=True))
    assert len(state) == len(ids) == len(col), "an id is there twice"
    wanted = metadata_of(ids, versions, names)
    for name in names:
        assert table.column(name).to_pylist() == wanted[name], f"column {name}"
    flat = table.column("vector").combine_chunks().flatten().to_numpy()
    assert np.array_equal(flat.reshape(len(ids), DIM), vectors_of(ids, versions)), "vectors"
    return state


def check_search(col: vecdb.Collection, state: State, *, probes: int = 3) -> None:
    """Searches of a store that holds `state`: exact ones are exact, graph ones answer rightly."""
    ids = np.fromiter(state, np.int64, len(state))
    vectors = vectors_of(ids, list(state.values())) if state else np.empty((0, DIM), np.float32)
    for query in vectors_of(np.arange(probes), np.arange(probes) + 5):
        distances = ((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
        hits = col.search(query, 5, exact=True)
        assert np.allclose(hits.distances, np.sort(distances)[:5], rtol=1e-4, atol=1e-5)
        hits = col.search(query, 5)
        place = {int(i): d for i, d in zip(ids, distances, strict=True)}
        assert len(hits) == min(5, len(state))
        found = numbers_of(hits.ids.tolist())
        assert len(set(found)) == len(hits)
        assert np.allclose(hits.distances, [place[i] for i in found], rtol=1e-4, atol=1e-5)


def check(col: vecdb.Collection, allowed: list[State]) -> State:
    """The content, which must be one of those allowed, and searches of it."""
    state = content(col)
    assert state in allowed, difference(state, allowed)
    check_search(col, state)
    return state


def difference(state: State, allowed: list[State]) -> str:
    """What a failed comparison says: rows lost, come back, or of another version."""

    def against(wanted: State) -> Iterator[str]:
        yield f"lost {sorted(wanted.keys() - state.keys())[:9]}"
        yield f"extra {sorted(state.keys() - wanted.keys())[:9]}"
        both = wanted.keys() & state.keys()
        yield f"other version {sorted(i for i in both if wanted[i] != state[i])[:9]}"

    return "; or ".join(", ".join(against(wanted)) for wanted in allowed)

"""Graphs whose arrays say anything, as a large mapped file may: searched in farm children.

A graph too large to be checked before it is used (see vecdb/segment/index.py) comes to the walk as
it is. Shapes and numbers are checked even then; here everything else is random: links, levels,
codes, the numbers of records, NaN among them.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from breaking.probe import Say
from vecdb import graph
from vecdb.kernels import reference

ROWS = 300  # an upper level
KINDS = [
    (8, "l2", "auto", 16), (40, "cosine", "auto", 16), (40, "ip", "4bit", 24),
    (100, "l2", "int8", 16), (33, "ip", "1bit", 16),
]  # fmt: skip
EXTREMES = np.array([0, -1, -2, ROWS - 1, ROWS, 2**31 - 1, -(2**31), 0x7FC00000, 0x7F800000], "i8")


@functools.cache
def _sound(kind: int) -> tuple[np.ndarray, graph.Graph]:
    dim, metric, codes, width = KINDS[kind]
    rows = np.random.default_rng(kind).standard_normal((ROWS, dim)).astype(np.float32)
    return rows, graph.build(rows, metric, M=width, ef_construction=16, codes=codes)


def _wild(built: graph.Graph, rng: np.random.Generator) -> graph.Graph:
    """The graph with one to three of its arrays overwritten, here and there or all over."""
    arrays = {name: array.copy() for name, array in built.arrays.items()}
    names = [n for n in arrays if arrays[n].size and n not in ("mean", "scales")]
    for name in rng.choice(names, rng.integers(1, 4)):
        words = arrays[name].reshape(-1).view(np.int32)
        for _ in range(rng.integers(1, 4)):
            start, step = rng.integers(len(words)), rng.choice([1, 2, 7, built.stride // 4])
            some = words[start :: int(step)]
            random = rng.integers(-(2**31), 2**31, len(some))
            few = rng.choice(EXTREMES, len(some))
            some[:] = rng.choice([random, few, random % ROWS, np.full(len(some), few[0])])
    return graph.Graph.from_arrays(arrays, built.meta, ROWS, built.dim, check_links=False)


def _ask(built: graph.Graph, vectors: np.ndarray, rng: np.random.Generator) -> None:
    metric = built.meta["metric"]
    queries = rng.standard_normal((int(rng.choice([1, 2, 5])), built.dim)).astype(np.float32)
    k, ef = int(rng.choice([1, 5, ROWS, ROWS + 9])), int(rng.choice([1, 16, 100, ROWS]))
    asked: dict[str, Any] = {}
    if rng.random() < 0.5:
        flags = np.zeros(320, bool)
        flags[:ROWS] = rng.random(ROWS) < rng.choice([0.02, 0.3, 0.9])
        asked["allowed"] = np.packbits(flags, bitorder="little")
        asked |= [{}, {"scan": True}, {"budget": 40}][int(rng.integers(3))]
    if rng.random() < 0.3:
        knob = str(rng.choice(["pruning", "codes", "prefetch", "lazy"]))
        asked["knobs"] = graph.Knobs(**{knob: False})
    found = graph.search(built, vectors, queries, k, ef, metric=metric, **asked)
    allowed = reference.allowed_rows(asked["allowed"], ROWS) if "allowed" in asked else None
    for query, rows, distances in zip(queries, found.rows, found.distances, strict=True):
        hits = rows[rows >= 0]
        assert (rows[len(hits) :] == -1).all()
        assert len(set(hits.tolist())) == len(hits)
        assert hits.size == 0 or hits.max() < ROWS
        assert allowed is None or np.isin(hits, allowed).all()
        if hits.size:  # the distance of a row is never that of a hostile record
            order, right, _ = reference.scan(vectors[hits], query[None], len(hits), metric)
            np.testing.assert_allclose(distances[: len(hits)][order[0]], right[0], 1e-3, 1e-3)


def search(say: Say, start: int, stop: int) -> None:
    """So many graphs; says the number of each before it is searched, and its CPU seconds after."""
    for number in range(start, stop):
        say(f"at {number}")
        rng = np.random.default_rng(number)
        vectors, built = _sound(number % len(KINDS))
        hostile, began = _wild(built, rng), time.process_time()
        for _ in range(3):
            _ask(hostile, vectors, rng)
        say(f"took {time.process_time() - began:.3f}")

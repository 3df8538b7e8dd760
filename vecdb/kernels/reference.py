"""Distances and exact search in plain NumPy: the oracle of the tests, and the path before warm-up.

Nothing here imports numba, so a search that comes while the kernels are still being compiled is
answered from here.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from vecdb.errors import ArgumentError, describe
from vecdb.kernels import blas

__all__ = [
    "allowed_rows", "bits", "changed", "digests", "distances", "ends", "scan", "texts", "unknown",
    "values",
]  # fmt: skip

_BLOCK_BYTES = 16 << 20  # of float32 rows at a time
_QUERIES = 64  # at a time
_TIMED = 1 << 16  # rows times queries between two looks at the clock
_TIMED_BYTES = 2 << 20  # of rows, times queries, between them


def distances(queries: NDArray[Any], vectors: NDArray[Any], metric: str) -> NDArray[np.float32]:
    """Distances of every query to every row.

    Parameters
    ----------
    queries : (nq, dim) array
    vectors : (n, dim) array
    metric : {"cosine", "l2", "ip"}
        ``1 - cos``, the squared Euclidean distance, or ``-dot``.

    Returns
    -------
    (nq, n) float32 array
    """
    q = np.asarray(queries, np.float32)
    x = np.asarray(vectors, np.float32)
    if metric == "l2":
        return np.stack([np.square(x - row).sum(axis=1) for row in q]).astype(np.float32)
    blas.room()
    dots = q @ x.T
    if metric == "ip":
        return -dots
    if metric != "cosine":
        raise ArgumentError(
            describe("metric", expected="cosine, l2 or ip", got=repr(metric), fix="use one of them")
        )
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - dots / norms, np.float32)


def allowed_rows(allowed: NDArray[np.uint8], rows: int) -> NDArray[np.int64]:
    """Row numbers of the set bits of an Arrow bitmap (least significant bit first)."""
    return np.flatnonzero(np.unpackbits(allowed, count=rows, bitorder="little"))


def scan(
    vectors: NDArray[Any],
    queries: NDArray[np.float32],
    k: int,
    metric: str,
    *,
    allowed: NDArray[np.uint8] | None = None,
    workers: object = None,
    deadline_ns: int = 0,
    codes: object = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """Exact search; the arguments and results of :func:`vecdb.kernels.scan.scan`."""
    n, dim = vectors.shape
    rows = None if allowed is None else allowed_rows(allowed, n)
    count = n if rows is None else len(rows)
    best = np.full((len(queries), k), -1, np.int64)
    dists = np.full((len(queries), k), np.inf, np.float32)
    if len(queries) > _QUERIES:
        parts = [
            scan(vectors, queries[at : at + _QUERIES], k, metric, allowed=allowed,
                 deadline_ns=deadline_ns)
            for at in range(0, len(queries), _QUERIES)
        ]  # fmt: skip
        found_rows, found_distances, complete = zip(*parts, strict=True)
        return np.concatenate(found_rows), np.concatenate(found_distances), all(complete)
    block = max(1, _BLOCK_BYTES // (4 * max(dim, 1)))
    if deadline_ns:
        block = max(1, min(_TIMED, _TIMED_BYTES // (4 * max(dim, 1))) // max(1, len(queries)))
    for start in range(0, count, block):
        if deadline_ns and time.monotonic_ns() > deadline_ns:
            return best, dists, False
        stop = min(count, start + block)
        part = np.arange(start, stop) if rows is None else rows[start:stop]
        chunk = vectors[start:stop] if rows is None else vectors[part]
        found = distances(queries, chunk, metric)
        found[np.isnan(found)] = np.inf
        all_rows = np.concatenate([best, np.broadcast_to(part, found.shape)], axis=1)
        all_dists = np.concatenate([dists, found], axis=1)
        all_rows[np.isinf(all_dists)] = -1
        order = np.lexsort((all_rows.astype(np.uint64), all_dists), axis=1)[:, :k]
        best = np.take_along_axis(all_rows, order, axis=1)
        dists = np.take_along_axis(all_dists, order, axis=1)
    return best, dists, True


def unknown(reaches: NDArray[np.int64], rows: NDArray[np.int64], found: NDArray[np.int64]) -> int:
    """The blocks of sections of mapped files that hold some rows' bytes and were not hashed yet.

    Parameters
    ----------
    reaches : (n, 10) int64 array
        For each section: its address and length in bytes, log2 of the bytes of a block; the bytes
        from one row to the next (0: one bit) and those that a row needs; the address of int32
        offsets that say instead where a row's bytes begin and end (else 0); the addresses of the
        blocks' hashes and of a byte for each block that says whether it was hashed; the first of
        `rows` that is meant, and the one behind the last.
    rows : (m,) int64 array
        For each section ascending, and the offsets' own bytes are there.
    found : (k, 4) int64 array
        Filled, as far as it goes, with address and length of each block and the addresses of its
        hash and of its byte.

    Returns
    -------
    int
        How many there are; ``-1 - i`` when section `i` does not hold its rows.
    """
    count = 0
    for number, reach in enumerate(reaches.tolist()):
        data, length, shift, step, span, offsets, hashes, known, first_row, last_row = reach
        own = rows[first_row:last_row]
        if not len(own):
            continue
        if offsets:
            ends = _memory(offsets, 4 * (int(own[-1]) + 2)).view("<i4").astype(np.int64)
            start, stop = ends[own], ends[own + 1]
        elif own[0] < 0 or own[-1] > 8 * length:
            return -1 - number
        else:
            start = own * step if step else own >> 3
            stop = start + span
        if start[0] < 0 or (start[1:] < start[:-1]).any() or (stop < start).any():
            return -1 - number
        if stop.max() > length:
            return -1 - number
        wanted = np.zeros(-(-length >> shift), np.bool_)
        some = start < stop
        for first, last in zip(start[some] >> shift, stop[some] - 1 >> shift, strict=True):
            wanted[first : last + 1] = True
        wanted &= _memory(known, len(wanted)) == 0
        blocks = np.flatnonzero(wanted)
        places = blocks << shift
        lengths = np.minimum(length - places, 1 << shift)
        listed = np.stack([data + places, lengths, hashes + 8 * blocks, known + blocks], axis=1)
        room = found[count : count + len(listed)]
        room[:] = listed[: len(room)]
        count += len(listed)
    return count


def changed(blocks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Hash blocks of memory, which the caller keeps alive, and note those that are sound.

    Parameters
    ----------
    blocks : (n, 4) int64 array
        As :func:`unknown` finds them.

    Returns
    -------
    (n,) bool array
        Whether a block does not have its hash, which is XXH3-64.
    """
    bad = np.zeros(len(blocks), np.bool_)
    apart = blocks[1:, 0] != blocks[:-1, 0] + blocks[:-1, 1]
    edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(blocks)]
    for first, last in pairwise(edges if len(blocks) else ()):
        run = blocks[first:last].tolist()  # of which one look at memory is enough
        start, end = run[0][0], run[-1][0] + run[-1][1]
        memory = _memory(start, end - start).data
        for number, (at, length, stored, known) in enumerate(run, first):
            found = xxhash.xxh3_64_intdigest(memory[at - start : at - start + length])
            bad[number] = found != ctypes.c_uint64.from_address(stored).value
            if not bad[number]:
                ctypes.c_uint8.from_address(known).value = 1
    return bad


def digests(at: int, count: int, size: int) -> NDArray[np.uint64]:
    """XXH3-64 of each of `count` blocks of `size` bytes that follow each other in memory."""
    blocks = _memory(at, count * size).data
    starts = range(0, count * size, size)
    hashes = (xxhash.xxh3_64_intdigest(blocks[start : start + size]) for start in starts)
    return np.fromiter(hashes, np.uint64, count)


def values(
    reaches: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """The arguments and results of :func:`vecdb.kernels.pick.values`."""
    size = out.shape[1]
    for data, _, own, to in _own(reaches, rows, places):
        held = _memory(data, size * (int(own[-1]) + 1)).reshape(-1, size)
        out[to] = held[own]


def bits(
    reaches: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """The arguments and results of :func:`vecdb.kernels.pick.bits`."""
    found = np.zeros(8 * len(out), np.bool_)
    for data, _, own, to in _own(reaches, rows, places):
        if data:
            held = _memory(data, (int(own[-1]) >> 3) + 1)[own >> 3]
            found[to] = held >> (own & 7).astype(np.uint8) & 1
        else:
            found[to] = True
    out[:] = np.packbits(found, bitorder="little")


def ends(
    reaches: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:  # fmt: skip
    """The arguments and results of :func:`vecdb.kernels.pick.ends`."""
    for _, offsets, own, to in _own(reaches, rows, places):
        held = _memory(offsets, 4 * (int(own[-1]) + 2)).view("<i4").astype(np.int64)
        out[to + 1] = held[own + 1] - held[own]
    np.cumsum(out, out=out)


def texts(
    reaches: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64],
    stops: NDArray[np.int64], out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """The arguments and results of :func:`vecdb.kernels.pick.texts`."""
    for data, offsets, own, to in _own(reaches, rows, places):
        held = _memory(offsets, 4 * (int(own[-1]) + 2)).view("<i4")
        lengths = stops[to + 1] - stops[to]
        pieces = zip(stops[to].tolist(), held[own].tolist(), lengths.tolist(), strict=True)
        for at, start, length in pieces:
            ctypes.memmove(out.ctypes.data + at, data + start, length)


def _own(
    reaches: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64]
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Of each reach: its address, that of its offsets, its rows, and their places."""
    for reach in reaches.tolist():
        if reach[8] < reach[9]:
            own = slice(reach[8], reach[9])
            yield reach[0], reach[5], rows[own], places[own]


def _memory(at: int, length: int) -> NDArray[np.uint8]:
    memory = {"data": (at, True), "shape": (length,), "typestr": "|u1", "version": 3}
    return np.asarray(SimpleNamespace(__array_interface__=memory))

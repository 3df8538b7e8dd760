"""The nearest rows of every row, among those of the clusters around it: candidates for its links.

Rows are grouped around centres that a few rounds of Lloyd's algorithm have moved (k-means on a
sample), and a row is compared with all rows of the clusters whose centres are nearest to it. The
records of a cluster stand as a matrix of bytes, so one pass of :func:`vecdb.kernels.leaves.project`
gives 16 distances: far less work than walking to as many rows through a graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.graph.insert import select
from vecdb.graph.job import Job, Records
from vecdb.graph.keys import EMPTY, LEAST, key_row, make_key
from vecdb.kernels.jit import jit
from vecdb.kernels.leaves import below, pool_insert, project, trailing_zeros
from vecdb.kernels.memory import address, read_f32
from vecdb.quant.record import FLOAT_DIMS, encode_records, header, record_bytes, record_distance

__all__ = ["Clusters", "Packed", "choose_links", "nearest_centres"]

LANES = 16  # rows of a block of the matrix
FOUR = 4  # records that are compared with a block at once
MEAN = 64  # rows of a cluster
MOST = 4096  # clusters, where they would not have more than LARGE rows
LARGE = 256
INFINITE = 0x7F800000  # the pattern of inf
ROUNDS = 2  # of moving the centres
LEARNT = 32  # rows that a centre is learnt from

_PACKED = (
    "Array(u1, 1, 'C', readonly=True), Array(f4, 1, 'C', readonly=True),"
    " Array(f4, 1, 'C', readonly=True)"
)
_INTS = "Array(i4, 1, 'C', readonly=True)"
_WHOLE = "Array(i8, 1, 'C', readonly=True)"


class Packed:
    """Records by blocks of 16, in an order of one's own.

    Attributes
    ----------
    matrix : (bytes,) uint8 array
        A block holds four bytes of each row for every group of four dimensions; with few dimensions
        it holds the records as they are.
    scales, norms : (16 blocks,) float32 array
        Of the records; a place without a row has the norm inf.
    """

    def __init__(self, table: NDArray[np.uint8], members: NDArray[np.int64], inner: int) -> None:
        """Take the records table[members]; a member of -1 is a place without a row."""
        end = header(0, inner)
        groups = inner + 3 >> 2
        size = record_bytes(inner) if inner <= FLOAT_DIMS else 4 * groups
        self.matrix = np.empty(len(members) * size, np.uint8)
        self.scales = np.empty(len(members), np.float32)
        self.norms = np.empty(len(members), np.float32)
        step = LANES * 1024
        for first in range(0, len(members), step):
            here = members[first : first + step]
            records = table[here]
            factors = np.ascontiguousarray(records[:, end : end + 8]).view(np.float32)
            self.norms[first : first + step] = np.where(here < 0, np.inf, factors[:, 0])
            self.scales[first : first + step] = factors[:, 1]
            out = self.matrix[first * size : (first + len(here)) * size]
            if inner <= FLOAT_DIMS:
                out[:] = records.reshape(-1)
                continue
            fours = np.ascontiguousarray(records[:, : 4 * groups]).view(np.uint32)
            fours = fours.reshape(-1, LANES, groups).transpose(0, 2, 1)
            out.view(np.uint32).reshape(fours.shape)[:] = fours

    @property
    def args(self) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        """As the kernels take it."""
        return self.matrix, self.scales, self.norms


class Clusters:
    """All rows, grouped by their nearest centre.

    Parameters
    ----------
    job, records
        Of the build.
    seed : int
        Of the choice of rows that centres are learnt from.

    Attributes
    ----------
    centres, packed : Packed
        The centres, and the rows cluster by cluster, each from a block of its own on.
    members : (16 blocks,) int32 array
        Row of each place of `packed`, -1 for none.
    starts : (clusters + 1,) int64 array
        First block of each cluster.
    rows : (n,) int64 array
        The rows, cluster by cluster.
    """

    def __init__(self, job: Job, records: Records, seed: int) -> None:
        self._job, self._records = job, records
        rows = np.arange(job.rows)
        count = max(1, min(len(rows) // MEAN, MOST), len(rows) // LARGE)
        self._learn(rows, count, np.random.default_rng(seed))
        labels = self._labels(rows)
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=count)
        self.rows = rows[order]
        self.starts = np.concatenate([[0], np.cumsum(-(-sizes // LANES))])
        members = np.full(self.starts[-1] * LANES, -1, np.int64)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members[np.repeat(self.starts[:-1] * LANES, sizes) + within] = self.rows
        self.packed = Packed(records.table, members, records.inner)
        self.members = members.astype(np.int32)

    def _learn(self, rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> None:
        """Place `count` centres."""
        decode = self._records.decode
        sample = rng.choice(rows, min(len(rows), LEARNT * count), replace=False)
        middles = decode(sample[:count])
        for _ in range(ROUNDS):
            self._place(middles)
            labels = self._labels(sample)
            order = np.argsort(labels, kind="stable")
            sums = np.zeros_like(middles)
            for first in range(0, len(order), 8192):
                here = order[first : first + 8192]
                heads = np.flatnonzero(np.diff(labels[here], prepend=-1))
                sums[labels[here[heads]]] += np.add.reduceat(decode(sample[here]), heads, axis=0)
            sizes = np.bincount(labels, minlength=count)
            met = sizes > 0
            middles[met] = sums[met] / sizes[met, None]
        self._place(middles)

    def _place(self, middles: NDArray[np.float32]) -> None:
        inner = self._records.inner
        table = np.zeros((len(middles), self._records.stride), np.uint8)
        encode_records(middles, table.reshape(-1), 0, table.shape[1])
        places = np.full(-(-len(middles) // LANES) * LANES, -1, np.int64)
        places[: len(middles)] = np.arange(len(middles))
        self.centres = Packed(table, places, inner)

    def _labels(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        labels = np.empty(len(rows), np.int32)

        def label(first: int, last: int) -> None:
            asks = self._records.table[rows[first:last]]
            nearest_centres(asks, self._records.inner, *self.centres.args, labels[first:last])

        self._job.each(label, len(rows), 512)
        return labels


@jit(f"void(f4[::1], i8, i8[::1], i8, {_INTS}, i8, {_INTS}, i8)")
def _keep_nearest(distances, count, pool, size, numbers, first, ranks, before):
    """Take into a pool of `size` keys what of the distances belongs there; the i-th is that of
    numbers[first + i], which counts when its rank is below `before`."""
    keys, here = address(pool) + 64, address(distances)
    for block in range(0, count, LANES):
        mask = below(here + 4 * block, min(pool[7 + size] >> 32, INFINITE))
        while mask:
            lane = block + trailing_zeros(mask)
            mask &= mask - 1
            number = np.int64(numbers[first + lane])
            key = make_key(max(distances[lane], np.float32(0)), number)
            if key < pool[7 + size] and ranks[number] < before:
                pool_insert(keys, size, key)


@jit(f"void({_PACKED}, i8, i8, i8, i8, i8, i8, f4[:, ::1])")
def _distances(matrix, scales, norms, inner, first, last, asks, stride, count, out):
    """Squared distances of `count` records at the address `asks` to the packed ones of the blocks
    first ... last - 1; rounding may leave some below zero."""
    start, places = LANES * first, LANES * (last - first)
    if inner <= FLOAT_DIMS:
        size = record_bytes(inner)
        for i in range(count):
            for j in range(places):
                at = address(matrix) + (start + j) * size
                value = record_distance(at, asks + i * stride, inner)
                out[i, j] = value if norms[start + j] < np.inf else np.float32(np.inf)
        return
    groups = inner + 3 >> 2
    project(
        address(matrix) + 64 * groups * first, address(scales) + 4 * start, asks, stride, count,
        last - first, groups, address(out), 4 * out.shape[1],
    )  # fmt: skip
    for i in range(count):
        norm = read_f32(header(asks + i * stride, inner))
        here = out[i]
        for j in range(places):
            here[j] = norm + norms[start + j] - np.float32(2) * here[j]


@jit(f"void(u1[:, ::1], i8, {_PACKED}, i4[::1])", entry=True)
def nearest_centres(asks, inner, matrix, scales, norms, labels):
    """Number of the packed record nearest to each of `asks`."""
    out = np.empty((FOUR, len(norms)), np.float32)
    blocks = len(norms) // LANES
    for i in range(0, len(asks), FOUR):
        count = min(FOUR, len(asks) - i)
        _distances(
            matrix, scales, norms, inner, 0, blocks, address(asks[i]), asks.shape[1], count, out
        )
        for j in range(count):
            labels[i + j] = np.argmin(out[j])


@jit(f"i8(u1[:, ::1], i8, {_PACKED}, {_WHOLE}, i8, i8, i8[::1])")
def _probes(asks, inner, matrix, scales, norms, starts, compared, most, wanted):
    """Write to `wanted` which clusters are looked through for each of `asks`; returns how many.

    They stand there as ``cluster << 8 | ask``, those of a cluster together, the clusters nearest to
    the first ask first.
    """
    clusters = len(starts) - 1
    out = np.empty((FOUR, len(norms)), np.float32)
    pools = np.empty((len(asks), 8 + most), np.int64)
    numbers = np.arange(len(norms)).astype(np.int32)
    rank = np.empty(clusters, np.int64)
    ends = np.zeros(clusters + 1, np.int64)
    pools[:, :8] = LEAST
    pools[:, 8:] = EMPTY
    for i in range(0, len(asks), FOUR):
        count = min(FOUR, len(asks) - i)
        _distances(
            matrix, scales, norms, inner, 0, len(norms) // LANES, address(asks[i]), asks.shape[1],
            count, out,
        )  # fmt: skip
        if i == 0:
            order = np.argsort(out[0, :clusters], kind="mergesort")
            for c in range(clusters):
                rank[order[c]] = c
        for j in range(count):
            pool = pools[i + j]
            _keep_nearest(out[j], len(norms), pool, most, numbers, 0, numbers, len(norms))
            met = 0
            for p in range(8, len(pool)):
                if met >= compared:
                    pool[p] = EMPTY
                elif pool[p] != EMPTY:
                    cluster = key_row(pool[p])
                    pool[p] = cluster
                    ends[rank[cluster] + 1] += 1
                    met += LANES * (starts[cluster + 1] - starts[cluster])
    for c in range(clusters):
        ends[c + 1] += ends[c]
    total = ends[clusters]
    for i in range(len(asks)):
        for p in range(8, 8 + most):
            cluster = pools[i, p]
            if cluster != EMPTY:
                wanted[ends[rank[cluster]]] = cluster << 8 | i
                ends[rank[cluster]] += 1
    return total


@jit(
    f"void(i8, i8, i8, {_PACKED}, {_PACKED}, {_INTS}, {_WHOLE}, {_INTS}, i8, {_WHOLE}, u1[:, ::1],"
    " i8, i8, i8, f4, i4[:, ::1], i4[::1])",
    entry=True,
)
def choose_links(
    data, stride, inner, centre_matrix, centre_scales, centre_norms, matrix, scales, norms, members,
    starts, ranks, late, rows, asks, compared, size, degree, alpha, links, degrees,
):  # fmt: skip
    """Choose the links of `rows` among the `size` nearest of some `compared` rows around each.

    A row of a rank below `late` has only rows of lower ranks to choose from, as if it had been
    inserted when no others were there.
    `asks` are the records that neighbours are looked for in place of the rows, 256 at most; those
    of one place should come together, as they are compared with the same clusters.
    """
    largest = 0
    for c in range(len(starts) - 1):
        largest = max(largest, LANES * (starts[c + 1] - starts[c]))
    usual = compared * (len(starts) - 1) // len(members) + 1  # clusters with so many rows
    most = min(usual + usual // 8, len(starts) - 1) + 7 & ~7
    wanted = np.empty(len(rows) * most, np.int64)
    total = _probes(
        asks, inner, centre_matrix, centre_scales, centre_norms, starts, compared, most, wanted
    )
    words = asks.view(np.int64)
    out = np.empty((FOUR, largest), np.float32)
    four = np.empty((FOUR, words.shape[1]), np.int64)
    pools = np.empty((len(rows), 8 + size), np.int64)
    pools[:, :8] = LEAST
    pools[:, 8:] = EMPTY
    at = 0
    while at < total:
        count = 1
        while count < FOUR and at + count < total and wanted[at + count] >> 8 == wanted[at] >> 8:
            count += 1
        for i in range(count):
            ask = wanted[at + i] & 255
            for w in range(words.shape[1]):
                four[i, w] = words[ask, w]
        cluster = wanted[at] >> 8
        first, last = starts[cluster], starts[cluster + 1]
        _distances(matrix, scales, norms, inner, first, last, address(four), stride, count, out)
        for i in range(count):
            ask = wanted[at + i] & 255
            rank = ranks[rows[ask]]
            _keep_nearest(
                out[i], LANES * (last - first), pools[ask], size, members, LANES * first, ranks,
                rank if rank < late else len(ranks),
            )  # fmt: skip
        at += count
    for i in range(len(rows)):
        row, keys = rows[i], pools[i, 8:]
        degrees[row] = select(data, stride, inner, row, keys, size, links[row], degree, alpha)

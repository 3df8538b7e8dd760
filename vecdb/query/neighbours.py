"""Every row against every other: the k-nearest-neighbour graph, and near-duplicates.

Rows are searched in blocks, each row as a query; what comes back is as exact as the searches were,
and says so by a recall measured on a sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.filter.masks import live
from vecdb.query.execute import Answer, Request, search
from vecdb.query.gather import bitmap_rows
from vecdb.query.gather import ids as ids_of
from vecdb.query.growing import search_within
from vecdb.query.recall import Recall, measure, sample_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from vecdb.filter.masks import Allowed
    from vecdb.store import Snapshot
    from vecdb.workers import Workers

__all__ = ["Duplicates", "KnnGraph", "knn_graph", "near_duplicates", "vectors_of"]

_BLOCK = 1024  # rows searched in one batch
_SAMPLE = 100  # rows that recall is measured on
_K = 10  # of that recall

Report = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class KnnGraph:
    """The k nearest other rows of every row.

    Attributes
    ----------
    ids : ndarray
        (n,) ids of the rows, in stored order.
    indptr : ndarray
        (n + 1,) int64: the neighbours of row i stand at ``indptr[i]:indptr[i + 1]``.
    indices : ndarray
        (edges,) int64 positions in `ids`, nearest first.
    distances : ndarray
        (edges,) float32.
    recall : Recall
        Measured on a sample of the rows.
    """

    ids: npt.NDArray[Any]
    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    recall: Recall

    def to_arrow(self) -> pa.Table:
        """One row per edge: ``id, neighbour, distance``."""
        rows = np.repeat(np.arange(len(self.ids)), np.diff(self.indptr))
        return _pairs(self.ids, rows, self.indices, self.distances)

    def __repr__(self) -> str:
        return f"KnnGraph({len(self.ids):,} rows, {len(self.indices):,} edges, {self.recall})"


@dataclasses.dataclass(frozen=True, slots=True)
class Duplicates:
    """Pairs of rows that lie close to each other.

    Attributes
    ----------
    pairs : pyarrow.Table
        ``id, neighbour, distance``, each pair once, closest first.
    recall : Recall
        Of the searches that found them, measured on a sample of the rows.
    """

    pairs: pa.Table
    recall: Recall

    def __len__(self) -> int:
        return self.pairs.num_rows

    def __repr__(self) -> str:
        return f"Duplicates({len(self):,} pairs, {self.recall})"


def knn_graph(
    snapshot: Snapshot, request: Request, workers: Workers, report: Report | None = None
) -> KnnGraph:
    """The `request.k` nearest of the allowed rows for each of them; its queries are ignored."""
    rows = _Rows(snapshot, request.allowed)
    indices = np.full((rows.count, request.k), -1, np.int64)
    distances = np.full((rows.count, request.k), np.inf, np.float32)
    wider = dataclasses.replace(request, k=request.k + 1)
    for place, answer in rows.answers(wider, lambda r: search(snapshot, r, workers), report):
        found, far = rows.places(answer), answer.distances
        mine = place + np.arange(len(found))
        found = np.where(found == mine[:, None], -1, found)
        order = np.argsort(found < 0, axis=1, kind="stable")[:, : request.k]
        indices[mine] = np.take_along_axis(found, order, axis=1)
        distances[mine] = np.take_along_axis(far, order, axis=1)
    there = indices >= 0
    return KnnGraph(
        rows.ids(),
        np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int64),
        indices[there],
        distances[there],
        _sampled_recall(snapshot, request, workers, request.k),
    )


def near_duplicates(
    snapshot: Snapshot, request: Request, workers: Workers, report: Report | None = None
) -> Duplicates:
    """All pairs of allowed rows no further apart than `request.radius`."""
    rows = _Rows(snapshot, request.allowed)
    left: list[npt.NDArray[np.int64]] = []
    right: list[npt.NDArray[np.int64]] = []
    apart: list[npt.NDArray[np.float32]] = []
    for place, answer in rows.answers(
        request, lambda r: search_within(snapshot, r, workers), report
    ):
        found = rows.places(answer)
        mine = np.broadcast_to(place + np.arange(len(found))[:, None], found.shape)
        there = (found >= 0) & (found != mine)
        left.append(np.minimum(mine, found)[there])
        right.append(np.maximum(mine, found)[there])
        apart.append(answer.distances[there])
    first, second = _joined(left, np.int64), _joined(right, np.int64)
    far = _joined(apart, np.float32)
    _, once = np.unique(first * max(rows.count, 1) + second, return_index=True)
    once = once[np.lexsort((second[once], first[once], far[once]))]
    pairs = _pairs(rows.ids(), first[once], second[once], far[once])
    return Duplicates(pairs, _sampled_recall(snapshot, request, workers, _K))


def vectors_of(
    snapshot: Snapshot, parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The vectors of ``(parts[i], rows[i])`` as float32."""
    vectors = np.empty((len(rows), snapshot.schema.dim), np.float32)
    for number in np.unique(parts).tolist():
        mine = parts == number
        vectors[mine] = snapshot.parts[number].data.vectors[rows[mine]]
    return vectors


class _Rows:
    """The allowed rows of a snapshot, numbered through from 0."""

    def __init__(self, snapshot: Snapshot, allowed: Sequence[Allowed] | None) -> None:
        chosen = live(snapshot) if allowed is None else allowed
        self._snapshot = snapshot
        self._rows = [
            bitmap_rows(passing.bits, part.data.rows)
            for part, passing in zip(snapshot.parts, chosen, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(rows) for rows in self._rows)])
        self.count = int(self._starts[-1])
        self._places = []
        for part, rows, start in zip(snapshot.parts, self._rows, self._starts, strict=False):
            places = np.full(part.data.rows, -1, np.int64)
            places[rows] = start + np.arange(len(rows))
            self._places.append(places)

    def answers(
        self, request: Request, run: Callable[[Request], Answer], report: Report | None
    ) -> Iterator[tuple[int, Answer]]:
        """Search block by block; the number of each block's first row, and its answer."""
        for part, rows, start in zip(
            self._snapshot.parts, self._rows, self._starts.tolist(), strict=False
        ):
            for at in range(0, len(rows), _BLOCK):
                queries = part.data.vectors[rows[at : at + _BLOCK]].astype(np.float32)
                yield start + at, run(dataclasses.replace(request, queries=queries))
                if report is not None:
                    report(start + at + len(queries), self.count)

    def places(self, answer: Answer) -> npt.NDArray[np.int64]:
        """The numbers of the hits, -1 where there is none."""
        found = np.full(answer.rows.shape, -1, np.int64)
        for number, places in enumerate(self._places):
            mine = answer.parts == number
            found[mine] = places[answer.rows[mine]]
        return found

    def ids(self) -> npt.NDArray[Any]:
        """The ids of all rows."""
        numbers = [np.full(len(rows), i, np.int32) for i, rows in enumerate(self._rows)]
        return ids_of(self._snapshot, _joined(numbers, np.int32), _joined(self._rows, np.int64))


def _sampled_recall(snapshot: Snapshot, request: Request, workers: Workers, k: int) -> Recall:
    parts, rows = sample_rows(snapshot, request.allowed, _SAMPLE, seed=0)
    sampled = dataclasses.replace(
        request, queries=vectors_of(snapshot, parts, rows), k=k, radius=np.inf
    )
    return measure(snapshot, sampled, workers, itself=(parts, rows))


def _joined(arrays: list[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays])


def _pairs(
    ids: npt.NDArray[Any],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float32],
) -> pa.Table:
    import pyarrow as pa

    names = pa.array(ids, pa.string() if ids.dtype == object else pa.int64())
    chosen: list[Any] = [pa.array(left), pa.array(right)]
    columns: dict[str, Any] = {
        "id": names.take(chosen[0]),
        "neighbour": names.take(chosen[1]),
        "distance": pa.array(distances),
    }
    return pa.table(columns)

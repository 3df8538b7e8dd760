"""The rows, filter columns and queries of the comparison under filters.

Metadata columns make all filters: ``dice`` is random, ``rank0`` to ``rank9`` order the rows by
their distance from one of them each, the anchor. A filter passes a share of the rows:

========== ==================== ================================================================
kind       filter               queries
========== ==================== ================================================================
random     ``dice < share``     all alike
favoured   ``rank0 < share``    those nearest to its anchor: their neighbourhood passes
excluded   ``rank0 < share``    those furthest from it: their neighbourhood does not
========== ==================== ================================================================

The share 1 is no filter at all. The anchors take turns: where a slow library is asked fewer queries
than others, these are of all regions still.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.datasets import Dataset, load

SHARES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)
KINDS = ("random", "favoured", "excluded")
K = 10
QUERIES = 300
ANCHORS = 10  # some regions are much harder than others


class Rows(NamedTuple):
    """A data set with its filter columns and, for each kind of filter, what is asked: the column
    that the filter looks at, and the number of a query."""

    data: Dataset
    columns: dict[str, npt.NDArray[np.float64]]
    asked: dict[str, list[tuple[str, int]]]

    def queries(self, kind: str) -> npt.NDArray[np.float32]:
        """The queries of a kind of filter."""
        return self.data.test[[number for _, number in self.asked[kind]]]


def rows_of(source: str, limit: int | None = None) -> Rows:
    """The data set, or its first rows, with its columns; the same in every process."""
    data = load(source, limit)
    rng = np.random.default_rng(0)
    count = len(data.train)
    columns = {"dice": rng.random(count)}
    random = [("dice", number) for number in rng.permutation(len(data.test))[:QUERIES].tolist()]
    near, far = [], []
    for i, anchor in enumerate(data.train[rng.choice(count, ANCHORS, replace=False)]):
        columns[f"rank{i}"] = ranked(data, anchor)
        order = np.argsort(distances(data, anchor, data.test), kind="stable")
        near.append([(f"rank{i}", number) for number in order[: QUERIES // ANCHORS].tolist()])
        far.append([(f"rank{i}", number) for number in order[-QUERIES // ANCHORS :].tolist()])
    return Rows(data, columns, {"random": random, "favoured": dealt(near), "excluded": dealt(far)})


def dealt(groups: list[list[tuple[str, int]]]) -> list[tuple[str, int]]:
    """One of each group, then a second of each, and so on."""
    return [one for turn in zip(*groups, strict=True) for one in turn]


def ranked(data: Dataset, anchor: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """For each row the share of the rows that are nearer to the anchor."""
    rank = np.empty(len(data.train))
    order = np.argsort(distances(data, anchor, data.train), kind="stable")
    rank[order] = np.arange(len(rank)) / len(rank)
    return rank


def distances(data: Dataset, one: npt.NDArray[Any], rows: npt.NDArray[Any]) -> Any:
    if data.metric == "cosine":
        return 1 - rows @ one / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one))
    return np.square(rows - one).sum(axis=1) if data.metric == "l2" else -(rows @ one)

"""The rows, filter columns and queries of the comparison under filters.

Two metadata columns make all filters: ``dice`` is random, ``rank`` orders the rows by their
distance from one of them, the anchor. A filter passes a share of the rows:

========== ==================== ================================================================
kind       filter               queries
========== ==================== ================================================================
random     ``dice < share``     all alike
favoured   ``rank < share``     those nearest to the anchor: their neighbourhood passes
excluded   ``rank < share``     those furthest from it: their neighbourhood does not
========== ==================== ================================================================

The share 1 is no filter at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.datasets import Dataset, load

SHARES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99, 1.0)
KINDS = ("random", "favoured", "excluded")
K = 10
QUERIES = 100


class Rows(NamedTuple):
    """A data set with its filter columns and, for each kind, the numbers of its queries."""

    data: Dataset
    dice: npt.NDArray[np.float64]
    rank: npt.NDArray[np.float64]
    queries: dict[str, npt.NDArray[np.int64]]

    def column(self, kind: str) -> tuple[str, npt.NDArray[np.float64]]:
        """Name and values of the column that a kind of filter looks at."""
        return ("dice", self.dice) if kind == "random" else ("rank", self.rank)


def rows_of(source: str, limit: int | None = None) -> Rows:
    """The data set, or its first rows, with its columns; the same in every process."""
    data = load(source, limit)
    rng = np.random.default_rng(0)
    count = len(data.train)
    anchor = data.train[rng.integers(count)]
    rank = ranked(data, anchor)
    order = np.argsort(distances(data, anchor, data.test), kind="stable")
    queries = {
        "random": rng.permutation(len(data.test))[:QUERIES],
        "favoured": order[:QUERIES],
        "excluded": order[-QUERIES:],
    }
    return Rows(data, rng.random(count), rank, queries)


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

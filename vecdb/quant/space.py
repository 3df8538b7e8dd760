"""The inner space: every metric as squared Euclidean distance between centred rows.

``cosine`` normalises rows and queries; ``ip`` adds a dimension sqrt(maxnorm^2 - |x|^2) to a row and
0 to a query, after which the nearest row is the one of the greatest product (Bachrach et al.,
RecSys 2014); ``l2`` is itself. Rows are then centred on the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Space", "fit_space"]

_BLOCK_BYTES = 8 << 20
_SAMPLE = 1 << 16  # rows that the mean is taken of
_FEW = 1024  # of them that tell where the middle is
_FAR = 100  # times the usual distance from there: such rows are left out of the mean


@dataclass(frozen=True)
class Space:
    """Map from the rows of a metric to the inner space.

    Attributes
    ----------
    metric : {"cosine", "l2", "ip"}
    mean : (inner,) float32 array
        Centre of the inner space, already of its dimension (dim + 1 for ``ip``).
    radius : float
        Greatest norm of a row under ``ip``; unused otherwise.
    """

    metric: str
    mean: NDArray[np.float32]
    radius: float

    @property
    def inner(self) -> int:
        """Dimensions of the inner space."""
        return len(self.mean)

    def rows(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Inner rows of a block of raw ones, as a new (n, inner) float32 array."""
        return _lift(vectors, self.metric, self.radius) - self.mean

    def asked(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inner queries in the directions of inner rows of ``ip``."""
        raw = rows + self.mean
        raw[:, -1] = 0
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        raw *= np.float32(self.radius) / np.maximum(norms, np.float32(1e-30))
        return np.ascontiguousarray(raw - self.mean)


def fit_space(vectors: NDArray[Any], metric: str) -> Space:
    """The inner space of rows: one streamed pass for ``ip``, a sample for the others."""
    n, dim = vectors.shape
    radius = 0.0
    if metric == "ip":
        for block in blocks(vectors):
            radius = max(radius, float(np.sqrt(np.square(block.astype(np.float64)).sum(1).max())))
    sample = np.asarray(vectors[:: max(1, n // _SAMPLE)])
    inner = dim + (metric == "ip")
    mean = _centre(_lift(sample, metric, radius)) if n else np.zeros(inner)
    return Space(metric, mean.astype(np.float32), radius)


def _centre(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of rows, without those that lie far beyond the usual: one that is a million times as
    long as 3,000 others moved it away from all of these (recall .11, else .99)."""
    middle = np.median(rows[:: len(rows) // _FEW + 1], axis=0)
    away = np.concatenate([np.abs(block - middle).max(axis=1) for block in blocks(rows)])
    usual = away <= _FAR * np.median(away)
    mean: NDArray[np.float64] = (rows if usual.all() else rows[usual]).mean(0, dtype=np.float64)
    return mean


def blocks(vectors: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Consecutive blocks of rows of some megabytes."""
    step = max(1, _BLOCK_BYTES // max(1, 4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        yield vectors[start : start + step]


def _lift(vectors: NDArray[Any], metric: str, radius: float) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    if metric == "l2":
        return rows
    squares = np.square(rows, dtype=np.float64).sum(axis=1)
    if metric == "cosine":
        norms = np.sqrt(np.maximum(squares, 1e-300))
        return np.asarray(rows / norms[:, None], np.float32)
    extra = np.sqrt(np.maximum(radius * radius - squares, 0))
    return np.concatenate([rows, extra[:, None].astype(np.float32)], axis=1)

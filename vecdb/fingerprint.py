"""Whether new vectors look as if the model of the stored ones had made them.

What is compared are the lengths of the vectors, and two profiles over the dimensions of the unit
vectors: the mean and the standard deviation of each. A model has its own, and vectors of another
one agree with neither; clustered or sorted batches of the same model change one of them, rarely
both. Vectors of few dimensions give false alarms and are compared by their lengths only. So are
vectors without profiles, such as random numbers: those of one half of them say nothing of the other
half.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vecdb.errors import ModelWarning, describe

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.store import Snapshot

__all__ = ["Guard"]

_STORED = 512  # rows that the stored vectors are known by
_LEAST_STORED = 256
_BATCH = 256  # rows looked at in a batch
_LEAST_BATCH = 64
_LEAST_DIM = 128
_STEADY = 0.3  # rank correlation of two halves of the stored vectors that have a profile
_AGREE = 2.5  # standard deviations of the rank correlation of two unrelated profiles
_LENGTHS = 2.0  # times the longest, or shorter than the shortest, that a batch may be


class _Profile(NamedTuple):
    lengths: npt.NDArray[np.float32]  # least, middle and greatest, single outliers left aside
    mean: npt.NDArray[np.float64]  # ranks of the dimensions, centred; empty when not known
    spread: npt.NDArray[np.float64]


class Guard:
    """Warns about batches that seem to come from another model."""

    def __init__(self) -> None:
        self._known: tuple[int, _Profile] | None = None  # rows when it was taken

    def check(
        self,
        snapshot: Snapshot,
        vectors: npt.NDArray[Any],
        model: str | None,
    ) -> None:
        """Emit a :class:`~vecdb.errors.ModelWarning` where there is reason to."""
        own = snapshot.schema.model
        if model is not None and own is not None and model != own:
            self._warn(f"vectors of the model {own!r}", f"of {model!r}")
        elif snapshot.rows >= _LEAST_STORED and len(vectors) >= _LEAST_BATCH:
            known = self._stored(snapshot)
            step = -(-len(vectors) // _BATCH)
            batch = _profile if len(known.mean) else _lengths
            found = _difference(known, batch(np.asarray(vectors[::step], np.float32)))
            if found:
                name = "the stored ones" if own is None else f"those of the model {own!r}"
                self._warn(f"vectors like {name}", found)

    def _stored(self, snapshot: Snapshot) -> _Profile:
        """The profile of the stored rows, taken again when they are four times as many."""
        if self._known is None or not self._known[0] <= snapshot.rows < 4 * self._known[0]:
            rng = np.random.default_rng(0)
            share = min(1.0, _STORED / snapshot.rows)
            picked = []
            for part in snapshot.parts:
                rows = part.data.rows
                some = np.sort(rng.choice(rows, int(np.ceil(share * rows)), replace=False))
                picked.append(np.asarray(part.data.vectors[some], np.float32))
            self._known = snapshot.rows, _steady_profile(np.concatenate(picked))
        return self._known[1]

    def _warn(self, expected: str, got: str) -> None:
        fix = "keep each model's vectors in a collection of their own"
        message = describe("embedding", expected=expected, got=got, fix=fix)
        warnings.warn(ModelWarning(message), stacklevel=5)  # the line that called add()


def _lengths(vectors: npt.NDArray[np.float32]) -> _Profile:
    return _Profile(_few(np.linalg.norm(vectors, axis=1)), np.empty(0), np.empty(0))


def _profile(vectors: npt.NDArray[np.float32]) -> _Profile:
    lengths = np.linalg.norm(vectors, axis=1)
    rows = vectors / np.maximum(lengths, np.float32(1e-30))[:, None]
    return _Profile(_few(lengths), _ranks(rows.mean(axis=0)), _ranks(rows.var(axis=0)))


def _few(lengths: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    ordered, outliers = sorted(lengths.tolist()), len(lengths) // 100
    return np.array([ordered[i] for i in (outliers, len(ordered) // 2, -1 - outliers)], np.float32)


def _steady_profile(vectors: npt.NDArray[np.float32]) -> _Profile:
    """The profile of the stored vectors; without those over the dimensions when there are few of
    these, or when two halves of the vectors do not agree."""
    if vectors.shape[1] >= _LEAST_DIM:
        one, other = _profile(vectors[::2]), _profile(vectors[1::2])
        if min(_agreement(one.mean, other.mean), _agreement(one.spread, other.spread)) > _STEADY:
            return _profile(vectors)
    return _lengths(vectors)


def _difference(known: _Profile, batch: _Profile) -> str:
    """What speaks for another model; empty when nothing does."""
    short, _, long = known.lengths.tolist()
    middle = float(batch.lengths[1])
    if not short / _LENGTHS <= middle <= long * _LENGTHS:
        return f"vectors of length {middle:.3g}, not {short:.3g} to {long:.3g}"
    if not len(known.mean):
        return ""
    limit = _AGREE / np.sqrt(len(known.mean))
    spread, mean = _agreement(known.spread, batch.spread), _agreement(known.mean, batch.mean)
    if spread < limit and abs(mean) < limit:
        return f"vectors spread over other dimensions (rank correlation {spread:.2f})"
    return ""


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(ranks - ranks.mean())


def _agreement(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Spearman's rank correlation."""
    return float(one @ other) / max(float(one @ one), 1e-30)

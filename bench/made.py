"""Data sets made from a seed: what the engine was not tuned on, with no download.

A set is a row of :data:`MADE`: a function draws all its points, rows and queries alike, unless the
row names another one for the queries. Each is hard in its own way: what an index meets there is in
the comment beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["MADE", "Made", "draw"]

Floats = npt.NDArray[np.float32]
Draw = Callable[[np.random.Generator, int, int], npt.NDArray[Any]]
"""``draw(rng, n, dim)`` gives n points of so many dimensions."""

_BLOCK = 50_000  # points drawn at once


class Made(NamedTuple):
    """How a set is drawn; `asked` turns points into queries of another kind."""

    metric: str
    rows: int
    dim: int
    points: Draw
    asked: Callable[[np.random.Generator, Floats], Floats] | None = None


def draw(made: Made, rows: int, queries: int, seed: int = 7) -> tuple[Floats, Floats]:
    """Rows and queries, (n, dim) float32 or u8, the same for the same seed and numbers."""
    rng = np.random.default_rng(seed)
    points = made.points(rng, rows + queries, made.dim)
    asked = points[rows:]
    return points[:rows], made.asked(rng, asked) if made.asked else asked


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32)


def _unit(points: Floats) -> Floats:
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-30)


def _uniform(rng: np.random.Generator, n: int, dim: int) -> Floats:
    return rng.random((n, dim), dtype=np.float32)


def _clusters(rng: np.random.Generator, n: int, dim: int, count: int, spread: float) -> Floats:
    """Balls around `count` Gaussian centres, `spread` times as wide as these lie apart."""
    centres = _normal(rng, count, dim)
    points = centres[rng.integers(0, count, n)]
    points += np.float32(spread) * _normal(rng, n, dim)
    return points


def _latent(
    rng: np.random.Generator, n: int, dim: int, latent: int, decay: float, noise: float
) -> Floats:
    """A mixture in few dimensions, the i-th with the deviation ``(i + 1) ** -decay``, bent into all
    of `dim`: neural embeddings look like that."""
    weights = np.arange(1, latent + 1, dtype=np.float32) ** np.float32(-decay)
    inside = (_clusters(rng, n, latent, 500, 0.7)) * weights
    first, second = _normal(rng, latent, 2 * latent), _normal(rng, 2 * latent, dim)
    bent = np.tanh(inside @ first / np.linalg.norm(weights)) @ second
    bent += np.float32(noise * np.sqrt(latent)) * _normal(rng, n, dim)
    return bent


def _scaled(rng: np.random.Generator, n: int, dim: int, sigma: float) -> Floats:
    """Factors of a recommender: popularity is in the norm, log-normal over rows."""
    return _latent(rng, n, dim, 32, 0.3, 0.05) * rng.lognormal(0, sigma, (n, 1)).astype("f4")


def _gist(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Energies of filters over a grid: positive, of smooth correlation, skewed."""
    inside = _clusters(rng, n, 40, 300, 0.8)
    waves = np.cumsum(_normal(rng, 40, dim), axis=1)
    waves -= waves.mean(axis=1, keepdims=True)
    energies: Floats = np.exp(0.5 * inside @ (_unit(waves) * np.float32(np.sqrt(dim / 40))))
    energies *= np.float32(0.02) * rng.gamma(8, 1 / 8, (n, dim)).astype(np.float32)
    return energies


def _words(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Bags of some twenty words out of `dim`, of Zipf's frequencies, a few topics each."""
    popularity = 1 / np.arange(1, dim + 1) ** 0.8
    topics = np.cumsum(rng.dirichlet(popularity / popularity.sum() * 30, 200), axis=1)
    topics[:, -1] = 1
    points = np.zeros((n, dim), np.float32)
    mine = rng.integers(0, len(topics), (n, 2))
    for i in range(n):
        drawn = rng.random((2, 12))
        for topic, words in zip(mine[i], drawn, strict=True):
            points[i, np.searchsorted(topics[topic], words)] = 1
    return points


def _bits(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Signs of projections of a latent set, as 0 and 1: many distances are equal."""
    points = _latent(rng, n, dim, 24, 0.3, 0.1)
    return (points > np.median(points, axis=0)).astype(np.float32)


def _offset(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """All values between 1,000 and 1,001: float32 has 14 bits left for what tells rows apart."""
    points = _latent(rng, n, dim, 24, 0.3, 0.1)
    low, high = points.min(), points.max()
    return np.float32(1000) + (points - low) / (high - low)


def _repeated(rng: np.random.Generator, n: int, dim: int, times: int) -> Floats:
    """Every row so many times over, in random order."""
    distinct = _latent(rng, -(-n // times), dim, 24, 0.3, 0.1)
    return np.repeat(distinct, times, axis=0)[rng.permutation(len(distinct) * times)[:n]]


def _descriptors(rng: np.random.Generator, n: int, dim: int) -> npt.NDArray[np.uint8]:
    """u8 descriptors that behave like SIFT's: clustered, non-negative, sparse, clipped.

    Each row is a 4 x 4 grid of 8-bin histograms of gradients: a patch drawn from one of 2,000
    families (a point in a 28-dim latent space) spreads over the bins, is cut at zero, scaled to
    length 512 and clipped at a fifth of it, twice, as Lowe's descriptor is.
    """
    latent = 28
    families = _normal(rng, 2_000, latent)
    popularity = rng.dirichlet(np.full(len(families), 0.7))
    mixing = _normal(rng, latent, dim) / np.sqrt(np.float32(latent))
    out = np.empty((n, dim), dtype=np.uint8)
    for i in range(0, n, _BLOCK):
        count = min(_BLOCK, n - i)
        patch = families[rng.choice(len(families), count, p=popularity)]
        patch = patch + 0.75 * _normal(rng, count, latent)
        bins = patch @ mixing + 0.25 * _normal(rng, count, dim)
        bins = np.maximum(bins + 0.1, 0)
        for _ in range(2):
            bins = np.minimum(512 * _unit(bins), 0.2 * 512)
        out[i : i + count] = np.rint(512 / np.linalg.norm(bins, axis=1, keepdims=True) * bins).clip(
            0, 255
        )
    return out


def _other_mode(rng: np.random.Generator, points: Floats) -> Floats:
    """The same contents seen by another encoder: shifted by as much as they spread, and noisy."""
    spread = np.float32(np.linalg.norm(points - points.mean(axis=0), axis=1).mean())
    shift = spread * _unit(_normal(rng, 1, points.shape[1]))
    noise = _normal(rng, *points.shape) * np.float32(0.5 * spread / np.sqrt(points.shape[1]))
    return points + shift + noise


def _users(rng: np.random.Generator, points: Floats) -> Floats:
    """Means of a few liked items each, with something of their own: no row is like them."""
    liked = rng.integers(0, len(points), (len(points), 5))
    own = _normal(rng, *points.shape) * points.std(dtype=np.float64).astype(np.float32)
    return points[liked].mean(axis=1) + np.float32(0.3) * own


_EMBEDDED = partial(_latent, latent=64, decay=0.5, noise=0.1)

MADE: dict[str, Made] = {
    "sift-like": Made("l2", 200_000, 128, _descriptors),
    "line": Made("l2", 20_000, 1, _uniform),
    "plane": Made("l2", 20_000, 2, _uniform),
    "space": Made("l2", 20_000, 3, _normal),
    "uniform": Made("l2", 50_000, 8, _uniform),
    "normal": Made("cosine", 50_000, 16, _normal),
    "latent": Made("cosine", 50_000, 25, partial(_latent, latent=16, decay=0.2, noise=0.2)),
    "gauss": Made("l2", 20_000, 256, _normal),  # no structure, every row equally far away
    "gauss-wide": Made("cosine", 10_000, 1536, _normal),
    "clusters": Made("cosine", 30_000, 768, partial(_clusters, count=300, spread=0.1)),
    "embedded": Made("cosine", 30_000, 768, _EMBEDDED),
    "gist-like": Made("l2", 20_000, 960, _gist),
    "items": Made("ip", 50_000, 64, partial(_scaled, sigma=0.6), _users),  # long rows win often
    "items-skewed": Made("ip", 50_000, 128, partial(_scaled, sigma=1.2), _users),
    "cross-modal": Made("cosine", 50_000, 200, _EMBEDDED, _other_mode),  # queries unlike rows
    "words": Made("cosine", 30_000, 512, _words),  # nearly all zero
    "bits": Made("l2", 30_000, 256, _bits),
    "offset": Made("l2", 30_000, 128, _offset),  # mean far from zero
    "repeated": Made("l2", 40_000, 96, partial(_repeated, times=20)),
}
"""Sets by name."""

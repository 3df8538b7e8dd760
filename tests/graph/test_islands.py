"""The rows that a filter cuts off, against a NumPy twin that counts links one by one."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb import graph
from vecdb.graph import islands
from vecdb.kernels.jit import INTERPRETED
from vecdb.kernels.scan import scan

ROWS, DIM = (120, 6) if INTERPRETED else (3000, 12)
RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((ROWS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def built():
    return graph.build(VECTORS, "l2", ef_construction=16 if INTERPRETED else 100)


def bits_of(passing: np.ndarray) -> np.ndarray:
    packed = np.packbits(passing, bitorder="little")
    return np.concatenate([packed, np.zeros(-len(packed) % 8, np.uint8)])


def twin(links: np.ndarray, passing: np.ndarray) -> np.ndarray:
    """How well each row is linked with others that pass, 0 where no walk comes to it."""
    ways = [[int(i) for i in links[row] if i >= 0 and passing[i]] for row in range(len(links))]
    count = np.zeros(len(links), int)
    for row in np.flatnonzero(passing):
        count[ways[row]] += 1
    reached = np.zeros(len(links), bool)
    left = [int(np.flatnonzero(passing & (count == count[passing].max()))[0])]
    while left:
        row = left.pop()
        if not reached[row]:
            reached[row] = True
            left += ways[row]
    return np.where(reached, np.minimum([len(way) for way in ways], 8 * count), 0)


@pytest.mark.parametrize("kind", ["half-space", "random", "rim"])
def test_rows_cut_off_are_the_unreached_and_those_with_fewest_links(built, kind):
    side = VECTORS[:, 0]
    passing = {
        "half-space": side > 0.3,
        "random": RNG.random(ROWS) < 0.5,
        "rim": np.square(VECTORS).sum(axis=1) > 1.3 * DIM,
    }[kind]
    found = graph.cut_off(built, bits_of(passing), int(passing.sum()))
    links = twin(built.links(), passing)
    assert passing[found].all()
    cut = found[:-1]
    assert links[found[-1]] > 0, "the last is one that others link to"
    left = np.setdiff1d(np.flatnonzero(passing), cut)
    fewest = links[left].min()
    assert (links[cut] < fewest).all()
    room = passing.sum() // islands._PART + islands._SOME
    assert len(cut) <= room
    enough = int(islands._FEW * built.meta["degree"])
    assert fewest >= enough or len(cut) + (links[left] == fewest).sum() > room


def test_a_filter_that_cuts_off_too_many_has_none(built, monkeypatch):
    passing = RNG.random(ROWS) < (0.2 if INTERPRETED else 0.03)
    monkeypatch.setattr(islands, "_SOME", 0)
    assert len(graph.cut_off(built, bits_of(passing), int(passing.sum()))) == 0


def test_a_filter_that_passes_nothing_or_one_row_is_no_trouble(built):
    nothing = np.zeros(ROWS, bool)
    assert len(graph.cut_off(built, bits_of(nothing), 0)) == 0
    nothing[7] = True
    assert graph.cut_off(built, bits_of(nothing), 1).tolist() == [7, 7]


def test_links_out_of_range_are_no_links(built):
    sound = graph.cut_off(built, bits_of(VECTORS[:, 0] > 0.3), int((VECTORS[:, 0] > 0.3).sum()))
    wild = graph.Graph({**built.arrays, "rows": built.arrays["rows"].copy()}, built.meta, DIM)
    for view in wild.link_views():
        view[:, -3:] = [ROWS, 2**31 - 1, -(2**31)]
    passing = VECTORS[:, 0] > 0.3
    found = graph.cut_off(wild, bits_of(passing), int(passing.sum()))
    assert passing[found].all()
    assert len(found) >= len(sound) - 1


def test_a_walk_that_is_lost_finds_what_the_filter_cuts_off(built):
    # far rows and a few near the query pass, whose links all lead to rows that do not
    away = np.square(VECTORS - VECTORS[0]).sum(axis=1)
    order = np.argsort(away)
    passing = np.zeros(ROWS, bool)
    passing[order[ROWS // 2 :]] = True
    lonely = order[10:80:20]
    passing[lonely] = True
    bits, matching = bits_of(passing), int(passing.sum())
    query, k = VECTORS[:1], 3
    truth = scan(VECTORS, query, k, "l2", allowed=bits)[0][0]
    assert np.isin(truth, lonely).all()
    bound = np.array([[np.inf], *[[1.05]] * 4], np.float32)
    cut = graph.cut_off(built, bits, matching)
    assert np.isin(lonely, cut).all()
    found = graph.search(
        built, VECTORS, query, k, 64, metric="l2", allowed=bits, matching=matching, slack=bound,
        cut=cut,
    )  # fmt: skip
    assert found.rows[0].tolist() == truth.tolist()
    assert found.met[0] > 0

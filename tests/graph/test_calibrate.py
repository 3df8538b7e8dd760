"""Calibration: barred rows are as if they had never been there, and efforts lie between curves."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from vecdb import graph
from vecdb.graph.effort import SHARES, effort_for
from vecdb.graph.keys import make_key
from vecdb.graph.layout import Graph
from vecdb.graph.selective import DENSE, HIDDEN, MIDDLE, SCATTERED, line_of, stand_in
from vecdb.kernels.jit import INTERPRETED
from vecdb.quant.neighbours import BLOCK, block_bytes
from vecdb.workers import Workers

RNG = np.random.default_rng(11)
ROWS = 90 if INTERPRETED else 1500
VECTORS = RNG.standard_normal((ROWS, 40)).astype("f4")


@pytest.fixture(scope="module")
def built() -> Graph:
    return graph.build(VECTORS, "l2", ef_construction=64)


def links_of(built: Graph, row: int) -> list[int]:
    """The neighbours of a row, read from its bytes."""
    shape = built.shape(False).tolist()
    stride, record, blocks, dims, bits = shape[4:9]
    found: list[int] = []
    for block in range(blocks):
        at = row * stride + record + block * block_bytes(dims, bits)
        found += built.data[at : at + 4 * BLOCK].view(np.int32).tolist()
    return [link for link in found if link >= 0]


def test_the_stand_in_of_a_barred_row_is_the_nearest_of_its_links_that_is_new(
    built: Graph,
) -> None:
    shape = built.shape(False).tolist()
    inner, stride, record, blocks, dims, bits = shape[3:9]
    for node in range(0, ROWS, ROWS // 15):
        own = links_of(built, node)
        for gone in own[:3]:
            new = [row for row in links_of(built, gone) if row != node and row not in own]
            chosen = stand_in(
                built.data.ctypes.data, built.rows, stride, record, blocks,
                block_bytes(dims, bits), inner, node, gone,
            )  # fmt: skip
            if not new:
                assert chosen == -1
                continue
            assert chosen in new
            away = np.square(VECTORS[new] - VECTORS[node]).sum(axis=1)
            assert np.square(VECTORS[chosen] - VECTORS[node]).sum() <= 1.05 * away.min()


def test_a_barred_row_is_no_hit_and_hides_no_other(built: Graph) -> None:
    rows = np.arange(0, ROWS, 15)
    wide = np.array([[np.inf], *[[9.0]] * 4], np.float32)
    found = graph.search(
        built, VECTORS, VECTORS[rows], 10, 1024, metric="l2", slack=wide, barred=rows
    )  # fmt: skip
    away = np.square(VECTORS[rows][:, None] - VECTORS).sum(axis=2)
    away[np.arange(len(rows)), rows] = np.inf
    np.testing.assert_array_equal(np.sort(found.rows), np.sort(np.argsort(away)[:, :10]))


def test_a_third_of_the_rows_is_asked_for_once_nearly_all_neighbours_are_found(
    built: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    walked: list[tuple[Any, Any]] = []
    real = calibrate._walk

    def walk(*given: Any) -> Any:
        hits, hops = real(*given)
        walked.append((given[-1][0].rows, hits))
        return hits, hops

    rows = np.arange(0, ROWS, 2)
    monkeypatch.setattr(calibrate, "_walk", walk)
    monkeypatch.setattr(calibrate, "_FEW", len(rows) // 4)
    monkeypatch.setattr(calibrate, "_CLASSES", 3)
    asked = calibrate._Asked(VECTORS[rows], rows)
    pairs = calibrate._nested(built, VECTORS, 10, asked, np.zeros(ROWS), [1.0], None)
    curves = calibrate._curves(built, VECTORS, 10, [pairs[1.0]], None)
    away = np.square(VECTORS[rows][:, None] - VECTORS).sum(axis=2)
    radii = np.sort(away, axis=1)[:, 10]  # the first is the row itself
    place = np.searchsorted(curves["edges"], radii * (1 - 1e-6))
    reached = False
    for i, (some, hits) in enumerate(walked):
        mine = slice(None, None, 3 if reached else 1)
        np.testing.assert_array_equal(some, rows[mine])
        for j, curve in enumerate(curves["recall"]):
            assert curve[i] == pytest.approx(hits[place[mine] == j].mean() / 10, abs=1e-9)
        reached |= hits.mean() >= 9.9
    assert reached
    assert len(walked[-1][0]) < len(rows)


def test_the_truth_under_nested_filters_is_that_of_each_alone(built: Graph) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    ranks = RNG.random(ROWS)
    rows = np.array([*range(0, ROWS, 9), -1])
    queries = np.vstack([VECTORS[rows[:-1]], RNG.standard_normal((1, 40)).astype("f4")])
    shares = (1.0, 0.5, 0.2, 4 / ROWS)
    pairs = calibrate._nested(
        built, VECTORS, 10, calibrate._Asked(queries, rows), ranks, shares, None
    )  # fmt: skip
    away = np.square(queries[:, None] - VECTORS).sum(axis=2)
    away[np.arange(len(rows) - 1), rows[:-1]] = np.inf
    for share in shares:
        asked, truth = pairs[share]
        passing = ranks < share
        if share == 1:
            assert asked.allowed is None
        else:
            flags = np.unpackbits(asked.allowed, bitorder="little")[:ROWS]
            np.testing.assert_array_equal(flags, passing)
        near = np.sort(np.where(passing, away, np.inf), axis=1)[:, :10]
        wanted = np.isfinite(near).sum(axis=1)
        np.testing.assert_array_equal(truth.wanted, wanted)
        some = np.flatnonzero(wanted)
        np.testing.assert_allclose(truth.radii[some], near[some, wanted[some] - 1], rtol=1e-5)


def test_a_region_is_asked_by_queries_of_the_further_half(built: Graph) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    queries = RNG.standard_normal((60, 40)).astype("f4")
    sample = calibrate._Asked(queries, np.full(60, -1))
    for anchor in range(0, ROWS, ROWS // 5):
        away = np.square(queries - VECTORS[anchor]).sum(axis=1)
        reach = np.square(VECTORS - VECTORS[anchor]).sum(axis=1)
        for share, (asked, _) in calibrate._hidden(built, VECTORS, 10, sample, anchor, 7).items():
            assert len(asked.rows) == 7
            mine = np.square(asked.queries - VECTORS[anchor]).sum(axis=1)
            assert mine.min() >= np.median(away)
            assert mine.max() == pytest.approx(away.max())
            flags = np.unpackbits(asked.allowed, bitorder="little")[:ROWS].astype(bool)
            assert flags.sum() == pytest.approx(share * ROWS, abs=1)
            assert reach[flags].max() <= reach[~flags].min() * (1 + 1e-5)


@pytest.mark.parametrize("count", [7, 100, 130, 400, 403])
def test_queries_are_dealt_to_several_filters_and_few_to_all_of_them(count: int) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    sample = calibrate._Asked(np.zeros((count, 2), "f4"), np.arange(count))
    dealt = [some.rows for some in calibrate._dealt(sample, 400)]
    times = np.bincount(np.concatenate(dealt), minlength=count)
    assert all(len(np.unique(rows)) == len(rows) == min(count, 100) for rows in dealt)
    assert times.sum() == min(4 * count, 400)
    assert times.max() - times.min() <= 1
    if count <= 100:
        assert times.min() == len(dealt) == 4


def test_threads_do_not_change_a_calibration(built: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    monkeypatch.setattr(calibrate, "_ANCHORS", 8)
    alone = graph.calibrate(built, VECTORS, 10)
    workers = Workers(3)
    assert graph.calibrate(built, VECTORS, 10, workers) == alone
    workers.close()


def test_the_slack_goes_by_the_number_of_stones_that_are_nearer() -> None:
    pool = np.full(8 + 64, make_key(np.float32(9), 0), np.int64)
    kth = make_key(np.float32(1), 0)
    for nearer in range(64):
        pool[8 : 8 + nearer] = make_key(np.float32(0.5), 1)
        line = DENSE if nearer <= 5 else MIDDLE if nearer <= 20 else SCATTERED
        line = HIDDEN if nearer > 40 else line
        assert line_of(pool, 5, 20, 40, kth) == line
        if nearer > 20:  # more than the pool holds is never too many
            assert line_of(pool, 5, 20, 4000, kth) == SCATTERED


def slack_for(missed: list[float], missed_by_all: list[float], slacks: list[float]) -> float:
    """Where a class of new queries comes to .82 of the misses that are allowed."""
    sharper = [min(m * m / mean, 0.9999) for m, mean in zip(missed, missed_by_all, strict=True)]
    return float(np.interp(-np.log(0.82 * 0.05), -np.log(sharper), slacks))


def test_an_effort_is_the_curve_of_a_share_or_lies_between_two() -> None:
    easy, hard = [0.4, 0.1, 0.04, 0.005], [0.6, 0.2, 0.08, 0.02]  # missed
    slacks = [1.0, 1.1, 1.2, 1.3]

    def curves(i: int, factor: float) -> dict[str, Any]:
        return {
            "edges": [1.0 + i],
            "recall": [[1 - m / factor for m in missed] for missed in (easy, hard)],
            "hops": [[10.0 * 2**i] * 4, [30.0 * 2**i] * 4],
        }

    calibration = {
        "k": 10, "slacks": slacks, "asked": "rows",
        "shares": [curves(i, 2**i) for i in range(len(SHARES))],
        "hidden": [curves(i, 0.9) for i in range(1, len(SHARES))],
    }  # fmt: skip

    def needed(factor: float) -> list[float]:
        both = [[m / factor for m in missed] for missed in (easy, hard)]
        mean = [(a + b) / 2 for a, b in zip(*both, strict=True)]
        return [slack_for(missed, mean, slacks) for missed in both]

    full = effort_for(calibration, 1.0, 0.95)
    assert full is not None
    np.testing.assert_array_equal(full.slack[1], full.slack[2])
    np.testing.assert_array_equal(full.slack[1], full.slack[3])
    np.testing.assert_array_equal(full.slack[1], full.slack[4])
    assert full.hops == 20
    for i, share in enumerate(SHARES):
        effort = effort_for(calibration, share, 0.95)
        assert effort is not None
        np.testing.assert_array_equal(effort.slack[1], full.slack[1])
        assert effort.hops == pytest.approx(20 * 2**i)
        assert effort.slack[3][[0, -1]] == pytest.approx(needed(2**i))
        assert (effort.slack[1] >= effort.slack[2]).all()
        assert (effort.slack[2] >= effort.slack[3]).all()
        assert effort.slack[4][[0, -1]] == pytest.approx(needed(0.9 if i else 1))
    between, few = effort_for(calibration, 0.45, 0.95), effort_for(calibration, 0.01, 0.95)
    assert between is not None
    assert few is not None
    assert 40 < between.hops < 80
    assert few.hops == pytest.approx(1600)


def test_what_queries_missed_is_taken_as_it_is() -> None:
    missed = [[0.4, 0.1, 0.04, 0.005], [0.6, 0.2, 0.08, 0.02]]
    curves = {
        "edges": [1.0], "hops": [[10.0] * 4, [30.0] * 4],
        "recall": [[1 - m for m in some] for some in missed],
    }  # fmt: skip
    slacks = [1.0, 1.1, 1.2, 1.3]
    calibration = {
        "k": 10, "slacks": slacks, "asked": "queries",
        "shares": [curves] * len(SHARES), "hidden": [curves] * (len(SHARES) - 1),
    }  # fmt: skip
    effort = effort_for(calibration, 0.5, 0.95)
    assert effort is not None
    needed = [np.interp(-np.log(0.05), -np.log(some), slacks) for some in missed]
    for line in effort.slack[1:]:
        np.testing.assert_allclose(line, needed, rtol=1e-6)


def test_queries_that_came_with_a_graph_are_asked_in_place_of_its_rows(
    built: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate = sys.modules["vecdb.graph.calibrate"]
    monkeypatch.setattr(calibrate, "_ANCHORS", 2)
    monkeypatch.setattr(calibrate, "_CLASSES", 1)
    queries = RNG.standard_normal((60, 40)).astype("f4") * np.float32(1.5)
    other = built.with_queries(queries)
    assert built.queries is None
    found = graph.calibrate(other, VECTORS, 10)
    assert (found["asked"], found["k"]) == ("queries", 10)
    assert graph.calibrate(built, VECTORS, 10)["asked"] == "rows"
    away = np.square(queries[:, None] - VECTORS).sum(axis=2)
    kth = np.sort(away, axis=1)[:, 9:10] * (1 + 1e-5)
    for slack, recall in zip(found["slacks"], found["shares"][0]["recall"][0], strict=False):
        table = np.array([[np.inf], *[[slack]] * 4], np.float32)
        answer = graph.search(other, VECTORS, queries, 10, 1024, metric="l2", slack=table)
        assert recall == pytest.approx((answer.distances <= kth).mean(), abs=1e-9)


def test_of_many_queries_a_sample_is_kept(built: Graph) -> None:
    many = np.arange(2500 * 40, dtype="f4").reshape(2500, 40)
    kept = built.with_queries(many).queries
    assert kept is not None
    assert kept.shape == (2000, 40)
    assert (np.diff(kept[:, 0]) > 0).all()
    assert np.isin(kept[:, 0], many[:, 0]).all()


def test_no_effort_is_given_for_a_recall_that_was_never_measured() -> None:
    def curves(best: float) -> dict[str, Any]:
        return {"edges": [1.0], "recall": [[0.5, best], [0.6, best]], "hops": [[10.0, 20.0]] * 2}

    def calibrated(best: float) -> dict[str, Any]:
        every = [curves(best)] * len(SHARES)
        return {
            "k": 10, "slacks": [1.0, 1.1], "asked": "rows", "shares": every, "hidden": every[1:],
        }  # fmt: skip

    calibration = calibrated(0.97)
    assert effort_for(calibration, 1.0, 0.95) is not None  # of the misses .84 are aimed at
    assert effort_for(calibration, 1.0, 0.965) is None
    calibration["shares"] = [*calibration["shares"][:-1], curves(0.9)]
    assert effort_for(calibration, 0.6, 0.95) is not None
    assert effort_for(calibration, 0.1, 0.95) is None
    all_found = calibrated(1.0)
    assert effort_for(all_found, 1.0, 0.999) is not None
    assert effort_for(all_found, 1.0, 0.99999) is None  # ten thousand hits do not show so much

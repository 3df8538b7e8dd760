"""Searching graphs: recall, filters, knobs, deadlines and threads."""

from __future__ import annotations

import signal
import sys
import threading
import time

import numpy as np
import pytest

from vecdb import graph
from vecdb.errors import ArgumentError
from vecdb.kernels.jit import INTERPRETED
from vecdb.kernels.reference import allowed_rows
from vecdb.kernels.scan import scan
from vecdb.workers import Workers

RNG = np.random.default_rng(9)
ROWS, ASKED = (100, 3) if INTERPRETED else (4000, 50)
PADDED = ROWS + 63 & ~63  # bits of a bitmap
CENTERS = RNG.standard_normal((30, 60)) * 2
VECTORS = (CENTERS[RNG.integers(0, 30, ROWS)] + RNG.standard_normal((ROWS, 60))).astype("f4")
QUERIES = (CENTERS[RNG.integers(0, 30, ASKED)] + RNG.standard_normal((ASKED, 60))).astype("f4")
METRICS = ("cosine", "l2", "ip")
THIRD = np.packbits((np.arange(PADDED) % 3 == 0) & (np.arange(PADDED) < ROWS), bitorder="little")
BEAM = 16 if INTERPRETED else 100


@pytest.fixture(scope="module", params=METRICS)
def built(request):
    return graph.build(VECTORS, request.param, ef_construction=BEAM)


def recall(found, truth: np.ndarray) -> float:
    scale = np.abs(truth).max()
    return float((found.distances <= truth[:, -1:] + 1e-6 * scale).mean())


def search(built, k: int = 10, ef: int = 64, **options):
    return graph.search(
        built, VECTORS, options.pop("queries", QUERIES), k, ef, metric=built.meta["metric"],
        **options,
    )  # fmt: skip


def test_recall_rises_with_the_pool_to_all_there_is(built):
    truth = scan(VECTORS, QUERIES, 10, built.meta["metric"])[1]
    assert recall(search(built, ef=64), truth) > 0.9
    assert recall(search(built, ef=1000), truth) > 0.995


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("copies", [20, 40, 300])
def test_copies_of_a_row_leave_ways_to_the_others(metric, copies):
    copied = 120 if INTERPRETED else 6000
    rows = np.tile(VECTORS[: -(-copied // copies)], (copies, 1))
    built = graph.build(rows, metric, ef_construction=2 * BEAM)
    found = graph.search(built, rows, QUERIES, 10, 64, metric=metric)
    assert recall(found, scan(rows, QUERIES, 10, metric)[1]) > 0.9


def test_ip_finds_rows_of_very_different_lengths_for_queries_unlike_them():
    rng = np.random.default_rng(4)
    rows = VECTORS * rng.lognormal(0, 1, (ROWS, 1)).astype(np.float32)
    queries = rng.standard_normal((4 * ASKED, 60), dtype=np.float32)
    built = graph.build(rows, "ip", ef_construction=2 * BEAM)
    found = graph.search(built, rows, queries, 10, 64, metric="ip")
    assert (
        recall(found, scan(rows, queries, 10, "ip")[1]) > 0.96
    )  # .68 with neighbours of the inner space, .89 with two bits


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_one_row_a_million_times_as_long_costs_the_others_nothing(metric):
    rows = VECTORS.copy()
    rows[17] *= 1e6
    built = graph.build(rows, metric, ef_construction=2 * BEAM)
    found = graph.search(built, rows, QUERIES, 10, 64, metric=metric)
    assert recall(found, scan(rows, QUERIES, 10, metric)[1][:, :10]) > 0.9
    itself = graph.search(built, rows, rows[17:18], 1, 64, metric=metric)
    assert itself.rows[0, 0] == 17


def test_distances_are_exact_ascending_and_of_the_metric(built):
    found = search(built)
    for query, rows, distances in zip(QUERIES, found.rows, found.distances, strict=True):
        exact = scan(VECTORS[rows], query[None], 10, built.meta["metric"])[1][0]
        np.testing.assert_allclose(
            distances, exact, rtol=0 if built.meta["metric"] != "cosine" else 1e-5
        )
        assert (np.diff(distances) >= 0).all()


def test_one_query_alone_gets_the_answer_of_the_batch(built):
    batch = search(built)
    ask = graph.Bound(built, VECTORS, 10, 64, metric=built.meta["metric"])
    for i in (0, ASKED // 7, ASKED - 1):
        rows, distances, _ = ask(QUERIES[i : i + 1])
        np.testing.assert_array_equal(rows[0], batch.rows[i])
        np.testing.assert_array_equal(distances[0], batch.distances[i])


def test_brief_walks_keep_the_interpreter_seven_times_in_eight_and_longer_ones_never(
    built, monkeypatch
):
    module, kept = sys.modules["vecdb.graph.search"], []
    for held in (True, False):
        name = "search_held" if held else "search_bound"
        kernel = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, _k=kernel, _h=held: (kept.append(_h), _k(*given))
        )
    metric = built.meta["metric"]
    answers = {}
    for ef, expected in ((40, 14), (41, 0)):
        ask = graph.Bound(built, VECTORS, 10, ef, metric=metric)
        kept.clear()
        answers[ef] = [ask(QUERIES[:1])[0].tolist() for _ in range(16)]
        assert (sum(kept), len(kept)) == (expected, 16)
        assert answers[ef] == [search(built, ef=ef, queries=QUERIES[:1]).rows.tolist()] * 16
    kept.clear()
    filtered = graph.Bound(built, VECTORS, 10, 40, metric=metric, allowed=THIRD)
    graph.Bound(built, VECTORS, 10, 40, metric=metric)(QUERIES[:2])
    for _ in range(8):
        filtered(QUERIES[:1])
    assert not any(kept)


def test_only_allowed_rows_come_back(built):
    bits = np.zeros(PADDED, bool)
    bits[:ROWS] = np.random.default_rng(2).random(ROWS) < 0.3
    allowed = np.packbits(bits, bitorder="little")
    found = search(built, ef=400, allowed=allowed)
    truth = scan(VECTORS, QUERIES, 10, built.meta["metric"], allowed=allowed)[1]
    assert np.isin(found.rows, allowed_rows(allowed, ROWS)).all()
    assert recall(found, truth) > 0.95
    none = search(built, allowed=np.zeros(PADDED // 8, np.uint8))
    assert (none.rows == -1).all()
    assert np.isinf(none.distances).all()


def test_a_walk_with_a_budget_gives_way_to_a_scan_where_the_neighbourhood_does_not_pass(built):
    metric = built.meta["metric"]
    near = scan(VECTORS, QUERIES[:1], 400, metric)[0][0]
    flags = np.zeros(PADDED, bool)
    flags[near] = True
    allowed = np.packbits(flags, bitorder="little")
    closest = scan(VECTORS, QUERIES, 30, metric)[0]
    away = QUERIES[~np.isin(closest, near).any(axis=1)]
    assert len(away) > 10
    scanned = search(built, queries=away, allowed=allowed, scan=True)
    found = search(built, queries=away, allowed=allowed, ef=16, budget=300)
    np.testing.assert_array_equal(found.rows, scanned.rows)
    np.testing.assert_array_equal(found.distances, scanned.distances)
    np.testing.assert_array_equal(found.met, 400)
    inside = search(built, queries=QUERIES[:1], allowed=allowed, ef=16, budget=300)
    assert inside.met[0] < 100
    assert inside.hops[0] < 100
    assert np.isin(inside.rows, near).all()
    assert recall(inside, scan(VECTORS, QUERIES[:1], 10, metric)[1]) >= 0.8
    spent = search(built, queries=QUERIES[:1], allowed=allowed, ef=16, budget=9)
    assert spent.met[0] == 400
    np.testing.assert_array_equal(
        spent.rows, search(built, queries=QUERIES[:1], allowed=allowed, scan=True).rows
    )


def test_chance_is_not_taken_for_a_filter_that_hides_the_neighbourhood(built):
    """`met` of a walk that was is 0: its answer is not believed, and a scan follows."""
    queries = VECTORS[::20]
    rng = np.random.default_rng(3)
    for share in (0.1, 0.2, 0.3, 0.6):
        allowed = np.packbits(rng.random(PADDED) < share, bitorder="little")
        found = search(built, ef=20, queries=queries, allowed=allowed)
        assert (found.met == 0).mean() <= 0.05
    near = scan(VECTORS, queries[:1], ROWS // 2, built.meta["metric"])[0][0]
    away = np.packbits(~np.isin(np.arange(PADDED), near), bitorder="little")
    assert search(built, ef=20, queries=queries[:1], allowed=away).met[0] == 0


def test_thousands_of_hits_and_more_hits_than_rows(built):
    many = search(built, k=ROWS // 2, ef=ROWS // 2)
    truth = scan(VECTORS, QUERIES, ROWS // 2, built.meta["metric"])[1]
    assert recall(many, truth) > 0.9
    all_of_them = search(built, k=ROWS + 100, queries=QUERIES[:2])
    assert (np.sort(all_of_them.rows[:, :ROWS], axis=1) == np.arange(ROWS)).all()
    assert (all_of_them.rows[:, ROWS:] == -1).all()
    assert np.isinf(all_of_them.distances[:, ROWS:]).all()


def test_each_knob_turned_off_keeps_the_recall(built):
    truth = scan(VECTORS, QUERIES, 10, built.meta["metric"])[1]
    full = search(built)
    for off in ("pruning", "codes", "prefetch", "lazy"):
        without = search(built, knobs=graph.Knobs(**{off: False}))
        assert recall(without, truth) > recall(full, truth) - 0.03
    np.testing.assert_array_equal(search(built, knobs=graph.Knobs(prefetch=False)).rows, full.rows)


def test_the_counters_tell_what_was_done_and_pruned(built):
    visited, estimates, exact, pruned = search(built).counters / len(QUERIES)
    assert estimates == visited * 32
    assert 10 <= exact < 40
    assert pruned / estimates > 0.9
    dense = search(built, knobs=graph.Knobs(pruning=False)).counters / len(QUERIES)
    assert dense[1] == dense[3] == 0
    assert dense[2] > 200


def test_threads_give_the_answer_of_one(built):
    workers = Workers(3)
    try:
        queries = np.repeat(QUERIES, 4, axis=0)
        alone, together = (
            search(built, queries=queries),
            search(built, queries=queries, workers=workers),
        )
    finally:
        workers.close()
    np.testing.assert_array_equal(alone.rows, together.rows)
    np.testing.assert_array_equal(alone.counters, together.counters)


def test_callers_on_many_threads_never_share_scratch(built):
    expected = search(built).rows
    wrong: list[int] = []

    def client(i: int) -> None:
        for _ in range(1 if INTERPRETED else 20):
            if not (search(built).rows == expected).all():
                wrong.append(i)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_search_past_its_deadline_returns_what_it_has(built):
    found = search(built, deadline_ns=time.monotonic_ns() - 1)
    assert not found.complete
    assert (found.rows == -1).all()


@pytest.mark.parametrize(
    ("asked", "step"), [({}, 4), ({"allowed": THIRD}, 1), ({"allowed": THIRD, "scan": True}, 1)]
)
def test_a_deadline_is_looked_at_every_few_queries(built, asked, step):
    """Four walks with pools of 64 between two looks, or one where a filter may lengthen it."""
    many = np.tile(QUERIES, (2_000, 1))
    found = search(built, queries=many, deadline_ns=time.monotonic_ns() + 5_000_000, **asked)
    answered = int((found.rows[:, 0] >= 0).sum())
    assert not found.complete
    assert answered % step == 0
    assert (found.rows[:answered] >= 0).all()
    assert (found.rows[answered:] == -1).all()
    assert np.isinf(found.distances[answered:]).all()
    assert (found.met[answered:] == 0).all()


def test_a_deadline_that_does_not_come_changes_nothing(built):
    expected = search(built)
    found = search(built, deadline_ns=time.monotonic_ns() + 10**12)
    assert found.complete
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.counters, expected.counters)


def test_a_batch_does_not_wait_for_workers_that_are_busy(built):
    workers, gate = Workers(2), threading.Event()
    try:
        busy = workers._offer(gate.wait, 2)
        many = np.tile(QUERIES, (9, 1))
        assert search(built, queries=many, workers=workers).complete
        assert not any(future.done() for future in busy)
    finally:
        gate.set()
        workers.close()


def test_a_nan_query_finds_nothing_and_harms_nothing(built):
    queries = QUERIES.copy()
    queries[0, 5] = np.nan
    found = search(built, queries=queries)
    assert not np.isfinite(found.distances[0]).any()
    np.testing.assert_array_equal(found.rows[1:], search(built).rows[1:])


def test_float16_rows_are_rescored_as_they_are_stored():
    half = VECTORS.astype(np.float16)
    built = graph.build(half, "l2", ef_construction=64)
    found = graph.search(built, half, QUERIES, 10, 200, metric="l2")
    assert recall(found, scan(half, QUERIES, 10, "l2")[1]) > 0.98


def test_rows_or_queries_that_are_not_the_graphs_are_refused(built):
    metric = built.meta["metric"]
    for vectors, queries, k in (
        (VECTORS[:-1], QUERIES, 1),
        (VECTORS, QUERIES[:, :10], 1),
        (VECTORS, QUERIES, 0),
    ):
        with pytest.raises(ArgumentError):
            graph.search(built, vectors, queries, k, 10, metric=metric)
    with pytest.raises(ArgumentError):
        graph.search(built, VECTORS, QUERIES, 1, 10, metric="l2" if metric != "l2" else "ip")


def test_an_interrupt_ends_a_long_batch_before_all_of_it_is_done(built, monkeypatch):
    blocks, begun, into = 60, [], graph.Bound.into

    def watched(self, rows, *rest):
        if not begun:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        begun.append(len(rows))
        into(self, rows, *rest)

    def interrupt(*_):
        raise KeyboardInterrupt

    many = np.tile(QUERIES, (8192 * blocks // len(QUERIES), 1))
    monkeypatch.setattr(graph.Bound, "into", watched)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            search(built, queries=many)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert max(begun) == 8192
    assert len(begun) < blocks

"""Candidates from clusters: what is packed, who is grouped with whom, which links are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.graph.insert import select, turn_round
from vecdb.graph.job import ALPHA, Job, Records
from vecdb.graph.keys import make_key
from vecdb.graph.nearest import LANES, Clusters, choose_links, nearest_centres
from vecdb.kernels.jit import INTERPRETED
from vecdb.quant.record import record_distance
from vecdb.quant.space import fit_space

ROWS = 130 if INTERPRETED else 700
DEGREE = 32


@pytest.fixture(params=[5, 32, 33, 100], ids=lambda dim: f"{dim} dims")
def grouped(request):
    rng = np.random.default_rng(request.param)
    middles = rng.standard_normal((6, request.param)) * 3
    vectors = middles[rng.integers(0, 6, ROWS)] + rng.standard_normal((ROWS, request.param))
    vectors = vectors.astype(np.float32)
    job = Job(fit_space(vectors, "l2"), None, lambda *_: None, lambda: False, DEGREE, 200, ROWS)
    records = Records(vectors, job)
    return job, records, Clusters(job, records, seed=3)


def apart(records, row: int, other: int) -> np.float32:
    data, stride, inner = records.args
    return record_distance(data + int(row) * stride, data + int(other) * stride, inner)


def test_every_row_stands_once_in_the_cluster_of_its_nearest_centre(grouped):
    _job, records, clusters = grouped
    assert len(clusters.starts) - 1 == ROWS // 64
    assert sorted(clusters.rows) == list(range(ROWS))
    assert sorted(clusters.members[clusters.members >= 0]) == list(range(ROWS))
    labels = np.empty(ROWS, np.int32)
    nearest_centres(records.table.copy(), records.inner, *clusters.centres.args, labels)
    for cluster in range(len(clusters.starts) - 1):
        places = slice(*(LANES * clusters.starts[cluster : cluster + 2]))
        members = clusters.members[places]
        assert (labels[members[members >= 0]] == cluster).all()
        assert np.isinf(clusters.packed.norms[places][members < 0]).all()
    sizes = np.bincount(labels, minlength=len(clusters.starts) - 1)
    rows = records.decode(slice(None))
    middles = np.array([rows[labels == c].mean(0) for c in np.flatnonzero(sizes)])
    to_middles = np.square(rows[:, None] - middles).sum(2).min(1).mean()
    assert to_middles < 0.9 * np.square(rows).sum(1).mean()  # the centres tell places apart


def chosen(job, records, clusters, rows, compared, late=0):
    ranks = np.arange(ROWS, dtype=np.int32)
    links = np.full((ROWS, DEGREE), -1, np.int32)
    degrees = np.zeros(ROWS, np.int32)
    choose_links(
        *records.args, *clusters.centres.args, *clusters.packed.args, clusters.members,
        clusters.starts, ranks, late, rows, records.asks(rows), compared, 64, job.degree,
        np.float32(ALPHA), links, degrees,
    )  # fmt: skip
    return links, degrees


def test_with_all_rows_compared_links_are_chosen_among_the_very_nearest(grouped):
    job, records, clusters = grouped
    rows = np.sort(clusters.rows[:97])
    links, degrees = chosen(job, records, clusters, rows, 10 * ROWS)
    for row in rows[::8]:
        keys = np.sort([make_key(apart(records, row, other), other) for other in range(ROWS)])[:64]
        expected = np.full(DEGREE, -1, np.int32)
        count = select(
            *records.args, int(row), keys, 64, expected, DEGREE, np.float32(ALPHA)
        )  # fmt: skip
        found = {round(float(apart(records, row, o)), 3) for o in links[row, : degrees[row]]}
        wanted = {round(float(apart(records, row, o)), 3) for o in expected[:count]}
        assert len(found & wanted) >= 0.9 * len(wanted)  # distances of a tie differ by rounding


def test_fewer_compared_rows_are_those_of_the_nearest_clusters(grouped):
    job, records, clusters = grouped
    rows = np.sort(clusters.rows[:97])
    few, some = chosen(job, records, clusters, rows, 64)
    every, _ = chosen(job, records, clusters, rows, 10 * ROWS)
    assert (some[rows] > 0).all()
    near = np.mean([apart(records, row, few[row, 0]) for row in rows])
    assert np.mean([apart(records, row, every[row, 0]) for row in rows]) <= near
    other = np.random.default_rng(1).integers(0, ROWS, len(rows))
    assert near < 0.5 * np.mean([apart(records, *pair) for pair in zip(rows, other, strict=True)])


def test_an_early_row_chooses_among_the_rows_before_it(grouped):
    job, records, clusters = grouped
    rows = np.sort(clusters.rows[:97])
    links, degrees = chosen(job, records, clusters, rows, 10 * ROWS, late=ROWS // 2)
    for row in rows:
        reach = row if row < ROWS // 2 else ROWS
        assert degrees[row] == min(DEGREE, reach - (row >= ROWS // 2))
        assert (links[row, : degrees[row]] < reach).all()
    late = rows[rows >= ROWS // 2]
    assert any((links[row, : degrees[row]] > row).any() for row in late)


def test_links_are_turned_round_target_by_target_in_the_order_of_their_sources():
    rng = np.random.default_rng(2)
    degrees = rng.integers(0, 5, 40).astype(np.int32)
    links = rng.integers(0, 40, (40, 4)).astype(np.int32)
    rows = rng.permutation(40)[:25]
    ends = np.zeros(41, np.int64)
    sources = np.empty(degrees[rows].sum(), np.int32)
    turn_round(links, degrees, rows, ends, sources)
    for target in range(40):
        expected = [row for row in rows for other in links[row, : degrees[row]] if other == target]
        first = ends[target - 1] if target else 0
        assert sources[first : ends[target]].tolist() == expected

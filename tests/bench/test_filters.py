"""The figures of filtered search: truth, recall and the choice of the best beam are right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import filter_data, filter_plot, filter_rivals, filters
from bench.filter_rivals import LIBRARIES


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> filter_data.Rows:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((400, 5)).astype(np.float32)
    np.savez(tmp_path / "tiny-euclidean.npz", train=train, test=train[:60] + np.float32(0.01))
    monkeypatch.setenv("VECDB_DATA", str(tmp_path))
    return filter_data.rows_of("tiny-euclidean")


def test_favoured_queries_lie_where_the_filter_passes_and_excluded_ones_do_not(
    rows: filter_data.Rows,
) -> None:
    # query i lies on row i, whose rank is therefore the query's own
    near, far = (
        [rows.columns[name][number] for name, number in rows.asked[kind]]
        for kind in ("favoured", "excluded")
    )
    assert np.mean(near) < 0.3
    assert np.mean(far) > 0.7
    assert max(near[: filter_data.ANCHORS]) < 0.1  # the nearest query of each anchor


def test_regions_take_turns(rows: filter_data.Rows) -> None:
    for kind in ("favoured", "excluded"):
        names = [name for name, _ in rows.asked[kind]]
        regions = {f"rank{i}" for i in range(filter_data.ANCHORS)}
        assert set(names[: len(regions)]) == set(names[-len(regions) :]) == regions


@pytest.mark.parametrize("kind", filter_data.KINDS)
def test_brute_force_has_full_recall_and_half_of_it_half(rows: filter_data.Rows, kind: str) -> None:
    share = 0.3
    rough = filters.compared(rows.data, rows.queries(kind))
    truth = filters.nearest(rows, kind, share, rough)
    answers = []
    for name, number in rows.asked[kind]:
        passing = np.flatnonzero(rows.columns[name] < share)
        away = ((rows.data.train[passing] - rows.data.test[number]) ** 2).sum(axis=1)
        answers.append(passing[np.argsort(away)[: filter_data.K]].tolist())
    assert filters.recall(rows, kind, answers, truth) == 1
    halves = [ids[: filter_data.K // 2] for ids in answers]
    assert filters.recall(rows, kind, halves, truth) == pytest.approx(0.5)


def test_the_best_beam_is_the_fastest_that_reaches_the_wanted_recall() -> None:
    points = [
        {"kind": "random", "share": 0.1, "library": name, "recall": recall, "qps": qps}
        for name, recall, qps in [
            ("vecdb", 0.9, 900.0), ("vecdb", 0.96, 500.0), ("vecdb", 0.99, 200.0),
            ("target", 0.94, 999.0), ("scan", 1.0, 125.0), ("faiss", 0.99, 50.0),
            ("zvec", 0.95, 250.0), ("chroma", 0.5, 800.0), ("chroma", 0.94, 700.0),
        ]
    ]  # fmt: skip
    line = filters.summary(points, "random", 0.1)
    assert line["qps"] == {"vecdb": 500.0, "scan": 125.0, "faiss": 50.0, "zvec": 250.0}
    assert (line["rival"], line["x_rival"], line["x_scan"]) == ("zvec", 2.0, 4.0)
    points.append({**points[0], "library": "target", "recall": 0.95, "qps": 1000.0})
    assert filters.summary(points, "random", 0.1)["x_rival"] == 4.0
    assert filters.fastest(points, "random", 0.1)["chroma"]["recall"] == 0.94
    assert filters.summary(points, "random", 0.3)["qps"] == {}


def test_the_picture_shows_every_library_that_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [
        {"kind": kind, "share": share, "library": name, "recall": 0.9, "qps": 100.0}
        for name in LIBRARIES for kind in filter_data.KINDS for share in filter_data.SHARES
    ]  # fmt: skip
    filter_plot.plot(points, tmp_path / "a.png", "a set")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert set(filter_plot._LOOKS) == set(LIBRARIES)


def test_the_loss_by_a_filter_that_passes_most_is_measured_query_by_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    asked = []

    class Slower:
        beams = (16, 32)

        def search(self, query: int, column: str, share: float, beam: int) -> None:
            asked.append((query, share, beam))
            pace = 1.0 if len(asked) <= 20 else 3.0  # the machine becomes slower
            if len(asked) % 3 == 0:  # and does something else now and then
                pace *= 10
            clock[0] += pace * (1.25 if share < 1 else 1.0)

    subject = filter_rivals.Subject.__new__(filter_rivals.Subject)
    rows = SimpleNamespace(
        asked={"random": [("dice", 0), ("dice", 1), ("dice", 2)]},
        data=SimpleNamespace(test=[7, 8, 9]),
    )  # fmt: skip
    vars(subject).update(_library=Slower(), _rows=rows, _seconds=100.0)
    monkeypatch.setattr(filter_rivals.time, "perf_counter", lambda: clock[0])
    assert subject.kept("random") == {16: pytest.approx(0.8), 32: pytest.approx(0.8)}
    each = 2 * filter_rivals.REPEATED
    assert asked[:each] == [(7, 0.99, 16), (7, 1.0, 16)] * filter_rivals.REPEATED
    assert [query for query, *_ in asked[: 3 * each : each]] == [7, 8, 9]

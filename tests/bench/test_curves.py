"""The frontier of measured points and the reading at a fixed recall."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.curves import Point, draw, frontier, qps_at

POINTS = [Point(10, 0.8, 1000), Point(20, 0.9, 400), Point(30, 0.88, 300), Point(40, 0.98, 100)]


def test_the_frontier_leaves_out_what_another_point_beats() -> None:
    assert [p.ef for p in frontier(POINTS)] == [10, 20, 40]


def test_qps_between_two_points_is_interpolated_in_its_logarithm() -> None:
    assert qps_at(POINTS, 0.94) == pytest.approx(200)  # half way between 400 and 100
    assert qps_at(POINTS, 0.9) == pytest.approx(400)


def test_below_the_first_point_nothing_is_extrapolated() -> None:
    assert qps_at(POINTS, 0.5) == pytest.approx(1000)


def test_a_recall_that_no_point_reaches_has_no_qps() -> None:
    assert qps_at(POINTS, 0.99) is None
    assert qps_at([], 0.9) is None


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path / "a.png", "a set", {"vecdb": POINTS, "hnswlib": POINTS[:2], "none": []})
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

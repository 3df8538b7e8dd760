"""vecdb's side of the benchmarks runs, on a few rows; figures are nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import datasets
from bench.filter_data import KINDS
from bench.stores import STORES, footprint, make_rows

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str) -> list[dict]:
    """The JSON lines that a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *arguments],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [record for record in records if "failed" in record]
    return records[1:]


@pytest.mark.parametrize("name", ["vecdb", "vecdb sync=os"])
def test_vecdb_keeps_what_the_store_benchmarks_give_it(name: str, tmp_path: Path) -> None:
    store = STORES[name]()
    store.create(tmp_path / "store", 24)
    for first in (0, 300):
        store.add(store.prepare(make_rows(first, 300, 24)))
    assert store.search(make_rows(300, 300, 24).vectors[7], 3)[0] == 307
    store.optimize()
    store.close()
    store.open(tmp_path / "store")
    assert store.get([5, 599]) == 2
    assert store.search(make_rows(0, 300, 24).vectors[5], 3)[0] == 5
    store.close()
    assert footprint(tmp_path / "store")["files"] >= 2


def test_rows_of_a_batch_depend_on_nothing_but_its_place() -> None:
    one, two = make_rows(100, 50, 8), make_rows(100, 50, 8)
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert one.columns == two.columns
    assert one.ids.tolist() == list(range(100, 150))


def test_swaps_under_searching_threads_give_no_wrong_answer() -> None:
    (line,) = run("swaps", "--seconds", "0.5")
    assert line["errors"] == 0, line
    assert line["swaps_per_s"] > 0
    assert line["searches_per_s"] > 0


def test_ingest_and_singles_report_a_figure_for_vecdb() -> None:
    one, medians = run("ingest", "--stores", "vecdb", "--batches", "5", "--passes", "1")
    assert one["rows"] == 5000
    assert one["files"] >= 2
    assert medians["rows_per_s"]["median"] > 0
    (line,) = run("singles", "--stores", "vecdb sync=os", "--rows", "250", "--dim", "16")
    assert (line["not_found_at_once"], line["rows"]) == (0, 250)
    few = run(
        "singles", "--stores", "vecdb sync=os", "--rows", "250", "--dim", "16", "--seconds", "0.001"
    )
    assert 0 < few[0]["rows"] < 250


def test_opening_reports_a_figure_for_vecdb() -> None:
    (line,) = run("open", "--stores", "vecdb", "--rows", "3000", "--dim", "16", "--passes", "1")
    assert line["open_ms"]["median"] > 0
    assert line["files"] > 0


def test_the_engine_reaches_a_recall_and_reads_its_qps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = datasets.sift_like(rows=2500, queries=60)
    np.savez(tmp_path / "few-128-euclidean.npz", train=data.train, test=data.test)
    lines = run(
        "engine", "--set", str(tmp_path / "few-128-euclidean.npz"), "--only",
        "vecdb,vecdb (1 a call)", "--passes", "1",
    )  # fmt: skip
    reached = [line["recall"] for line in lines if "recall" in line]
    assert max(reached) > 0.98
    assert lines[-1]["qps_at"]["0.95"] > 0


def test_breadth_compares_a_made_set_with_hnswlib() -> None:
    pytest.importorskip("hnswlib")
    (line,) = run("breadth", "--sets", "uniform", "--rows", "2500", "--passes", "1")
    assert line["default_recall"] > 0.95
    assert all(ratio > 0 for ratio in line["ratio"])


def test_targets_and_the_speed_of_filters_are_reported(tmp_path: Path) -> None:
    data = datasets.sift_like(rows=2500, queries=200)
    np.savez(tmp_path / "few-128-euclidean.npz", train=data.train, test=data.test)
    few = str(tmp_path / "few-128-euclidean.npz")
    nothing, *lines = run("targets", few, "--targets", ".9", "--shares", ".5", "1")
    assert nothing == {"asked": "nothing yet"}
    points = [line for line in lines if "recall" in line]
    assert len(points) == 6
    assert min(line["recall"] for line in points) > 0.85
    walked = [point for point in points if "points" in point]
    assert {point["kind"] for point in walked if point["share"] == 1} == set(KINDS)
    for line in lines[6:]:
        away = [point["points"] for point in walked if point["kind"] == line["worst"]]
        assert line["scans"] == 2 - len(away)
        assert min(away) <= line["below"] <= line["above"] <= max(away)
        assert line["below_give_or_take"] >= 0
    own = run("targets", few, "--targets", ".9", "--shares", "1", "--kinds", "random", "--own")
    assert [line["calibrated_on"] for line in own[:2]] == [100, 100]
    assert [line["asked"] for line in own[2:4]] == ["queries", "queries"]
    assert own[4]["recall"] > 0.85
    small = "targets", few, "--targets", ".9", "--shares", ".1", "--kinds", "random"
    assert run(*small)[1]["scanned"] == 1
    walked = run(*small, "--walk")[1]  # as far as a graph is calibrated for so few rows
    assert walked["scanned"] < 1
    timed = run("filter_speed", "--rows", "5000")
    assert [line["what"] for line in timed] == ["columns", "first", "again", "again"]

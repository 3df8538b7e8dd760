"""The benchmarks of large stores, at the size of a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vecdb
from bench import beyond_memory, load_10b, load_real, sparse
from bench.datasets import sift_like

SOLID = 4000
DATA = sift_like(SOLID + 4 * sparse.SOWN, 20)
ROWS = DATA.train.astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One segment of real rows with a graph."""
    vecdb.warmup()
    sparse.found(tmp_path / "store", ROWS[:SOLID])
    return tmp_path / "store"


def test_a_billion_rows_take_little_disk_and_every_real_one_is_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = sparse.patches(ROWS[SOLID:])
    for rows in (1_000_000, 1_000_000_000):
        sown = sparse.grow(store, rows, ROWS[SOLID:], graphs)
    logical, used = sparse.bytes_used(store)
    assert logical > 1e12
    assert used < 1e8
    assert len(list(store.glob("seg-*"))) == len(list(store.glob("idx-*"))) == 5
    opened = load_10b.Fresh(store).measure()
    assert opened["rows"] == 1_000_000_000
    monkeypatch.setattr(load_10b, "SOLID", SOLID)
    monkeypatch.setattr(load_10b, "LOOKS", 5)
    picks = np.arange(0, SOLID, 600)
    serving = load_10b.Serving(store, sown, sparse.Sown(picks, ROWS[picks]))
    assert serving.measure(0)["first_search_everywhere_ms"] > 0  # it checks each answer itself


def test_rows_between_the_holes_are_as_they_were_written(store: Path) -> None:
    sown = sparse.grow(store, 100_000_000, ROWS[SOLID:], sparse.patches(ROWS[SOLID:]))
    with vecdb.open(store) as col:
        table = col.get(sown.ids, vectors=True)
        found = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 128)
        np.testing.assert_array_equal(found, sown.vectors)
        hits = col.search(sown.vectors, 1)
        np.testing.assert_array_equal(hits.ids[:, 0], sown.ids)
        assert hits.plan.strategy == "graph"


_TOUCH = """
import sys
import numpy as np, pyarrow.compute
import vecdb

def counters():
    io = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    status = open("/proc/self/status").read()
    return np.array([int(io["rchar"]), 1024 * int(status.split("VmHWM:")[1].split()[0])])

known = np.load(sys.argv[2])
vecdb.warmup()
before = counters()
with vecdb.open(sys.argv[1]) as col:
    assert len(col) == int(sys.argv[3])
    assert col.get(known["ids"], vectors=True)["id"].to_pylist() == known["ids"].tolist()
    assert col.search(known["vectors"], 1).ids[:, 0].tolist() == known["ids"].tolist()
    print(*(counters() - before))
"""


def test_a_hundred_times_the_rows_are_opened_and_searched_without_more_reading_or_memory(
    store: Path, tmp_path: Path
) -> None:
    graphs = sparse.patches(ROWS[SOLID:])
    found = []
    for rows in (20_000_000, 2_000_000_000):
        sown = sparse.grow(store, rows, ROWS[SOLID:], graphs)
        np.savez(tmp_path / "known.npz", ids=sown.ids[::16], vectors=sown.vectors[::16])
        command = [sys.executable, "-c", _TOUCH, str(store), str(tmp_path / "known.npz"), str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        found.append([int(value) for value in done.stdout.split()])
    (read, resident), (read_more, resident_more) = found
    assert read_more < read + 100_000
    assert resident_more < resident + (32 << 20)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(file.name for file in store.iterdir())
    graphs = sparse.patches(ROWS[SOLID : SOLID + 64])
    with pytest.raises(OSError, match="bytes needed"):
        sparse.grow(store, 10**15, ROWS[SOLID : SOLID + 64], graphs)
    assert sorted(file.name for file in store.iterdir()) == before


def test_a_file_system_without_sparse_files_is_refused_before_anything_is_written(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(file.name for file in store.iterdir())
    real = os.fstat

    def dense(fd: int) -> os.stat_result:
        found = list(real(fd))
        return os.stat_result(found, {"st_blocks": real(fd).st_size // 512})

    monkeypatch.setattr(sparse.os, "fstat", dense)
    with pytest.raises(OSError, match="no sparse files"):
        sparse.grow(store, 10**8, ROWS[SOLID:], sparse.patches(ROWS[SOLID:]))
    assert sorted(file.name for file in store.iterdir()) == before


def test_noisy_copies_are_searched_with_the_graph_of_the_first(store: Path) -> None:
    with vecdb.open(store) as col:
        nbytes = col._store.snapshot.parts[0].segment.nbytes
    assert load_real.copy_segments(store, 3 * nbytes) == 3 * SOLID
    with vecdb.open(store) as col:
        assert len(col) == 3 * SOLID
        hits = col.search(ROWS[:50], 3)
        assert (np.sort(hits.ids % SOLID, axis=1) == np.arange(50)[:, None]).mean() > 0.95
        assert col.verify()["ok"]


@pytest.mark.parametrize("name", ["vecdb", "read", "fromfile"])
def test_every_way_to_load_reports_time_bytes_and_memory(store: Path, name: str) -> None:
    figures = load_real.Loader(name, store, 1 << 30).measure(DATA.test.astype(np.float32))
    assert figures["gb"] == pytest.approx(sum(f.stat().st_size for f in store.iterdir()) / 1e9)
    assert figures["load_ms"] > 0
    assert ("first_query_ms" in figures) == (name == "vecdb")


def test_a_process_in_a_group_of_its_own_searches_within_its_limit(store: Path) -> None:
    queries = np.tile(DATA.test.astype(np.float32), (beyond_memory.QUERIES // 20, 1))
    try:
        with beyond_memory.control_group() as group:
            process = beyond_memory.Apart(
                beyond_memory.Limited, group, store, 0.5, "read", 2, queries
            )
            figures = process.call("measure", 32)
            process.close()
    except OSError as error:
        pytest.skip(f"no control group of our own: {error}")
    assert figures["ids"].shape == (200, 10)
    assert figures["qps_batch"] > 0

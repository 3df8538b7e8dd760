"""Graphs as the store keeps them: built, used, merged, and done without when damaged."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import kernels
from vecdb.errors import Cancelled, CorruptionError
from vecdb.store import compaction, loading
from vecdb.store.compaction import INDEX_ROWS

ROWS = INDEX_ROWS + 500
DIM = 16


def clustered(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, DIM)) * 4
    picks = centres[rng.integers(0, 20, rows)]
    return (picks + rng.normal(size=(rows, DIM))).astype(np.float32)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one segment with its graph."""
    path = tmp_path_factory.mktemp("indexed") / "store"
    with vecdb.create(path, DIM, metric="l2", sync="os") as col:
        col.add(clustered())
        col.optimize()
        assert col.stats()["indexed"] == 1
    return path


@pytest.fixture
def copy(indexed: Path, tmp_path: Path) -> Path:
    """A copy of that store which may be damaged."""
    path = tmp_path / "copy"
    path.mkdir()
    for file in indexed.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def nearest(col: Any) -> list[list[int]]:
    vecdb.warmup()
    found: list[list[int]] = col.search(clustered(20, seed=1), k=5, ef_search=200).ids.tolist()
    return found


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_a_graph_is_stored_and_found_again(indexed: Path) -> None:
    with vecdb.open(indexed) as col:
        part = col._store.snapshot.parts[0]
        assert part.data.graph is not None
        answers = nearest(col)
        exact = col.search(clustered(20, seed=1), k=5, exact=True).ids.tolist()
    same = sum(len(set(a) & set(b)) for a, b in zip(answers, exact, strict=True))
    assert same >= 95  # of 100


def test_rows_of_a_compact_graph_are_read_and_not_mapped(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((12_000, 128), dtype=np.float32)
    with vecdb.create(
        tmp_path / "store", 128, "l2", index=vecdb.Hnsw(codes="int8"), sync="os"
    ) as col:
        col.add(rows)
        col.optimize()
    vecdb.warmup()
    del col
    gc.collect()  # the writer had mapped all of them
    with vecdb.open(tmp_path / "store") as col:
        hits = col.search(rows[:500], 10)
        segment = col._store.snapshot.parts[0].segment
        maps = Path("/proc/self/smaps").read_text().split(str(segment.files[0].path))[1]
        assert int(maps.split("Rss:")[1].split()[0]) < 256
        assert segment.graph is not None
        segment.graph.read_rows_from(None, -1, 0)
        touched = col.search(rows[:500], 10)
        np.testing.assert_array_equal(hits.ids, touched.ids)
        np.testing.assert_array_equal(hits.distances, touched.distances)
        segment.graph.read_rows_from(None, 1 << 20, 0)  # no such descriptor: the mapping has them
        np.testing.assert_array_equal(col.search(rows[:500], 10).ids, hits.ids)


def test_rows_of_a_store_beyond_memory_are_read_and_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).standard_normal((12_000, 128), dtype=np.float32)
    with vecdb.create(tmp_path / "store", 128, "l2", sync="os") as col:
        col.add(rows)
        col.optimize()
    vecdb.warmup()
    answers = []
    for memory, reads in ((1 << 40, False), (1 << 20, True)):
        monkeypatch.setattr("vecdb.segment.index.usable_memory", lambda memory=memory: memory)
        with vecdb.open(tmp_path / "store") as col:
            answers.append(col.search(rows[:100], 10).distances)
            graph = col._store.snapshot.parts[0].segment.graph
            assert graph is not None
            assert (graph._source[1] >= 0) == reads
    np.testing.assert_array_equal(*answers)


def test_a_reader_follows_to_a_segments_new_graph(copy: Path) -> None:
    next(copy.glob("idx-*")).unlink()
    reader = vecdb.open(copy)
    nearest(reader)
    assert reader.stats()["segments_indexed"] == 0
    with vecdb.open(copy, "w") as col:
        col.optimize()
    reader.refresh()
    assert reader.stats()["segments_indexed"] == 1
    reader.close()


def test_a_graph_that_is_replaced_while_a_reader_opens_is_opened_in_its_new_file(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vecdb.warmup()
    read_manifest = loading.read_manifest
    with vecdb.open(copy, "w") as col:
        compactor = col._store._compactor
        assert compactor is not None

        def overtaken(*args: Any) -> Any:
            manifest = read_manifest(*args)
            monkeypatch.undo()
            compactor._index(col._store.snapshot.parts[0], compactor._questions())
            return manifest

        monkeypatch.setattr(loading, "read_manifest", overtaken)
        with vecdb.open(copy) as reader:
            assert reader.stats()["segments_indexed"] == 1
            assert reader.stats()["generation"] == col.stats()["generation"]
    assert not caplog.text


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty", "swap"])
def test_a_damaged_index_costs_time_and_never_an_answer(
    copy: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = copy.glob("idx-*")
    whole = path.read_bytes()
    if damage == "flip":
        path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    elif damage == "swap":
        (other,) = copy.glob("seg-*")
        path.write_bytes(other.read_bytes())
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncate" else b"")
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(copy, verify="full") as col:
        exact = col.search(clustered(20, seed=1), k=5, exact=True).ids.tolist()
        assert nearest(col) == exact
        assert col.stats()["indexed"] == 0
        if damage == "flip":
            assert path.name in col.verify()["problems"][0]
    assert "exact scan until the index is rebuilt" in caplog.text
    assert path.name in caplog.text
    with vecdb.open(copy, "w") as col:  # the writer rebuilds it without being asked
        nearest(col)
        assert eventually(lambda: col.stats()["indexed"] == 1)
        assert col.verify()["ok"]


def test_damage_in_a_section_too_large_to_wait_for_is_found_after_the_first_search(
    copy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = copy.glob("idx-*")
    damaged = bytearray(path.read_bytes())
    damaged[9000] ^= 1
    path.write_bytes(damaged)
    monkeypatch.setattr("vecdb.segment.index.HASHED_BYTES", 0)
    with caplog.at_level(logging.WARNING, "vecdb"), vecdb.open(copy) as reader:
        pinned = reader.snapshot()
        nearest(reader)
        for col in (reader, pinned):
            assert eventually(lambda col=col: col.stats()["indexed"] == 0)
            exact = col.search(clustered(20, seed=1), k=5, exact=True).ids.tolist()
            assert nearest(col) == exact
    assert caplog.text.count("exact scan until the index is rebuilt") == 1
    assert path.name in caplog.text
    with vecdb.open(copy, "w") as col:  # the writer finds it too, and builds another
        nearest(col)
        assert eventually(lambda: col.verify()["ok"])
        assert col.stats()["indexed"] == 1


def test_a_check_in_the_background_ends_with_the_last_handle(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb.segment import index

    seen: list[str] = []
    check = index._check

    def watched(*args: Any) -> None:
        seen.append("begun")
        check(*args)
        seen.append("ended")

    monkeypatch.setattr(index, "_check", watched)
    monkeypatch.setattr(index, "HASHED_BYTES", 0)
    with index._turn:  # the check waits
        with vecdb.open(copy) as reader:
            nearest(reader)
            assert eventually(lambda: seen == ["begun"])
        del reader
        gc.collect()
        assert str(copy) not in Path("/proc/self/maps").read_text()
    assert eventually(lambda: seen == ["begun", "ended"])


FORK = """
import os, sys, time
import numpy as np
import vecdb
from vecdb.segment import index
vecdb.warmup()
index.HASHED_BYTES = index._AT_ONCE = index._PAUSE = 0
index._turn.acquire()  # as a thread has it that checks another store's index
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with vecdb.open(sys.argv[1]) as col:
    assert len(col.search(np.ones(16), 5)) == 5  # the graph is in use, not hashed yet
    end = time.monotonic() + 20
    while col.stats()["indexed"] and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(col.stats()["indexed"] != 0)
"""


def test_a_child_checks_an_index_though_its_parent_was_checking_one(copy: Path) -> None:
    (path,) = copy.glob("idx-*")
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    subprocess.run([sys.executable, "-c", FORK, str(copy)], check=True, timeout=120)


def test_vectors_that_changed_are_never_indexed(copy: Path) -> None:
    (index,) = copy.glob("idx-*")
    index.unlink()
    (path,) = copy.glob("seg-*")
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with vecdb.open(copy, "w") as col, pytest.raises(CorruptionError, match=path.name):
        col.optimize()


def test_deleted_rows_leave_graph_and_bytes(copy: Path) -> None:
    with vecdb.open(copy, "w") as col:
        before = col.stats()["bytes"]
        col.delete(np.arange(0, ROWS, 2))
        assert not any(i % 2 == 0 for row in nearest(col) for i in row)
        col.add(clustered(ROWS // 2, seed=3), ids=np.arange(ROWS, ROWS + ROWS // 2))
        col.optimize()
        stats = col.stats()
        assert (stats["segments"], stats["indexed"], stats["tombstones"]) == (1, 1, 0)
        exact = col.search(clustered(20, seed=1), k=5, exact=True).ids.tolist()
        same = sum(len(set(a) & set(b)) for a, b in zip(nearest(col), exact, strict=True))
        assert same >= 95
        col.delete(np.arange(ROWS, ROWS + ROWS // 2))
        col.optimize()
        assert col.stats()["bytes"] < 0.6 * before


def test_closing_ends_a_build_that_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb import graph

    vecdb.warmup()
    begun, ends = threading.Event(), []
    build = graph.build

    def watched(*args: Any, **options: Any) -> Any:
        begun.set()
        try:
            return build(*args, **options)
        except BaseException as error:
            ends.append(type(error))
            raise

    monkeypatch.setattr(graph, "build", watched)
    col = vecdb.create(tmp_path / "store", 64, metric="l2", sync="os")
    rng = np.random.default_rng(0)
    col.add(rng.normal(size=(40_000, 64)).astype(np.float32))
    col.flush()
    assert begun.wait(60)
    col.close()
    assert ends == [Cancelled]
    with vecdb.open(tmp_path / "store") as reader:
        assert len(reader) == 40_000


def test_the_background_goes_on_after_a_build_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "INDEX_ROWS", 40)
    monkeypatch.setattr(compaction, "_QUIET", 0)
    wait, given_up = kernels.wait, threading.Event()

    def gives_up_once(give_up: Any) -> bool:
        first = not given_up.is_set()
        given_up.set()
        return not first and wait(give_up)

    monkeypatch.setattr(kernels, "wait", gives_up_once)
    rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    with vecdb.create(tmp_path / "store", 8, "l2", sync="os") as col:
        col.add(rows)
        col.flush()
        assert given_up.wait(60)
        col.add(rows)
        col.flush()
        end = time.monotonic() + 60
        while not col.stats()["segments_indexed"] and time.monotonic() < end:
            time.sleep(0.01)
        assert col.stats()["segments_indexed"]


def test_closing_ends_an_optimize_that_is_going_on_with_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "INDEX_ROWS", 40)
    monkeypatch.setattr(compaction, "_QUIET", 1e9)  # nothing in the background
    waits, ends = threading.Event(), []

    def until_told(give_up: Any) -> bool:
        waits.set()
        while not give_up():
            time.sleep(0.01)
        return False

    monkeypatch.setattr(kernels, "wait", until_told)
    col = vecdb.create(tmp_path / "store", 8, "l2", sync="os")
    col.add(np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32))

    def optimize() -> None:
        try:
            col.optimize()
        except Exception as error:
            ends.append(type(error))

    thread = threading.Thread(target=optimize)
    thread.start()
    assert waits.wait(60)
    col.close()
    thread.join(60)
    assert ends == [vecdb.ClosedError]

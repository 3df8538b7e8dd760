"""Nothing gathers: descriptors, mappings, threads, files and memory stay flat."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from breaking import inject, model

import vecdb
from vecdb.store.names import LOCK

pytestmark = pytest.mark.usefixtures("small_store")


def resident() -> int:
    """Bytes of this process's own memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def orphan_bytes(path: Path) -> int:
    """Bytes of files that the newest generation of a closed store does not need."""
    there = sum(file.stat().st_size for file in path.iterdir() if file.name != LOCK)
    return there - int(vecdb.store.verify(path)["bytes"])


def test_1_000_openings_leave_nothing_behind(tmp_path: Path, held: Any) -> None:
    path = tmp_path / "store"
    with inject.calls(inject.NoSync()):
        model.make(path).close()
        vecdb.warmup()
        before = set(threading.enumerate())
        memory = 0
        for cycle in range(1_000):
            with vecdb.open(path, "w", threads=1) as col:
                model.apply(col, model.Op("upsert", {cycle % 60: cycle, 100 + cycle % 7: cycle}))
                if cycle % 10 == 0:
                    col.optimize()
                with vecdb.open(path, threads=1) as reader:
                    reader.refresh()
                    reader.search(np.ones(model.DIM, np.float32), 3)
            if cycle == 200:
                memory = resident()
            if cycle % 50 == 0:
                assert orphan_bytes(path) == 0
        assert resident() - memory < 16 << 20
    assert held(path) == (0, 0)
    assert not set(threading.enumerate()) - before
    assert orphan_bytes(path) == 0
    assert len(list(path.iterdir())) <= 12


def test_a_reader_that_refreshes_holds_the_newest_files_alone(tmp_path: Path, held: Any) -> None:
    path = tmp_path / "store"
    with inject.calls(inject.NoSync()), model.make(path) as col, vecdb.open(path) as reader:
        for cycle in range(100):
            model.apply(col, model.Op("upsert", dict.fromkeys(range(20), cycle)))
            col.optimize()
            assert reader.refresh()
            assert model.content(reader) == dict.fromkeys(range(20), cycle)
        # two handles, each a segment and what was just replaced
        assert max(held(path)) <= 8


def test_views_alone_keep_a_mapping_and_the_last_one_lets_go(tmp_path: Path, held: Any) -> None:
    path = tmp_path / "store"
    col = model.make(path)
    model.apply(col, model.Op("add", dict.fromkeys(range(60), 1)))
    col.flush()
    view = col.vectors[10:20]
    column = col.query(select="version").column("version")
    wanted = view.copy()
    model.apply(col, model.Op("upsert", dict.fromkeys(range(60), 2)))
    col.optimize()
    col.close()
    assert np.array_equal(view, wanted)
    assert column.to_pylist()[0] == 1
    assert held(path)[1] > 0
    del view, column
    assert held(path)[1] == 0


@pytest.mark.long
def test_a_week_in_an_hour(tmp_path: Path) -> None:
    """Mixed load with compaction for an hour (VECDB_TEST_SECONDS for another time): flat."""
    stop = time.monotonic() + float(os.environ.get("VECDB_TEST_SECONDS", "3600"))
    path = tmp_path / "store"
    rng = random.Random(0)
    state: model.State = {}
    sizes: list[tuple[int, int]] = []
    seed = 0
    with model.make(path, sync="os") as col, vecdb.open(path) as reader:
        while time.monotonic() < stop:
            seed += 1
            for op in model.plan(seed, state, 40):
                if op.kind == "columns":
                    continue
                model.apply(col, op)
                state = model.after(state, op)
            if len(state) > 1_000:
                gone = model.Op("delete", dict.fromkeys(rng.sample(sorted(state), 500), 0))
                model.apply(col, gone)
                state = model.after(state, gone)
            reader.refresh()
            model.check(reader, [state])
            sizes.append((resident(), col.stats()["bytes"]))
    warm = sizes[len(sizes) // 4 :]
    half = len(warm) // 2
    for of in (0, 1):
        early = np.median([size[of] for size in warm[:half]])
        late = np.median([size[of] for size in warm[half:]])
        assert late < early * 1.2 + (8 << 20)

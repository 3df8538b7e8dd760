"""The operating system says no: a typed error, no false acknowledgement, readers go on.

Every kind of call fails (ENOSPC, EIO, too many files) once, at each of its uses all over a
workload, or from one of them on for good; writes come out short; a real disk is full; memory runs
out. Afterwards the handle reads on, refuses to write, and a reopened store is complete. Run long:
``pytest -m long tests/reliability/test_io_errors.py``, both at each use in three more workloads,
a minute.
"""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from breaking import inject, jobs, model
from breaking.farm import Farm

import vecdb
from vecdb.schema import Schema
from vecdb.segment import write_segment
from vecdb.segment.format import Header, Kind
from vecdb.segment.fs import Directory
from vecdb.segment.sparse import Sparse

pytestmark = pytest.mark.usefixtures("small_store")

FAILURES = [
    (frozenset({"writev"}), errno.ENOSPC),
    (frozenset({"writev"}), errno.EIO),
    (inject.SYNCS, errno.EIO),
    (inject.SYNCS, errno.ENOSPC),
    (frozenset({"rename"}), errno.EIO),
    (frozenset({"rename"}), errno.ENOSPC),
    (frozenset({"open"}), errno.EMFILE),
    (frozenset({"open"}), errno.ENOSPC),
    (frozenset({"mmap"}), errno.ENOMEM),
    (frozenset({"pread"}), errno.EIO),
    (frozenset({"unlink"}), errno.EIO),
]
of_every_kind = pytest.mark.parametrize(
    ("only", "error"),
    FAILURES,
    ids=[f"{'/'.join(sorted(o))}-{errno.errorcode[e]}" for o, e in FAILURES],
)


def prepared(path: Path) -> model.State:
    """A store with some history, ended by a handle that never closed (so there is a log)."""
    ops = model.plan(11, {}, 12)
    with model.make(path) as col:
        for op in ops:
            model.apply(col, op)
    return model.states({}, ops)[-1]


def run_failing(path: Path, start: model.State, seed: int, hook: inject.Counting) -> model.State:
    """A workload under a hook; returns the content it must have left, after every check."""
    ops = model.plan(seed, start, 14)
    states = model.states(start, ops)
    possible = [start]
    refused = False
    with inject.calls(hook):
        try:
            col = vecdb.open(path, "w", threads=1)
        except vecdb.VecdbError:
            ops, refused = [], True
        for number, op in enumerate(ops):
            try:
                model.apply(col, op)
            except vecdb.VecdbError:
                refused = True
                assert hook.struck is not None
                assert model.content(col) == states[number], "reads do not go on"
                possible = states[number : number + 2]
                if col.state != "poisoned":  # a merge or a graph that was given up, nothing else
                    assert op.kind in ("flush", "optimize")
                    continue
                with pytest.raises(vecdb.PoisonedError):
                    col.delete(sorted(states[number])[:1] or [0])
                with pytest.raises(vecdb.PoisonedError):
                    col.add(model.vectors_of([5000], [1]), [5000], model.metadata_of([5000], [1]))
                break
            possible = [states[number + 1]]
        if ops:
            refused |= col.state == "poisoned"
            try:
                col.close()
            except vecdb.VecdbError:
                refused = True
                assert hook.struck is not None
    assert refused or hook.struck != "fdatasync", "what is not on the disk was acknowledged"
    with vecdb.open(path, "r", threads=1) as reader:
        seen = model.content(reader)
    with vecdb.open(path, "w", threads=1) as col:
        state = model.check(col, possible)
        col.add(model.vectors_of([6000], [1]), [6000], model.metadata_of([6000], [1]))
        col.delete([6000])
    assert seen == state
    return state


def refuse(
    folder: Path, seed: int, only: frozenset[str], error: int, *, lasting: bool, most: int
) -> None:
    """Run a workload once for each of its calls, at most `most`, that one refused."""
    origin, path = folder / "origin", folder / "store"
    start = prepared(origin)
    shutil.copytree(origin, path)
    counting = inject.Counting(None, only)
    run_failing(path, start, seed, counting)
    every = range(1, counting.count + 1)
    assert len(every) >= 3
    for at in every if len(every) <= most else random.Random(error).sample(every, most):
        shutil.rmtree(path)
        shutil.copytree(origin, path)
        run_failing(path, start, seed, inject.Failing(at, error, only, lasting=lasting))


@of_every_kind
def test_a_refused_call_is_never_a_lost_row(
    only: frozenset[str], error: int, tmp_path: Path
) -> None:
    refuse(tmp_path, 21, only, error, lasting=False, most=1000)


@of_every_kind
def test_a_disk_that_refuses_from_now_on_is_never_a_lost_row(
    only: frozenset[str], error: int, tmp_path: Path
) -> None:
    refuse(tmp_path, 21, only, error, lasting=True, most=12)


@pytest.mark.long
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("seed", [22, 23, 24])
@of_every_kind
def test_every_refused_call_of_other_workloads_is_never_a_lost_row(
    only: frozenset[str], error: int, seed: int, lasting: bool, tmp_path: Path
) -> None:
    refuse(tmp_path, seed, only, error, lasting=lasting, most=1000)


def test_a_refused_hole_leaves_no_file(tmp_path: Path) -> None:
    """The one use of truncation: segments whose rows are nearly all zero."""
    directory = Directory(tmp_path)
    schema = Schema(8, "l2")
    vectors = Sparse(5_000, np.array([7, 4_000]), np.ones((2, 8), np.float32))

    def write(at: int | None) -> int:
        with inject.calls(inject.Failing(at or -1, errno.ENOSPC, frozenset({"ftruncate"}))) as hook:
            write_segment(
                directory, "seg-00000001.vdb", Header(Kind.SEGMENT, bytes(16), 1), schema, 5_000,
                vectors=[vectors], ids=range(5_000), column=lambda name: None,
            )  # fmt: skip
        return hook.count

    count = write(None)
    assert count == 3
    directory.unlink("seg-00000001.vdb")
    for at in range(1, count + 1):
        with pytest.raises(vecdb.StorageError, match="free some space"):
            write(at)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [16, 500, 4096])
def test_short_writes_are_gone_on_with(size: int, tmp_path: Path) -> None:
    ops = model.plan(5, {}, 20)
    with inject.calls(inject.Short(size)) as hook:
        with model.make(tmp_path / "store", sync="os") as col:
            for op in ops:
                model.apply(col, op)
        assert hook.shortened > 0
    with vecdb.open(tmp_path / "store", verify="full") as col:
        model.check(col, [model.states({}, ops)[-1]])


FULL_DISK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import vecdb
from breaking import model
root = Path(sys.argv[2])
ballast = root / "ballast"
disk = os.statvfs(root)
# a log that has filled the rest becomes a segment beside it, which is merged with another
ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize * 3 // 4))
state, failed = {}, None
col = model.make(root / "store")
for number in range(10_000):
    op = model.Op("add", {number * 10 + i: number for i in range(10)})
    try:
        model.apply(col, op)
    except vecdb.StorageError as error:
        failed = error
        break
    state = model.after(state, op)
assert failed is not None and "space" in str(failed), failed
assert len(state) >= 20, state
assert model.content(col) == state
col.close()
with vecdb.open(root / "store") as reader:
    assert model.content(reader) in (state, model.after(state, op))
ballast.unlink()
with vecdb.open(root / "store", "w") as col:
    found = model.check(col, [state, model.after(state, op)])
    col.delete(sorted(found)[:10])
    col.optimize()
print("sound")
"""


def _can_mount(folder: Path) -> bool:
    command = f"mount -t tmpfs -o size=64k tmpfs {folder}"
    try:
        return subprocess.run(["unshare", "-Urm", "sh", "-c", command], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("size", ["120k", "200k", "400k"])
def test_a_full_disk_stops_writing_and_nothing_else(size: str, tmp_path: Path) -> None:
    if not _can_mount(tmp_path):
        pytest.skip("this machine does not let a user mount a tmpfs of their own (unshare -Urm)")
    mount = f"mount -t tmpfs -o size={size} tmpfs {tmp_path}"
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f'{mount} && exec "$0" -c "$1" "$2" "$3"',
         sys.executable, FULL_DISK, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "sound\n", done.stderr


def test_a_creation_that_is_refused_can_be_done_again(tmp_path: Path) -> None:
    """At each of its calls, the lock's among them: a typed error, nothing held, nothing left."""
    for error in (errno.ENOSPC, errno.EIO):
        count = 0
        while True:
            path = tmp_path / f"store {error} {count}"
            count += 1
            hook = inject.Failing(count, error, inject.CHANGES | {"open", "pread", "mmap"})
            try:
                with inject.calls(hook):
                    model.make(path).close()
                if hook.struck is None:
                    break
            except vecdb.StorageError:
                assert hook.struck is not None
            with contextlib.suppress(vecdb.ExistsError):  # refused after it was complete
                model.make(path).close()
            with vecdb.open(path, "w") as col:
                assert len(col) == 0
        assert count > 12


class Exhausted:
    """MemoryError at the Nth call of a function of vecdb in this thread, or (`at` 0) never."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: types.FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_globals.get("__name__", "").startswith("vecdb."):
            return
        if _is_in_del(frame):  # from which nothing is ever raised
            return
        self.count += 1
        if self.count == self.at:
            raise MemoryError


def _is_in_del(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@pytest.mark.parametrize("how", ["EIO", "EMFILE", "memory"])
@pytest.mark.parametrize(
    ("what", "least"), [("records", 1), ("log", 2), ("segment", 4), ("merge", 4)]
)
def test_a_reader_that_is_refused_a_call_goes_on_and_misses_nothing(
    what: str, least: int, how: str, tmp_path: Path
) -> None:
    """At each call of a refresh, behind records, a new log, a flush and a merge."""
    vecdb.warmup()
    path = tmp_path / "store"
    with model.make(path, sync="os", threads=1) as col, vecdb.open(path, threads=1) as reader:
        assert col._store._background is not None
        col._store._background.stop()
        state: model.State = {}
        reads = frozenset({"open", "pread", "mmap"})
        for at in range(1, 2_000):
            reader.refresh()
            before = state
            for op in (
                model.Op("upsert", {at % 50: at, 60 + at % 7: at}),
                model.Op("delete", {(at + 1) % 50: 0}),
            ):
                if what == "log" and op.kind == "delete":
                    with col._store._writer().lock:
                        col._store._writer()._rotate()
                model.apply(col, op)
                state = model.after(state, op)
            if what in ("segment", "merge"):
                col.flush()
            if what == "merge" or at % 8 == 0:  # else every refresh opens more segments
                col.optimize()
            hook: Exhausted | inject.Failing = Exhausted(at)
            if how != "memory":
                hook = inject.Failing(at, getattr(errno, how), reads)
            try:
                with inject.calls(hook) if isinstance(hook, inject.Failing) else hook:
                    reader.refresh()
                refused = False
            except (vecdb.StorageError, MemoryError):
                refused = True
            assert model.content(reader) in ((before, state) if refused else (state,))
            reader.refresh()
            assert model.content(reader) == state
            model.check_search(reader, state, probes=1)
            if what == "log":
                col.flush()
            if hook.count < at:
                break
        assert at > least


def test_running_out_of_memory_leaves_the_store_whole(tmp_path: Path) -> None:
    """While segments are merged and a graph is built, at 40 places of the whole way."""
    ops = model.plan(8, {}, 30, optimize=False)
    state = model.states({}, ops)[-1]
    vecdb.warmup()
    origin, path = tmp_path / "origin", tmp_path / "store"
    quiet = {"store_compaction___TIER_ROWS": 1, "store_compaction___DEAD_SHARE": 1}
    quiet |= {"store_compaction___QUIET": 1_000}
    with inject.sizes(**quiet), inject.calls(inject.NoSync()):  # nothing in the background
        with model.make(origin) as col:
            for op in ops:
                model.apply(col, op)

        def exhausted(at: int) -> int:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(origin, path)
            with vecdb.open(path, "w", threads=1) as col:
                try:
                    with Exhausted(at) as calls:
                        col.optimize()
                    assert not 0 < at <= calls.count, "somebody made nothing of it"
                except MemoryError:
                    pass
                assert model.content(col) == state
                more = state
                if col.state != "poisoned":
                    col.add(model.vectors_of([7000], [1]), [7000], model.metadata_of([7000], [1]))
                    more = state | {7000: 1}
            assert not vecdb.store.verify(path)["problems"]
            with vecdb.open(path, "w", threads=1) as col:
                col.optimize()
                model.check(col, [more])
                assert col.stats()["segments_indexed"] == 1
            return calls.count

        every = range(1, exhausted(0) + 1)
        assert len(every) > 100
        for at in random.Random(0).sample(every, 40):
            exhausted(at)


@pytest.mark.parametrize("kind", ["add", "upsert", "delete", "columns", "flush"])
def test_running_out_of_memory_in_a_write_is_never_half_a_write(kind: str, tmp_path: Path) -> None:
    """At 25 places of the whole way of each call."""
    origin, path = tmp_path / "origin", tmp_path / "store"
    state = dict.fromkeys(range(40), 1)
    rows = {"upsert": dict.fromkeys(range(20, 60), 2), "delete": dict.fromkeys(range(10), 0)}
    op = model.Op(kind, rows.get(kind, dict.fromkeys(range(100, 130), 3)))
    vecdb.warmup()
    with inject.sizes(store_compaction___QUIET=1_000), inject.calls(inject.NoSync()):
        with model.make(origin) as col:
            model.apply(col, model.Op("add", state))
            model.apply(col, model.Op("upsert", {0: 1}))

        def exhausted(at: int) -> int:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(origin, path)
            with vecdb.open(path, "w", threads=1) as col:
                model.apply(col, model.Op("upsert", {0: 1}))
                assert col._store._background is not None
                col._store._background.stop()
                possible = [state, model.after(state, op)]
                try:
                    with Exhausted(at) as calls:
                        model.apply(col, op)
                    assert not 0 < at <= calls.count, "somebody made nothing of it"
                    possible = possible[1:]
                except MemoryError:
                    pass
                assert model.content(col) in possible
            assert not vecdb.store.verify(path)["problems"]
            with vecdb.open(path, "r", threads=1) as reader:
                seen = model.content(reader)
            with vecdb.open(path, "w", threads=1) as col:
                assert model.check(col, possible) == seen
            return calls.count

        every = range(1, exhausted(0) + 1)
        for at in random.Random(0).sample(every, min(25, len(every))):
            exhausted(at)


@pytest.mark.parametrize(("dim", "spares"), [(64, (0, 8, 24, 40, 56, 128)), (256, (0, 60, 400))])
def test_a_process_with_little_memory_loses_nothing_acknowledged(
    dim: int, spares: tuple[int, ...], farm: Farm, tmp_path: Path
) -> None:
    """The system refuses the memory (RLIMIT_AS): that of a build, and where rows are longer the
    memtable's. OpenBLAS ended the process."""
    shape = 4, 1_000, dim
    vectors = np.random.default_rng(0).standard_normal(shape, np.float32).reshape(-1, dim)
    refused = set()
    for spare in spares:
        path = tmp_path / str(spare)
        *added, last = farm.run(jobs.starve, str(path), spare << 20, shape).check()
        if last != "built":
            assert last in ("MemoryError", "_ArrayMemoryError", "StorageError")
            refused.add("a build" if len(added) == 4 else "a write")
        assert not vecdb.store.verify(path)["problems"]
        with vecdb.open(path, "w", threads=1) as col:
            assert len(col) in (1_000 * len(added), 1_000 * (len(added) + 1))
            assert (np.asarray(col.vectors[: len(col)]) == vectors[: len(col)]).all()
    assert last == "built"
    assert ("a build" if dim == 64 else "a write") in refused

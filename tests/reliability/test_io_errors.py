"""The operating system says no: a typed error, no false acknowledgement, readers go on.

Every kind of call fails once (ENOSPC, EIO, too many files) or for good, at its Nth use, all over
a workload; writes come out short; a real disk is full; memory runs out. Afterwards the handle
reads on, refuses to write, and a reopened store is complete.
"""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import inject, model

import vecdb

pytestmark = pytest.mark.usefixtures("small_store")

FAILURES = [
    (frozenset({"writev"}), errno.ENOSPC),
    (frozenset({"writev"}), errno.EIO),
    (inject.SYNCS, errno.EIO),
    (inject.SYNCS, errno.ENOSPC),
    (frozenset({"rename"}), errno.EIO),
    (frozenset({"open"}), errno.EMFILE),
    (frozenset({"open"}), errno.ENOSPC),
    (frozenset({"mmap"}), errno.ENOMEM),
    (frozenset({"unlink"}), errno.EIO),
    (inject.CHANGES, errno.ENOSPC),
]


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
    with inject.calls(hook):
        try:
            col = vecdb.open(path, "w", threads=1)
        except vecdb.VecdbError:
            ops = []
        for number, op in enumerate(ops):
            try:
                model.apply(col, op)
            except vecdb.VecdbError:
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
            try:
                col.close()
            except vecdb.VecdbError:
                assert hook.struck is not None
    with vecdb.open(path, "r", threads=1) as reader:
        seen = model.content(reader)
    with vecdb.open(path, "w", threads=1) as col:
        state = model.check(col, possible)
        col.add(model.vectors_of([6000], [1]), [6000], model.metadata_of([6000], [1]))
        col.delete([6000])
    assert seen == state
    return state


def calls_of(path: Path, start: model.State, only: frozenset[str]) -> int:
    """How many calls the workload makes when nothing fails."""
    counting = inject.Counting(None, only)
    run_failing(path, start, 21, counting)
    return counting.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize(("only", "error"), FAILURES, ids=lambda v: str(v).removeprefix("frozen"))
def test_a_refused_call_is_never_a_lost_row(
    only: frozenset[str], error: int, lasting: bool, tmp_path: Path
) -> None:
    origin = tmp_path / "origin"
    start = prepared(origin)
    path = tmp_path / "store"
    shutil.copytree(origin, path)
    count = calls_of(path, start, only)
    chosen = random.Random(error).sample(range(1, count + 1), min(count, 12))
    for at in chosen:
        shutil.rmtree(path)
        shutil.copytree(origin, path)
        run_failing(path, start, 21, inject.Failing(at, error, only, lasting=lasting))


@pytest.mark.long
@pytest.mark.parametrize(("only", "error"), FAILURES, ids=lambda v: str(v).removeprefix("frozen"))
def test_every_refused_call_is_never_a_lost_row(
    only: frozenset[str], error: int, tmp_path: Path
) -> None:
    """Every N instead of a sample: about 20 minutes in all."""
    origin = tmp_path / "origin"
    start = prepared(origin)
    path = tmp_path / "store"
    shutil.copytree(origin, path)
    for at in range(1, calls_of(path, start, only) + 1):
        shutil.rmtree(path)
        shutil.copytree(origin, path)
        run_failing(path, start, 21, inject.Failing(at, error, only))


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


@pytest.mark.parametrize("place", ["vecdb.graph.build", "vecdb.store.compaction.new_segment"])
def test_running_out_of_memory_leaves_the_store_whole(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = model.plan(8, {}, 30, optimize=False)
    state = model.states({}, ops)[-1]
    vecdb.warmup()

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(place, exhausted)
    with model.make(tmp_path / "store", sync="os") as col:
        for op in ops:
            model.apply(col, op)
        with pytest.raises(MemoryError):
            col.optimize()
        model.check(col, [state])
        col.add(model.vectors_of([7000], [1]), [7000], model.metadata_of([7000], [1]))
        monkeypatch.undo()
    with vecdb.open(tmp_path / "store", "w") as col:
        col.optimize()
        model.check(col, [state | {7000: 1}])

"""kill -9 at any moment: every store opens, nothing acknowledged is lost, nothing deleted is back.

A child is killed before, after or half-way through a chosen system call that changes the disk,
while it adds, upserts, deletes, flushes, merges, builds graphs, adds columns, closes or recovers.
Killed stores are worked on by the next child: damage would add up. Run long: ``pytest -m long
tests/reliability/test_kill.py``, a quarter of an hour of one core.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import damage, inject, jobs, model
from breaking.farm import Ended, Farm
from breaking.parts import parts

import vecdb

pytestmark = pytest.mark.usefixtures("small_store")

HOW = ("before", "after", "torn")
# where children must have died: every way to write, and recovery
WRITING = (
    "Writer.append", "Writer._append_large", "Writer.delete",
    "Writer._rotate", "Writer.flush_oldest", "Background._flush", "Background._compact",
    "Compactor._merge", "Compactor._with_index", "Compactor.optimize", "new_segment",
    "commit", "publish", "_write_tombstones", "_unlink", "Store._close_writer",
)  # fmt: skip
RECOVERY = ("Store._open_writer", "Recovered.__init__")


@dataclasses.dataclass
class Tally:
    """Children that died where they should, the functions they died in, and the most that died
    one after the other while they recovered one and the same store."""

    died: int = 0
    places: set[str] = dataclasses.field(default_factory=set)
    deepest: int = 0

    def count(self, ended: Ended) -> bool:
        """Take in how a child ended; whether it died."""
        killed = ended.signal == signal.SIGKILL
        assert killed or (ended.signal, ended.code) == (0, 0), ended.stderr
        self.died += killed
        for line in ended.said:
            if line.startswith("k "):
                self.places.update(line.split()[1:])
        return killed


def possible(ended: Ended, states: list[model.State]) -> list[model.State]:
    """Contents that the child's marks leave possible: after its last acknowledged call, or after
    the one that it was killed in."""
    marks = [line.split() for line in ended.said if line[:2] in ("a ", "b ")]
    if not marks:
        return states[:1]
    kind, number = marks[-1]
    return states[int(number) : int(number) + (2 if kind == "b" else 1)]


def crash_often(
    farm: Farm, path: Path, seed: int, points: int, tally: Tally, place: str = ""
) -> None:
    """Kill `points` children in turn at random places, or in one function of vecdb."""
    rng = random.Random(seed)
    state: model.State = {}
    model.make(path).close()
    for point in range(points):
        at, how = rng.choice((rng.randint(1, 40), rng.randint(1, 300))), rng.choice(HOW)
        at = rng.randint(1, 3) if place else at
        plan = model.plan(seed + point, state, 25)
        ended = farm.run(jobs.work, str(path), seed + point, state, 25, at, how, place)
        tally.count(ended)
        with vecdb.open(path, "r", threads=1) as reader:
            seen = model.content(reader)
        assert not vecdb.store.verify(path)["problems"]
        for depth in range(1, point % 4 + 1):  # killed in recovery too, up to three times over
            if not tally.count(farm.run(jobs.recover, str(path), rng.randint(1, 8), how)):
                break
            tally.deepest = max(tally.deepest, depth)
        with inject.calls(inject.NoSync()), vecdb.open(path, "w", threads=1) as col:
            state = model.check(col, possible(ended, model.states(state, plan)))
        assert seen == state, "a reader saw something else than the writer recovered"
    with inject.calls(inject.NoSync()), vecdb.open(path, "w", threads=1) as col:
        col.optimize()
        model.check(col, [state])
        if len(state) >= model.SMALL["store_compaction__INDEX_ROWS"]:
            assert col.stats()["segments_indexed"] == 1
            assert col.recall(5, sample=40, ef_search=64).recall > 0.95
    shutil.rmtree(path)


def test_300_kills_lose_nothing_acknowledged_and_bring_nothing_back(
    farm: Farm, tmp_path: Path
) -> None:
    tally, seed = Tally(), 1000
    for place in WRITING:
        for _ in range(10):  # threads pass by such a place when they like
            crash_often(farm, tmp_path / "store", seed, 5, tally, place)
            seed += 1000
            if place in tally.places:
                break
    while tally.died < 300:
        crash_often(farm, tmp_path / "store", seed, 20, tally)
        seed += 1000
    assert tally.deepest >= 3
    alive = {*WRITING, *RECOVERY} - tally.places
    assert not alive, f"nobody died in {alive}"


@pytest.mark.long
@parts(20)
def test_10_000_kills(part: int, farm: Farm, tmp_path: Path) -> None:
    """500 kills in each part, 47 s."""
    tally, seed = Tally(), (part + 1) * 100_000
    while tally.died < 500:
        crash_often(farm, tmp_path / "store", seed, 40, tally)
        seed += 1000


def test_a_child_that_hangs_is_ended_with_its_tracebacks(farm: Farm) -> None:
    ended = farm.run(jobs.hang)
    assert (ended.signal, ended.said) == (signal.SIGABRT, ["begun"])
    assert "in hang" in ended.stderr


def test_a_creation_cut_short_can_be_done_again(farm: Farm, tmp_path: Path) -> None:
    for at in range(1, 16):
        path = tmp_path / f"store {at}"
        farm.run(create, str(path), at)
        try:
            vecdb.open(path).close()
        except vecdb.NotFoundError:
            model.make(path).close()
        with vecdb.open(path, "w") as col:
            assert len(col) == 0


def create(say: jobs.Say, path: str, at: int) -> None:
    """In a child: create a store and die."""
    with inject.calls(inject.Killing(at, "before")):
        model.make(Path(path))


@pytest.mark.parametrize("how", HOW)
def test_a_column_is_added_whole_or_not_at_all_wherever_the_writer_dies(
    how: str, farm: Farm, tmp_path: Path
) -> None:
    """Every change of it in turn; the random kills seldom come by so short a call."""
    found = []
    for at in range(1, 40):
        path = tmp_path / f"store {at}"
        with model.make(path) as col:
            model.apply(col, model.Op("add", dict.fromkeys(range(5), 1)))
        ended = farm.run(widen, str(path), at, how)
        with vecdb.open(path, "w", threads=1) as col:
            assert len(col) == 5
            found.append("extra" in col.schema.names)
            if found[-1]:
                assert col.query(select=["extra"])["extra"].null_count == 5
        if "done" in ended.said:
            break
        assert ended.signal == signal.SIGKILL
    assert found[-1]
    assert found[0] == (how == "after")
    assert len(found) > 2


def widen(say: jobs.Say, path: str, at: int, how: str) -> None:
    """In a child: add a column and die at a change on the way, or say that it is done."""
    with vecdb.open(path, "w", threads=1) as col:
        with inject.calls(inject.Killing(at, how)):
            col.add_columns({"extra": "float64"})
        say("done")


@pytest.mark.parametrize("how", HOW)
def test_a_repair_that_dies_leaves_nothing_at_its_target(
    how: str, farm: Farm, intact: Path, tmp_path: Path
) -> None:
    """At every change of it in turn; and another one is whole."""
    before, target, partial = damage.bytes_of(intact), tmp_path / "new", tmp_path / "new.partial"
    with vecdb.open(intact, threads=1) as col:
        state = model.content(col)
    for at in range(1, 200):
        ended = farm.run(mend, str(intact), str(target), at, how)
        if target.exists():
            break
        assert ended.signal == signal.SIGKILL
        shutil.rmtree(partial, ignore_errors=True)
    assert at > 10
    assert not partial.exists()
    with vecdb.open(target, verify="full", threads=1) as col:
        model.check(col, [state])
    assert damage.bytes_of(intact) == before


def mend(say: jobs.Say, path: str, target: str, at: int, how: str) -> None:
    """In a child: repair a store and die at a change on the way."""
    with inject.calls(inject.Killing(at, how)):
        vecdb.store.repair(path, target)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["write,writev,pwrite64", "fdatasync", "fsync", "rename,renameat"])
def test_kills_by_the_kernel_lose_nothing(call: str, tmp_path: Path) -> None:
    """The same without any help from Python: strace kills at the Nth call of a kind."""
    path = tmp_path / "store"
    state: model.State = {}
    model.make(path).close()
    for point, when in enumerate((1, 3)):
        states = model.states(state, model.plan(point, state, 25))
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from breaking import jobs; "
            "jobs.work(lambda line: print(line, file=sys.stderr, flush=True), sys.argv[2], "
            f"{point}, {state!r}, 25, 0, '')"
        )
        # -P: calls that name the folder or a file that was just created in it count, no others
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-P", str(path),
             *(arg for n in range(1, 60) for arg in ("-P", str(path / f"wal-{n:08d}.log"))),
             "-e", f"inject={call}:signal=SIGKILL:when={when}",
             sys.executable, "-c", code, str(Path(__file__).parent), str(path)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        ended = Ended(0, 0, done.stderr.splitlines(), "")
        with vecdb.open(path, "w", threads=1) as col:
            state = model.check(col, possible(ended, states))

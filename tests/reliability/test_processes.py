"""Many processes and threads: one writer, readers that always see one moment, forks, no hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from breaking import model
from breaking.hang import hanging_is_an_error

import vecdb
from vecdb import kernels

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("VECDB_TEST_SECONDS", "60"))  # an hour by hand: 3600


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(code, *args)``: a fresh interpreter that runs code with ``breaking`` importable. None
    outlives its test."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, *args: object) -> subprocess.Popen[str]:
        head = "import sys; sys.path.insert(0, sys.argv[1])\n"
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", head + code, str(HERE), *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_by_pid_and_the_lock_dies_with_its_holder(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    model.make(path).close()
    code = "from breaking import jobs; jobs.hold_lock(lambda s: print(s, flush=True), sys.argv[2])"
    holder = start(code, path)
    assert holder.stdout is not None
    pid = holder.stdout.readline().strip()
    model.make(tmp_path / "other").close()  # what opening needs is imported
    started = time.thread_time()
    with hanging_is_an_error(), pytest.raises(vecdb.LockedError, match=pid):
        vecdb.open(path, "w")
    assert time.thread_time() - started < 0.1
    with vecdb.open(path, "r") as reader:
        assert len(reader) == 0
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    vecdb.open(path, "w").close()


def test_a_second_writer_is_refused_in_the_same_process(tmp_path: Path) -> None:
    with (
        model.make(tmp_path / "store"),
        hanging_is_an_error(),
        pytest.raises(vecdb.LockedError, match=str(os.getpid())),
    ):
        vecdb.open(tmp_path / "store", "w")


# a step of 5 seconds is a hang: it ends the process, with all its tracebacks
HANG = "faulthandler.dump_traceback_later(5, exit=True)"
WRITER = f"""
import faulthandler, json, time
from pathlib import Path
import vecdb
from breaking import inject, model
vecdb.warmup()
path, stop = sys.argv[2], time.monotonic() + float(sys.argv[3])
said = open(sys.argv[4], "w")
state, seed = {{}}, 0
with inject.sizes(**model.SMALL), vecdb.open(path, "w", threads=1) as col:
    while time.monotonic() < stop:
        seed += 1
        for op in model.plan(seed, state, 10):
            if op.kind == "columns":
                continue
            # said before it is done: a reader may see it before this process goes on
            state = model.after(state, op)
            sequence = col.stats()["sequence"] + (op.kind not in ("flush", "optimize"))
            print(json.dumps([sequence, sorted(state.items())]), file=said, flush=True)
            {HANG}
            model.apply(col, op)
    {HANG}
faulthandler.cancel_dump_traceback_later()  # the interpreter's own end may take its time
"""

READER = f"""
import faulthandler, json, time
import numpy as np, vecdb
from breaking import model
vecdb.warmup()
path, stop = sys.argv[2], time.monotonic() + float(sys.argv[3])
seen = {{}}
last = -1
looks = 0
col = vecdb.open(path, threads=1)
while time.monotonic() < stop:
    {HANG}
    looks += 1
    if looks % 10:
        col.refresh()
    else:
        col.close()
        col = vecdb.open(path, threads=1)
    pinned = col.snapshot()
    sequence = pinned.stats()["sequence"]
    assert sequence >= last, f"went back from {{last}} to {{sequence}}"
    last = sequence
    state = sorted(model.content(pinned).items())
    model.check_search(pinned, dict(state), probes=1)
    assert seen.setdefault(sequence, state) == state, "one version, two contents"
    pinned.close()
faulthandler.cancel_dump_traceback_later()
print(json.dumps([looks, sorted(seen.items())]))
"""


def test_readers_always_see_one_moment_of_the_writer(start: Start, tmp_path: Path) -> None:
    """One process adds, deletes and compacts, four follow it: every read is the content at one
    sequence number, no reader goes back and nobody hangs. (Longer by VECDB_TEST_SECONDS=3600.)"""
    path = tmp_path / "store"
    model.make(path, sync="os").close()
    writer = start(WRITER, path, SECONDS, tmp_path / "said")
    readers = [start(READER, path, SECONDS) for _ in range(4)]
    outcomes = [process.communicate(timeout=SECONDS + 120) for process in (writer, *readers)]
    for process, (_, errors) in zip((writer, *readers), outcomes, strict=True):
        assert process.returncode == 0, errors[-3000:]
    said = map(json.loads, (tmp_path / "said").read_text().splitlines())
    wanted = dict(said) | {0: []}
    looks, versions = 0, set()
    for out, _ in outcomes[1:]:
        count, seen = json.loads(out)
        looks += count
        for sequence, state in seen:
            assert sequence in wanted, f"nobody wrote version {sequence}"
            assert state == wanted[sequence], f"version {sequence}"
            versions.add(sequence)
    assert looks > 40
    assert len(versions) > 10, "the readers hardly ever saw a change"


FORK = """
import contextlib, faulthandler, os, threading, time
import vecdb
from breaking import inject, model
from vecdb import kernels
from vecdb.segment import index
path, place = sys.argv[2], sys.argv[3]
if place == "optimize":
    inject.sizes(**model.SMALL).__enter__()
col = model.make(path, sync="os")
reader = vecdb.open(path)
model.apply(col, model.Op("add", dict.fromkeys(range(200), 1)))
model.content(col)  # what it imports is imported once, not in every child
model.apply(col, model.Op("upsert", {5: 1}))  # nobody has read a column of this snapshot
stop = False
query = model.vectors_of([1], [1])[0]
def add():
    number = 1000
    while not stop:
        model.apply(col, model.Op("add", {number: 1})); number += 1; time.sleep(0.002)
def delete():
    while not stop:
        model.apply(col, model.Op("add", {1000: 1})); col.delete([1000]); time.sleep(0.01)
def columns():
    for number in range(50):
        if not stop:
            col.add_columns({f"extra_{number}": "float64"}); time.sleep(0.01)
def search():
    while not stop:
        col.search(query, 5)
def read():
    while not stop:
        col.query("version == 1"); reader.get([1, 2], vectors=True); col.verify(); col.stats()
def lock():  # every one that a child may come to
    writer = col._store._writer()
    locks = [writer.lock, writer.state.active._lock, reader._store._core._lock, col._workers._lock,
             col._store._life, index._turn, kernels._gate.starting, kernels._gate.lock]
    while not stop:
        with contextlib.ExitStack() as held:
            for one in locks:
                held.enter_context(one)
            time.sleep(0.001)
def flush():
    while not stop:
        model.apply(col, model.Op("upsert", {5: 1})); col.flush()
def optimize():
    vecdb.warmup()
    while not stop:
        model.apply(col, model.Op("upsert", {5: 1})); col.optimize()
def refresh():
    while not stop:
        model.apply(col, model.Op("upsert", {5: 1})); reader.refresh(); time.sleep(0.01)
def open():
    while not stop:
        vecdb.open(path).close(); time.sleep(0.001)
def create():
    number = 0
    while not stop:
        model.make(f"{path}.{number}").close(); number += 1
thread = threading.Thread(target=locals()[place], daemon=True); thread.start()
for _ in range(12):
    time.sleep(0.004)
    child = os.fork()
    if child == 0:
        code = 1
        faulthandler.dump_traceback_later(5, repeat=True)
        try:
            hits = col.search(query, 5, exact=True)
            assert len(hits) == 5
            for write in (lambda: col.add([query], [9999]), lambda: col.delete([1]), col.flush,
                          col.optimize):
                try:
                    write()
                except vecdb.ClosedError:
                    continue
                raise AssertionError("a forked child could write")
            assert col.search(model.vectors_of(range(64), [1] * 64), 5).ids.shape == (64, 5)
            assert len(col.query("version == 1", limit=5)) == 5
            reader.refresh()
            versions = reader.get(list(range(200)), select=["version"])["version"]
            assert versions.to_pylist() == [1] * 200
            with vecdb.open(path) as another:
                assert len(another) >= 200
            try:
                vecdb.open(path, "w")
                raise AssertionError("the child got the parent's lock")
            except vecdb.LockedError:
                pass
            col.close()
            code = 0
        except BaseException:
            import traceback; traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            raise AssertionError("the child hangs")
        time.sleep(0.001)
    assert status == 0, status
stop = True
thread.join()
state = model.content(col)
model.apply(col, model.Op("add", {50_000: 1}))
col.close()
with vecdb.open(path, "w") as col:
    assert model.content(col) == state | {50_000: 1}
print("sound")
"""


@pytest.mark.parametrize(
    "place",
    ["create", "open", "add", "delete", "columns", "flush", "optimize",
     "search", "read", "refresh", "lock"],
)  # fmt: skip
def test_a_fork_at_any_time_leaves_a_child_that_reads_and_cannot_write(
    place: str, start: Start, tmp_path: Path
) -> None:
    process = start(FORK, tmp_path / "store", place)
    out, errors = process.communicate(timeout=120)
    assert out == "sound\n", errors[-3000:]


def test_a_fork_while_another_thread_takes_the_lock_leaves_the_child_without(
    start: Start, tmp_path: Path
) -> None:
    code = """
import os, threading, time
import vecdb
from breaking import inject, model
model.make(sys.argv[2]).close()
opened, forked = threading.Event(), threading.Event()
class Between(inject.Hook):
    def around(self, name, real, args, options):
        done = real(*args, **options)
        if name == "open" and args[0] == "LOCK":
            opened.set()
            forked.wait(0.5)  # a fork now would have the descriptor, and nobody knows of it yet
        return done
def take():
    with inject.calls(Between()):
        vecdb.open(sys.argv[2], "w").close()
thread = threading.Thread(target=take); thread.start()
opened.wait()
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    os.write(tell, b"!")
    time.sleep(10)
    os._exit(0)
forked.set()
os.read(ready, 1)  # the child has been scheduled, and has let go of what it was born with
thread.join()
vecdb.open(sys.argv[2], "w").close()
os.kill(child, 9)
os.waitpid(child, 0)
print("free")
"""
    out, errors = start(code, tmp_path / "store").communicate(timeout=60)
    assert out == "free\n", errors[-3000:]


def test_a_fork_in_the_middle_of_a_refresh_costs_the_child_no_row(
    start: Start, tmp_path: Path
) -> None:
    """The parent has read a record and not applied it: the child must not go on behind it."""
    code = """
import os, threading
import vecdb
from breaking import model
from vecdb.store import record
col = model.make(sys.argv[2], sync="os")
reader = vecdb.open(sys.argv[2])
model.apply(col, model.Op("add", {1: 1, 2: 1}))
reached, forked, decode = threading.Event(), threading.Event(), record.decode
def slowly(*args):
    reached.set()
    forked.wait()
    return decode(*args)
record.decode = slowly
thread = threading.Thread(target=reader.refresh)
thread.start()
reached.wait()
child = os.fork()
if child == 0:
    record.decode = decode
    reader.refresh()
    os._exit(len(reader))
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""
    out, errors = start(code, tmp_path / "store").communicate(timeout=60)
    assert out == "2\n", errors[-3000:]


def test_a_child_keeps_no_lock_when_its_parent_dies(start: Start, tmp_path: Path) -> None:
    code = """
import os, signal, time
from breaking import model
col = model.make(sys.argv[2])
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = start(code, tmp_path / "store")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.wait(30)
        vecdb.open(tmp_path / "store", "w").close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


@pytest.mark.usefixtures("small_store")
def test_threads_search_add_compact_and_close_without_an_error_or_a_hang(tmp_path: Path) -> None:
    """16 threads on one handle, which another one closes: every answer is right or ClosedError."""
    vecdb.warmup()  # a close waits for the graph that is being built, and that for its kernels
    col = model.make(tmp_path / "store", sync="os")
    model.apply(col, model.Op("add", dict.fromkeys(range(100), 1)))
    query = model.vectors_of([1], [1])[0]
    problems: list[BaseException] = []
    added = [0] * 6

    def searching() -> None:
        while True:
            hits = col.search(query, 3, where="version == 1")
            assert hits.distances[0] < 1e-5
            assert hits.ids[0] == 1

    def adding(place: int) -> None:
        while True:
            model.apply(col, model.Op("add", {1000 + place * 100_000 + added[place]: 2}))
            added[place] += 1

    def tidying() -> None:
        while True:
            col.delete(where="version == 2")
            col.optimize()

    def guarded(work: object, *args: int) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except vecdb.ClosedError:
            pass
        except BaseException as error:
            problems.append(error)

    works = [(searching,)] * 8 + [(adding, i) for i in range(6)] + [(tidying,)] * 2
    threads = [threading.Thread(target=guarded, args=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(2)
    with hanging_is_an_error():
        col.close()
    with hanging_is_an_error():
        for thread in threads:
            thread.join()
    assert not problems, problems
    assert min(added) > 0
    with vecdb.open(tmp_path / "store", "w") as col:
        assert model.content(col).items() >= dict.fromkeys(range(100), 1).items()


def test_opening_does_not_wait_for_the_compiler(tmp_path: Path) -> None:
    """Somebody compiles (and holds the lock that says so): opening and searching go on."""
    with kernels._gate.lock:
        done = threading.Event()

        def use() -> None:
            with model.make(tmp_path / "store") as col:
                model.apply(col, model.Op("add", {1: 1}))
                col.search(np.ones(model.DIM, np.float32), 1)
            done.set()

        thread = threading.Thread(target=use)
        thread.start()
        assert done.wait(30)
    thread.join()

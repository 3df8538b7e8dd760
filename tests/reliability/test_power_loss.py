"""Power loss at every moment: nothing acknowledged is lost, and every sync is there for a reason.

The workload runs once, recorded; then every image of the disk that a power loss may leave is
verified and opened (see breaking/disk.py). Run long: ``pytest -m long
tests/reliability/test_power_loss.py``, 45 minutes of one core.
"""

from __future__ import annotations

import ast
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from breaking import disk, inject, model
from breaking.parts import parts

import vecdb
from vecdb.segment.fs import Directory
from vecdb.store import manifest, names
from vecdb.store.commit import Edit, commit

pytestmark = pytest.mark.usefixtures("small_store")

# every place of a commit, of a write and of a creation that must have asked for a sync
SYNCING = Counter(
    [
        "_acknowledge wal", "_rotate wal", "commit wal", "commit wal", "__init__ wal",
        "__init__ folder",
        "write_segment seg", "write_index idx", "_write_tombstones del",
        "publish MANIFEST", "publish folder", "publish folder", "make folder",
    ]
)  # fmt: skip


def record(folder: Path, seed: int, steps: int) -> tuple[list[disk.Event], list[model.State]]:
    """Run a workload with sessions of a few calls each; a mark "b" before a call, and "a" when it
    is acknowledged or what it did can be seen."""
    recorder = disk.Recorder(folder)
    ops = model.plan(seed, {}, steps)
    # at the end a memtable fills up while the flush of the one before takes long
    last = [
        model.Op("add", dict.fromkeys(range(n, n + 30), seed))
        for n in (2_000_000, 2_000_030, 2_000_060)
    ]

    first = 3_000_000
    late = [
        model.Op("add", dict.fromkeys(range(first, first + 60), seed)),
        model.Op("upsert", {first: seed + 1, first + 1: seed + 1}),
        model.Op("upsert", {first + 2: seed + 1}),
    ]
    shown = model.Op("upsert", {first + 3: seed + 1})

    def run(col: vecdb.Collection, number: int, op: model.Op) -> None:
        recorder.mark(f"b {number}")
        model.apply(col, op)
        recorder.mark(f"a {number + 1}")

    def run_overtaken(col: vecdb.Collection) -> None:
        """Between the write of an upsert and its sync another thread commits, or begins a log."""
        writer = col._store._writer()
        assert col._store._background is not None
        col._store._background.stop()  # nobody else commits
        acknowledge = writer._acknowledge
        others: list[Callable[[], object]] = [writer.flush, lambda: commit(writer, Edit())]

        def overtaken(*args: Any) -> None:
            others.pop()()
            acknowledge(*args)

        for number, op in enumerate(late, steps + len(last)):
            if op.kind == "upsert":
                writer._acknowledge = overtaken  # type: ignore[method-assign]
            run(col, number, op)
        del writer._acknowledge
        assert not others

    def run_shown(col: vecdb.Collection) -> None:
        """Another thread has written an upsert, and not synced it, when a commit shows it."""
        writer = col._store._writer()

        def published(*args: Any) -> None:
            manifest.publish(*args)
            recorder.mark(f"b {len(ops + last + late)}")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(writer, "_acknowledge", lambda *_: None)
                model.apply(col, shown)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vecdb.store.commit.publish", published)
            commit(writer, Edit())
        assert model.content(col).items() >= shown.rows.items()
        recorder.mark(f"a {len(ops + last + late) + 1}")

    with inject.calls(recorder):
        col = model.make(folder / "store")
        recorder.mark("a 0")
        for number, op in enumerate(ops):
            run(col, number, op)
            if number % 12 == 11:
                col.close()
                col = vecdb.open(folder / "store", "w")
        col.flush()
        with col._store._writer().flush_lock:
            for number, op in enumerate(last, steps):
                run(col, number, op)
        run_overtaken(col)
        run_shown(col)
        col.close()
    return recorder.events, model.states({}, [*ops, *last, *late, shown])


def allowed(mark: str, states: list[model.State]) -> list[model.State] | None:
    """Contents that may be found at a mark; None: the store need not even exist."""
    if not mark:
        return None
    kind, number = mark.split()
    return [states[int(number)]] if kind == "a" else states[int(number) : int(number) + 2]


def problem_of(image: disk.Image, states: list[model.State], root: Path) -> str | None:
    """What is wrong with an image: read by a reader, recovered by a writer, read again."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    image.write(root)
    wanted = allowed(image.mark, states)
    try:
        with vecdb.open(root / "store", "r") as reader:
            seen = model.content(reader)
        damage = vecdb.store.verify(root / "store")["problems"]
        with vecdb.open(root / "store", "w") as col:
            found = model.content(col)
        if wanted is None:
            wanted = [{}]
        if found not in wanted or seen != found:
            return f"{model.difference(found, wanted)}; a reader saw it {seen == found}"
        return "; ".join(damage) or None
    except vecdb.NotFoundError as error:
        return None if wanted is None else f"{error!r}"
    except Exception as error:
        return f"{error!r}"


def distinct(images: Iterable[disk.Image]) -> Iterator[disk.Image]:
    """Each disk once for each mark."""
    seen = set()
    for image in images:
        key = image.key(), image.mark
        if key not in seen:
            seen.add(key)
            yield image


def broken(
    events: list[disk.Event], states: list[model.State], root: Path, count: int
) -> tuple[int, list[str]]:
    """How many images were tried, at most `count` drawn evenly, and what was wrong with them."""
    images = list(distinct(disk.Replay(events).images()))
    if len(images) > count:
        images = random.Random(0).sample(images, count)
    with inject.calls(inject.NoSync()):
        found = [(image, problem_of(image, states, root)) for image in images]
    return len(images), [f"event {i.event}, mark {i.mark!r}: {p}" for i, p in found if p]


def sweep(folder: Path, wanted: int, steps: int, each: int, seed: int = 0) -> None:
    """Workload after workload until so many images were opened."""
    tried = 0
    while tried < wanted:
        seed += 1
        (folder / f"recorded {seed}").mkdir()
        events, states = record(folder / f"recorded {seed}", seed, steps)
        count, problems = broken(events, states, folder / "image", min(each, wanted - tried))
        assert not problems, f"seed {seed}\n" + "\n".join(problems[:9])
        tried += count
        shutil.rmtree(folder / f"recorded {seed}")


def test_2_000_power_losses_lose_nothing_acknowledged(tmp_path: Path) -> None:
    sweep(tmp_path, 2_000, steps=40, each=700)


@pytest.mark.long
@parts(20)
def test_100_000_power_losses_lose_nothing_acknowledged(part: int, tmp_path: Path) -> None:
    """5,000 images in each part, 130 s."""
    sweep(tmp_path, 5_000, steps=60, each=5_000, seed=(part + 1) * 100)


def test_a_torn_tail_stays_in_a_file_of_its_own_when_its_log_is_gone(tmp_path: Path) -> None:
    recorder = disk.Recorder(tmp_path)
    tail = b"half a record"
    with inject.calls(recorder):
        model.make(tmp_path / "store").close()
        log = Directory(tmp_path / "store").reopen(names.wal(1))
        log.write(tail)
        log.close()
        recorder.mark("torn")
        vecdb.open(tmp_path / "store", "w").close()
    images = [image.files for image in disk.Replay(recorder.events).images() if image.mark]
    without_log = [files for files in images if f"store/{names.wal(1)}" not in files]
    assert without_log
    assert all(files[f"store/{names.torn(1)}"] == tail for files in without_log)


class Changing(inject.Hook):
    """Keeps the names of the calls that change the disk, and where a rename leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if name in inject.CHANGES:
            self.made.append(f"{name} {args[1]}" if name == "rename" else name)
        return super().around(name, real, args, options)


def test_a_repaired_store_keeps_its_name_once_the_repair_returns(
    intact: Path, tmp_path: Path
) -> None:
    with inject.calls(Changing()) as calls:
        assert vecdb.store.repair(intact, tmp_path / "new")["ok"]
    assert calls.made[-2:] == ["rename new", "fsync"]


def test_the_control_knows_every_sync_in_the_code() -> None:
    """But for those with a test of their own: the copy of a torn tail, a log that is closed under
    a caller who still waits, and the name of a repaired store."""
    found = Counter(
        function.name
        for path in Path(vecdb.__file__).parent.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("sync", "datasync")
    )
    known = Counter(label.split()[0] for label in SYNCING.elements())
    through_a_container = Counter(["write_segment", "write_index", "_write_tombstones"])
    passed_on = Counter(["finish", "sync"])  # what containers and logs sync by
    assert found == known - through_a_container + passed_on + Counter(
        ["_keep_torn", "close", "repair"]
    )


def test_every_sync_is_needed(tmp_path: Path) -> None:
    """The negative control: without any one of the syncs a power loss breaks something."""
    (tmp_path / "recorded").mkdir()
    events, states = record(tmp_path / "recorded", 3, 40)
    images = list(distinct(disk.Replay(events).images()))
    sound = {(image.key(), image.mark) for image in images}
    at_once = {f"b {len(states) - back}" for back in (4, 3, 2)} | {f"a {len(states) - 1}"}
    with inject.calls(inject.NoSync()):
        for image in images:
            if image.mark in at_once:  # few: the sweep above may have drawn none of them
                assert problem_of(image, states, tmp_path / "image") is None
    labels = disk.labels(events)
    places = Counter(re.sub(r"[\w.]+\.(\w+):\d+", r"\1", label) for label in labels)
    assert places >= SYNCING, f"no sync in {SYNCING - places}"
    needless = []
    for label in labels:
        weaker = distinct(disk.Replay(events, without=label).images())
        changed = (image for image in weaker if (image.key(), image.mark) not in sound)
        with inject.calls(inject.NoSync()):
            if not any(problem_of(image, states, tmp_path / "image") for image in changed):
                needless.append(label)
    assert not needless

"""Rows lost, crashes and silent wrong answers of embedded stores, under the same mishandling.

    .bench-db/bin/python -m bench.reliability --stores "vecdb,LanceDB,Chroma,zvec,sqlite-vec"

``kill``   a process adds batches of 100 rows and is killed by SIGKILL at a random moment; what was
           acknowledged must be there when the store is opened again.
``flip``   one random bit of the closed store's files is flipped; then every row is read, with its
           vector and all columns, and 20 searches are made. An error is honest; another answer
           than before, without one, is silently wrong.
``writers`` two processes open the store and add at the same time; one may be refused, but what was
           acknowledged to either must be there.

One JSON line per store and mishandling, with what an acknowledged write survives by the store's own
settings (see bench/stores.py): the death of the process is the least that all of them promise,
hnswlib apart, which promises nothing and is told to save its file after each batch. Damaged stores
are looked at by processes of their own, each at as many as it survives; one that takes two minutes
counts as crashed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import stores
from bench.small_stores import Hnswlib, SqliteVec
from bench.stores import Store, Vecdb, make_rows


class VecdbFull(Vecdb):
    """vecdb that checks every byte when it opens a store."""

    def open(self, path: Path) -> None:
        import vecdb

        self._col = vecdb.open(path, verify="full")


STORES: dict[str, type[Store]] = stores.STORES | {
    "vecdb verify=full": VecdbFull,
    "hnswlib": Hnswlib,
    "sqlite-vec": SqliteVec,
}
DIM, BATCH, ROWS = 32, 100, 500
SLOWEST = 120.0  # seconds until a process counts as hanging


def add(store: Store, path: Path, first: int, batches: int) -> None:
    """In a child: add batches from an id on to a new or an existing store; say each one done."""
    if not path.exists():
        store.create(path, DIM)
    else:
        _reopen(store, path)
    print("ready", flush=True)
    for number in range(batches):
        store.add(store.prepare(make_rows(first + number * BATCH, BATCH, DIM)))
        print(first + (number + 1) * BATCH, flush=True)
    store.close()


def look(store: Store, path: Path, first: int, stop: int) -> None:
    """In a child: say what :func:`answers` finds."""
    print(json.dumps(answers(store, path, first, stop)), flush=True)


def look_at_all(store: Store, folder: Path, first: int, stop: int) -> None:
    """In a child: say the number of each store ``flip-N``, then its answers or "refused"."""
    for number in range(first, stop):
        print(number, flush=True)
        try:
            said = json.dumps(answers(store, folder / f"flip-{number}", 0, ROWS))
        except BaseException as error:  # a panic of Rust is no Exception
            said = f"refused: {error!r:.80}"
        print(said.replace("\n", " "), flush=True)


def answers(store: Store, path: Path, first: int, stop: int) -> list[Any]:
    """How many rows of an id range are there, a hash of all that they hold, and the ids that
    searches find."""
    store.open(path)
    try:
        rows = sorted(store.read(range(first, stop)).items())
        content = hashlib.sha256(json.dumps(rows, sort_keys=True, default=repr).encode())
        queries = make_rows(0, BATCH, DIM).vectors[:20]
        found = [[int(i) for i in store.search(query, 5)] for query in queries]
        return [len(rows), content.hexdigest(), found]
    finally:
        store.close()


def _reopen(store: Any, path: Path) -> None:
    """Open to write (the protocol's own `open` reads where a store makes a difference)."""
    if hasattr(store, "sync"):
        import vecdb

        if type(store).__name__.startswith("Vecdb"):
            store._col = vecdb.open(path, "w")
            return
    store.open(path)


def child(store: str, job: str, *args: Any) -> subprocess.Popen[str]:
    """This file in a process of its own, doing one job."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.reliability", "--job", job, store, *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Exit code (below 0: the signal it died of) and the lines; a hang ends as SIGKILL."""
    try:
        out, _ = process.communicate(timeout=SLOWEST)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    return process.returncode, [line for line in out.splitlines() if line.strip()]


def kills(store: str, folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Rows lost over some kills, and stores that did not open."""
    result = {"kills": count, "rows_acknowledged": 0, "rows_lost": 0, "unopened": 0}
    for number in range(count):
        path = folder / f"kill-{number}"
        process = child(store, "add", path, 0, 10_000)
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) and not line.isdigit():
            pass  # killed at a moment after the first batch, however slow the start
        time.sleep(rng.uniform(0.05, 1.0))
        process.send_signal(signal.SIGKILL)
        said = [line, *(more for more in process.stdout.read().splitlines() if more.isdigit())]
        process.wait()
        acknowledged = int(said[-1] or 0)
        code, lines = finished(child(store, "look", path, 0, acknowledged))
        result["rows_acknowledged"] += acknowledged
        if code:
            result["unopened"] += 1
            result["rows_lost"] += acknowledged
        else:
            result["rows_lost"] += acknowledged - json.loads(lines[-1])[0]
        shutil.rmtree(path)
    return result


def flips(store: str, folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """How a store takes single flipped bits."""
    origin = folder / "origin"
    finished(child(store, "add", origin, 0, ROWS // BATCH))
    code, lines = finished(child(store, "look", origin, 0, ROWS))
    if code:
        raise SystemExit(f"{store}: the sound store can't be read")
    lines_of_sound = lines[-1]
    outcomes = {"flips": count, "unharmed": 0, "refused": 0, "crashed": 0, "silently_wrong": 0}
    for first in range(0, count, 50):
        numbers = range(first, min(first + 50, count))
        for number in numbers:
            _flip_one(origin, folder / f"flip-{number}", rng)
        at = first
        while at < numbers.stop:
            code, lines = finished(child(store, "look_at_all", folder, at, numbers.stop))
            for _, said in zip(lines[::2], lines[1::2], strict=False):
                kind = "unharmed" if said == lines_of_sound else "silently_wrong"
                outcomes["refused" if said.startswith("refused") else kind] += 1
            at += len(lines) // 2
            if code:  # in the middle of this one
                outcomes["crashed"] += at < numbers.stop
                at += 1
        for number in numbers:
            shutil.rmtree(folder / f"flip-{number}")
    return outcomes


def _flip_one(origin: Path, path: Path, rng: random.Random) -> None:
    """Copy a store and flip one bit of it, each as likely as any other."""
    shutil.copytree(origin, path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.stat().st_size]
    victim = rng.choices(files, [p.stat().st_size for p in files])[0]
    data = bytearray(victim.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)


def writers(store: str, folder: Path) -> dict[str, int]:
    """Two processes that add 1,000 rows each to one store at the same time."""
    path = folder / "writers"
    finished(child(store, "add", path, 0, 1))
    both = [child(store, "add", path, first, 10) for first in (10_000, 20_000)]
    acknowledged = lost = refused = 0
    for first, process in zip((10_000, 20_000), both, strict=True):
        code, lines = finished(process)
        refused += code != 0
        done = [int(line) for line in lines if line.isdigit()]
        if done:
            code, lines = finished(child(store, "look", path, first, done[-1]))
            present = 0 if code else json.loads(lines[-1])[0]
            acknowledged += done[-1] - first
            lost += done[-1] - first - present
    return {"writers_refused": refused, "rows_acknowledged": acknowledged, "rows_lost": lost}


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        job, store, path, *numbers = sys.argv[2:]
        np.seterr(all="ignore")
        work = {"add": add, "look": look, "look_at_all": look_at_all}[job]
        work(STORES[store](), Path(path), *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=500)
    args = parser.parse_args()
    for store in args.stores.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            report(store, "kill", kills(store, folder, args.kills, random.Random(0)))
            report(store, "flip", flips(store, folder, args.flips, random.Random(0)))
            report(store, "writers", writers(store, folder))


def report(store: str, what: str, outcome: dict[str, int]) -> None:
    """One JSON line."""
    line = {"store": store, "survives": STORES[store].durability, "test": what, **outcome}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

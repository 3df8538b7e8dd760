"""What every benchmark shares: a process per library, alternating passes, medians, JSON lines.

- :class:`Apart` keeps one library in a process of its own, so that a crash, a thread pool or an
  allocator of one can't touch another; only one of them works at a time.
- :class:`Contest` goes round the libraries turn by turn, so that a slow minute of the machine falls
  on all of them alike; one that fails is reported and left out.
- :class:`Report` prints one JSON line per point and keeps them in ``bench/out``.

Where several people measure on one machine, the environment variable ``VECDB_BENCH_LOCK`` names a
file; each timed turn holds a lock on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.datasets import OUT


class RivalError(Exception):
    """A library under test raised, died or took too long; the run goes on without it."""


class Apart:
    """The object ``factory(*args)`` in a process of its own, called over a pipe.

    >>> index = Apart(Index, "hnswlib")
    >>> index.call("search", 40)
    """

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, args), daemon=True)
        self._process.start()
        theirs.close()
        self._result(600)

    def call(self, method: str, *args: Any, timeout: float = 1800) -> Any:
        """The method's result. Raises RivalError when it fails, dies or exceeds `timeout` s."""
        with contextlib.suppress(BrokenPipeError):  # a dead process is reported by _result
            self._pipe.send((method, args))
        return self._result(timeout)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(None)
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()

    def _result(self, timeout: float) -> Any:
        try:
            if not self._pipe.poll(timeout):
                self._process.kill()
                raise RivalError(f"no answer within {timeout} s")
            kind, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(20)
            raise RivalError(f"process ended with code {self._process.exitcode}") from None
        if kind == "error":
            raise RivalError(value)
        return value


def _serve(pipe: Connection, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
    OUT.mkdir(exist_ok=True)
    with (OUT / "chatter.log").open("a") as log:  # what libraries print of their own accord
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        thing = factory(*args)
        pipe.send(("ready", None))
        while (message := pipe.recv()) is not None:
            method, given = message
            pipe.send(("value", getattr(thing, method)(*given)))
    except EOFError:
        pass  # the parent is gone
    except BaseException:
        pipe.send(("error", traceback.format_exc()))


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the machine's benchmark lock, where VECDB_BENCH_LOCK names one."""
    path = os.environ.get("VECDB_BENCH_LOCK")
    if path is None:
        yield
        return
    with Path(path).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def summary(values: Iterable[float]) -> dict[str, float]:
    """Median of the passes with the lowest and the highest one beside it."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Report:
    """JSON lines on standard output and in ``bench/out/NAME.jsonl``, the environment first."""

    def __init__(self, name: str, packages: Iterable[str] = ()) -> None:
        OUT.mkdir(exist_ok=True)
        self.path = OUT / f"{name}.jsonl"
        self.path.write_text("")
        self.line(environment=environment(packages))

    def line(self, **record: Any) -> None:
        """Write one record; floats are cut to five significant digits."""
        text = json.dumps(_short(record), default=str)
        print(text, flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n")


def environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Machine, Python and package versions that a figure belongs to."""
    versions = {}
    for package in ("numpy", "numba", *packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def resident_bytes() -> int:
    """Bytes of this process that are in memory now, files that it maps included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Contest:
    """Libraries that take turns, each in a process of its own.

    Parameters
    ----------
    report : Report
        Where failures are written.
    factory : callable
        ``factory(name, *args)`` makes the object of one library inside its process.
    """

    def __init__(
        self, report: Report, factory: Callable[..., Any], names: Iterable[str], *args: Any
    ) -> None:
        self._report = report
        self._alive: dict[str, Apart] = {}
        self._rounds = 0
        for name in names:
            with self._reporting(name):
                self._alive[name] = Apart(factory, name, *args)

    def round(self, method: str, *args: Any, timed: bool = True) -> Iterator[tuple[str, Any]]:
        """One turn of every library: (name, result), each round starting one library later.

        Turns that are not `timed` (making an index that is measured later) leave the machine's
        benchmark lock to others.
        """
        names = list(self._alive)
        shift = self._rounds % max(len(names), 1)
        self._rounds += 1
        for name in names[shift:] + names[:shift]:
            with exclusive() if timed else contextlib.nullcontext(), self._reporting(name):
                yield name, self._alive[name].call(method, *args)

    def ask(self, name: str, method: str, *args: Any) -> Any:
        """One library's result outside of the rounds; an empty dict when it failed."""
        with exclusive(), self._reporting(name):
            return self._alive[name].call(method, *args)
        return {}

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *_: object) -> None:
        for subject in self._alive.values():
            subject.close()

    @contextlib.contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except RivalError as error:
            self._report.line(subject=name, failed=str(error).strip().splitlines()[-1])
            if name in self._alive:
                self._alive.pop(name).close()


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value

"""Stands between vecdb and the disk: :data:`vecdb.segment.fs.calls` with a hook around each call.

:class:`Hook` passes every call on. Its subclasses count, kill, fail, record or leave out syncs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vecdb.segment import fs

NAMES = [name for name in vars(fs.Calls) if not name.startswith("_")]
WRITES = frozenset({"writev", "ftruncate"})
SYNCS = frozenset({"fsync", "fdatasync"})
CHANGES = WRITES | SYNCS | frozenset({"rename", "unlink", "mkdir"})


class Hook:
    """The system calls, each one handed to :meth:`around` (from any thread, one at a time)."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        for name in NAMES:
            setattr(self, name, self._wrapped(name, getattr(fs.Calls, name)))

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        """Make the call, or don't."""
        return real(*args, **options)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                return self.around(name, real, args, options)

        return call


class Counting(Hook):
    """Counts calls of some names, then acts at one of them."""

    def __init__(self, at: int | None = None, only: frozenset[str] = frozenset(NAMES)) -> None:
        super().__init__()
        self.at = at
        self.only = only
        self.count = 0
        self.struck: str | None = None

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if self.counts(name):
            self.count += 1
            if self.count == self.at:
                self.struck = name
                return self.strike(name, real, args, options)
        return self.make(name, real, args, options)

    def counts(self, name: str) -> bool:
        """Whether a call is one of those that are counted."""
        return name in self.only

    def make(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        """Every other call."""
        return real(*args, **options)

    def strike(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        """What happens at the chosen call."""
        return real(*args, **options)


class Killing(Counting):
    """SIGKILL for the whole process at one call: before it, after it, or half-way through it.

    Syncs count but are not made: what was written survives the process in any case. `last_words`
    is called with the functions of vecdb that it dies in, the innermost first. With a `place`,
    one of those functions, only calls made in it count.
    """

    def __init__(
        self,
        at: int,
        how: str,
        last_words: Callable[[list[str]], None] = lambda places: None,
        place: str = "",
    ) -> None:
        super().__init__(at, CHANGES)
        self.how = how
        self.last_words = last_words
        self.place = place

    def counts(self, name: str) -> bool:
        return name in self.only and (not self.place or self.place in callers())

    def strike(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        self.last_words(callers())
        if self.how == "after":
            real(*args, **options)
        elif self.how == "torn" and name == "writev":
            real(args[0], [half(args[1])])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def make(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        return None if name in SYNCS else real(*args, **options)


class Failing(Counting):
    """An error from the operating system at one call, and (`lasting`) at all later ones too."""

    def __init__(self, at: int, error: int, only: frozenset[str], *, lasting: bool = False) -> None:
        super().__init__(at, only)
        self.error = error
        self.lasting = lasting

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if self.lasting and self.struck is not None and name in self.only:
            raise OSError(self.error, os.strerror(self.error))
        return super().around(name, real, args, options)

    def strike(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if name == "writev" and self.at is not None and self.at % 2:
            real(args[0], [half(args[1])])  # a failed write may have written something
        raise OSError(self.error, os.strerror(self.error))


class Short(Hook):
    """Every write puts out at most `size` bytes, as a nearly full disk or a signal may have it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.shortened = 0

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if name != "writev":
            return real(*args, **options)
        whole = b"".join(args[1])
        self.shortened += len(whole) > self.size
        return real(args[0], [whole[: self.size]])


class NoSync(Hook):
    """Syncs that do nothing, for tests that need no durability and open thousands of stores."""

    def around(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        return None if name in SYNCS else real(*args, **options)


def callers() -> list[str]:
    """The functions of vecdb that are being run by this thread, the innermost first."""
    found = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("vecdb."):
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back  # type: ignore[assignment]
    return found


def half(buffers: Any) -> bytes:
    """The first half of what was to be written."""
    whole = b"".join(bytes(buffer) for buffer in buffers)
    return whole[: len(whole) // 2]


@contextlib.contextmanager
def calls(hook: Hook) -> Iterator[Any]:
    """Put a hook in the place of the system calls."""
    before = fs.calls
    fs.calls = hook  # type: ignore[assignment]
    try:
        yield hook
    finally:
        fs.calls = before


@contextlib.contextmanager
def sizes(**values: int) -> Iterator[None]:
    """Change constants, given as ``module__NAME``, e.g. ``store_memtable__MAX_ROWS``."""
    before = []
    try:
        for key, value in values.items():
            path, name = key.split("__")
            module = importlib.import_module("vecdb." + path.replace("_", ".", 1))
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)

"""The gate in front of numba: it decides when kernels are compiled and where they are cached.

numba takes half a second to import and seconds to compile, so neither happens on ``import vecdb``.
:func:`warmup` does both in the calling thread, :func:`start_background` in a daemon thread, and
:func:`ready` says whether it is done; until then searches run on :mod:`vecdb.kernels.reference`.
Nothing outside vecdb.kernels, vecdb.quant and vecdb.graph imports numba.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from vecdb.ending import is_near
from vecdb.forking import load

__all__ = ["cpu_features", "ready", "start_background", "wait", "warmup"]

_log = logging.getLogger("vecdb")
_LOOK = 0.05  # seconds between two looks whether to go on waiting
_HEAD_START = 0.1  # seconds for a first search alone: importing numba doubled its time, by the GIL
_LLVM = "llvmlite.binding"  # numba's
# numpy.ma: numba asks for it, 10 ms, when it first meets a read-only array, as mapped ones are;
# the last two are what it and the modules with kernels import later
_FOREIGN = ("numba", "numpy.ma", "xxhash", "concurrent.futures")
_MODULES = ("vecdb.kernels.scan", "vecdb.kernels.hashing", "vecdb.kernels.pick", "vecdb.graph")


class _Gate:
    """State of the warm-up in this process; a forked child begins with a fresh one.

    A child forked while another thread compiles would inherit numba's compiler lock in the held
    state, so it must not compile: it stays on the NumPy paths (`usable` is False).
    """

    def __init__(self, usable: bool = True) -> None:
        self.lock = threading.Lock()  # held while compiling: seconds to minutes
        self.starting = threading.Lock()  # held for a moment, so that nobody waits for a compiler
        self.ready = False
        self.usable = usable
        self.compiling = False
        self.thread: threading.Thread | None = None


_gate = _Gate()


def ready() -> bool:
    """True when every kernel is compiled and can be called without waiting."""
    return _gate.ready


def warmup(wait: bool = True) -> float:
    """Import numba and compile every kernel, or load it from the cache.

    Parameters
    ----------
    wait : bool
        False starts the work in the background and returns at once.

    Returns
    -------
    float
        Seconds that this call took; next to nothing when the kernels are ready.

    Raises
    ------
    RuntimeError
        In a process that was forked while its parent was compiling.
    """
    started = time.perf_counter()
    if not wait:
        start_background()
    elif not _gate.ready:
        _compile()
    return time.perf_counter() - started


def wait(give_up: Callable[[], bool]) -> bool:
    """Have every kernel compiled, as :func:`warmup` does; False when `give_up` said so before."""
    start_background()
    thread = _gate.thread
    while thread is not None and thread.is_alive():
        if give_up():
            return False
        thread.join(_LOOK)
    warmup()
    return True


def start_background() -> None:
    """Compile in a daemon thread; does nothing when that was begun before."""
    gate = _gate
    with gate.starting:
        if gate.ready or not gate.usable or gate.thread is not None:
            return
        # 11 ms that numba needs anyway; pandas, which Arrow imports in a first `add`, wants it too,
        # and when both were at it Python once found a deadlock
        load("numpy.random")
        gate.thread = threading.Thread(target=_compile_quietly, name="vecdb-warmup", daemon=True)
        gate.thread.start()


def cpu_features() -> tuple[str, ...]:
    """Features of the CPU that the kernels are compiled for, sorted (imports numba)."""
    from vecdb.kernels.jit import features

    return tuple(sorted(features()))


def _compile() -> None:
    gate = _gate
    if not gate.usable:
        raise RuntimeError(
            "this process was forked while its parent compiled vecdb's kernels, and can't compile "
            "them itself. Fix: call vecdb.warmup() before forking, or start processes by spawn"
        )
    with gate.lock:
        if gate.ready:
            return
        gate.compiling = True
        try:
            for name in _FOREIGN:
                load(name)
            for name in _MODULES:  # no fork waits for these: its child would not compile
                importlib.import_module(name)
            gate.ready = True
        finally:
            gate.compiling = False


def _compile_quietly() -> None:
    time.sleep(_HEAD_START)
    try:
        load(_LLVM)
        # it learns of the end by an exit handler; imported while these run, it is never told, and
        # closes its objects at the very end: behind a lock that this thread, dead by then, may hold
        if not is_near():
            _compile()
    except Exception:
        _log.exception("the kernels could not be compiled: searches stay on the NumPy paths")


def cache_folder() -> str | None:
    """Folder for compiled kernels: beside the package, else the user's cache, else none.

    Its name carries a hash of the kernels' sources: a kernel contains the leaves that it was
    compiled with, and numba's own stamp (of one file) would not see a change in theirs.
    """
    package = Path(__file__).parent.parent
    digest = hashlib.blake2b(digest_size=8)
    for part in ("kernels", "quant", "graph"):
        for source in sorted((package / part).glob("*.py")):
            digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    roots = [Path(chosen)] if chosen else [package / "kernels" / "__pycache__", home / "vecdb"]
    for root in roots:
        folder = root / f"kernels-{digest.hexdigest()}"
        if _writable(folder):
            return str(folder)
    _log.info("no folder to cache compiled kernels in: they are compiled in every process")
    return None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _after_fork() -> None:
    global _gate  # noqa: PLW0603  the child needs a lock that no lost thread holds
    parent = _gate
    _gate = _Gate(usable=parent.usable and not parent.compiling)
    _gate.ready = parent.ready


os.register_at_fork(after_in_child=_after_fork)

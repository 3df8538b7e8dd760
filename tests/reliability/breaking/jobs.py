"""What farm children do. Arguments come as JSON: contents have text for keys."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

import numpy as np

import vecdb
from breaking import inject, model

Say = Callable[[str], None]


def state_of(plain: dict[str, int]) -> model.State:
    """A content that went through JSON."""
    return {int(key): version for key, version in plain.items()}


def work(
    say: Say,
    path: str,
    seed: int,
    start: dict[str, int],
    count: int,
    at: int,
    how: str,
    place: str = "",
) -> None:
    """Open the store, run a plan from its content, close; die at change number `at` (0: never),
    of all or of those in one function of vecdb.

    Says "open" when recovery is over, "b i" before call number i, "a i" after it, and at the end
    "changes n", the number of changes there were; or, before it dies, "k" and where that is.
    """

    def last_words(places: list[str]) -> None:
        say(" ".join(["k", *places]))

    killing = inject.Killing(at, how, last_words, place)
    with inject.sizes(**model.SMALL), inject.calls(killing) as hook:
        col = vecdb.open(path, "w", threads=1)
        say("open")
        for number, op in enumerate(model.plan(seed, state_of(start), count)):
            say(f"b {number}")
            model.apply(col, op)
            say(f"a {number + 1}")
        col.close()
    say(f"changes {hook.count}")


def recover(say: Say, path: str, at: int, how: str) -> None:
    """Open the store for writing and close it; die at change number `at`."""
    work(say, path, 0, {}, 0, at, how)


def hold_lock(say: Say, path: str) -> None:
    """Open for writing, say so, and wait to be killed."""
    with vecdb.open(path, "w"):
        say(str(os.getpid()))
        signal.pause()


def hang(say: Say) -> None:
    """Begin, and never come back."""
    say("begun")
    signal.pause()


def starve(say: Say, path: str, spare: int, shape: list[int]) -> None:
    """Create a store, add (batches, rows, dim) rows and build the graph with so many bytes of
    address space to spare.

    Says "a n" after batch n, "built" after the graph, and what was raised before either.
    """
    with vecdb.create(path, shape[-1], "l2", threads=1) as col:
        vectors = np.random.default_rng(0).standard_normal(shape, np.float32)
        with open("/proc/self/statm") as sizes:  # noqa: PTH123
            most = int(sizes.read().split()[0]) * resource.getpagesize() + spare
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        acknowledged = 0
        try:
            for batch in vectors:
                col.add(batch)
                acknowledged += 1
                say(f"a {acknowledged}")
            col.optimize()
            say("built")
        except (MemoryError, vecdb.VecdbError) as error:
            say(type(error).__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert col.state == "poisoned" or len(col) == shape[1] * acknowledged

"""A process with vecdb and its kernels loaded that forks one child for each job.

Children may kill themselves, crash or hang: the farm says how each one ended and what it had
written until then. A fork costs milliseconds where a fresh interpreter costs half a second, and
is safe here because the farm itself runs no threads while it forks.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

SILENCE = 5.0  # seconds without a line, after which a child hangs

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: `signal` that killed it (0 for none), exit `code`, lines it `said` (those
    written whole before its end), and what it put on stderr."""

    signal: int
    code: int
    said: list[str]
    stderr: str

    def check(self) -> list[str]:
        """The lines, of a job that should have ended well."""
        assert (self.signal, self.code) == (0, 0), f"signal {self.signal}\n{self.stderr[-4000:]}"
        return self.said


class Farm:
    """Runs jobs one after the other; use it in a with statement."""

    def __enter__(self) -> Self:
        here = Path(__file__).parent.parent
        paths = [str(here), str(Path(sys.modules["vecdb"].__file__ or "").parent.parent)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "breaking.farm"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, job: Callable[..., None], *args: Any) -> Ended:
        """Call ``job(say, *args)`` in a child; `args` must survive JSON (which makes keys text).

        A child that says nothing for :data:`SILENCE` is ended with its tracebacks on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"module": job.__module__, "name": job.__name__, "args": args}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


def _serve() -> None:
    import vecdb
    from breaking import probe

    vecdb.warmup()
    with tempfile.TemporaryDirectory() as folder:  # what is loaded at first use is loaded here
        probe.build(Path(folder, "store"))
        probe.refuse(lambda line: None, str(Path(folder, "store")))
    gc.collect()
    gc.freeze()  # else every child's collections copy all of this process's memory
    assert threading.active_count() == 1
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(_run(json.loads(line)))), file=answers, flush=True)


def _run(order: dict[str, Any]) -> Ended:
    out, said = os.pipe()
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.close(out)
            _work(order, said, errors.fileno())
        os.close(said)
        written = _collect(out, child)
        os.close(out)
        status = os.waitpid(child, 0)[1]
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    lines = written.decode(errors="replace").split("\n")[:-1]
    return Ended(killed, 0 if killed else os.WEXITSTATUS(status), lines, text)


def _collect(out: int, child: int) -> bytes:
    """Everything that the child says until it ends, or is silent for too long."""
    written, patience = b"", SILENCE
    while True:
        if not select.select([out], [], [], patience)[0]:
            os.kill(child, signal.SIGABRT)  # faulthandler prints every thread's stack
            patience += 10
        chunk = os.read(out, 1 << 16)
        if not chunk:
            return written
        written += chunk


def _work(order: dict[str, Any], said: int, errors: int) -> None:
    """In the child: run the job and leave without the farm's own clean-up."""
    code = 1
    try:
        os.dup2(errors, 2)
        os.dup2(errors, 1)
        faulthandler.enable(all_threads=True)
        job = getattr(importlib.import_module(order["module"]), order["name"])

        def say(line: str) -> None:
            os.write(said, line.encode() + b"\n")

        job(say, *order["args"])
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()

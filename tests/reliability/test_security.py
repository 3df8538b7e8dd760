"""Names, links, permissions, content: what a store may and may not do to its machine."""

from __future__ import annotations

import os
import pickletools
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from breaking import model, probe

import vecdb
from vecdb.store import names

TESTS = Path(__file__).parent.parent
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
# a folder at a time, but of the failure tests, which take as long as all others, a file at a time
SUITE = sorted({str(p if p.parent.name == "reliability" else p.parent) for p in FILES})
LOCAL = re.compile(r'inet_addr\("127\.|"::1"')


def test_only_the_owner_may_look_into_a_store(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with model.make(tmp_path / "store") as col:
            model.apply(col, model.Op("add", dict.fromkeys(range(50), 1)))
            col.flush()
            col.delete([1])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "store").iterdir()}
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("kind", ["MANIFEST", "seg", "idx", "del", "wal", "LOCK"])
def test_no_symbolic_link_is_followed_out_of_a_store(
    kind: str, intact: Path, tmp_path: Path
) -> None:
    copy, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(intact, copy)
    victim = min(copy.glob(f"{kind}*"))
    victim.rename(outside)
    victim.symlink_to(outside)
    before = outside.read_bytes()
    if kind == "idx":  # derived: the answer comes from an exact scan
        with vecdb.open(copy) as col:
            model.check_search(col, model.content(col))
    else:
        with pytest.raises(vecdb.VecdbError):
            vecdb.open(copy, "w").close()
    assert outside.read_bytes() == before


def test_files_of_others_in_the_folder_are_left_alone(intact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(intact, copy)
    foreign = ["notes.txt", "seg-1.vdb", "seg-00000001.vdb.bak", "MANIFEST-old", "wal-x.log"]
    for name in foreign:
        (copy / name).write_text("mine")
    with vecdb.open(copy, "w") as col:
        model.content(col)
        col.optimize()
    assert [(copy / name).read_text() for name in foreign] == ["mine"] * len(foreign)


def test_a_store_holds_no_pickle_and_no_code(intact: Path) -> None:
    for path in intact.iterdir():
        data = path.read_bytes()
        assert b"\x80\x04\x95" not in data
        assert b"\x80\x05\x95" not in data
        with pytest.raises(ValueError):  # noqa: PT011 - whatever pickletools dislikes about it
            list(pickletools.genops(data))


def test_nothing_but_vecdbs_own_files_is_ever_in_a_store(tmp_path: Path) -> None:
    """Also when it is the working folder of a process that compiles: no cache of numba's."""
    path = tmp_path / "store"
    probe.build(path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from breaking import model; import vecdb; "
        "vecdb.warmup(); c = vecdb.open('.', 'w'); c.optimize(); "
        "model.check_search(c, model.content(c)); c.close()"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        cwd=path, check=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(vecdb.__file__).parent.parent)},
    )  # fmt: skip
    assert all(names.is_own(name.name) or name.name == names.LOCK for name in path.iterdir())


def test_the_suite_stops_a_test_that_reaches_for_the_network() -> None:
    """tests/conftest.py watches this process; the traced run below the others, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for reach in (
            lambda: udp.connect(("192.0.2.1", 9)),
            lambda: udp.sendto(b"", ("192.0.2.1", 9)),
            lambda: socket.getaddrinfo("example.invalid", 80),
        ):
            with pytest.raises(RuntimeError, match="reaches for"):
                reach()


def calls_abroad(trace: Path) -> list[str]:
    """The traced calls that reach beyond this machine; Jupyter's kernels are connected within."""
    lines = trace.read_text().splitlines()
    return [line for line in lines if "AF_INET" in line and not LOCAL.search(line)]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("part", SUITE)
def test_no_test_of_the_suite_reaches_beyond_this_machine(part: str, tmp_path: Path) -> None:
    """The whole suite under strace, but for what itself calls strace: a quarter of an hour."""
    trace = tmp_path / "trace"
    files = [path for path in FILES if part in (str(path), str(path.parent))]
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace),
         "-e", "trace=connect,sendto,sendmsg,sendmmsg,execve",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         *(str(TESTS / path) for path in files),
         "-k", "not by_the_kernel and not opens_no_socket"],
        cwd=TESTS.parent, check=False, timeout=3600, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "execve(" in trace.read_text(), "nothing was traced"
    assert not calls_abroad(trace)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_vecdb_opens_no_socket_and_starts_no_program(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from breaking import probe, model; import vecdb; p = Path(sys.argv[2]); probe.build(p); "
        "c = vecdb.open(p, 'w'); s = model.content(c); model.check_search(c, s); c.optimize(); "
        "c.close(); print(len(s))"
    )
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"),
         "-e", "trace=socket,connect,bind,sendto,execve",
         sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "store")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    calls = [line for line in (tmp_path / "trace").read_text().splitlines() if "(" in line]
    assert len(calls) == 1, calls  # the interpreter's own start
    assert "execve(" in calls[0]

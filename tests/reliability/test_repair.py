"""verify and repair from the command line, on stores that open and on stores that don't."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from breaking import damage, model, probe

import vecdb


@pytest.fixture(scope="module")
def state(intact: Path) -> model.State:
    """What the store holds."""
    with vecdb.open(intact) as col:
        return model.content(col)


def command(*args: object) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of ``python -m vecdb``."""
    done = subprocess.run(
        [sys.executable, "-m", "vecdb", *map(str, args), "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def test_a_sound_store_is_called_sound_and_copied_whole(
    intact: Path, state: model.State, tmp_path: Path
) -> None:
    store = intact
    before = damage.bytes_of(store)
    code, report = command("verify", store)
    assert (code, report["ok"], report["problems"]) == (0, True, [])
    code, report = command("repair", store, tmp_path / "copy")
    assert (code, report["ok"], report["problems"]) == (0, True, [])
    assert report["rows"] == len(state)
    with vecdb.open(tmp_path / "copy", verify="full") as col:
        model.check(col, [state])
    assert damage.bytes_of(store) == before, "verify and repair only read"


# what is damaged, and how many of the 47 rows may be lost with it
DAMAGED = {"MANIFEST": 10, "seg": 44, "idx": 0, "del": 0, "wal": 10}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("how", ["flip", "gone", "cut"])
def test_what_can_be_kept_of_a_damaged_store_is_kept(
    kind: str, how: str, intact: Path, state: model.State, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(intact, store)
    victim = min(store.glob(f"{kind}-*"))
    data = victim.read_bytes()
    place = {"seg": 4100, "idx": 4100, "del": 64, "MANIFEST": 20, "wal": 200}[kind]
    if how == "gone":
        victim.unlink()
    else:
        change: probe.Change = ["flip", victim.name, place, 0]
        change = ["cut", victim.name, len(data) * 2 // 3] if how == "cut" else change
        damage.rewrite(victim, probe.changed(data, change))
    before = damage.bytes_of(store)
    code, report = command("verify", store)
    if (kind, how) == ("wal", "cut"):  # looks like a write that was never acknowledged
        assert (code, report["ok"]) == (0, True)
        assert report["torn_bytes"] > 0
    else:
        assert (code, report["ok"]) == (1, False)
        named = victim.name if kind != "MANIFEST" else "manifest"
        assert any(
            named.lower() in problem.lower() and "(lost: " in problem
            for problem in report["problems"]
        )
    code, report = command("repair", store, tmp_path / "mended")
    assert (code, report["ok"]) == (0, True), report
    assert report["problems"] or kind == "idx" or (kind, how) == ("wal", "cut")
    assert damage.bytes_of(store) == before, "the damaged store was changed"
    with vecdb.open(tmp_path / "mended", verify="full") as col:
        found = model.content(col)
    kept = {i for i, version in state.items() if found.get(i) == version}
    assert len(state) - len(kept) <= DAMAGED[kind]


def test_a_folder_that_is_no_store_is_told_so(tmp_path: Path) -> None:
    for args in (("verify", tmp_path), ("repair", tmp_path, tmp_path / "copy")):
        code, report = command(*args)
        assert code == 2
        assert "NotFoundError" in report["error"]
        assert not (tmp_path / "copy").exists()

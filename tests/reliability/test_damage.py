"""Damaged files: an exception, a torn tail that is reported, or unchanged answers.

Single bits are flipped, files cut at every length, pages zeroed, files swapped and removed; and
crafted files whose checksums are right say impossible things. No damage ends the process, and
with ``verify="full"`` none changes an answer in silence. One cut can't be told from a write that
never came: that of a log exactly between two records. Run long: ``pytest -m long
tests/reliability/test_damage.py``, every bit and every length of a small store, about 25 minutes.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from breaking import damage, inject, model, probe
from breaking.farm import Farm
from breaking.parts import parts

import vecdb

PARTS = 12


def files_of(store: Path) -> list[Path]:
    return sorted(p for p in store.iterdir() if p.name != "LOCK")


def flips(store: Path) -> Iterator[probe.Change]:
    """Every single bit of every file."""
    for path in files_of(store):
        for byte in range(path.stat().st_size):
            for bit in range(8):
                yield ["flip", path.name, byte, bit]


def cuts(store: Path) -> Iterator[probe.Change]:
    """Every length of every file."""
    for path in files_of(store):
        for length in range(path.stat().st_size):
            yield ["cut", path.name, length]


def pages(store: Path) -> Iterator[probe.Change]:
    """Every page of every file."""
    for path in files_of(store):
        for page in range(-(-path.stat().st_size // 4096)):
            yield ["zero", path.name, page]


def of_each_file(changes: Iterator[probe.Change], count: int) -> list[probe.Change]:
    """So many changes of each file, drawn at random."""
    by_file: dict[str, list[probe.Change]] = {}
    for change in changes:
        by_file.setdefault(change[1], []).append(change)
    rng = random.Random(0)
    return [c for found in by_file.values() for c in rng.sample(found, min(count, len(found)))]


def of_each_section(store: Path, count: int, *, every_byte: bool = False) -> list[probe.Change]:
    """Flips of so many bits of each section of each container, or of one of each byte of those
    that a dense store can't have; and as many of what is behind the last section."""
    rng = random.Random(0)
    found: list[probe.Change] = []
    for path in sorted(store.glob("*.vdb")):
        container = damage.Container(path)
        parts = {n: (container.offsets[n], len(data)) for n, data in container.sections.items()}
        start = max(offset + size for offset, size in parts.values())
        parts["hashes, table, meta, tail"] = start, path.stat().st_size - start
        for name, (offset, size) in parts.items():
            places = [rng.randrange(offset, offset + size) for _ in range(count if size else 0)]
            if every_byte:
                other = name.startswith(("upper_", "ids", "hashes"))
                places = list(range(offset, offset + size)) if other else places
            found += [["flip", path.name, place, rng.randrange(8)] for place in places]
    return found


def try_all(
    farm: Farm, store: Path, changes: list[probe.Change], sizes: dict[str, int] | None = None
) -> None:
    """No change may crash a process or change an answer in silence."""
    for start in range(0, len(changes), 400):
        some = changes[start : start + 400]
        ended = farm.run(probe.sweep, str(store), start, some, sizes or {})
        reached = max((int(line[3:]) for line in ended.said if line.startswith("at ")), default=-1)
        assert ended.signal == 0, f"crashed at {some[reached]}\n{ended.stderr[-3000:]}"
        wrong = [line for line in ended.check() if line.startswith("wrong")]
        assert not wrong, "\n".join(wrong[:20])
        assert reached == len(some) - 1


def test_a_flipped_bit_is_never_a_silent_wrong_answer(
    farm: Farm, intact: Path, tmp_path: Path
) -> None:
    shutil.copytree(intact, tmp_path / "store")
    try_all(farm, tmp_path / "store", of_each_file(flips(intact), 75))


def test_a_flipped_bit_of_any_section_is_never_a_silent_wrong_answer(
    farm: Farm, tmp_path: Path
) -> None:
    """Text ids, every type of column, an upper level, sections of many blocks."""
    probe.build_tall(tmp_path / "store")
    index = damage.Container(max((tmp_path / "store").glob("idx-*")))
    assert index.meta["graph"]["levels"] == 1
    changes = of_each_section(tmp_path / "store", 4)
    try_all(farm, tmp_path / "store", changes, probe.TALL)


def test_a_file_cut_short_is_never_a_silent_wrong_answer(
    farm: Farm, intact: Path, tmp_path: Path
) -> None:
    shutil.copytree(intact, tmp_path / "store")
    try_all(farm, tmp_path / "store", of_each_file(cuts(intact), 50))


def test_a_zeroed_page_is_never_a_silent_wrong_answer(
    farm: Farm, intact: Path, tmp_path: Path
) -> None:
    shutil.copytree(intact, tmp_path / "store")
    try_all(farm, tmp_path / "store", list(pages(intact)))


@pytest.mark.long
@parts(PARTS)
def test_every_bit_and_every_length(part: int, farm: Farm, tmp_path: Path) -> None:
    """Every twelfth of them in each part, two minutes."""
    store = tmp_path / "store"
    probe.build_dense(store)
    kinds = {path.name.split("-")[0] for path in files_of(store)}
    assert kinds == {"MANIFEST", "wal", "seg", "idx", "del", "torn"}
    try_all(farm, store, [*cuts(store), *flips(store)][part % PARTS :: PARTS])


@pytest.mark.long
@parts(PARTS)
def test_every_byte_of_what_a_dense_store_cannot_have(
    part: int, farm: Farm, tmp_path: Path
) -> None:
    """Every twelfth of them in each part, a minute."""
    probe.build_tall(tmp_path / "store")
    changes = of_each_section(tmp_path / "store", 40, every_byte=True)
    try_all(farm, tmp_path / "store", changes[part % PARTS :: PARTS], probe.TALL)


def test_damage_is_refused_by_name(intact: Path, tmp_path: Path) -> None:
    """Beyond not being wrong: the error names the file, verify() finds it, reading goes on."""
    for number, path in enumerate(files_of(intact)):
        kind = path.name.split("-")[0]
        store = tmp_path / f"store {number}"
        shutil.copytree(intact, store)
        victim = store / path.name
        data = victim.read_bytes()
        middle = {"seg": 4100, "idx": 4100, "del": 64, "MANIFEST": 20, "wal": 200}[kind]
        damage.rewrite(victim, probe.changed(data, ["flip", path.name, middle, 0]))
        report = vecdb.store.verify(store)
        assert not report["ok"]
        assert any(path.name in problem for problem in report["problems"])
        if kind == "idx":
            with vecdb.open(store) as col:
                model.check_search(col, model.content(col))
        else:
            with pytest.raises(vecdb.CorruptionError, match=path.name):
                vecdb.open(store, verify="full").close()


def test_swapped_and_missing_files_are_named(intact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    probe.build(other)
    for path in files_of(intact):
        kind = path.name.split("-")[0]
        for name, replacement in (("swapped", other / path.name), ("missing", None)):
            store = tmp_path / f"{kind} {path.stem} {name}"
            shutil.copytree(intact, store)
            (store / path.name).unlink()
            if replacement is not None:
                shutil.copy(replacement, store / path.name)
            if kind == "idx":
                with vecdb.open(store) as col:
                    model.check_search(col, model.content(col))
            elif kind == "MANIFEST" and replacement is None:
                with pytest.raises(vecdb.NotFoundError):
                    vecdb.open(store)
            else:
                with pytest.raises(vecdb.CorruptionError, match=r"\.vdb|\.log"):
                    vecdb.open(store)


def test_files_of_one_store_in_each_others_places_are_refused(intact: Path, tmp_path: Path) -> None:
    for one, other in itertools.combinations([path.name for path in files_of(intact)], 2):
        store = tmp_path / f"{one} {other}"
        shutil.copytree(intact, store)
        (store / one).rename(store / "kept")
        (store / other).rename(store / one)
        (store / "kept").rename(store / other)
        for mode in ("r", "w"):
            with pytest.raises(vecdb.CorruptionError, match=f"{one}|{other}"):
                vecdb.open(store, mode)  # type: ignore[arg-type]
        assert not vecdb.store.verify(store)["ok"]


@pytest.mark.parametrize("how", ["flip", "missing", "another store's", "hostile"])
def test_a_damaged_index_is_replaced_by_the_next_writer(
    how: str, intact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    shutil.copytree(intact, store)
    index = next(store.glob("idx-*.vdb"))
    if how == "flip":
        damage.rewrite(index, probe.changed(index.read_bytes(), ["flip", index.name, 4100, 0]))
    elif how == "missing":
        index.unlink()
    elif how == "another store's":
        probe.build(tmp_path / "other")
        damage.rewrite(index, (tmp_path / "other" / index.name).read_bytes())
    else:
        container = damage.Container(index)
        container.sections["rows"] = b"\x7f" * len(container.sections["rows"])
        container.save(store)
    report = vecdb.store.verify(store)
    assert (report["ok"], len(report["problems"])) == (False, 1)
    assert f"{index.name}" in report["problems"][0]
    assert "lost: nothing" in report["problems"][0]
    with vecdb.open(store, "r") as col:
        model.check_search(col, model.content(col))
        assert col._store.snapshot.parts[0].data.graph is None
        assert "exact scan until the index is rebuilt" in caplog.text
    with inject.sizes(**model.SMALL), vecdb.open(store, "w") as col:
        state = model.content(col)
        model.check_search(col, state)
        col.optimize()
        model.check(col, [state])
        assert col._store.snapshot.parts[0].data.graph is not None
    assert vecdb.store.verify(store)["ok"]

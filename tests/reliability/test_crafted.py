"""Crafted files whose checksums are right: refused with a typed error, quickly, in little memory.

Each case builds the small store of breaking/probe.py, changes one thing that vecdb itself would
never write, and makes every checksum right again. A hostile index costs its graph, never an
answer.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from breaking import damage, model, probe
from breaking.farm import Farm

MS, MB = 100, 50  # of CPU and memory beyond what reading the sound store takes


Craft = Callable[[Path], None]


def in_manifest(edit: Callable[[dict[str, Any]], Any]) -> Craft:
    return lambda store: damage.edit_manifest(store, edit)


def in_entry(**fields: Any) -> Craft:
    """Change fields of the first segment's entry."""
    return in_manifest(lambda document: document["segments"][0].update(fields))


def in_schema(**fields: Any) -> Craft:
    return in_manifest(lambda document: document["schema"].update(fields))


def in_file(kind: str, edit: Callable[[damage.Container], None]) -> Craft:
    def craft(store: Path) -> None:
        container = damage.Container(min(store.glob(f"{kind}-*.vdb")))
        edit(container)
        container.save(store)

    return craft


def in_meta(kind: str, **fields: Any) -> Craft:
    return in_file(kind, lambda container: container.meta.update(fields))


def in_section(kind: str, name: str, data: bytes) -> Craft:
    return in_file(kind, lambda container: container.sections.update({name: data}))


def in_table(kind: str, row: int, column: int, value: Any) -> Craft:
    def edit(container: damage.Container) -> None:
        container.forge = lambda table, tail: table[row].__setitem__(column, value)

    return in_file(kind, edit)


def in_tail(kind: str, **fields: int) -> Craft:
    def edit(container: damage.Container) -> None:
        container.forge = lambda table, tail: tail.update(fields)

    return in_file(kind, edit)


def in_log(change: Callable[[list[tuple[int, int, bytes]]], Any]) -> Craft:
    """Change the records; `change` returns the new list."""

    def craft(store: Path) -> None:
        log = max(store.glob("wal-*.log"))
        damage.rewrite_log(log, change(damage.records(log)))

    return craft


def put(
    rows: int, ids: bytes, vectors: bytes, metadata: bytes = b"", *, ids_size: int = -1
) -> bytes:
    size = len(ids) if ids_size < 0 else ids_size
    return struct.pack("<III4x", rows, size, len(metadata)) + ids + vectors + metadata


def another_record(kind: int, payload: bytes) -> Craft:
    return in_log(lambda found: [*found, (found[-1][0] + 1, kind, payload)])


def changed_metadata(position: int, value: bytes) -> Craft:
    """Overwrite bytes at the end of the Arrow message of the first record."""

    def change(found: list[tuple[int, int, bytes]]) -> Any:
        sequence, kind, payload = found[0]
        place = len(payload) + position
        return [
            (sequence, kind, payload[:place] + value + payload[place + len(value) :]),
            *found[1:],
        ]

    return in_log(change)


ONE = model.vectors_of([9], [9]).tobytes()
ID = struct.pack("<q", 900)
HUGE = (1 << 63) - 1
SCHEMA = {"dim": 8, "metric": "l2", "ids": "int64", "dtype": "float32", "columns": None,
          "index": {"M": 4, "ef_construction": 16, "codes": "auto", "seed": 0}}  # fmt: skip
REFUSED: dict[str, Craft] = {
    "rows 2^63": in_entry(rows=1 << 63),
    "rows 2^63 - 1": in_entry(rows=HUGE, live=HUGE),
    "rows 2^40": in_entry(rows=1 << 40, live=1 << 40, deletes=None),
    "rows below 0": in_entry(rows=-1),
    "rows as text": in_entry(rows="44"),
    "rows as a fraction": in_entry(rows=44.0),
    "rows as true": in_entry(rows=True, live=True),
    "one row too many": in_entry(rows=45, live=45, deletes=None),
    "more live than there are": in_entry(live=45),
    "another number of live rows": in_entry(live=40),
    "deleted rows without a bitmap": in_entry(deletes=None),
    "a file number of 2^63": in_entry(file=[1 << 63, 1, "00"]),
    "a path for a file number": in_entry(file=["../../etc/passwd", 1, "00"]),
    "no file": in_entry(file=None),
    "a file of nothing": in_entry(file=[]),
    "a segment twice": in_manifest(lambda d: d["segments"].append(d["segments"][0])),
    "a segment 5,000 times": in_manifest(lambda d: d.update(segments=d["segments"][:1] * 5_000)),
    "deep nesting": in_manifest(lambda d: "[" * 100_000 + "]" * 100_000),
    "deep nesting in a field": in_manifest(
        lambda d: json.dumps(d).replace('"segments": [', '"segments": [' + "[" * 50_000, 1)
    ),
    "no object": in_manifest(lambda d: "[]"),
    "not a number": in_manifest(lambda d: json.dumps(d).replace('"wal": ', '"wal": NaN, "x": ', 1)),
    "a newer format": in_manifest(lambda d: d.update(format=d["format"] + 1)),
    "an unknown feature": in_manifest(lambda d: d.update(features=["holograms"])),
    "features that are no list": in_manifest(lambda d: d.update(features=7)),
    "another store": in_manifest(lambda d: d.update(uuid="00" * 16)),
    "a short uuid": in_manifest(lambda d: d.update(uuid="00")),
    "a sequence from nowhere": in_manifest(lambda d: d.update(sequence=HUGE)),
    "a log that is not there": in_manifest(lambda d: d.update(wal=77)),
    "another generation": in_manifest(lambda d: d.update(generation=1)),
    "dim 2^31": in_schema(dim=1 << 31),
    "dim 0": in_schema(dim=0),
    "dim 4": in_schema(dim=4),
    "dim 16": in_schema(dim=16),
    "dim true": in_schema(dim=True),
    "float16": in_schema(dtype="float16"),
    "a class for a dtype": in_schema(dtype="os.system"),
    "text ids": in_schema(ids="string"),
    "a column twice": in_schema(columns=[["version", "int64"], ["version", "int64"]]),
    "a column of another type": in_schema(
        columns=[["version", "string"], ["tag", "string"], ["days", "list<int64>"]]
    ),
    "a column type from nowhere": in_schema(columns=[["version", "object"]]),
    "no columns": in_schema(columns=[]),
    "nested lists": in_schema(columns=[["version", "list<" * 5000 + "int64" + ">" * 5000]]),
    "M of a million": in_schema(index=SCHEMA["index"] | {"M": 10**6}),
    "an unknown index field": in_schema(index={"__class__": "x"}),
    "a section beyond the file": in_table("seg", 0, 2, 1 << 40),
    "a section of 2^64 - 64": in_table("seg", 0, 3, 2**64 - 64),
    "a section that wraps around": in_table("seg", 1, 2, 2**64 - 4096),
    "overlapping sections": in_table("seg", 1, 2, 4096),
    "a section that is not aligned": in_table("seg", 1, 2, 8193),
    "hashes beyond the file": in_table("seg", 0, 4, 1 << 40),
    "blocks of one byte": in_table("seg", 1, 1, 0),
    "blocks larger than memory": in_table("seg", 1, 1, 255),
    "smaller blocks than are hashed": in_table("seg", 0, 1, 6),
    "a name twice": in_table("seg", 1, 0, b"vectors"),
    "a name that is no text": in_table("seg", 1, 0, b"\xff\xfe"),
    "2^32 - 1 sections": in_tail("seg", count=2**32 - 1),
    "a footer before the file": in_tail("seg", start=2**64 - 64),
    "meta of 4 GB": in_tail("seg", meta=2**32 - 1),
    "meta that is deeply nested": in_file(
        "seg", lambda c: setattr(c, "meta", "[" * 100_000 + "]" * 100_000)
    ),
    "meta that is no object": in_file("seg", lambda c: setattr(c, "meta", "7")),
    "meta rows 2^63": in_meta("seg", rows=1 << 63),
    "meta dim": in_meta("seg", dim=4),
    "ids of no kind": in_meta("seg", ids={}),
    "no ids": in_meta("seg", ids=None),
    "ids beyond 63 bits": in_meta("seg", ids={"kind": "range", "first": HUGE}),
    "ids below 0": in_meta("seg", ids={"kind": "range", "first": -5}),
    "ids without a first": in_meta("seg", ids={"kind": "range"}),
    "text ids of no length": in_meta("seg", ids={"kind": "text", "length": HUGE}),
    "columns that are none": in_meta("seg", columns=[["version"]]),
    "columns of numbers": in_meta("seg", columns=7),
    "a child of 2^62 values": in_meta(
        "seg",
        columns=[["version", "int64", 0], ["tag", "string", 0], ["days", "list<int64>", 1 << 62]],
    ),
    "a child below 0": in_meta(
        "seg", columns=[["version", "int64", 0], ["tag", "string", 0], ["days", "list<int64>", -1]]
    ),
    "vectors cut": in_section("seg", "vectors", bytes(32)),
    "text offsets that go back": in_section(
        "seg", "c1.1", np.r_[0, 9, np.arange(2, 45)].astype("<i4").tobytes()
    ),
    "text offsets below 0": in_section("seg", "c1.1", np.full(45, -8, "<i4").tobytes()),
    "text offsets beyond": in_section("seg", "c1.1", (np.arange(45) << 25).astype("<i4").tobytes()),
    "text that is no UTF-8": in_section("seg", "c1.2", b"\xff" * 400),
    "list offsets beyond": in_section("seg", "c2.1", (np.arange(45) << 25).astype("<i4").tobytes()),
    "a short column": in_section("seg", "c0.1", bytes(8)),
    "a short validity bitmap": in_section("seg", "c1.0", b"\xff"),
    "a short bitmap of live rows": in_section("del", "live", b""),
    "live rows beyond the last": in_section("del", "live", b"\xff" * 8),
    "another number of deleted rows": in_section("del", "live", bytes(8)),
    "a record of 2^32 - 1 rows": another_record(1, put(2**32 - 1, ID, ONE)),
    "a record of more rows than it has": another_record(1, put(2, ID, ONE)),
    "ids longer than the record": another_record(1, put(1, ID, ONE, ids_size=2**32 - 8)),
    "a record without an end": another_record(1, b"\1"),
    "an id below 0": another_record(1, put(1, struct.pack("<q", -4), ONE)),
    "a record of no type": another_record(99, put(1, ID, ONE)),
    "a record left out": in_log(lambda found: [found[0], *found[2:]]),
    "a record twice": in_log(lambda found: [found[0], found[0], *found[1:]]),
    "records in another order": in_log(lambda found: [found[1], found[0], *found[2:]]),
    "a bitmap of another segment": in_file("del", lambda c: c.header.__setitem__(40, 99)),
    "a deletion of 2^32 - 1 rows": another_record(3, put(2**32 - 1, ID, b"")),
    "a schema that is none": another_record(4, b"{}"),
    "a schema that is deeply nested": another_record(4, b"[" * 100_000 + b"]" * 100_000),
    "a schema of another dim": another_record(4, json.dumps(SCHEMA | {"dim": 4}).encode()),
    "a schema of other ids": another_record(4, json.dumps(SCHEMA | {"ids": "string"}).encode()),
    "a schema without the columns": another_record(4, json.dumps(SCHEMA).encode()),
    "metadata that is no Arrow": another_record(1, put(1, ID, ONE, b"\xff" * 64)),
    "metadata of an endless message": another_record(
        1, put(1, ID, ONE, b"\xff\xff\xff\xff" + struct.pack("<i", (1 << 31) - 1) + bytes(56))
    ),
    "metadata cut": in_log(
        lambda found: [(found[0][0], 1, put(2, found[0][2][16:32], bytes(64), b"\0" * 8))]
    ),
}  # fmt: skip
HOSTILE_INDEX: dict[str, Craft] = {
    "neighbours beyond the rows": in_section("idx", "rows", b"\x7f" * 19712),
    "neighbours below -1": in_section("idx", "rows", b"\xfe" * 19712),
    "no rows": in_section("idx", "rows", b""),
    "a centre that is not finite": in_section("idx", "mean", np.full(8, np.nan, "<f4").tobytes()),
    "scales that are not finite": in_section("idx", "scales", np.full(16, np.inf, "<f4").tobytes()),
    "an index of other rows": in_meta("idx", rows=43),
    "arrays that are none": in_meta("idx", arrays=[]),
    "an array of objects": in_meta("idx", arrays={"rows": ["|O8", [44, 448]]}),
    "an array of 2^62": in_meta("idx", arrays={"rows": ["|u1", [1 << 62, 4]]}),
    "an array of one-byte floats": in_meta("idx", arrays={"rows": ["<f1", [44, 448]]}),
    "an array without an end": in_meta("idx", arrays={"rows": ["|u1", [float("inf"), 4]]}),
    "an array of 64 axes": in_meta("idx", arrays={"rows": ["|u1", [1] * 64]}),
    "no graph": in_meta("idx", graph=None),
    **{
        f"{name} {value!r}": in_file(
            "idx", lambda c, name=name, value=value: c.meta["graph"].update({name: value})
        )
        for name in ("version", "metric", "entry", "degree", "dims", "bits", "radius", "add_unit")
        for value in (-1, 0, HUGE, 1 << 70, "l2'", None, float("nan"), 1e308)
    },
}


@pytest.fixture(scope="module")
def sound(farm: Farm, intact: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Outcomes of the store as it is; the most time of three."""
    folder = tmp_path_factory.mktemp("sound")
    runs = [outcomes(farm, intact, lambda store: None, folder / str(i)) for i in range(3)]
    return runs[0][0], max(ms for _, ms, _ in runs), max(mb for _, _, mb in runs)


def refused_at_little_cost(
    farm: Farm, intact: Path, craft: Craft, folder: Path, sound: Any
) -> list[str]:
    """What was found, at the price that is promised: the best of three, others use the machine."""
    for number in range(3):
        found, ms, mb = outcomes(farm, intact, craft, folder / str(number))
        if ms <= MS + sound[1] and mb <= MB + sound[2]:
            return found
    raise AssertionError(f"{ms} ms, {mb} MB beside {sound[1:]} of the sound store")


def outcomes(farm: Farm, intact: Path, craft: Craft, folder: Path) -> tuple[list[str], int, int]:
    """What a reader and a writer found, and the CPU ms and MB of memory that it took."""
    folder.mkdir(exist_ok=True)
    store = folder / "store"
    shutil.copytree(intact, store)
    craft(store)
    said = farm.run(probe.refuse, str(store)).check()
    return said[:2], int(said[2]), int(said[3])


@pytest.mark.parametrize("case", REFUSED)
def test_what_vecdb_would_never_write_is_refused(
    case: str, farm: Farm, intact: Path, sound: Any, tmp_path: Path
) -> None:
    for outcome in refused_at_little_cost(farm, intact, REFUSED[case], tmp_path, sound):
        assert outcome.split()[0].endswith("Error"), outcome[:300]


@pytest.mark.parametrize("case", HOSTILE_INDEX)
def test_a_hostile_index_changes_no_answer(
    case: str, farm: Farm, intact: Path, sound: Any, tmp_path: Path
) -> None:
    found = refused_at_little_cost(farm, intact, HOSTILE_INDEX[case], tmp_path, sound)
    assert found == sound[0]


def mended(farm: Farm, intact: Path, crafts: dict[str, Craft], folder: Path) -> dict[str, str]:
    """What verify and repair say of the store after each of the crafts."""
    for number, craft in enumerate(crafts.values()):
        shutil.copytree(intact, folder / str(number))
        craft(folder / str(number))
    said = farm.run(probe.mend, [str(folder / str(n)) for n in range(len(crafts))]).check()
    return dict(zip(crafts, said, strict=True))


def test_what_is_refused_is_found_by_verify_and_kept_by_repair_as_far_as_it_goes(
    farm: Farm, intact: Path, tmp_path: Path
) -> None:
    found = mended(farm, intact, {"as it is": lambda store: None, **REFUSED}, tmp_path)
    assert found.pop("as it is") == "sound, 47 rows"
    newer = {"a newer format", "an unknown feature"}
    for case, said in found.items():
        if case in newer:
            assert said == "VersionError, VersionError"
        else:
            assert said.startswith("damaged, "), f"{case}: {said}"
            assert said.endswith(" rows"), f"{case}: {said}"
    assert sum(said == "damaged, 47 rows" for said in found.values()) > 9


def test_a_hostile_index_is_found_by_verify_and_costs_a_repair_nothing(
    farm: Farm, intact: Path, tmp_path: Path
) -> None:
    usable = {"entry 0", "radius 1e+308", "add_unit 1e+308"}  # numbers that a graph may have
    for case, said in mended(farm, intact, HOSTILE_INDEX, tmp_path).items():
        assert said == f"{'sound' if case in usable else 'damaged'}, 47 rows", case

"""The manifest: what is published is read; anything else is an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xxhash

from vecdb.errors import CorruptionError, NotFoundError, VersionError
from vecdb.schema import Hnsw, Schema, columns_from
from vecdb.segment.format import FileInfo
from vecdb.segment.fs import Directory
from vecdb.store.manifest import (
    FORMAT,
    Manifest,
    SegmentEntry,
    newest_generation,
    publish,
    read_manifest,
)

SEGMENT = SegmentEntry(FileInfo(3, 999, 2**64 - 1), 10, 9, (0, 2**62), None, FileInfo(4, 64, 5))
MANIFEST = Manifest(
    uuid=bytes(range(16)),
    generation=7,
    schema=Schema(dim=8, index=Hnsw(M=20), columns=columns_from({"a": "list<string>"})),
    sync="os",
    sequence=12,
    wal=5,
    next_id=2**63,
    next_file=9,
    segments=(SEGMENT,),
)


def write(folder: Path, document: dict[str, Any]) -> None:
    line = json.dumps(document).encode()
    digest = xxhash.xxh3_64_hexdigest(line).encode()
    (folder / "MANIFEST-00000007").write_bytes(line + b"\n" + digest + b"\n")


def test_a_published_manifest_is_the_newest_and_comes_back(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    publish(directory, MANIFEST)
    assert newest_generation(directory) == 7
    assert read_manifest(directory, 7) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["MANIFEST-00000007"]


def test_an_unfinished_manifest_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST-00000009.tmp").write_bytes(b"")
    assert newest_generation(Directory(tmp_path)) == 0
    with pytest.raises(NotFoundError):
        read_manifest(Directory(tmp_path), 9)


def test_every_changed_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = MANIFEST.encode()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        for content in (bytes(damaged), whole[:position]):
            with pytest.raises(ValueError, match="checksum"):
                Manifest.decode(content)
    (tmp_path / "MANIFEST-00000007").write_bytes(whole[:-1])
    with pytest.raises(CorruptionError, match="MANIFEST-00000007"):
        read_manifest(Directory(tmp_path), 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generation", 8),
        ("sequence", -1),
        ("wal", 2**63 + 1),
        ("next_file", 1.5),
        ("uuid", "00"),
        ("sync", "never"),
        ("schema", {}),
        ("segments", 5),
        ("segments", [{}]),
        ("segments", [[]]),
    ],
)
def test_crafted_fields_with_a_right_checksum_are_refused(
    tmp_path: Path, field: str, value: Any
) -> None:
    write(tmp_path, json.loads(MANIFEST.encode().splitlines()[0]) | {field: value})
    with pytest.raises(CorruptionError, match="MANIFEST-00000007"):
        read_manifest(Directory(tmp_path), 7)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 2**63}, {"rows": 2**62}, {"live": 11}, {"file": [1]},
        {"ids": [0, -5]}, {"ids": []}, {"ids": [0]}, {"ids": [0, 1, 2]}, {"ids": 7},
    ],
)  # fmt: skip
def test_crafted_segments_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = json.loads(MANIFEST.encode().splitlines()[0])
    document["segments"][0] |= change
    write(tmp_path, document)
    with pytest.raises(CorruptionError):
        read_manifest(Directory(tmp_path), 7)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    line = b"[" * 200_000
    digest = xxhash.xxh3_64_hexdigest(line).encode()
    (tmp_path / "MANIFEST-00000007").write_bytes(line + b"\n" + digest + b"\n")
    with pytest.raises(CorruptionError):
        read_manifest(Directory(tmp_path), 7)


@pytest.mark.parametrize("change", [{"format": FORMAT + 1}, {"features": ["from the future"]}])
def test_a_newer_format_is_refused_as_such_and_left_alone(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    write(tmp_path, json.loads(MANIFEST.encode().splitlines()[0]) | change)
    before = (tmp_path / "MANIFEST-00000007").read_bytes()
    with pytest.raises(VersionError, match="upgrade"):
        read_manifest(Directory(tmp_path), 7)
    assert (tmp_path / "MANIFEST-00000007").read_bytes() == before

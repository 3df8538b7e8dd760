"""Stores of earlier formats open and answer as they did; those of a later one are left alone."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import xxhash
from breaking import damage

import vecdb

FIXTURES = Path(__file__).parent.parent / "fixtures"
STORES = sorted(path.parent for path in FIXTURES.glob("*/answers.json"))


@pytest.mark.parametrize("folder", STORES, ids=lambda folder: folder.name)
@pytest.mark.parametrize("mode", ["r", "w", "optimized"])
def test_an_old_store_answers_as_it_did(folder: Path, mode: str, tmp_path: Path) -> None:
    """See tests/fixtures/make.py for what it holds."""
    answers = json.loads((folder / "answers.json").read_text())
    store = tmp_path / "store"
    shutil.copytree(folder / "store", store)
    with vecdb.open(store, "w" if mode != "r" else "r", verify="full") as col:
        if mode == "optimized":
            col.optimize()
        assert vecdb.store.verify(store)["ok"]
        rows = col.query().sort_by("id").to_pylist()
        assert json.loads(json.dumps(rows, default=str)) == answers["rows"]
        for search in answers["searches"]:
            query = np.array(search["query"], np.float32)
            hits = col.search(query, 5, where=search["where"], exact=True)
            assert hits.ids.tolist() == search["ids"]
            assert np.allclose(hits.distances, search["distances"], atol=1e-5)
            assert set(col.search(query, 5, where=search["where"]).ids) <= set(answers["ids"])


def test_there_is_a_store_of_every_format() -> None:
    from vecdb.store.manifest import FORMAT

    formats = {json.loads((path / "answers.json").read_text())["format"] for path in STORES}
    assert formats == set(range(1, FORMAT + 1))


def make_newer(store: Path, kind: str) -> None:
    """Raise the version of one file by one, under a checksum that is right."""
    if kind == "MANIFEST":
        damage.edit_manifest(store, lambda document: document.update(format=document["format"] + 1))
    elif kind == "wal":
        log = max(store.glob("wal-*.log"))
        data = bytearray(log.read_bytes())
        data[8] += 1
        data[56:64] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(data[:56])))
        damage.rewrite(log, bytes(data))
    else:
        container = damage.Container(min(store.glob(f"{kind}-*.vdb")))
        container.header[8] += 1
        container.save(store)


@pytest.mark.parametrize("kind", ["MANIFEST", "wal", "seg", "idx", "del"])
@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_newer_store_is_refused_and_left_as_it_is(
    mode: str, kind: str, intact: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(intact, store)
    make_newer(store, kind)
    before = damage.bytes_of(store)
    with pytest.raises(vecdb.VersionError, match="upgrade"):
        vecdb.open(store, mode)
    after = damage.bytes_of(store)
    after.pop("LOCK", None)
    before.pop("LOCK", None)
    assert after == before

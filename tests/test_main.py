"""``python -m vecdb`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import vecdb
from vecdb.__main__ import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    with vecdb.create(tmp_path / "a.vdb", dim=8) as col:
        col.add(rows, metadata={"n": list(range(300))})
        col.flush()
        col.delete(where="n < 30")
    return tmp_path / "a.vdb"


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out))


def test_info_shows_what_the_collection_holds(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(path), "--json"]) == 0
    shown = said(capsys)
    assert (shown["rows"], shown["dim"], shown["metric"]) == (270, 8, "cosine")
    assert shown["columns"] == {"n": "int64"}
    assert main(["info", str(path)]) == 0
    assert "270" in capsys.readouterr().out


def test_verify_tells_a_sound_store_from_a_damaged_one_and_repair_keeps_the_rest(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(path), "--json"]) == 0
    assert said(capsys)["ok"] is True
    segment = next(path.glob("seg-*"))
    data = bytearray(segment.read_bytes())
    data[5000] ^= 1
    segment.write_bytes(data)
    assert main(["verify", str(path), "--json"]) == 1
    assert segment.name in str(said(capsys)["problems"])
    main(["repair", str(path), str(tmp_path / "mended.vdb"), "--json"])
    assert said(capsys)["problems"]
    assert main(["verify", str(tmp_path / "mended.vdb")]) == 0
    assert segment.read_bytes() == data


def test_compact_gives_back_the_bytes_of_deleted_rows(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sum(file.stat().st_size for file in path.iterdir())
    with vecdb.open(path, "w") as col:
        col.delete(where="n < 200")
    assert main(["compact", str(path), "--json"]) == 0
    assert said(capsys)["bytes_after"] == sum(file.stat().st_size for file in path.iterdir())
    assert sum(file.stat().st_size for file in path.iterdir()) < before
    with vecdb.open(path) as col:
        assert col.stats()["tombstones"] == 0


def test_export_writes_every_row_to_parquet(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.parquet"
    assert main(["export", str(path), str(target), "--json"]) == 0
    assert said(capsys)["rows"] == 270
    table = pq.read_table(target)
    assert table.column_names == ["id", "n", "vector"]
    assert table["n"].to_pylist() == list(range(30, 300))
    assert main(["export", str(path), str(target)]) == 2
    assert "ExistsError" in capsys.readouterr().err


def test_bench_measures_recall_on_the_users_own_rows(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(path), "--json", "--queries", "20"]) == 0
    assert said(capsys)["recall"] == 1.0  # 270 rows are scanned exactly


def test_an_error_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("NotFoundError")
    assert error.count("\n") == 1

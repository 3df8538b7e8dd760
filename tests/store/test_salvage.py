"""What a repair keeps of a metadata column: every value outside the damaged blocks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vecdb.batch import Batch
from vecdb.schema import Schema
from vecdb.segment import format as f
from vecdb.store import Store, repair

ROWS = 13_000
BLOCK = 512
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

# how the value of a row is made, and rows of it that may lie in one block
VALUES: dict[str, tuple[pa.DataType, Any, int]] = {
    "bool": (pa.bool_(), lambda i: i % 3 == 0, 8 * BLOCK),
    "int16": (pa.int16(), lambda i: i % 997, BLOCK // 2),
    "int64": (pa.int64(), lambda i: i * 7, BLOCK // 8),
    "float64": (pa.float64(), lambda i: i / 4, BLOCK // 8),
    "time": (pa.timestamp("ms", "UTC"), lambda i: START + dt.timedelta(i), BLOCK // 8),
    "text": (pa.string(), lambda i: f"row {i}" if i % 5 else "", BLOCK // 4),
    "binary": (pa.binary(), lambda i: bytes([i % 251]) * (i % 4), BLOCK),
    "ints": (pa.list_(pa.int64()), lambda i: [i, i * i] if i % 3 else [], BLOCK // 4),
    "texts": (pa.list_(pa.string()), lambda i: [f"a{i}", None, "b"] if i % 3 else [], BLOCK),
}


@pytest.mark.parametrize("name", VALUES)
def test_damage_in_a_column_costs_the_values_of_its_block_and_no_others(
    lab: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f, "ROWS_BLOCK", BLOCK)
    kind, value, many = VALUES[name]
    values = [value(i) if i % 7 else None for i in range(ROWS)]
    columns = pa.schema([("other", pa.int64()), ("value", kind)])
    store = lab.create(Schema(4, "l2", columns=columns))
    metadata = pa.RecordBatch.from_arrays(
        [pa.array(range(ROWS)), pa.array(values, kind)], schema=columns
    )
    store.append(Batch(np.arange(ROWS), np.ones((ROWS, 4), np.float32), metadata))
    store.flush()
    sections = store.snapshot.parts[0].segment.files[0].sections
    store.close()
    path = lab.file("seg")
    whole = path.read_bytes()
    own = [
        section for key, section in sections.items() if key.startswith("c1.") and key[3].isdigit()
    ]
    assert len(own) == {"ints": 3, "texts": 5, "text": 3, "binary": 3}.get(name, 2)
    for section in own:
        assert section.blocks > 1
        data = bytearray(whole)
        data[section.offset + section.length // 16 * 8] ^= 1  # of a number the lowest bit
        path.write_bytes(data)
        target = tmp_path / section.name
        report = repair(lab.folder, target)
        assert report["ok"]
        mended = Store.open(target, workers=lab.workers)
        (part,) = mended.snapshot.parts
        assert part.data.column("other").to_pylist() == list(range(ROWS))
        found = part.data.column("value").to_pylist()
        mended.close()
        lost = [i for i in range(ROWS) if found[i] != values[i]]
        bits = 8 * BLOCK if section.name in ("c1.0", "c1.2") else 0  # or a text, which is shorter
        assert 0 < len(lost) <= max(many, bits) + 2
        assert all(found[i] is None for i in lost)
        (problem,) = report["problems"]
        assert path.name in problem
        nulls = sum(values[i] is None for i in range(lost[0], lost[-1] + 1))
        assert (
            len(lost) <= int(problem.rpartition("(lost: ")[2].split()[0]) <= len(lost) + nulls + 2
        )

"""Rows as Arrow tables, whatever their texts come to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vecdb

MIB = 1 << 20


@pytest.mark.long
def test_rows_with_more_text_than_one_arrow_array_holds_come_back(tmp_path: Path) -> None:
    """Takes 7 GiB of memory for some seconds."""
    with vecdb.create(tmp_path / "c", 2, schema={"text": "string"}) as col:
        for letter in "xy":  # one row in a segment, one in the memtable
            col.add(np.ones((1, 2), np.float32), metadata={"text": [letter * MIB]})
            if letter == "x":
                col.flush()
        asked = np.array([0, 1, 0, 0, 1] * 440)
        table = col.get(asked)
        assert table["id"].to_pylist() == asked.tolist()
        found = [text.as_py()[:: MIB - 1] for text in table["text"]]
        assert found == [("xx", "yy")[i] for i in asked]

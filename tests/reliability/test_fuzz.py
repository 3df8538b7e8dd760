"""Hypothesis writes files and filters: a typed error or a right answer, no crash and no hang.

Content is damaged behind a checksum that is made right, so that it reaches the parsers. The long
run (``pytest -m long tests/reliability/test_fuzz.py``, about 20 minutes) does 100 times as many;
with atheris installed it also follows the branches of the parsers for ten minutes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from breaking import damage, model
from breaking.hang import hanging_is_an_error
from breaking.parts import parts
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import VecdbError
from vecdb.schema import Schema
from vecdb.store import record
from vecdb.store.manifest import Manifest

EXAMPLES = 300
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**63, 2**64, -1, 44, [1, 8765, "01bc81719a5e2aca"]]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,  # CI tries the same each time
    suppress_health_check=list(HealthCheck),
)
fuzz_long = settings(fuzz, max_examples=10 * EXAMPLES, derandomize=False)


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes overwritten, cut out, put in, or repeated."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(out) - 1, 0)))
        piece = draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"[" * 64, b'"'])
        )
        how = draw(st.sampled_from(["over", "into", "out", "twice"]))
        if how == "over":
            out[place : place + len(piece)] = piece
        elif how == "into":
            out[place:place] = piece
        elif how == "out":
            del out[place : place + len(piece)]
        else:
            out[place:place] = out[place : place + 64]
    return bytes(out)


mutations = st.composite(mutated)


def replaced(draw: st.DrawFn, document: Any) -> Any:
    """The document with one value somewhere in it replaced."""
    if isinstance(document, dict | list) and document and draw(st.integers(0, 4)):
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = draw(st.sampled_from(keys))
        changed = document.copy()
        changed[key] = replaced(draw, document[key])
        return changed
    return draw(JSON)


replacements = st.composite(replaced)


@contextlib.contextmanager
def copy_of(store: Path) -> Iterator[Path]:
    """A copy to be changed."""
    work = store.parent / "work"
    shutil.copytree(store, work)
    try:
        yield work
    finally:
        shutil.rmtree(work)


def read(path: Path) -> None:
    """A reader of a hostile store gets a typed error or some content that can be read itself."""
    with contextlib.suppress(VecdbError), vecdb.open(path, threads=1) as col:
        col.query(select=[*col.schema.names, "vector"]).validate(full=True)
        col.search(model.vectors_of([1], [1])[0], 3)
        col.search(model.vectors_of([1], [1])[0], 3, exact=True)


def manifest_case(data: st.DataObject, store: Path) -> None:
    whole = json.loads(damage.newest_manifest(store).read_bytes().partition(b"\n")[0])
    changed = data.draw(replacements(whole))
    line = json.dumps(changed).encode()
    import xxhash

    encoded = line + b"\n" + xxhash.xxh3_64_hexdigest(line).encode() + b"\n"
    try:
        found = Manifest.decode(encoded)
    except (ValueError, VecdbError):
        return
    assert isinstance(found.schema, Schema)


def manifest_file_case(data: st.DataObject, store: Path) -> None:
    def edit(document: dict[str, Any]) -> str:
        return json.dumps(data.draw(replacements(document)))

    with copy_of(store) as work:
        damage.edit_manifest(work, edit)
        read(work)


def record_case(data: st.DataObject, store: Path) -> None:
    content = damage.records(max(store.glob("wal-*.log")))
    schema = Schema(8, "l2", columns=pa.schema([("version", "int64"), ("tag", "string"),
                                                ("days", pa.list_(pa.int64()))]))  # fmt: skip
    _, kind, payload = data.draw(st.sampled_from(content))
    kind = data.draw(st.sampled_from([kind, kind, kind, 1, 2, 3, 4, 0, 255]))
    with contextlib.suppress(ValueError):
        record.decode(kind, memoryview(data.draw(mutations(payload))), schema)


def log_case(data: st.DataObject, store: Path) -> None:
    with copy_of(store) as work:
        log = max(work.glob("wal-*.log"))
        content = damage.records(log)
        place = data.draw(st.integers(0, len(content) - 1))
        sequence, kind, payload = content[place]
        content[place] = (sequence, kind, data.draw(mutations(payload)))
        damage.rewrite_log(log, content)
        read(work)


def container_case(data: st.DataObject, store: Path) -> None:
    with copy_of(store) as work:
        path = data.draw(st.sampled_from(sorted(work.glob("*.vdb"))))
        container = damage.Container(path)
        if data.draw(st.booleans()):
            container.meta = data.draw(replacements(container.meta))
        else:
            name = data.draw(st.sampled_from(sorted(container.sections)))
            container.sections[name] = data.draw(mutations(container.sections[name]))
        container.save(work)
        read(work)


WORDS = st.sampled_from(
    ["AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN", "CONTAINS", "SELECT", "DROP",
     "TRUE", "FALSE", "(", ")", "[", "]", ",", ";", "=", "<>", "!=", "<", "<=", ">", ">=", "%", "*",
     "--", "/*", "*/", "1", "-1", "1e400", "1.5", "'a'", "'ü'''", "'", "version", "tag", "days",
     "nothing", '"version"', "\x00", "\\"]
)  # fmt: skip


def filter_case(data: st.DataObject, store: Path) -> None:
    text = data.draw(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=60))
    tree = data.draw(replacements({"$and": [{"version": {"$gt": 3}}, {"tag": {"$in": ["a"]}}]}))
    with vecdb.open(store, threads=1) as col:
        for where in (text, tree):
            with contextlib.suppress(VecdbError):
                col.query(where=where)


CASES: list[Callable[[st.DataObject, Path], None]] = [
    manifest_case, manifest_file_case, record_case, log_case, container_case, filter_case,
]  # fmt: skip
in_turn = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


@in_turn
@fuzz
@given(data=st.data())
def test_hostile_content_is_refused_or_read(
    case: Callable[[st.DataObject, Path], None], intact: Path, data: st.DataObject
) -> None:
    with hanging_is_an_error():
        case(data, intact)


@pytest.mark.long
@in_turn
@parts(10)
def test_much_hostile_content_is_refused_or_read(
    case: Callable[[st.DataObject, Path], None], part: int, intact: Path
) -> None:
    """3,000 examples of one case in each part, 18 s."""

    @seed(part)
    @fuzz_long
    @given(data=st.data())
    def tried(data: st.DataObject) -> None:
        with hanging_is_an_error():
            case(data, intact)

    tried()


def test_a_filter_that_is_too_deep_or_too_large_is_refused(intact: Path) -> None:
    deep: Any = {"version": 1}
    for _ in range(5_000):
        deep = {"$and": [deep]}
    with vecdb.open(intact, threads=1) as col:
        for where in (
            deep,
            "(" * 5_000 + "version = 1" + ")" * 5_000,
            "NOT " * 5_000 + "version = 1",
            " OR ".join(["version = 1"] * 20_000),
            {"$or": [{"version": i} for i in range(20_000)]},
        ):
            with pytest.raises(vecdb.FilterError):
                col.query(where=where)


@pytest.mark.long
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is not installed")
def test_atheris_finds_no_way_to_crash_the_parsers(intact: Path, tmp_path: Path) -> None:
    """Ten minutes of coverage-guided fuzzing (VECDB_TEST_SECONDS for another time)."""
    index, segment = (damage.Container(min(intact.glob(f"{kind}-*"))) for kind in ("idx", "seg"))
    _, kind, payload = damage.records(max(intact.glob("wal-*.log")))[0]
    begin = [
        damage.newest_manifest(intact).read_bytes().partition(b"\n")[0],
        bytes([kind]) + payload,
        b"version > 3 AND (tag LIKE 'a%' OR tag IN ('b', 'c')) AND NOT days IS NULL",
        json.dumps(index.meta).encode(),
        json.dumps(segment.meta).encode(),
        b"\2" + segment.sections["c1.1"],
    ]
    for number, data in enumerate(begin):
        (tmp_path / str(number)).write_bytes(bytes([number]) + data)
    seconds = os.environ.get("VECDB_TEST_SECONDS", "600")
    done = subprocess.run(
        [sys.executable, "-m", "breaking.target", f"-max_total_time={seconds}", "-timeout=10",
         "-max_len=8192", f"-artifact_prefix={tmp_path}/", str(tmp_path)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

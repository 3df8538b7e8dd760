"""What atheris mutates: ``python -m breaking.target [libFuzzer options] corpus``.

The first byte of the input chooses a parser, the rest is what it is given, behind checksums that
are right. Anything but the parser's own error ends the run.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np
import xxhash

with atheris.instrument_imports(include=["vecdb"]):
    import vecdb
    from breaking import damage, probe
    from vecdb.filter.parse import parse
    from vecdb.segment import Segment
    from vecdb.segment.container import Container
    from vecdb.segment.format import Kind
    from vecdb.segment.fs import Directory
    from vecdb.segment.index import open_graph
    from vecdb.store import record
    from vecdb.store.manifest import Manifest

FOLDER = Path(tempfile.mkdtemp())
probe.build(FOLDER / "store")
SCHEMA = vecdb.open(FOLDER / "store")._store.schema
INDEX = damage.Container(next((FOLDER / "store").glob("idx-*")))
SEGMENT = damage.Container(min((FOLDER / "store").glob("seg-*")))
META, SECTIONS = SEGMENT.meta, SEGMENT.sections
UUID = bytes(INDEX.header[16:32])
ROWS, DIM = 44, 8


def manifest(data: bytes) -> None:
    line = data.replace(b"\n", b" ")
    with contextlib.suppress(ValueError, RecursionError, vecdb.VecdbError):
        Manifest.decode(line + b"\n" + xxhash.xxh3_64_hexdigest(line).encode() + b"\n")


def log_record(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        record.decode(data[0] if data else 0, memoryview(data[1:]), SCHEMA)


def filter_text(data: bytes) -> None:
    with contextlib.suppress(vecdb.FilterError):
        parse(data.decode(errors="replace"), SCHEMA)


def index_meta(data: bytes) -> None:
    INDEX.meta = data.decode("latin-1")
    (FOLDER / "fuzzed").write_bytes(INDEX.pack())
    with contextlib.suppress(vecdb.VecdbError):
        container = Container(Directory(FOLDER), "fuzzed", Kind.INDEX, UUID)
        open_graph(container, ROWS, DIM)


def segment_meta(data: bytes) -> None:
    SEGMENT.meta, SEGMENT.sections = data.decode("latin-1"), SECTIONS
    read_segment()


def segment_section(data: bytes) -> None:
    """The second byte chooses the section."""
    name = sorted(SECTIONS)[data[0] % len(SECTIONS)] if data else "vectors"
    SEGMENT.meta, SEGMENT.sections = META, SECTIONS | {name: data[1:]}
    read_segment()


def read_segment() -> None:
    """Every id, vector and column."""
    (FOLDER / "fuzzed").write_bytes(SEGMENT.pack())
    with contextlib.suppress(vecdb.VecdbError):
        container = Container(Directory(FOLDER), "fuzzed", Kind.SEGMENT, UUID)
        segment = Segment(container, SCHEMA, ROWS)
        segment.ids.find(segment.ids.get(np.arange(ROWS)))
        for name in segment.columns.names:
            segment.column(name).validate(full=True)
        for _ in segment.checked_vectors():
            pass


PARSERS = [manifest, log_record, filter_text, index_meta, segment_meta, segment_section]


def one(data: bytes) -> None:
    """One input."""
    if data:
        PARSERS[data[0] % len(PARSERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

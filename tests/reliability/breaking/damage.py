"""Changes files of a store and makes their checksums right again, as a hostile author would.

Byte offsets follow vecdb/segment/format.py; but for the sizes of blocks in old files nothing of
it is used, so that a check missing there is not missing here as well.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from vecdb.segment import format as f

HEADER, TAIL, ROW = 64, struct.Struct("<QIIQ24xQ8s"), struct.Struct("<31sBQQQQ")
WAL_HEAD, RECORD = struct.Struct("<8sI4x16sQQQ"), struct.Struct("<IIQB7x")


def rewrite(path: Path, data: bytes) -> None:
    """Put a new file in the place of one: what is mapped of the old one stays as it is."""
    path.unlink()
    path.write_bytes(data)


def bytes_of(store: Path) -> dict[str, bytes]:
    """Every file of a store, by name."""
    return {path.name: path.read_bytes() for path in store.iterdir()}


def newest_manifest(store: Path) -> Path:
    """Path of the manifest that counts."""
    return max(store.glob("MANIFEST-????????"))


def edit_manifest(store: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest's JSON; `edit` may return text that takes the place of the document."""
    path = newest_manifest(store)
    document = json.loads(path.read_bytes().partition(b"\n")[0])
    changed = edit(document)
    line = changed.encode() if isinstance(changed, str) else json.dumps(document).encode()
    rewrite(path, line + b"\n" + xxhash.xxh3_64_hexdigest(line).encode() + b"\n")


class Container:
    """A container file taken apart: header, sections (name -> bytes), table rows, meta, tail.

    Change :attr:`sections`, :attr:`meta`, or (last, by :attr:`forge`) the finished table and tail.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self.header = bytearray(data[:HEADER])
        start, count, meta, _, _, _ = TAIL.unpack(data[-64:])
        table = data[start : start + count * ROW.size]
        self.sections: dict[str, bytes] = {}
        self.offsets: dict[str, int] = {}  # where the sections were
        self.bits: dict[str, int] = {}  # log2 of the bytes of their blocks; 0 in an old file
        for raw, bits, offset, length, _, _ in ROW.iter_unpack(table):
            name = raw.rstrip(b"\0").decode()
            self.bits[name] = bits
            self.sections[name], self.offsets[name] = data[offset : offset + length], offset
        self.meta: Any = json.loads(data[start + count * ROW.size :][:meta])
        self.forge: Callable[[list[list[Any]], dict[str, Any]], None] = lambda table, tail: None

    def pack(self) -> bytes:
        """The file with every hash as it must be."""
        body = bytearray(self.header)
        rows: list[list[Any]] = []
        for name, data in self.sections.items():
            body += bytes(-len(body) % 4096)
            rows.append([name.encode(), self.bits.get(name, 20), len(body), len(data), 0, 0])
            body += data
        body += bytes(-len(body) % 8)
        for row, (name, data) in zip(rows, self.sections.items(), strict=True):
            old = f.old_block_size(self.header[8], f.Kind(self.header[10]), name)
            size = 1 << row[1] if row[1] else old
            blocks = [data[i : i + size] for i in range(0, len(data), size)]
            hashes = b"".join(struct.pack("<Q", xxhash.xxh3_64_intdigest(b)) for b in blocks)
            row[4:] = [len(body), xxhash.xxh3_64_intdigest(hashes)]
            body += hashes
        meta = self.meta.encode() if isinstance(self.meta, str) else json.dumps(self.meta).encode()
        tail = {"start": len(body), "count": len(rows), "meta": len(meta)}
        tail["length"] = len(body) + len(rows) * ROW.size + len(meta) + 64
        self.forge(rows, tail)
        footer = b"".join(ROW.pack(*row) for row in rows) + meta
        numbers = tail["start"], tail["count"], tail["meta"], tail["length"]
        hashed = bytes(self.header) + footer + TAIL.pack(*numbers, 0, b"vecdbend")[:48]
        self.digest = xxhash.xxh3_64_intdigest(hashed)
        return bytes(body) + footer + TAIL.pack(*numbers, self.digest, b"vecdbend")

    def save(self, store: Path) -> None:
        """Write the file and make the manifest name it."""
        data = self.pack()
        rewrite(self.path, data)
        number = int(self.path.stem.split("-")[1])
        key = {"seg": "file", "idx": "index", "del": "deletes"}[self.path.stem[:3]]

        def name(document: dict[str, Any]) -> None:
            for entry in document["segments"]:
                if entry[key] is not None and entry[key][0] == number:
                    entry[key] = [number, len(data), f"{self.digest:016x}"]

        edit_manifest(store, name)


def records(path: Path) -> list[tuple[int, int, bytes]]:
    """(sequence, type, payload) of each record of a log."""
    data = path.read_bytes()
    found, place = [], 64
    while place + 32 <= len(data):
        _, size, sequence, kind = RECORD.unpack_from(data, place)
        found.append((sequence, kind, data[place + 32 : place + 32 + size]))
        place += 32 + size
    return found


def rewrite_log(path: Path, content: list[tuple[int, int, bytes]]) -> None:
    """Write a log anew with these records, each one checksummed."""
    data = bytearray(path.read_bytes()[:64])
    salt = WAL_HEAD.unpack_from(data)[4]
    for sequence, kind, payload in content:
        head = RECORD.pack(0x6C617776, len(payload), sequence, kind)
        data += head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head + payload, seed=salt))
        data += payload
    rewrite(path, bytes(data))

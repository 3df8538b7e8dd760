"""Container files: what is written is read back, and every change of a byte is noticed."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import numpy as np
import pytest
import xxhash

from vecdb.errors import CorruptionError, StorageError, VersionError
from vecdb.segment import format as f
from vecdb.segment.container import Container
from vecdb.segment.fs import Directory
from vecdb.segment.mapping import SCATTERED
from vecdb.segment.writer import ContainerWriter

STORE = bytes(range(16))
NAME = "seg-00000007.vdb"


def written(folder: Path, sections: dict[str, np.ndarray]) -> f.FileInfo:
    writer = ContainerWriter(Directory(folder), NAME, f.Header(f.Kind.SEGMENT, STORE, 7))
    for name, data in sections.items():
        writer.add(name, data)
    return writer.finish({"rows": 3}).info


def opened(folder: Path, info: f.FileInfo | None = None) -> Container:
    return Container(Directory(folder), NAME, f.Kind.SEGMENT, STORE, info)


def test_sections_come_back_as_they_were_written(tmp_path: Path) -> None:
    data = {
        "small": np.arange(5, dtype="<i8"),
        "empty": np.empty(0, "<f4"),
        "blocks": np.random.default_rng(0).integers(0, 256, 3 * f.BLOCK + 17).astype("u1"),
    }
    container = opened(tmp_path, written(tmp_path, data))
    assert container.meta == {"rows": 3}
    for name, array in data.items():
        read = container.array(name, array.dtype, array.shape)
        np.testing.assert_array_equal(read, array)
        assert container.sections[name].offset % f.ALIGN == 0
        assert not read.flags.writeable
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            read.flags.writeable = True


@pytest.mark.parametrize("kind", [f.Kind.SEGMENT, f.Kind.INDEX])
@pytest.mark.parametrize("size", [100, SCATTERED])
def test_what_was_just_written_is_mapped_as_if_opened_by_its_name(
    tmp_path: Path, kind: f.Kind, size: int
) -> None:
    writer = ContainerWriter(Directory(tmp_path), NAME, f.Header(kind, STORE, 7))
    writer.add("bytes", np.random.default_rng(0).integers(0, 256, size).astype("u1"))
    made = writer.finish({"rows": 3})
    found = Container(Directory(tmp_path), NAME, kind, STORE, made.info)
    assert (made.sections, made.meta, made.length) == (found.sections, found.meta, found.length)
    assert made.mapping.glance(0, made.length) == (tmp_path / NAME).read_bytes()
    assert (made.mapping.descriptor >= 0) == (found.mapping.descriptor >= 0)
    np.testing.assert_array_equal(*(c.array("bytes", "u1", (size,)) for c in (made, found)))
    (tmp_path / NAME).unlink()
    assert made.problems() == []


@pytest.mark.parametrize(
    ("name", "size"),
    [("vectors", f.BLOCK), ("c3.1", f.ROWS_BLOCK), ("c3.2", f.ROWS_BLOCK),
     ("ids.text", f.ROWS_BLOCK)],
)  # fmt: skip
def test_block_hashes_are_the_hashes_of_blocks_however_the_section_was_written(
    tmp_path: Path, name: str, size: int
) -> None:
    data = np.random.default_rng(1).integers(0, 256, 2 * f.BLOCK + 999).astype("u1")
    writer = ContainerWriter(Directory(tmp_path), NAME, f.Header(f.Kind.SEGMENT, STORE, 7))
    writer.begin(name)
    for start in range(0, len(data), 70_001):
        writer.write(data[start : start + 70_001])
    writer.finish({})
    container = opened(tmp_path)
    section = container.sections[name]
    hashes = container.mapping.array(section.hashes, "<u8", (section.blocks,))
    naive = [xxhash.xxh3_64_intdigest(data[i : i + size]) for i in range(0, len(data), size)]
    assert hashes.tolist() == naive
    container.verify(name)


def test_a_changed_byte_is_noticed_in_every_block_also_after_it_was_hashed(tmp_path: Path) -> None:
    data = np.random.default_rng(4).integers(0, 256, 3 * f.ROWS_BLOCK + 17).astype("u1")
    container = opened(tmp_path, written(tmp_path, {"bytes": data}))
    container.verify("bytes")
    start = container.sections["bytes"].offset
    with (tmp_path / NAME).open("r+b") as file:
        for place in (0, f.ROWS_BLOCK - 1, f.ROWS_BLOCK, 3 * f.ROWS_BLOCK, len(data) - 1):
            for value in (data[place] ^ 1, data[place]):
                file.seek(start + place)
                file.write(bytes([value]))
                file.flush()
                bad = [place // f.ROWS_BLOCK] if value != data[place] else []
                assert container.bad_blocks("bytes") == bad
                assert len(container.problems()) == len(bad)


def test_a_block_that_was_replaced_together_with_its_hash_is_noticed(tmp_path: Path) -> None:
    """By the hash over the block hashes: nothing of the section is taken for sound."""
    data = np.random.default_rng(3).integers(0, 256, 5 * f.ROWS_BLOCK).astype("u1")
    info = written(tmp_path, {"bytes": data, "other": data})
    section = opened(tmp_path, info).sections["bytes"]
    file = bytearray((tmp_path / NAME).read_bytes())
    place = section.offset + 2 * f.ROWS_BLOCK
    file[place] ^= 1
    digest = xxhash.xxh3_64_intdigest(file[place : place + f.ROWS_BLOCK])
    file[section.hashes + 16 : section.hashes + 24] = digest.to_bytes(8, "little")
    (tmp_path / NAME).write_bytes(file)
    container = opened(tmp_path, info)
    for use in (
        container.verify,
        container.check_block_hashes,
        lambda name: container.reach(name, 1, 1),
    ):
        for _ in range(2):
            with pytest.raises(CorruptionError, match="the block hashes of 'bytes'"):
                use("bytes")
    assert container.bad_blocks("bytes") == [0, 1, 2, 3, 4]
    assert len(container.problems()) == 1
    container.verify("other")


def test_released_blocks_leave_resident_memory_and_read_the_same_again(tmp_path: Path) -> None:
    """Pages behind the end belong to somebody else: they are left alone."""
    data = np.random.default_rng(2).integers(0, 256, 5 * f.BLOCK // 2).astype("u1")
    container = opened(tmp_path, written(tmp_path, {"vectors": data}))

    def resident() -> int:
        """Pages of the file that this process has, in KiB."""
        maps = Path("/proc/self/smaps").read_text().split(str(tmp_path / NAME))[1]
        return int(maps.split("Rss:")[1].split()[0])

    container.verify("vectors")
    assert resident() >= data.nbytes // 1024
    container.release_blocks("vectors", 0, 2)
    container.release_blocks("vectors", 2, 4)
    assert resident() < 64
    np.testing.assert_array_equal(container.array("vectors", "u1", data.shape), data)


def test_a_hole_reads_as_zeros_takes_no_space_and_passes_its_hashes(tmp_path: Path) -> None:
    writer = ContainerWriter(Directory(tmp_path), NAME, f.Header(f.Kind.SEGMENT, STORE, 7))
    writer.begin("sparse", f.PAGE)
    writer.write(np.ones(1000, "u1"))
    writer.skip(64 * f.BLOCK)
    writer.write(np.ones(1000, "u1"))
    info = writer.finish({}).info
    container = opened(tmp_path, info)
    container.verify("sparse")
    read = container.array("sparse", "u1", (2000 + 64 * f.BLOCK,))
    assert read[:1000].all()
    assert not read[1000:-1000].any()
    assert read[-1000:].all()
    assert (tmp_path / NAME).stat().st_blocks * 512 < f.BLOCK


def test_every_flipped_bit_is_noticed_at_open_or_at_first_use(tmp_path: Path) -> None:
    info = written(tmp_path, {"a": np.arange(40, dtype="<i8"), "b": np.arange(9, dtype="<f4")})
    path = tmp_path / NAME
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.unlink()
        path.write_bytes(damaged)
        with contextlib.suppress(CorruptionError, VersionError):
            container = opened(tmp_path, info)
            assert container.problems() or padding(container, position)


def padding(container: Container, position: int) -> bool:
    """Whether no section, hash or footer uses the byte: then nothing read can differ."""
    used = [(s.offset, s.offset + s.length) for s in container.sections.values()]
    used += [(s.hashes, s.hashes + 8 * s.blocks) for s in container.sections.values()]
    used += [(0, 64), (container._footer_offset, container.length)]
    return not any(start <= position < stop for start, stop in used)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    info = written(tmp_path, {"a": np.arange(40, dtype="<i8")})
    path = tmp_path / NAME
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.unlink()
        path.write_bytes(whole[:length])
        for expected in (info, None):
            with pytest.raises((CorruptionError, StorageError)):
                opened(tmp_path, expected).verify("a")


def test_a_file_of_another_store_kind_or_place_is_refused(tmp_path: Path) -> None:
    info = written(tmp_path, {"a": np.arange(4)})
    with pytest.raises(CorruptionError, match="another store"):
        Container(Directory(tmp_path), NAME, f.Kind.SEGMENT, bytes(16), info)
    with pytest.raises(CorruptionError, match="index file"):
        Container(Directory(tmp_path), NAME, f.Kind.INDEX, STORE, info)
    with pytest.raises(CorruptionError, match="another store or place"):
        opened(tmp_path, f.FileInfo(8, info.length, info.footer))
    with pytest.raises(CorruptionError, match="footer"):
        opened(tmp_path, f.FileInfo(7, info.length, info.footer ^ 1))


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    written(tmp_path, {"a": np.arange(4)})
    path = tmp_path / NAME
    changed = bytearray(path.read_bytes())
    changed[8] = f.VERSION + 1
    path.write_bytes(changed)
    with pytest.raises(VersionError, match="upgrade"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("version", "sizes"),
    [(1, [2**20, 2**16, 2**16, 2**16]), (2, [2**20, 2**16, 2**12, 2**12])],
)
def test_blocks_of_old_files_have_the_sizes_of_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, sizes: list[int]
) -> None:
    """Their sections don't say it: there is a zero in its place."""
    by_name = dict(zip(("vectors", "c0.1", "c0.2", "ids.text"), sizes, strict=True))
    text = np.random.default_rng(6).integers(97, 123, 3 * 2**20 + 17).astype("u1")
    with monkeypatch.context() as then:
        then.setattr(f, "VERSION", version)
        then.setattr(f, "block_size", lambda _, name: by_name[name])
        then.setattr(f, "ROW", Saying(0))
        info = written(tmp_path, dict.fromkeys(by_name, text))
    path = tmp_path / NAME
    assert path.read_bytes()[8] == version
    container = opened(tmp_path, info)
    assert container.problems() == []
    changed = bytearray(path.read_bytes())
    for name, size in by_name.items():
        assert container.sections[name].blocks == 3 * 2**20 // size + 1
        changed[container.sections[name].offset + size] ^= 1
    path.unlink()
    path.write_bytes(changed)
    damaged = opened(tmp_path, info)
    assert {name: damaged.bad_blocks(name) for name in by_name} == {name: [1] for name in by_name}


class Saying:
    """Rows of section tables that say a size of blocks which is not the one of their blocks."""

    def __init__(self, bits: int) -> None:
        self._bits, self._row, self.size = bits, f.ROW, f.ROW.size

    def pack(self, name: bytes, _: int, *numbers: int) -> bytes:
        return self._row.pack(name, self._bits, *numbers)


@pytest.mark.parametrize("bits", [0, 5, 31, 255])
def test_blocks_of_an_absurd_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    with monkeypatch.context() as then:
        then.setattr(f, "ROW", Saying(bits))
        info = written(tmp_path, {"words": np.arange(99, dtype="<u4")})
    container = opened(tmp_path, info)
    with pytest.raises(CorruptionError, match=r"'words' in blocks of 2\*\*6 to 2\*\*30 bytes"):
        _ = container.sections


@pytest.mark.parametrize(
    "row",
    [
        ("a", 64, 2**63, 128, 0),
        ("a", 2**64 - 64, 64, 128, 0),
        ("a", 64, 64, 2**64 - 8, 0),
        ("a", 0, 64, 128, 0),
        ("a", 65, 8, 128, 0),
    ],
)
def test_crafted_section_tables_are_refused_without_touching_memory(
    tmp_path: Path, row: tuple[str, int, int, int, int]
) -> None:
    header = f.Header(f.Kind.SEGMENT, STORE, 7).pack()
    body = bytes(128)
    name, *numbers = row
    footer = f.ROW.pack(name.encode(), 10, *numbers) + b"{}"
    start = len(header) + len(body)
    tail = f.Tail(start, 1, 2, start + len(footer) + f.TAIL.size)
    digest = f.footer_hash(header, footer, tail.pack(0))
    (tmp_path / NAME).write_bytes(header + body + footer + tail.pack(digest))
    with pytest.raises(CorruptionError, match="sections one after the other"):
        opened(tmp_path).verify("a")


def test_the_mapping_lives_as_long_as_its_last_view(tmp_path: Path) -> None:
    written(tmp_path, {"a": np.arange(1000, dtype="<i8")})

    def mapped() -> bool:
        return str(tmp_path / NAME) in Path("/proc/self/maps").read_text()

    container = opened(tmp_path)
    view = container.array("a", "<i8", (1000,))[500:]
    buffer = container.buffer("a")
    del container
    (tmp_path / NAME).unlink()
    gc.collect()
    assert mapped()
    assert view[0] == 500
    del view
    assert mapped()
    assert buffer.to_pybytes()[:8] == bytes(8)
    del buffer
    assert not mapped()


def test_a_large_segment_keeps_one_descriptor_until_its_last_view_is_gone(tmp_path: Path) -> None:
    def open_here() -> int:
        links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        return sum(link == (tmp_path / NAME).resolve() for link in links)

    small = opened(tmp_path, written(tmp_path, {"data": np.zeros(1000, "u1")}))
    assert (small.mapping.descriptor, open_here()) == (-1, 0)
    (tmp_path / NAME).unlink()
    large = opened(tmp_path, written(tmp_path, {"data": np.zeros(5 * f.BLOCK, "u1")}))
    assert open_here() == 1
    view = large.array("data", "u1", (5 * f.BLOCK,))
    del large
    gc.collect()
    assert open_here() == 1
    del view
    gc.collect()
    assert open_here() == 0


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path, {"a": np.arange(4)})
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(StorageError):
        written(tmp_path, {"a": np.arange(5)})
    assert (tmp_path / NAME).read_bytes() == before
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    written(tmp_path, {"a": np.arange(4)})
    (tmp_path / NAME).rename(tmp_path / "elsewhere")
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        opened(tmp_path)

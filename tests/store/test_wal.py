"""The write-ahead log: torn tails end it, damage before later records is an error."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from vecdb.errors import CorruptionError, PoisonedError, StorageError, VersionError
from vecdb.segment import fs
from vecdb.segment.fs import Directory
from vecdb.store import names
from vecdb.store.wal import HEADER_SIZE, RECORD_SIZE, WalReader, WalWriter

STORE = bytes(range(16))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with the records 5 to 9, of 10, 20, ... bytes."""
    writer = WalWriter(Directory(tmp_path), 3, STORE, 5)
    for i in range(1, 6):
        writer.append(i % 4 + 1, [bytes([i]) * 5, bytes([i]) * (10 * i - 5)])
    writer.sync()
    writer.close()
    return tmp_path / names.wal(3)


def reader(log: Path) -> WalReader:
    return WalReader(Directory(log.parent), 3, STORE)


def sequences(log: Path) -> list[int]:
    return [record.sequence for record in reader(log).records()]


def test_records_come_back_in_order_with_type_and_payload(log: Path) -> None:
    records = list(reader(log).records())
    assert [record.sequence for record in records] == [5, 6, 7, 8, 9]
    assert [record.kind for record in records] == [2, 3, 4, 1, 2]
    assert [bytes(record.payload) for record in records] == [
        bytes([i]) * 10 * i for i in range(1, 6)
    ]


def test_a_record_that_was_looked_at_while_it_was_written_is_read_again(log: Path) -> None:
    whole = log.read_bytes()
    last = len(whole) - 50  # the payload of the last record
    log.write_bytes(whole[:last] + bytes(50))
    following = reader(log)
    assert [record.sequence for record in following.records()] == [5, 6, 7, 8]
    with log.open("r+b") as file:
        file.seek(last)
        file.write(whole[last:])
    assert [record.sequence for record in following.records()] == [9]


def test_every_truncation_keeps_the_whole_records_before_it(log: Path) -> None:
    whole = log.read_bytes()
    ends = [HEADER_SIZE]
    for i in range(1, 6):
        ends.append(ends[-1] + RECORD_SIZE + 10 * i)
    assert ends[-1] == len(whole)
    for length in range(HEADER_SIZE, len(whole) + 1):
        log.write_bytes(whole[:length])
        read = reader(log)
        kept = sum(1 for _ in read.records())
        assert kept == sum(1 for end in ends[1:] if end <= length)
        assert len(read.torn()) == length - ends[kept]


def test_a_flipped_bit_is_a_torn_tail_in_the_last_record_and_damage_before(log: Path) -> None:
    whole = log.read_bytes()
    last = len(whole) - 50 - RECORD_SIZE
    for position in range(HEADER_SIZE, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        log.write_bytes(damaged)
        read = reader(log)
        kept = sum(1 for _ in read.records())
        assert kept < 5
        if position >= last:
            assert kept == 4
            assert len(read.torn()) == len(whole) - last
        else:
            with pytest.raises(CorruptionError, match=log.name):
                read.torn()


def test_zeros_behind_the_end_are_no_torn_tail(log: Path) -> None:
    log.write_bytes(log.read_bytes() + bytes(5000))
    read = reader(log)
    assert len(list(read.records())) == 5
    assert read.torn() == b""


def test_records_of_another_log_are_never_taken_for_this_ones(log: Path, tmp_path: Path) -> None:
    other = WalWriter(Directory(tmp_path), 4, STORE, 10)
    other.append(1, [b"stale"])
    other.sync()
    stale = (tmp_path / names.wal(4)).read_bytes()[HEADER_SIZE:]
    log.write_bytes(log.read_bytes() + stale)
    read = reader(log)
    assert len(list(read.records())) == 5
    assert read.torn() == stale


@pytest.mark.parametrize("position", range(HEADER_SIZE))
def test_a_damaged_header_is_refused(log: Path, position: int) -> None:
    damaged = bytearray(log.read_bytes())
    damaged[position] ^= 4
    log.write_bytes(damaged)
    with pytest.raises(CorruptionError, match=log.name):
        reader(log)


def test_a_log_of_another_store_number_or_version_is_refused(log: Path) -> None:
    with pytest.raises(CorruptionError, match="another store"):
        WalReader(Directory(log.parent), 3, bytes(16))
    log.rename(log.parent / names.wal(9))
    with pytest.raises(CorruptionError, match="place"):
        WalReader(Directory(log.parent), 9, STORE)


def test_a_newer_version_is_refused_as_such(log: Path) -> None:
    import xxhash

    data = bytearray(log.read_bytes())
    struct.pack_into("<I", data, 8, 2)
    struct.pack_into("<Q", data, 56, xxhash.xxh3_64_intdigest(bytes(data[:56])))
    log.write_bytes(data)
    with pytest.raises(VersionError):
        reader(log)


def test_a_tail_that_is_full_of_record_heads_is_judged_in_linear_time(tmp_path: Path) -> None:
    """Rows may hold what a record begins with: told by size and number, else given up as damage."""
    directory = Directory(tmp_path)
    size = 1 << 20
    for number, sequence, outcome in ((1, 1, "torn"), (2, 2**60, "imitate")):
        writer = WalWriter(directory, number, STORE, 1)
        writer.append(7, [b"first"])
        writer.close()
        heads = struct.pack("<IIQB7x", 0x6C617776, size // 2, sequence, 1) + bytes(8)
        with (tmp_path / f"wal-{number:08}.log").open("ab") as file:
            file.write(heads * (size // 32))
        reader = WalReader(directory, number, STORE)
        assert len(list(reader.records())) == 1
        if outcome == "torn":
            assert len(reader.torn()) == size
        else:
            with pytest.raises(CorruptionError, match="imitate"):
                reader.torn()
        reader.close()


def test_a_reader_follows_a_writer_record_by_record(tmp_path: Path) -> None:
    writer = WalWriter(Directory(tmp_path), 3, STORE, 1)
    read = WalReader(Directory(tmp_path), 3, STORE)
    for i in range(1, 20):
        assert list(read.records()) == []
        writer.append(1, [bytes(i)])
        assert [record.sequence for record in read.records()] == [i]


def test_short_writes_go_on_until_every_byte_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    class OneByte(fs.Calls):
        @staticmethod
        def writev(fd: int, buffers: list[memoryview]) -> int:
            return os.write(fd, buffers[0][:1])

    monkeypatch.setattr(fs, "calls", OneByte())
    writer = WalWriter(Directory(tmp_path), 3, STORE, 1)
    writer.append(1, [b"abc", b"", b"defg"])
    (record,) = WalReader(Directory(tmp_path), 3, STORE).records()
    assert bytes(record.payload) == b"abcdefg"


def test_a_failed_sync_is_never_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(fs.Calls):
        @staticmethod
        def fdatasync(fd: int) -> None:
            raise OSError(5, "I/O error")

    writer = WalWriter(Directory(tmp_path), 3, STORE, 1)
    writer.append(1, [b"abc"])
    monkeypatch.setattr(fs, "calls", Failing())
    with pytest.raises(StorageError):
        writer.sync()
    monkeypatch.setattr(fs, "calls", fs.Calls())
    with pytest.raises(PoisonedError):
        writer.sync()


def test_a_log_with_records_is_never_appended_to_again(log: Path) -> None:
    with pytest.raises(ValueError, match="never appended"):
        WalWriter.resume(Directory(log.parent), reader(log))

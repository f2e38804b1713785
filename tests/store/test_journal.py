from __future__ import annotations

import errno
import os
import signal
import stat
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError, StoreDamagedError, StoreError, StoreFullError
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal, JournalRecord, read_range, walk_records
from mos_pipeline.store.scanning import Damaged, Torn
from tests.store.common import flip, run_python

SIZE = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "00000001.journal"


def written(path: Path, bodies: list[bytes], size: int = SIZE, first_seq: int = 0) -> list[int]:
    """Write a journal; return the records' offsets, with the end."""
    journal = Journal.create(path, size)
    for seq, body in enumerate(bodies, first_seq):
        assert journal.append(seq, body) is not None
    offsets = [offset for offset, _, _ in journal.records()] + [journal.end]
    journal.close()
    return offsets


def contents(path: Path) -> tuple[list[tuple[int, bytes]], list[Damaged], Torn | None]:
    journal = Journal.open(path)
    found = [(seq, body) for _, seq, body in journal.records()]
    journal.close()
    return found, journal.damage, journal.torn


@settings(deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=20), st.integers(0, 2**64 - 21))
def test_round_trip(bodies: list[bytes], first_seq: int) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "1.journal"
        offsets = written(path, bodies, first_seq=first_seq)
        assert contents(path) == (list(enumerate(bodies, first_seq)), [], None)
        for item, (seq, body) in zip(read_range(path, 0, offsets[-1]), enumerate(bodies, first_seq), strict=True):
            assert item[1:] == (seq, body)


def test_record_layout(path: Path) -> None:
    written(path, [b"body"], first_seq=7)
    rest = struct.pack("<IQ", 4, 7) + b"body"
    expected = struct.pack("<I", crc32(rest)) + rest
    assert path.read_bytes() == expected + bytes(SIZE - len(expected))


def test_file_is_private_and_wholly_allocated(path: Path) -> None:
    written(path, [])
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE


def test_append_tells_where_and_reads_back(path: Path) -> None:
    journal = Journal.create(path, SIZE)
    assert [journal.append(seq, body) for seq, body in enumerate([b"", b"x" * 10, b"y" * 9000])] == [0, 16, 42]
    assert journal.end == 42 + RECORD_OVERHEAD + 9000
    assert [journal.read(offset) for offset in (42, 0, 16)] == [(2, b"y" * 9000), (0, b""), (1, b"x" * 10)]
    assert [seq for _, seq, _ in journal.records(16)] == [1, 2]
    assert [seq for _, seq, _ in journal.records(0, 42)] == [0, 1]
    with pytest.raises(StoreDamagedError, match="no valid record at offset 3"):
        journal.read(3)
    journal.close()


def test_full_journal_takes_nothing_more_and_is_read_to_its_last_byte(path: Path) -> None:
    journal = Journal.create(path, 100)
    assert journal.append(0, b"x" * 34) == 0
    assert journal.append(1, b"y" * 35) is None
    assert journal.append(1, b"y" * 34) == 50
    assert journal.append(2, b"") is None
    journal.close()
    assert journal.append(3, b"") is None
    assert contents(path)[0] == [(0, b"x" * 34), (1, b"y" * 34)]


@pytest.mark.parametrize("length", [4095, 4096, 4097, 5 * 1024 + 1, 20_000])
def test_long_bodies_have_the_same_checksum_in_pieces(path: Path, length: int) -> None:
    body = os.urandom(length)
    written(path, [body, b"after"])
    assert contents(path) == ([(0, body), (1, b"after")], [], None)


def test_flipped_byte_at_every_position_costs_its_record_alone(tmp_path: Path) -> None:
    bodies = [b"first", b"second", b"", b"fourth record"]
    source = tmp_path / "source"
    offsets = written(source, bodies, size=256)
    data = source.read_bytes()
    for at in range(offsets[-1]):
        hit = max(index for index, offset in enumerate(offsets[:-1]) if offset <= at)
        items = list(walk_records(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]))
        expected = [(seq, body) for seq, body in enumerate(bodies) if seq != hit]
        assert [item[1:] for item in items if isinstance(item, JournalRecord)] == expected
        (lost,) = [item for item in items if not isinstance(item, JournalRecord)]
        assert isinstance(lost, Torn if hit == len(bodies) - 1 else Damaged)
        assert lost.offset == offsets[hit]


def test_torn_at_every_length(tmp_path: Path) -> None:
    bodies = [b"first", b"second", b"third record"]
    source = tmp_path / "source"
    offsets = written(source, bodies, size=256)
    data = source.read_bytes()
    for length in range(offsets[-1]):
        items = list(walk_records(data[:length] + bytes(256 - length)))
        whole = sum(offset <= length for offset in offsets[1:])
        # A record whose last bytes are zeros is whole even where they were never written.
        records = [item for item in items if isinstance(item, JournalRecord)]
        assert [item.body for item in records] == bodies[: len(records)]
        assert len(records) >= whole
        torn = [item for item in items if isinstance(item, Torn)]
        assert len(torn) == (1 if data[offsets[len(records)] : length].strip(b"\0") else 0)
        assert len(items) == len(records) + len(torn)


def test_damage_and_torn_tail_are_told_with_offset_and_length(path: Path) -> None:
    offsets = written(path, [b"first", b"second", b"third", b"fourth"])
    flip(path, offsets[1] + 20)
    flip(path, offsets[3] + 2)
    assert contents(path) == (
        [(0, b"first"), (2, b"third")],
        [Damaged(offsets[1], offsets[2] - offsets[1], "the record's checksum is wrong")],
        Torn(offsets[3], offsets[4] - offsets[3]),
    )


def test_older_record_behind_damage_is_not_taken_for_the_next(path: Path) -> None:
    journal = Journal.create(path, SIZE)
    journal.append(5, b"five")
    after = journal.append(6, b"six")
    journal.append(4, b"a lower number")
    journal.close()
    assert after is not None
    flip(path, after)
    assert contents(path)[0] == [(5, b"five")]


def test_empty_file_of_a_maker_that_died_is_an_empty_journal(path: Path) -> None:
    path.touch()
    assert contents(path) == ([], [], None)


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, StoreFullError), (errno.EIO, StoreError)])
def test_no_room_at_creation(path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]) -> None:
    def fail(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(kind, match=f"{path}: a journal of 65536 bytes could not be made"):
        Journal.create(path, SIZE)
    assert not path.exists()


def test_existing_journal_is_not_made_again(path: Path) -> None:
    written(path, [b"kept"])
    with pytest.raises(StoreError, match="could not be made"):
        Journal.create(path, SIZE)
    assert contents(path)[0] == [(0, b"kept")]


def test_failed_sync_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.create(path, SIZE)
    journal.append(0, b"x")
    journal.sync()

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken, pytest.raises(StoreError, match="could not be written to the disk"):
        broken.setattr(os, "fdatasync", fail)
        journal.sync()
    journal.close()


def test_prefault_leaves_records_alone(path: Path) -> None:
    journal = Journal.create(path, SIZE)
    journal.append(0, b"first")
    journal.prefault()
    journal.append(1, b"second")
    assert [body for _, _, body in journal.records()] == [b"first", b"second"]
    journal.close()
    journal.prefault()


def test_range_of_a_journal_that_is_appended_to(path: Path) -> None:
    journal = Journal.create(path, SIZE)
    for seq in range(5):
        journal.append(seq, b"body %d" % seq)
    items = list(read_range(path, 22, 66))
    assert items == [JournalRecord(22, 1, b"body 1"), JournalRecord(44, 2, b"body 2")]
    journal.close()


def test_range_reports_what_is_damaged_with_offsets_of_the_file(path: Path) -> None:
    offsets = written(path, [b"body %d" % seq for seq in range(5)])
    flip(path, offsets[2])
    items = list(read_range(path, offsets[1], offsets[4]))
    assert [(type(item), item.offset) for item in items] == [
        (JournalRecord, offsets[1]),
        (Damaged, offsets[2]),
        (JournalRecord, offsets[3]),
    ]


def test_range_of_a_missing_journal(path: Path) -> None:
    with pytest.raises(InputError, match="no such journal"):
        list(read_range(path, 0, 10))


APPEND_FOR_EVER = """
import sys
from pathlib import Path
from mos_pipeline.store.journal import Journal
journal = Journal.create(Path(sys.argv[1]), 1 << 24)
seq = 0
while journal.append(seq, b"%d " % seq * 50) is not None:
    if seq % 100 == 0:
        print(seq, flush=True)
    seq += 1
"""


def test_what_was_appended_survives_sigkill(path: Path) -> None:
    child = run_python(APPEND_FOR_EVER, path)
    assert child.stdout is not None
    for _ in range(20):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    found, damage, _ = contents(path)
    assert len(found) > int(said[-1] if said else 1900)
    assert found == [(seq, b"%d " % seq * 50) for seq in range(len(found))]
    assert damage == []

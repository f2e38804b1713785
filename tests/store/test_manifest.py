from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.errors import StoreDamagedError, StoreError, StoreFullError, StoreVersionError
from mos_pipeline.store.folder import StoreFolder
from mos_pipeline.store.manifest import FORMAT, Manifest, Retired


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path)


def test_round_trip(folder: StoreFolder) -> None:
    manifest = Manifest.new().with_segment(1).with_segment(2).with_embedding({"model": "m", "dimension": 384})
    manifest.save(folder)
    assert Manifest.load(folder) == manifest
    assert manifest.segments == (1, 2)
    assert stat.S_IMODE(folder.manifest.stat().st_mode) == 0o600
    assert [path.name for path in folder.root.iterdir()] == ["MANIFEST"]


def test_stores_have_ids_of_their_own() -> None:
    first, second = Manifest.new(), Manifest.new()
    assert first.store != second.store
    assert len(bytes.fromhex(first.store)) == 8
    assert first.created.endswith("+00:00")


def test_missing_file(folder: StoreFolder) -> None:
    with pytest.raises(StoreError, match="MANIFEST"):
        Manifest.load(folder)


def test_newer_format_is_refused(folder: StoreFolder) -> None:
    folder.manifest.write_text(json.dumps({"format": FORMAT + 1, "something": "new"}))
    with pytest.raises(StoreVersionError, match=f"format {FORMAT + 1}, this version reads up to {FORMAT}"):
        Manifest.load(folder)


GOOD = {"format": 1, "store": "0" * 16, "created": "now", "segments": [1], "embedding": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b"[" * 100_000,
        json.dumps({"format": 1}).encode(),
        *(
            json.dumps({**GOOD, **wrong}).encode()
            for wrong in (
                {"format": "1"},
                {"format": True},
                {"format": 0},
                {"segments": None},
                {"segments": "12"},
                {"segments": [1, 2, 1]},
                {"segments": [0]},
                {"segments": ["../x"]},
                {"embedding": [1]},
                {"generation": -1},
                {"generation": None},
                {"drafts": [0]},
                {"retired": [[1]]},
                {"retired": [["1", 0]]},
                {"highest": True},
            )
        ),
    ],
)
def test_junk_is_refused_and_the_file_named(folder: StoreFolder, content: bytes) -> None:
    folder.manifest.write_bytes(content)
    with pytest.raises(StoreDamagedError, match=r"MANIFEST: .*restore the file from a backup"):
        Manifest.load(folder)


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace"])
def test_failed_save_leaves_the_old_one(folder: StoreFolder, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    old = Manifest.new()
    old.save(folder)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken, pytest.raises(StoreFullError, match="could not be replaced"):
        broken.setattr(os, call, fail)
        old.with_segment(1).save(folder)
    assert Manifest.load(folder) == old
    old.with_segment(1).save(folder)
    assert Manifest.load(folder).segments == (1,)


def test_new_content_is_on_the_disk_before_it_takes_the_name(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("pwrite", "fsync", "replace"):
        spy(name)
    Manifest.new().save(folder)
    assert calls == ["pwrite", "fsync", "replace", "fsync"]


def test_older_format_is_read_with_what_it_did_not_know(folder: StoreFolder) -> None:
    folder.manifest.write_text(json.dumps(GOOD))
    manifest = Manifest.load(folder)
    assert (manifest.format, manifest.generation, manifest.drafts, manifest.retired) == (1, 0, (), ())
    assert manifest.next_number == 2
    assert manifest.upgraded().format == FORMAT


steps = st.lists(st.tuples(st.sampled_from(["segment", "compact", "sweep"]), st.integers(0, 1 << 8)), max_size=12)


@given(steps)
def test_numbers_are_given_once_and_order_is_that_of_what_segments_tell(steps: list[tuple[str, int]]) -> None:
    manifest, tells, given_out = Manifest.new(), dict[int, list[int]](), set[int]()

    def number() -> int:
        assert manifest.next_number not in given_out
        given_out.add(manifest.next_number)
        return manifest.next_number

    for clock, (step, choice) in enumerate(steps):
        if step == "segment":
            new = number()
            tells[new] = [clock]
            manifest = manifest.with_segment(new)
        elif step == "sweep":
            manifest = manifest.without_retired([old.number for old in manifest.retired])
        else:
            old = [seg for at, seg in enumerate(manifest.segments[:-1]) if choice >> at & 1]
            rewritten = dict[int, list[int]]()
            for seg in old:
                new = number()
                tells[new] = tells[seg]
                rewritten[seg] = [new] if tells[seg][0] % 3 else []  # some have nothing left
                manifest = manifest.with_draft(new)
            generation = manifest.generation
            manifest = manifest.compacted(rewritten)
            assert manifest.generation == generation + 1
            assert manifest.drafts == ()
            assert {Retired(seg, generation) for seg in old} <= set(manifest.retired)
        told = [clock for seg in manifest.segments for clock in tells[seg]]
        assert told == sorted(told)

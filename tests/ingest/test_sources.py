from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import SourceIdentity, identify, sources


def known(content: bytes) -> tuple[bytes, int]:
    return hashlib.sha256(content).digest()[:16], len(content)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


def test_a_new_file_is_named_by_its_content(tmp_path: Path) -> None:
    digest, length = known(b"hello\n")
    found = identify(written(tmp_path, b"hello\n"), [])
    assert found == SourceIdentity(digest, length, grown=False)
    assert found.name == digest + (6).to_bytes(8, "little")
    assert SourceIdentity.parse_name(found.name) == (digest, length)


def test_the_same_content_is_the_same_source_under_any_path(tmp_path: Path) -> None:
    path = written(tmp_path, b"hello\n")
    first = identify(path, [])
    moved = path.rename(tmp_path / "other")
    assert identify(moved, [(first.digest, first.length)]) == first


def test_a_grown_file_keeps_its_name(tmp_path: Path) -> None:
    first = identify(written(tmp_path, b"one\n"), [])
    found = identify(written(tmp_path, b"one\ntwo\n"), [(first.digest, first.length)])
    assert found == SourceIdentity(first.digest, first.length, grown=True)
    assert found.name == first.name


def test_a_changed_or_shortened_file_is_new(tmp_path: Path) -> None:
    before = known(b"one\ntwo\n")
    for content in (b"One\ntwo\nthree\n", b"one\n", b""):
        assert identify(written(tmp_path, content), [before]) == SourceIdentity(*known(content), grown=False)


def test_the_longest_known_beginning_wins(tmp_path: Path) -> None:
    path = written(tmp_path, b"one\ntwo\nthree\n")
    lengths = [known(b"one\n"), known(b"one\ntwo\n"), known(b"other\n"), (b"\0" * 16, 8)]
    assert identify(path, lengths) == SourceIdentity(*known(b"one\ntwo\n"), grown=True)


def test_no_file_is_the_continuation_of_an_empty_one(tmp_path: Path) -> None:
    empty = identify(written(tmp_path, b""), [])
    assert (empty.length, empty.grown) == (0, False)
    path = written(tmp_path, b"one\ntwo\n")
    assert identify(path, [(empty.digest, 0)]).length == 8
    assert identify(path, [(empty.digest, 0), known(b"one\n")]) == SourceIdentity(*known(b"one\n"), grown=True)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        identify(tmp_path / "gone", [])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40), cuts=st.lists(st.integers(0, 50)), chunk=st.integers(1, 9), others=st.booleans())
def test_beginnings_are_found_wherever_the_reads_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, cuts: list[int], chunk: int, others: bool
) -> None:
    monkeypatch.setattr(sources, "CHUNK_BYTES", chunk)
    candidates = [known(content[:cut]) for cut in cuts]
    noise = [(b"?" * 16, length) for length in range(1, 50)] if others else []
    found = identify(written(tmp_path, content), candidates + noise)
    longest = max((length for _, length in candidates if length), default=len(content))
    assert found == SourceIdentity(*known(content[:longest]), grown=longest < len(content))

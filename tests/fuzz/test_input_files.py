"""Whatever happens to the bytes of an input file, it is read as records, or refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from tests.fuzz.common import bounded_memory, broken, first_difference, fuzzed
from tests.fuzz.inputs import FILES, LINES, corpus, drafts, element_of, outcome

BOUND = 16 << 20


@pytest.mark.parametrize("name", FILES)
def test_the_files_to_begin_with_are_read(tmp_path: Path, name: str) -> None:
    whole, named = (outcome(tmp_path / "input", corpus(name), format_) for format_ in ("auto", FILES[name]))
    assert whole.records
    assert whole.records[0].format == FILES[name]
    assert drafts(whole.records) == drafts(named.records)
    assert (whole.end, whole.errors) == (None, [])


@pytest.mark.parametrize("name", [*FILES, "auto"])
def test_whatever_stands_in_an_input_file(tmp_path: Path, name: str) -> None:
    @fuzzed
    @given(files=broken(*(FILES if name == "auto" else [name])))
    def check(files: tuple[bytes, bytes]) -> None:
        with bounded_memory(BOUND):
            outcome(tmp_path / "input", files[1], FILES.get(name, "auto"))

    check()


@pytest.mark.parametrize("name", FILES)
def test_what_comes_before_the_damage_is_read_as_it_was(tmp_path: Path, name: str) -> None:
    """Of lines all whole ones, of a document all whole elements."""

    @fuzzed
    @given(files=broken(name))
    def check(files: tuple[bytes, bytes]) -> None:
        before, after = files
        cut = before[: first_difference(before, after)]
        if name in LINES:
            cut = cut[: cut.rfind(b"\n") + 1]
        if not cut.strip():
            return  # its format may be another one
        whole = outcome(tmp_path / "input", cut, FILES[name]).records
        if name == "chat.json" and cut != before:
            whole = []  # one document is one element
        assert drafts(outcome(tmp_path / "input", after, FILES[name]).records)[: len(whole)] == drafts(whole)

    check()


@pytest.mark.parametrize("name", FILES)
def test_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    """What is read is a beginning of what was there, and where that is not all of it, something tells so."""
    data = corpus(name)
    whole = outcome(tmp_path / "input", data, FILES[name])
    everything = {element_of(item) for item in whole.records}
    for end in range(1, len(data), 1 + len(data) // 800):
        if not data[:end].strip():
            continue
        found = outcome(tmp_path / "input", data[:end], FILES[name])
        assert drafts(found.records) == drafts(whole.records)[: len(found.records)]
        assert len(found.errors) <= 1
        assert found.end or found.errors or name in LINES or {element_of(item) for item in found.records} == everything
        if name in LINES and not found.end:
            lines = [line for line in data[:end].splitlines() if line.strip()]
            assert len({element_of(item) for item in found.items}) == len(lines)


@pytest.mark.parametrize("format_", [*sorted(set(FILES.values())), "auto"])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '[{"a":' * 100_000,
        '{"messages": ' + "[" * 100_000,
        '[{"sample_id": "x", "conversation": {"speaker_a": "a", "speaker_b": "b", "session_' + "9" * 5000 + '": []}}]',
        '[{"sample_id": "x", "conversation": ' + "9" * 5000 + "}]",
        '{"user_id": ' + "9" * 5000 + "}",
        '{"results": [' + "9" * 5000 + "]}",
        "[-" + "9" * 300_000 + "]",
        '["\\ud800", ' + "a" * 300_000 + "]",
        "[" + 90 * ('{"' + "k" * 5000 + '": ') + "1" + 90 * "}" + "]",
        '[{"sample_id": 1e999}]',
        '"\\ud800"',
        "\0" * 1000,
    ],
    ids=range(14),
)
def test_absurd_files(tmp_path: Path, format_: str, text: str) -> None:
    with bounded_memory(BOUND):
        found = outcome(tmp_path / "input", text.encode(), format_)
    assert not found.records
    assert found.end or found.errors

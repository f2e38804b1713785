"""Exports that are nearly right: what is wrong in one costs itself, and is told with its place and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.cli import main
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.ingest import SourceFile, Stream
from mos_pipeline.messages import encode
from tests.fuzz.common import EXAMPLES, fuzzed
from tests.fuzz.inputs import FILES, LINES, Outcome, drafts, element_of, outcome
from tests.fuzz.values import ANYTHING, as_json, changed, elements, file_of, texts
from tests.support import open_fake

ARRAYS = [name for name in FILES if name != "chat.json"]  # a document of one conversation is its own element
ONE_EACH = {"jsonl", "mem0"}
EMPTY = "conversations without turns"


@pytest.mark.parametrize("name", FILES)
def test_every_element_is_taken_refused_or_empty(tmp_path: Path, name: str) -> None:
    @fuzzed
    @given(found=st.lists(changed(name), min_size=1, max_size=3), ascii_only=st.booleans())
    def check(found: list[Any], ascii_only: bool) -> None:
        if name in {"chat.json", "chats.jsonl"} and not isinstance(found[0], dict):
            return  # the beginning of another layout
        if name == "chat.json":
            del found[1:]
        data = file_of(name, found, ascii_only=ascii_only)
        read = outcome(tmp_path / "input", data, FILES[name])
        refused, taken = [element_of(error) for error in read.errors], {element_of(record) for record in read.records}
        assert len(set(refused)) == len(refused), "an element is refused once"
        assert not taken & set(refused), "of an element all is taken or nothing"
        if read.end is None:
            assert len(refused) + len(taken) + read.tally[EMPTY] == len(found)
            if FILES[name] in ONE_EACH:
                assert len(read.items) == len(found)

    check()


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_wrong_costs_itself_alone(tmp_path: Path, name: str) -> None:
    """Its neighbours are read as they are without it; those behind it, unless the document can't be read on."""
    first, *_, last = elements(name)
    whole = outcome(tmp_path / "input", file_of(name, [first, first, last]), FILES[name])

    @fuzzed
    @given(middle=changed(name), ascii_only=st.booleans())
    def check(middle: Any, ascii_only: bool) -> None:
        read = outcome(tmp_path / "input", file_of(name, [first, middle, last], ascii_only=ascii_only), FILES[name])
        assert told(read, 0) == told(whole, 0)
        assert told(read, 2) == ([] if read.end else told(whole, 2))
        assert name not in LINES or read.end is None

    check()


def told(read: Outcome, element: int) -> list[Any]:
    """What the pages of one element say; not which sitting they are of: without an id that is their place."""
    return [(record[:5], record.page_id) for record in read.records if element_of(record) == element]


def test_whatever_is_read_a_store_takes_as_it_is(tmp_path: Path) -> None:
    with open_fake(tmp_path / "store", workers=False) as memory:

        @fuzzed
        @given(found=st.sampled_from(ARRAYS).flatmap(lambda name: st.tuples(st.just(name), st.lists(changed(name)))))
        def check(found: tuple[str, list[Any]]) -> None:
            name, some = found
            for record in outcome(tmp_path / "input", file_of(name, some), FILES[name]).records:
                fields = {field: getattr(record, field) for field in KEPT}
                page = memory.get(memory.add(**fields))
                assert page is not None
                assert encode([getattr(page, field) for field in KEPT]) == encode(
                    [*list(fields.values())[:-1], fields["metadata"] or {}]
                )

        check()


KEPT = ("user_id", "user_input", "agent_response", "metadata")


@pytest.mark.parametrize("name", ARRAYS)
def test_what_the_command_counts_is_what_stands_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "input"
    command = ["ingest", str(path), "--store", str(tmp_path / "store"), "--user", "someone", "--format", FILES[name]]

    @settings(fuzzed, max_examples=max(10, EXAMPLES // 4))
    @given(some=st.lists(changed(name), min_size=1, max_size=4))
    def check(some: list[Any]) -> None:
        data = file_of(name, [elements(name)[0], *some])
        read = outcome(path, data, FILES[name])
        owners: dict[str, str] = {}  # an id stands for a page of its first user, and is refused to others
        mine = [r for r in read.records if r.page_id is None or owners.setdefault(r.page_id, r.user_id) == r.user_id]
        left = len(read.errors) + (read.end is not None) + len(read.records) - len(mine)
        code = main([*command, "--on-error", "skip", "--dry-run", "--json"])
        told = json.loads(capsys.readouterr().out)
        assert code == (ExitCode.LEFT_OUT if left else ExitCode.OK)
        assert told["left_out"] == left
        assert told["accepted"] + told["already_there"] == len(mine)
        assert told["accepted"] >= len({record.page_id or record.content for record in mine if not record.thread})
        assert told["accepted"] <= len(mine) - sum(record.page_id is not None for record in mine) + len(owners)
        code = main([*command, "--on-error", "stop", "--dry-run", "--json"])
        assert code == (ExitCode.INPUT if left else ExitCode.OK)
        assert "Traceback" not in capsys.readouterr().err

    check()


@fuzzed
@given(value=ANYTHING, format_=st.sampled_from([*sorted(set(FILES.values())), "auto"]))
def test_whatever_values_a_file_holds(tmp_path: Path, value: Any, format_: str) -> None:
    for data in (value, [value], {"results": [value]}, {"messages": value}, {"raw": value, "format": "mem0"}):
        outcome(tmp_path / "input", as_json(data), format_)


PLAIN = st.recursive(texts | st.integers() | st.just(10**400), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_told_whatever_stands_before_what_tells_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "input"

    @fuzzed
    @given(extra=st.dictionaries(st.sampled_from(["a", "b"]), PLAIN), rest=st.lists(changed(name), max_size=1))
    def check(extra: dict[str, Any], rest: list[Any]) -> None:
        path.write_bytes(file_of(name, [{**extra, **elements(name)[0]}, *rest]))
        assert SourceFile.of(Stream(path)).format == FILES[name]

    check()


@fuzzed
@given(value=ANYTHING, others=st.lists(texts, max_size=3))
def test_documents_are_read_as_lines_are(tmp_path: Path, value: Any, others: list[str]) -> None:
    """Two parsers read documents, by turns, and another one lines."""
    talk = {"id": "t", "metadata": {"v": value}, "messages": [{"role": "user", "content": text} for text in others]}
    line = outcome(tmp_path / "input", as_json(talk) + b"\n", "messages")
    array = outcome(tmp_path / "input", as_json([talk]), "messages")
    if array.end is None:
        assert drafts(array.records) == drafts(line.records)


@fuzzed
@given(texts_=st.lists(texts, min_size=1, max_size=4), separator=st.sampled_from(["", "\\", '"', "u"]))
def test_texts_in_documents_are_what_they_were(tmp_path: Path, texts_: list[str], separator: str) -> None:
    text = separator.join(texts_)
    memory = [{"memory": "x" + text, "user_id": "u", "extra": {text: text}}]
    (record,) = outcome(tmp_path / "input", as_json(memory), "mem0").records
    assert encode([record.user_input, record.metadata["mem0"]]) == encode(  # type: ignore[index]
        [json.loads(as_json("x" + text)), json.loads(as_json({"extra": {text: text}}))]
    )


NODES = [f"n{number}" for number in range(6)]


@fuzzed
@given(
    parents=st.tuples(
        *(st.sampled_from([before, before, before, *NODES, "gone", None]) for before in [None, *NODES[:5]])
    ),
    roles=st.lists(st.sampled_from(["user", "assistant", "tool", None]), min_size=6, max_size=6),
    current=st.sampled_from([*NODES, *NODES[-2:] * 3, "gone"]),
)
def test_a_tree_is_followed_or_named(
    tmp_path: Path, parents: tuple[str | None, ...], roles: list[str | None], current: str
) -> None:
    """Whatever its nodes' parents are: a line of them that ends, one that leads nowhere, or a circle."""
    mapping = {
        node: {"parent": parent, "message": role and {"author": {"role": role}, "content": content(node)}}
        for node, parent, role in zip(NODES, parents, roles, strict=True)
    }
    data = [{"id": "c", "mapping": mapping, "current_node": current}]
    read = outcome(tmp_path / "input", as_json(data), "chatgpt")
    branch, at = list[str](), current
    while at in mapping and at not in branch:
        branch.append(at)
        at = mapping[at]["parent"]  # type: ignore[assignment]
    if at is not None:
        (error,) = read.errors
        assert f"node {at}: " in str(error)
        assert ("is its own ancestor" if at in branch else "is missing in the mapping") in str(error)
        return
    told = [node for node in reversed(branch) if roles[NODES.index(node)] in {"user", "assistant"}]
    assert not read.errors
    assert [text for record in read.records for text in said(record)] == told


def content(text: str) -> dict[str, Any]:
    return {"content_type": "text", "parts": [text]}


def said(record: Any) -> list[str]:
    return [part for side in record[2:4] for part in side.split("\n\n") if part]

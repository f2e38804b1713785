from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import RecordError
from mos_pipeline.ingest import lines
from tests.ingest.common import Store, page, written


def pages(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [page(number) for number in range(first, first + count)]


def questions(count: int) -> list[str]:
    return [f"question {number}" for number in range(count)]


def talks(count: int) -> list[dict[str, Any]]:
    turns = [[("user", f"question {n}"), ("assistant", "a")] for n in range(2 * count)]
    both = [turns[2 * n] + turns[2 * n + 1] for n in range(count)]
    return [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in both]


LAYOUTS: dict[str, Callable[[int], bytes]] = {
    "lines": lambda count: b"".join(json.dumps(one).encode() + b"\n" for one in pages(count)),
    "lines of conversations": lambda count: b"".join(json.dumps(one).encode() + b"\r\n\n" for one in talks(count)),
    "array": lambda count: json.dumps(talks(count)).encode(),
    "memories": lambda count: json.dumps([{"memory": one, "user_id": "u"} for one in questions(count)]).encode(),
    "gzip": lambda count: gzip.compress(LAYOUTS["lines"](count)),
    "zstd": lambda count: zstandard.compress(LAYOUTS["lines of conversations"](count)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_gone_on_with_wherever_it_was_left_and_when_it_has_grown(tmp_path: Path, layout: str) -> None:
    path = written(tmp_path, LAYOUTS[layout](6))
    total = 12 if layout in {"lines of conversations", "array", "zstd"} else 6
    for left in range(total + 1):
        store = Store()
        store.take(path, left)
        assert store.texts == questions(left)
        assert not store.take(path).changed
        assert store.texts == questions(total)
        assert not store.take(path.rename(tmp_path / "moved")).changed
        (tmp_path / "moved").rename(path)
        assert store.texts == questions(total)
        store.take(written(tmp_path, LAYOUTS[layout](9), "grown"))
        assert store.texts == questions(total // 6 * 9)
        assert len(store.known) == 1


def test_a_file_of_lines_is_not_read_up_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = written(tmp_path, pages(20_000)), Store()
    store.take(path, 19_000)
    parsed, whole = Counter[str](), lines.object_of

    def counting(*args: Any) -> Any:
        parsed["lines"] += 1
        return whole(*args)

    monkeypatch.setattr(lines, "object_of", counting)
    found = store.take(path)
    assert found.start > path.stat().st_size * 0.9
    assert store.texts == questions(20_000)
    assert parsed["lines"] <= 1000 + 3


def test_lines_are_counted_only_where_they_must_be_told(tmp_path: Path) -> None:
    path, store = written(tmp_path, [*pages(500), "{", *pages(5, 500)]), Store()
    store.take(path, 400)
    (error,) = [taken.item for taken in store.look(path).taken if isinstance(taken.item, RecordError)]
    assert (error.line, error.place) == (501, "line 501")
    assert [taken.item.spot.error("x").line for taken in store.look(path).taken if taken.mark][-1] == 506  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("question 7", "Question 7"),  # the last one that was taken
        lambda text: text.replace("question 3", "question three"),  # it has moved
        lambda text: "\n".join(text.splitlines()[:5]),  # it is gone
        lambda text: text.replace('answer 7"', 'answer 7" '),  # it ends elsewhere
    ],
)
def test_a_changed_file_is_noticed_and_is_another_one(tmp_path: Path, change: Callable[[str], str]) -> None:
    path, store = written(tmp_path, pages(12)), Store()
    store.take(path, 8)
    changed = written(tmp_path, change(path.read_text()), "changed")
    found = store.take(changed)
    assert (found.changed, found.start) == (True, 0)
    assert store.texts[8] == "question 0"
    for again in (changed, path):  # both are known from now on
        assert not store.look(again).changed
    store.take(path)
    assert store.texts[-4:] == questions(12)[8:]


def test_a_change_of_the_same_length_before_the_last_record_goes_unnoticed(tmp_path: Path) -> None:
    """As the documentation says: what was taken stays as it was."""
    path, store = written(tmp_path, pages(12)), Store()
    store.take(path, 8)
    path.write_text(path.read_text().replace("question 3", "question X"))
    assert not store.take(path).changed
    assert store.texts == questions(12)


@pytest.mark.parametrize("count", [1, 2])
def test_a_last_line_without_an_end_is_gone_on_with(tmp_path: Path, count: int) -> None:
    path, store = written(tmp_path, pages(4)), Store()
    lines_of = path.read_bytes().splitlines(keepends=True)
    for end in (b"", b"\n", b"\n\n", b"\n" + b"".join(lines_of[count:])):
        path.write_bytes(b"".join(lines_of[:count]).rstrip() + end)
        assert not store.take(path).changed
    assert store.texts == questions(4)


def test_another_first_record_is_another_file(tmp_path: Path) -> None:
    store = Store()
    store.take(written(tmp_path, pages(3)))
    found = store.take(written(tmp_path, pages(3, 1)))
    assert not found.changed
    assert store.texts == [*questions(3), "question 1", "question 2", "question 3"]


def test_a_mended_file_is_gone_on_with_behind_what_was_taken(tmp_path: Path) -> None:
    path, store = written(tmp_path, [*pages(3), "{", *pages(2, 4)]), Store()
    store.take(path, 3)
    path.write_text(path.read_text().replace("\n{\n", f"\n{json.dumps(page(3))}\n"))
    assert not store.take(path).changed
    assert store.texts == questions(6)


@pytest.mark.parametrize("layout", ["gzip", "array"])
def test_whoever_asks_for_an_end_need_not_wait_until_it_is_passed_over(tmp_path: Path, layout: str) -> None:
    path, store, beats = written(tmp_path, LAYOUTS[layout](500)), Store(), Counter[str]()
    store.take(path)

    def pulse() -> None:
        beats["all"] += 1
        if beats["all"] > 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.look(path, pulse=pulse)


@pytest.mark.parametrize("reading", [{"user": "other"}, {"user": None, "user_field": "user_id"}])
def test_options_make_no_other_source(tmp_path: Path, reading: dict[str, Any]) -> None:
    path, store = written(tmp_path, pages(4)), Store()
    store.take(path, 2)
    store.take(path, **reading)
    assert store.texts == questions(4)


def export(*lengths: int, answered: bool = True) -> str:
    """Claude's export of conversations of so many messages each."""
    talks = [
        {
            "uuid": f"talk {number}",
            "chat_messages": [
                {"sender": ("human", "assistant")[at % 2], "text": f"{number}.{at}"} for at in range(length)
            ],
        }
        for number, length in enumerate(lengths)
    ]
    return json.dumps(list(reversed(talks)))


def test_of_a_later_export_only_what_is_new_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    store = Store()
    store.take(written(tmp_path, export(4, 3)), 2)
    assert store.texts == ["1.0", "1.2"]
    store.take(written(tmp_path, export(4, 3)))
    assert store.texts == ["1.0", "1.2", "0.0", "0.2"]
    store.take(written(tmp_path, export(4, 3)))
    assert len(store.texts) == 4
    store.take(written(tmp_path, export(6, 4, 2)))  # the question 1.2 has an answer now, and is taken again with it
    assert store.texts[4:] == ["2.0", "1.2", "0.4"]
    store.take(written(tmp_path, export(6, 4, 2)))
    assert len(store.texts) == 7


def test_a_conversation_that_stands_in_a_file_twice_is_one(tmp_path: Path) -> None:
    store, talks = Store(), json.loads(export(4, 2))
    for _ in range(2):
        store.take(written(tmp_path, json.dumps([*talks, *talks])))
        assert store.texts == ["1.0", "0.0", "0.2"]


def old_name(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16] + len(content).to_bytes(8, "little")


def test_sources_of_the_first_version_are_gone_on_with_by_line(tmp_path: Path) -> None:
    path = written(tmp_path, ["", *pages(6)])
    store = Store()
    store.known[old_name(path.read_bytes())] = 4  # lines: the empty one, and three pages
    found = store.take(path)
    assert (found.start, found.changed) == (0, False)
    assert store.texts == questions(6)[3:]
    store.take(written(tmp_path, ["", *pages(8)]))
    assert store.texts == questions(8)[3:]
    assert len(store.known) == 1
    path.write_text(path.read_text().replace("question 2", "question X"))
    assert not store.take(path).changed  # nothing is known that begins like it
    assert len(store.texts) == 5 + 8


def test_the_longest_old_source_wins(tmp_path: Path) -> None:
    path = written(tmp_path, pages(6))
    whole = path.read_bytes()
    store = Store()
    for count, taken in ((2, 2), (4, 3)):
        store.known[old_name(b"".join(whole.splitlines(keepends=True)[:count]))] = taken
    store.known |= {old_name(b"other\n"): 2, bytes(16) + (8).to_bytes(8, "little"): 1, old_name(b""): 0}
    store.take(path)
    assert store.texts == questions(6)[3:]


LINE = st.sampled_from(["", "{", " \t", *map(json.dumps, pages(3)), *map(json.dumps, talks(2))])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(LINE, max_size=12).filter(lambda content: "messages" in "".join(content[:1])),
    cuts=st.lists(st.integers(0, 6), max_size=6),
    packed=st.booleans(),
    end=st.sampled_from(["", "\n"]),
)
def test_whatever_the_lines_and_however_often_it_is_interrupted_each_record_is_taken_once(
    tmp_path: Path, content: list[str], cuts: list[int], packed: bool, end: str
) -> None:
    data = ("\n".join(content) + end).encode()
    path = written(tmp_path, gzip.compress(data) if packed else data)
    whole, store = Store(), Store()
    whole.take(path)
    for cut in cuts:
        store.take(path, cut)
    store.take(path)
    assert store.texts == whole.texts

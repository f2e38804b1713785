"""What query finds besides the pages that a plain one finds, and how it is narrowed and shown."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mos_pipeline import MemoryPipeline
from mos_pipeline.cli.exits import ExitCode
from mos_pipeline.cli.query import metadata_item, profile_lines
from tests.cli.common import Here
from tests.support import open_fake

BEAGLE = "I adopted a beagle named Rex."


def asked(store: Path, *options: object) -> tuple[object, ...]:
    return ("query", "which beagle is it?", "--store", store, "--user", "tom", *options)


def numbers(answer: dict[str, list[dict[str, dict[str, dict[str, int]]]]]) -> list[int]:
    return [hit["page"]["metadata"]["number"] for hit in answer["pages"]]


def test_everything_that_is_known_comes_with_the_pages(here: Here, telling_store: Path) -> None:
    answer = here.json(*asked(telling_store, "-k", 3))
    assert {hit["page"]["user_input"] for hit in answer["pages"]} == {BEAGLE}
    assert answer["user_knowledge"][0]["fact"]["text"] == BEAGLE
    assert answer["user_knowledge"][0]["fact"]["page_ids"]
    assert "I am from Ghent, in Belgium." in [hit["fact"]["text"] for hit in answer["assistant_knowledge"]]
    assert BEAGLE in answer["profile"]
    assert answer["overviews"]
    assert set(answer["overviews"]) == {hit["overview"] for hit in answer["pages"] if hit["overview"]}
    assert [hit["parts"] for hit in answer["pages"]] == [None] * 3


def test_for_people_each_kind_has_its_heading(here: Here, telling_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert here(*asked(telling_store, "-k", 2)) == ExitCode.OK
    lines = here.out.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == ["profile", "about the user", "about the assistant", "overviews of the pages' chains"]
    assert lines.index("profile") == 6
    nearest = lines[lines.index("about the user") + 1]
    assert BEAGLE[:10] in nearest
    assert max(map(len, lines[6:])) <= 60
    assert not here.err


def test_pages_alone(here: Here, telling_store: Path) -> None:
    assert here(*asked(telling_store, "-k", 2, "--pages-only")) == ExitCode.OK
    assert len(here.out.splitlines()) == 6
    assert here.json(*asked(telling_store, "--pages-only")).keys() == {"degraded", "pages", "short_term"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--since", "2026-03-05T10:00", "--until", "2026-03-08"), [4, 5, 6]),
        (("--where", "number=7"), [7]),
        (("--where", "tag=odd", "--since", "2026-03-15"), [15, 17]),
        (("--where", "tag=odd", "--where", "number=3"), [3]),
        (("--where", "tag=odd", "--where", "number=4"), []),
        (("--where", 'number="7"'), []),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_narrowed(here: Here, telling_store: Path, options: tuple[str, ...], expected: list[int]) -> None:
    answer = here.json(*asked(telling_store, "-k", 18, *options))
    assert sorted(numbers(answer)) == expected
    assert ("note: no page matches" in here.err) == (not expected)


def test_a_budget_of_tokens(here: Here, telling_store: Path) -> None:
    everything = here.json(*asked(telling_store, "--max-tokens", 100_000))
    little = here.json(*asked(telling_store, "--max-tokens", 80))
    assert len(everything["pages"]) == 18
    assert 0 < len(little["pages"]) < 5
    assert little["pages"][0]["page"] == everything["pages"][0]["page"]


def test_in_the_order_of_time_pages_keep_their_rank_by_score(here: Here, telling_store: Path) -> None:
    by_score = here.json(*asked(telling_store))
    by_time = here.json(*asked(telling_store, "--order", "time"))
    assert [hit["rank"] for hit in by_score["pages"]] == list(range(1, 8))
    assert numbers(by_time) == sorted(numbers(by_score))
    assert numbers(by_time) != numbers(by_score)
    best = [hit["page"] for hit in by_time["pages"] if hit["rank"] <= 3]
    assert {page["user_input"] for page in best} == {BEAGLE}


def test_explained(here: Here, telling_store: Path) -> None:
    best = here.json(*asked(telling_store, "--explain"))["pages"][0]
    assert best["parts"].keys() == {"dense", "words", "window", "sitting", "limit"}
    assert (best["parts"]["dense"], best["parts"]["words"]) == (best["dense"], best["words"])
    assert here(*asked(telling_store, "--explain", "--pages-only", "-k", 1)) == ExitCode.OK
    *_, shown = here.out.splitlines()
    assert shown.startswith(f"     score     dense {best['dense']:.3f}, words {best['words']:.2f}, window ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--since", "yesterday"), "since must be"),
        (("--where", "number=1", "--where", "number=2"), "--where names a key twice"),
    ],
)
def test_what_can_not_be_taken_is_told(here: Here, telling_store: Path, options: tuple[str, ...], told: str) -> None:
    assert here(*asked(telling_store, *options)) == ExitCode.INPUT
    assert here.err.startswith(f"error: {told}")


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("a=b", ("a", "b")),
        ("a=", ("a", "")),
        ("a=b=c", ("a", "b=c")),
        ("a=7", ("a", 7)),
        ('a="7"', ("a", "7")),
        ("a=null", ("a", None)),
        ('a=["x", 1.5]', ("a", ["x", 1.5])),
        ("a=[", ("a", "[")),
    ],
)
def test_a_value_is_json_where_it_is_json(text: str, item: tuple[str, object]) -> None:
    assert metadata_item(text) == item


def test_the_first_lines_of_a_profile() -> None:
    assert profile_lines("") == []
    assert profile_lines("a\n\nb\n") == ["a", "b"]
    lines = list("abcdefghij")
    assert profile_lines("\n".join(lines[:7])) == lines[:7]
    assert profile_lines("\n".join(lines)) == [*lines[:6], "… and 4 more (mos-pipeline profile)"]


WORDS_ALONE = "note: degraded answer, words alone decided: "


def test_beside_an_owner_without_workers_words_alone_decide(here: Here, tmp_path: Path) -> None:
    """It has no embedder of which to tell why."""
    with open_fake(tmp_path / "store", workers=False) as memory:
        page_id = memory.add("tom", BEAGLE, "What is it called?")
        asking = asked(tmp_path / "store", "--timeout", "0.2")
        assert here(*asking) == ExitCode.OK
        assert page_id in here.out
        assert here.err.splitlines() == [f"{WORDS_ALONE}the model gave no vector within 0.2 s (--timeout)"]
        answer = here.json(*asking)
        assert answer["degraded"]
        assert [hit["page"]["page_id"] for hit in answer["pages"]] == [page_id]
        assert here.err.splitlines() == [f"{WORDS_ALONE}the model gave no vector within 0.2 s (--timeout)"]


@pytest.mark.parametrize("owned", [False, True])
def test_where_there_is_no_model_that_is_why(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: bool
) -> None:
    """Told by the owner's embedder, or by that of the command itself."""
    store, missing = tmp_path / "store", str(tmp_path / "no model")
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__BACKEND", "torch")
    monkeypatch.setenv("MOS_PIPELINE_EMBEDDING__MODEL", missing)
    with ExitStack() as held:
        memory = held.enter_context(MemoryPipeline.open(store, workers=owned))
        page_id = memory.add("tom", BEAGLE, "What is it called?")
        if not owned:
            memory.close()
        assert here(*asked(store)) == ExitCode.OK
        assert page_id in here.out
        (note,) = [line for line in here.err.splitlines() if line.startswith(WORDS_ALONE)]
        assert missing in note

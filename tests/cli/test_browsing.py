"""The commands that show what memory made of the pages: sessions, profile, knowledge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mos_pipeline.cli.exits import ExitCode
from tests.cli.common import Here

BROWSING = ("sessions", "profile", "knowledge")


def of_tom(command: str, store: Path, *options: object) -> tuple[object, ...]:
    return (command, "--store", store, "--user", "tom", *options)


def test_sessions(here: Here, telling_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    shown = here.json(*of_tom("sessions", telling_store))
    sessions = shown["sessions"]
    assert shown["next_offset"] is None
    assert sum(len(one["page_ids"]) for one in sessions) == 18
    assert [one["heat"] for one in sessions] == sorted((one["heat"] for one in sessions), reverse=True)
    assert here(*of_tom("sessions", telling_store)) == ExitCode.OK
    lines = here.out.splitlines()
    assert len(lines) == 3 * len(sessions)
    assert re.match(r" +\d+  heat \d+\.\d\d  0 visits  \d+ pages?  2026-03-\d\d 10:00:00$", lines[0])
    assert lines[1].startswith(f"     summary   {sessions[0]['summary'][:20]}")
    assert lines[2].startswith(f"     keywords  {sessions[0]['keywords'][0]}, ")
    assert max(map(len, lines[1::3] + lines[2::3])) <= 50
    assert not here.err


def test_profile(here: Here, telling_store: Path) -> None:
    profile = here.json(*of_tom("profile", telling_store))
    assert "I adopted a beagle named Rex." in profile["text"]
    assert here(*of_tom("profile", telling_store)) == ExitCode.OK
    assert here.out == f"{profile['text']}\n"
    assert here.err == f"note: written {profile['updated']}\n"


@pytest.mark.parametrize(
    ("about", "fact"), [("user", "I adopted a beagle named Rex."), ("assistant", "I am from Ghent, in Belgium.")]
)
def test_knowledge(here: Here, telling_store: Path, about: str, fact: str) -> None:
    shown = here.json(*of_tom("knowledge", telling_store, "--about", about))
    assert shown["about"] == about
    [found] = [one for one in shown["knowledge"] if one["text"] == fact]
    assert found["page_ids"]
    assert here(*of_tom("knowledge", telling_store, "--about", about)) == ExitCode.OK
    assert f"{found['timestamp']}  {fact}" in here.out.splitlines()


@pytest.mark.parametrize(("command", "name"), [("sessions", "session_id"), ("knowledge", "text")])
def test_page_by_page(here: Here, telling_store: Path, command: str, name: str) -> None:
    everything = [one[name] for one in here.json(*of_tom(command, telling_store))[command]]
    assert len(everything) > 2
    found: list[object] = []
    offset: int | None = 0
    while offset is not None:
        part = here.json(*of_tom(command, telling_store, "--limit", 2, "--offset", offset))
        assert ("--offset" in here.err) == (part["next_offset"] is not None)
        found += [one[name] for one in part[command]]
        offset = part["next_offset"]
    assert found == everything


@pytest.mark.parametrize("command", BROWSING)
def test_nothing_there_is_told(here: Here, sample_store: Path, telling_store: Path, command: str) -> None:
    assert here(*of_tom(command, telling_store, "--assistant", "nobody")) == ExitCode.OK
    assert "'nobody'; this user has pages with another" in here.err
    assert here(command, "--store", sample_store, "--user", "nobody") == ExitCode.OK
    assert here.err == "note: there are no pages of user 'nobody' with assistant 'default_assistant_profile'\n"
    assert not here.out


@pytest.mark.parametrize(("command", "told"), [("profile", "no profile yet"), ("knowledge", "no fact about the user")])
def test_nothing_known_yet_is_told(here: Here, sample_store: Path, command: str, told: str) -> None:
    assert here(command, "--store", sample_store, "--user", "user 1", "--assistant", "helper") == ExitCode.OK
    assert told in here.err
    assert not here.out


@pytest.mark.parametrize("command", BROWSING)
def test_the_configured_model_is_of_no_matter(
    here: Here, telling_store: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("MOS_PIPELINE_EMBEDDING__BACKEND")
    assert here(*of_tom(command, telling_store)) == ExitCode.OK
    assert here.out

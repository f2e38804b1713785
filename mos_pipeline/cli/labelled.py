"""Conversations with questions whose evidence is known: the sample that comes with the package, and LoCoMo's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mos_pipeline.errors import InputError
from mos_pipeline.ingest import read_source
from mos_pipeline.messages import embedded_text
from mos_pipeline.stages.optimise import Talk

__all__ = ["locomo_talks", "sample_calibration", "sample_talks"]

SAMPLE = Path(__file__).parent.parent / "sample"
HELD_OUT = 5  # every fifth page of the sample is measured with, and not calibrated on
WORDS = 8  # of a page, as a question for it
ADVERSARIAL = 5  # LoCoMo's category of questions without an answer
TURN = re.compile(r"D\d+:\d+")


def sample_calibration() -> list[str]:
    """Return texts to calibrate on: the sample's pages, those held out aside, and what was said in them alone."""
    lines = [line for number, line in enumerate(_sample("conversation")) if number % HELD_OUT]
    said = [line["user_input"] for line in lines]
    return [*map(_text, lines), *said]


def sample_talks() -> list[Talk]:
    """Return the sample: one talk for each of its users.

    Beside its own questions, each page held out is asked for by its first words: so that one page more or less among
    the first ten does not decide.
    """
    lines = list(_sample("conversation"))
    users = dict.fromkeys(line["user_id"] for line in lines)
    return [_of_user(user, lines) for user in users]


def _of_user(user: str, lines: Sequence[dict[str, Any]]) -> Talk:
    mine = [number for number, line in enumerate(lines) if line["user_id"] == user]
    place = {number: at for at, number in enumerate(mine)}
    asked = [
        (each["question"], [place[line - 1] for line in each["evidence"]])
        for each in _sample("questions")
        if each["user_id"] == user
    ]
    asked += [
        (" ".join(lines[number]["user_input"].split()[:WORDS]), [place[number]])
        for number in mine
        if not number % HELD_OUT
    ]
    return Talk([_text(lines[number]) for number in mine], asked)


def locomo_talks(path: Path) -> list[Talk]:
    """Return a LoCoMo file's conversations, one talk each; adversarial questions and unknown evidence left out.

    Raises:
        InputError: it is no such file.
    """
    pages: dict[str, list[Any]] = {}
    for record in read_source(path, "locomo"):
        pages.setdefault(record.user_id, []).append(record)
    samples = json.loads(path.read_text(encoding="utf-8"))
    found = [_of_sample(sample, pages.get(sample["sample_id"], [])) for sample in samples]
    kept = [talk for talk in found if talk.questions]
    if not kept:
        raise InputError(f"{path}: no questions with evidence there (qa); name a LoCoMo file that has some")
    return kept


def _of_sample(sample: Mapping[str, Any], records: Sequence[Any]) -> Talk:
    places = {turn: place for place, record in enumerate(records) for turn in record.metadata["dia_ids"]}
    asked = list[tuple[str, list[int]]]()
    for each in sample.get("qa", ()):
        evidence = {places[turn] for turn in TURN.findall(str(each.get("evidence"))) if turn in places}
        if each.get("category") != ADVERSARIAL and evidence:
            asked.append((str(each["question"]), sorted(evidence)))
    return Talk([embedded_text(record.user_input, record.agent_response) for record in records], asked)


def _sample(name: str) -> Iterator[dict[str, Any]]:
    for line in (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _text(line: Mapping[str, Any]) -> str:
    return embedded_text(line["user_input"], line["agent_response"])

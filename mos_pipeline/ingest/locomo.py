"""LoCoMo: long conversations of two people, as ``[{"sample_id", "conversation", …}, …]``.

A conversation holds ``speaker_a``, ``speaker_b`` and for each session N ``session_N`` (turns ``{speaker, dia_id, text,
blip_caption?}``) and ``session_N_date_time``. ``speaker_a`` is taken as the user and ``speaker_b`` as the assistant: a
page begins with a turn of the former and is completed by the next turn of the latter. Where one of them speaks twice
in a row a side of the page stays empty, so that no turn is lost or joined; no page spans sessions.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ijson

from mos_pipeline.errors import InputError
from mos_pipeline.ingest.nesting import shallow_events
from mos_pipeline.ingest.records import BOM, SourceRecord, field_of, opened

__all__ = ["normalised_time", "read_locomo"]

_SESSION = re.compile(r"session_([0-9]{1,9})")
_TIME = re.compile(r"\s*(\d{1,2}):(\d{2})\s*([ap])m\s+on\s+(\d{1,2})\s+([a-z]+),?\s+(\d{4})\s*", re.IGNORECASE)
# Not strptime: its month names follow the locale of the process.
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()


@dataclass(slots=True)
class _Exchange:
    """A page being put together; a side without a turn is None."""

    user_input: str | None = None
    agent_response: str | None = None
    dia_ids: list[str] = field(default_factory=list)


def read_locomo(path: Path, user: str | None = None) -> Iterator[SourceRecord]:
    """Yield the file's pages, holding one conversation in memory at a time; ordinals count pages through the file.

    The user is the conversation's ``sample_id``; ``user`` stands in where there is none.

    Raises:
        InputError: naming the file, the conversation, the session and what is wrong.
    """
    ordinal = 0
    for number, sample in enumerate(_samples(path)):
        where = f"{path}, conversation {number}"
        if not isinstance(sample, dict):
            raise InputError(f"{where}: expected an object with sample_id and conversation")
        user_id = _required(sample, "sample_id", str, where, user)
        where = f"{where} ({user_id})"
        for record in _pages(_required(sample, "conversation", dict, where), user_id, where):
            yield SourceRecord(ordinal=ordinal, **record)
            ordinal += 1


def _samples(path: Path) -> Iterator[Any]:
    """Yield the elements of the array that the file is."""
    with opened(path) as file:
        head = file.read(4096)
        if not head.removeprefix(BOM).lstrip().startswith(b"["):
            raise InputError(f"{path}: expected a JSON array of conversations")
        file.seek(len(BOM) if head.startswith(BOM) else 0)
        try:
            yield from ijson.items(shallow_events(file, path), "item")
        except ijson.JSONError as error:
            raise InputError(f"{path}: not valid JSON: {_reason(error)}") from None


def _reason(error: ijson.JSONError) -> str:
    """Return the parser's message without the text it quotes, which is somebody's talk."""
    message = error.args[0] if error.args else ""
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return text.strip().split("\n", 1)[0]


def _pages(conversation: dict[str, Any], user_id: str, where: str) -> Iterator[dict[str, Any]]:
    speakers = [_required(conversation, name, str, where) for name in ("speaker_a", "speaker_b")]
    for number in sorted(int(match[1]) for match in map(_SESSION.fullmatch, conversation) if match):
        name = f"session_{number}"
        spot = f"{where}, {name}"
        time = field_of(conversation, f"{name}_date_time", str, spot)
        for exchange in _exchanges(_required(conversation, name, list, where), speakers, spot):
            yield {
                "user_id": user_id,
                "assistant_id": None,
                "user_input": exchange.user_input or "",
                "agent_response": exchange.agent_response or "",
                "timestamp": time and normalised_time(time),
                "metadata": {"dia_ids": exchange.dia_ids, "speakers": speakers, "session": number},
                "page_id": None,
            }


def _exchanges(turns: list[Any], speakers: list[str], where: str) -> Iterator[_Exchange]:
    exchange = _Exchange()
    for number, turn in enumerate(turns):
        spot = f"{where}, turn {number}"
        if not isinstance(turn, dict):
            raise InputError(f"{spot}: expected an object with speaker, dia_id and text")
        speaker = _required(turn, "speaker", str, spot)
        if speaker not in speakers:
            raise InputError(f"{spot}: the speaker is {speaker!r}, expected {speakers[0]!r} or {speakers[1]!r}")
        opens = speaker == speakers[0]
        if opens and exchange.dia_ids:
            yield exchange
            exchange = _Exchange()
        exchange.dia_ids.append(_required(turn, "dia_id", str, spot))
        if opens:
            exchange.user_input = _spoken(turn, spot)
        else:
            exchange.agent_response = _spoken(turn, spot)
            yield exchange
            exchange = _Exchange()
    if exchange.dia_ids:
        yield exchange


def _spoken(turn: dict[str, Any], where: str) -> str:
    text: str = _required(turn, "text", str, where)
    caption = field_of(turn, "blip_caption", str, where)
    return f"{text} (image: {caption})".lstrip() if caption else text


def _required(record: dict[str, Any], name: str, kind: type, where: str, default: Any = None) -> Any:
    value = field_of(record, name, kind, where)
    if value is None:
        value = default
    if value is None or (name in _NOT_EMPTY and not value):
        raise InputError(f"{where}: {name} is {'missing' if value is None else 'empty'}")
    return value


_NOT_EMPTY = {"sample_id", "speaker_a", "speaker_b", "dia_id"}


def normalised_time(text: str) -> str:
    """Return ``1:56 pm on 8 May, 2023`` as ``2023-05-08 13:56:00``; what reads otherwise is returned as it is."""
    match = _TIME.fullmatch(text)
    if not match or match[5].lower() not in _MONTHS:
        return text
    hour, minute, half, day, month, year = match.groups()
    if not 1 <= int(hour) <= 12:
        return text
    try:
        moment = datetime.datetime(
            int(year),
            _MONTHS.index(month.lower()) + 1,
            int(day),
            int(hour) % 12 + (12 if half.lower() == "p" else 0),
            int(minute),
        )
    except ValueError:  # the 31st of June
        return text
    return moment.strftime("%Y-%m-%d %H:%M:%S")

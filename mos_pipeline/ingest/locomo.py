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
from typing import Any

from mos_pipeline.ingest.records import Draft, Reading, Spot, field_of, user_of

__all__ = ["normalised_time", "pages_of_locomo"]

_SESSION = re.compile(r"session_0*([0-9]+)")
_LONGEST = 9  # digits of a session's number
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


def pages_of_locomo(data: dict[str, Any], spot: Spot, reading: Reading, _position: int) -> Iterator[Draft]:
    """Yield the pages of a conversation. The user is its ``sample_id``.

    Raises:
        RecordError: naming the conversation, the session and what is wrong.
    """
    own = field_of(data, "sample_id", str, spot)
    user_id = user_of(data, own, reading, spot, name="sample_id")
    spot = spot._replace(place=f"{spot.place} ({user_id:.100})")
    conversation = _required(data, "conversation", dict, spot)
    speakers = [_required(conversation, name, str, spot) for name in ("speaker_a", "speaker_b")]
    pages = 0
    for number, name in _sessions(conversation, spot):
        where = spot.within(name)
        time = field_of(conversation, f"{name}_date_time", str, where)
        for exchange in _exchanges(_required(conversation, name, list, where), speakers, where):
            pages += 1
            yield Draft(
                user_id,
                None,
                exchange.user_input or "",
                exchange.agent_response or "",
                time and normalised_time(time),
                {"dia_ids": exchange.dia_ids, "speakers": speakers, reading.sitting_key: number},
                None,
            )
    if not pages:
        reading.tally["conversations without turns"] += 1


def _sessions(conversation: dict[str, Any], spot: Spot) -> list[tuple[int, str]]:
    """Return the sessions' numbers and names, ascending."""
    found = [match for match in map(_SESSION.fullmatch, conversation) if match]
    for match in found:
        if len(match[1]) > _LONGEST:
            raise spot.error(f"has a number of more than {_LONGEST} digits", match[0][:64])
    return sorted((int(match[1]), match[0]) for match in found)


def _exchanges(turns: list[Any], speakers: list[str], where: Spot) -> Iterator[_Exchange]:
    exchange = _Exchange()
    for number, turn in enumerate(turns):
        spot = where.within(f"turn {number}")
        if not isinstance(turn, dict):
            raise spot.error("expected an object with speaker, dia_id and text")
        speaker = _required(turn, "speaker", str, spot)
        if speaker not in speakers:
            raise spot.error(f"is {speaker!r:.100}, expected {speakers[0]!r:.100} or {speakers[1]!r:.100}", "speaker")
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


def _spoken(turn: dict[str, Any], where: Spot) -> str:
    text: str = _required(turn, "text", str, where)
    caption = field_of(turn, "blip_caption", str, where)
    return f"{text} (image: {caption})".lstrip() if caption else text


def _required(record: dict[str, Any], name: str, kind: type, spot: Spot) -> Any:
    value = field_of(record, name, kind, spot)
    if value is None or (name in _NOT_EMPTY and not value):
        raise spot.error("is missing" if value is None else "is empty", name)
    return value


_NOT_EMPTY = {"speaker_a", "speaker_b", "dia_id"}


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

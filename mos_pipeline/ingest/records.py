"""What every format is read into, what stands for a record that can't be, and the checks that the formats share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mos_pipeline.config import Store
from mos_pipeline.errors import RecordError
from mos_pipeline.messages import encode, is_shallow, nested_too_deeply

__all__ = [
    "BOM",
    "Draft",
    "Reading",
    "SourceRecord",
    "Spot",
    "checked_metadata",
    "field_of",
    "named",
    "user_of",
]

BOM = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it
ESCAPED = 6  # a byte of text takes so many in JSON at the most: \u0000


class Draft(NamedTuple):
    """A page as it stands in a file."""

    user_id: str
    assistant_id: str | None
    user_input: str
    agent_response: str
    timestamp: str | None
    metadata: dict[str, Any] | None
    page_id: str | None


class Spot(NamedTuple):
    """Where in a file something stands.

    Attributes:
        source: the file.
        place: for people; within the line, where it stands on one.
        line: returns the line, from 1, which is counted only where it must be told; None where there are no lines.
    """

    source: str
    place: str
    line: Callable[[], int] | None = None

    def error(self, reason: str, field: str | None = None) -> RecordError:
        """Return the error that names this spot, the field, and what is wrong with it."""
        line = self.line() if self.line is not None else None
        place = ", ".join(filter(None, (f"line {line}" if line else "", self.place)))
        said = f"{field} {reason}" if field else reason
        return RecordError(f"{self.source}, {place}: {said}", self.source, place, line, field, said)

    def of_page(self, index: int, pages: int) -> Spot:
        """Return the spot of one of several pages that stand here: alike as they may be, each has its own."""
        return self if pages == 1 else self.within(f"page {index}")

    def within(self, place: str) -> Spot:
        """Return a spot in this one."""
        return self._replace(place=", ".join(filter(None, (self.place, place))))


class SourceRecord(NamedTuple):
    """A page with its place in the file.

    Attributes:
        position: where it stands, ascending through the file. In a file of lines it is the byte at which its line
            begins, and one more for each page before it on that line; else its element's number, shifted left by
            ``ELEMENT_BITS``, and its number within the element.
        number: its line's number from 0, in a file of lines; else how many pages come before it. Counted from where
            reading began.
        spot: where that is, for people.
        raw: the line without its end, where it is one; else empty.
        thread: names the conversation that it belongs to, where that is known by an id; empty where it isn't.
        format: the format it is in.
    """

    user_id: str
    assistant_id: str | None
    user_input: str
    agent_response: str
    timestamp: str | None
    metadata: dict[str, Any] | None
    page_id: str | None
    position: int
    number: int
    spot: Spot
    raw: bytes
    thread: str
    format: str

    @property
    def content(self) -> bytes:
        """What it says, as bytes that are the same whenever it is read again and with whatever options."""
        return self.raw or encode([self.user_input, self.agent_response, self.timestamp, self.page_id])


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        user: the user of records that name none.
        user_field: dotted path, in the record, of the user's id; empty where the format's own place for it counts.
        sitting_key: where in a page's metadata its sitting is named.
        max_page_bytes: a line, or an element of a document, may take as many bytes as a page of this size can take in
            JSON.
        tally: counts what formats leave out on purpose, by its name.
        pulse: called now and then, also where nothing new comes for long; may raise.
    """

    user: str | None = None
    user_field: str = ""
    sitting_key: str = "session"
    max_page_bytes: int = Store().max_page_bytes
    tally: Counter[str] = field(default_factory=Counter)
    pulse: Callable[[], None] = lambda: None

    @property
    def max_record_bytes(self) -> int:
        """How long a line, or an element of a document, may be."""
        return ESCAPED * self.max_page_bytes


def field_of(record: Mapping[str, Any], name: str, kind: type, spot: Spot) -> Any:
    """Return ``record[name]``, or None where it is absent or null.

    Raises:
        RecordError: it is of another type than ``kind``.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise spot.error(f"must be {_NAMES[kind]}, found {named(value)}", name)
    return value


_NAMES = {str: "a string", dict: "an object", list: "a list", bool: "true or false"}


def named(value: object) -> str:
    """Return what JSON calls a value of this type."""
    return "null" if value is None else _NAMES.get(type(value), "a number")


def user_of(record: Mapping[str, Any], own: str | None, reading: Reading, spot: Spot, *, name: str = "") -> str:
    """Return the user of ``record``: what ``reading.user_field`` names, else ``own``, else the reading's.

    Args:
        record: the object.
        own: the user that the format itself names, called ``name`` there.
        reading: how files are read.
        spot: where it stands.
        name: empty where the format has no place for a user.

    Raises:
        RecordError: there is none, or it is empty or no string.
    """
    found = _at(record, reading.user_field, spot) if reading.user_field else None
    asked = reading.user_field if found is not None else name
    for user in (found, own, reading.user):
        if user is not None:
            if not user:
                raise spot.error("is empty; give every page a user", asked or "user")
            return user
    places = "; put it into the record, or name a user for the whole file (--user)"
    raise spot.error(f"is missing{places}", reading.user_field or name or "user")


def _at(record: Mapping[str, Any], path: str, spot: Spot) -> str | None:
    value: Any = record
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise spot.error(f"must be a string or a whole number, found {named(value)}", path)


_PLAIN = {str, float, bool, type(None)}  # fits whatever its value; an int may be too large


def checked_metadata(metadata: dict[str, Any] | None, spot: Spot) -> dict[str, Any] | None:
    """Return metadata that can be stored.

    Raises:
        RecordError: they can't: an integer of more than 64 bits, nesting too deep.
    """
    if metadata and not set(map(type, metadata.values())) <= _PLAIN:
        try:
            encode(metadata)
            if not is_shallow(metadata) and nested_too_deeply(metadata):
                raise ValueError("nested too deeply")
        except (ValueError, OverflowError, RecursionError) as error:
            raise spot.error(f"can't be stored: {error}", "metadata") from None
    return metadata

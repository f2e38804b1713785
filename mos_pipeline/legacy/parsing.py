"""From the JSON of a data folder to neutral values."""

from __future__ import annotations

from typing import Any

from mos_pipeline.legacy.fields import Fields
from mos_pipeline.legacy.folder import ASSISTANT, LONG, MID, SHORT, LegacyFolder
from mos_pipeline.legacy.model import LegacyAssistant, LegacyFact, LegacyPage, LegacySession, LegacyUser, Problem
from mos_pipeline.messages import encode, nested_too_deeply

__all__ = ["parse_assistant", "parse_user"]

_OF_PAGE = {
    "user_input",
    "agent_response",
    "timestamp",
    "page_id",
    "analyzed",
    "pre_page",
    "next_page",
    "meta_info",
    "page_embedding",
}
NOTHING = {"", "none"}


def parse_user(folder: LegacyFolder, user_id: str, problems: list[Problem]) -> LegacyUser:
    """Return what the folder of a user holds; what can't be taken is appended to ``problems``."""
    short, mid, long = (_load(folder, "users", user_id, file, problems) for file in (SHORT, MID, LONG))
    profile, updated = _profile(long, user_id)
    return LegacyUser(
        user_id,
        tuple(page for one in short.objects("") if (page := _page(one)) is not None),
        _sessions(mid),
        profile,
        updated,
        _facts(long, "knowledge_base"),
        _facts(long, "assistant_knowledge"),
    )


def parse_assistant(folder: LegacyFolder, assistant_id: str, problems: list[Problem]) -> LegacyAssistant:
    """Return what the folder of an assistant holds; what can't be taken is appended to ``problems``."""
    found = _load(folder, "assistants", assistant_id, ASSISTANT, problems)
    for name in ("user_profiles", "knowledge_base"):
        if found.data.get(name):
            found.wrong(name, "tells of users, which an assistant's file has no place for")
    return LegacyAssistant(assistant_id, _facts(found, "assistant_knowledge"))


def _load(folder: LegacyFolder, kind: str, name: str, file: str, problems: list[Problem]) -> Fields:
    """Return a file's object; a list, as short-term memory is one, as the object's field without a name."""
    shown, data, problem = folder.load(kind, name, file)
    if problem is not None:
        problems.append(problem)
    wanted: type = list if file == SHORT else dict
    if data is not None and not isinstance(data, wanted):
        found = "a list" if isinstance(data, list) else "something else"
        problems.append(Problem(shown, "", f"must hold {'a list' if wanted is list else 'an object'}, found {found}"))
        data = None
    if file == SHORT:
        data = None if data is None else {"": data}
    return Fields(data or {}, shown, "", problems)


def _page(fields: Fields) -> LegacyPage | None:
    """Return a page; None where its texts can't be taken."""
    texts = [fields.needed_text(name) for name in ("user_input", "agent_response")]
    if texts[0] is None or texts[1] is None:
        return None
    return LegacyPage(texts[0], texts[1], fields.text("timestamp"), place=(fields.file, fields.place()))


def _sessions(mid: Fields) -> tuple[LegacySession, ...]:
    counted = Fields(_object(mid.data.get("access_frequency")), mid.file, "access_frequency", [])
    found = []
    for session_id, fields in mid.mapped("sessions"):
        accesses = max(fields.count("access_count_lfu"), counted.count(session_id))
        founded = fields.text("timestamp")
        found.append(
            LegacySession(
                session_id,
                fields.text("summary"),
                fields.texts("summary_keywords"),
                founded,
                tuple(page for one in fields.objects("details") if (page := _mid_page(one)) is not None),
                fields.count("N_visit"),
                fields.count("L_interaction"),
                fields.moment("last_visit_time") or fields.moment("timestamp"),
                accesses,
                fields.vector("summary_embedding"),
                (fields.file, fields.place()),
            )
        )
    return tuple(found)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mid_page(fields: Fields) -> LegacyPage | None:
    plain = _page(fields)
    if plain is None:
        return None
    return LegacyPage(
        *plain.content,
        fields.text("page_id"),
        fields.flag("analyzed"),
        fields.text("pre_page"),
        fields.text("next_page"),
        fields.text("meta_info"),
        fields.vector("page_embedding"),
        _extra(fields),
        plain.place,
    )


def _extra(fields: Fields) -> dict[str, Any]:
    """Return what else is said of a page, as far as it can be stored."""
    extra = {}
    for name, value in fields.data.items():
        if name in _OF_PAGE or not value:  # an empty list of keywords, or a flag that is not set, says nothing
            continue
        try:
            encode(value)
            if nested_too_deeply([value]):
                raise ValueError("nested too deeply")
        except (ValueError, OverflowError, RecursionError) as error:
            fields.wrong(name, f"can't be stored: {error}")
            continue
        extra[name] = value
    return extra


def _profile(long: Fields, user_id: str) -> tuple[str, str]:
    found = "", ""
    for name, fields in long.mapped("user_profiles"):
        if name != user_id:
            fields.wrong("", f"is another user's; it belongs into the folder of {name!r:.60}")
            continue
        text = fields.text("data")
        if text.strip().casefold() not in NOTHING:
            found = text, fields.text("last_updated")
    return found


def _facts(fields: Fields, name: str) -> tuple[LegacyFact, ...]:
    found = []
    for one in fields.objects(name):
        text = one.needed_text("knowledge")
        if text is not None and text.strip().casefold() not in NOTHING:
            place = one.file, one.place()
            found.append(LegacyFact(text, one.text("timestamp"), one.vector("knowledge_embedding"), place))
    return tuple(found)

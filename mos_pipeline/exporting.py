"""A store's memory as a data folder of the original MemoryOS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mos_pipeline.config import Config
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.view import View
from mos_pipeline.errors import InputError
from mos_pipeline.legacy.model import EXTRA, LegacyFact, LegacyPage, LegacySession, LegacyUser
from mos_pipeline.legacy.writing import LegacyWriter, can_be_folder, new_folder
from mos_pipeline.memory.state import Scope
from mos_pipeline.memory.takeover import Vector
from mos_pipeline.messages import PageRecord, decode_record

__all__ = ["Exported", "export_memoryos"]

SHORT_TERM = 9  # pages that every version of the original keeps in short-term memory: more would drop the oldest
DIMENSION = 384  # of vectors that nobody has made
NO_TOPIC = "Pages of no topic"


@dataclass(slots=True)
class Exported:
    """What was written; ``left_out`` are users whose ids can't be names of folders."""

    users: int = 0
    pages: int = 0
    sessions: int = 0
    facts: int = 0
    left_out: list[str] = field(default_factory=list)


def export_memoryos(
    store: Path, config: Config, out: Path, user: str | None, assistant: str | None, pulse: Callable[[], None]
) -> Exported:
    """Write the store's users with one assistant to the folder ``out``, which appears when it is whole.

    Args:
        store: the store's folder; it may be owned by somebody.
        config: the settings.
        out: a folder that is not there, or empty.
        user: this one alone; None for all.
        assistant: which one; None where the store has one alone.
        pulse: called for each user; may raise.

    Raises:
        InputError: there is nothing to export, or ``out`` can't be written, or the assistant is to be named, or can't
            be a folder's name.
        StoreError: the store can't be read.
    """
    reader = ReaderEngine(store, config, workers=False, copies=True)
    try:
        with reader.reading() as view, view.lock:
            scopes = [scope for scope in view.state.scopes if view.state.pages.count_of(scope.number)]
            scopes = [scope for scope in scopes if user in {None, scope.user_id}]
            assistant = _assistant(scopes, assistant)
            mine = [scope for scope in scopes if scope.assistant_id == assistant]
            with new_folder(out) as folder:
                return _write(view, mine, assistant, folder, pulse)
    finally:
        reader.close()


def _assistant(scopes: Sequence[Scope], named: str | None) -> str:
    found = sorted({scope.assistant_id for scope in scopes})
    if not found:
        raise InputError("there are no pages to export; check the path, and the user if one is named")
    if named is None and len(found) > 1:
        shown = ", ".join(map(repr, found[:5]))
        raise InputError(
            f"the store has pages with {len(found)} assistants ({shown}), and the format has no place for that: "
            "export each into a folder of its own (--assistant)"
        )
    assistant = found[0] if named is None else named
    if assistant not in found:
        raise InputError(f"there are no pages with assistant {assistant!r:.100} to export")
    if not can_be_folder(assistant):
        raise InputError(f"assistant {assistant!r:.100}: the format makes it a folder's name, which it can't be")
    return assistant


def _write(view: View, scopes: Sequence[Scope], assistant: str, folder: Path, pulse: Callable[[], None]) -> Exported:
    exported = Exported()
    dimension = view.identity["dimension"] if view.identity is not None else DIMENSION
    writer = LegacyWriter(folder, dimension, time.time())
    usable = [scope for scope in scopes if can_be_folder(scope.user_id)]
    exported.left_out = [scope.user_id for scope in scopes if not can_be_folder(scope.user_id)]
    # The original shows an assistant's knowledge to every user: it gets there where one sees it alone, or all may.
    shared = len(usable) == 1 or view.config.long_term.share_assistant_knowledge
    told = list[LegacyFact]()
    for scope in usable:
        pulse()
        of_assistant = _facts(view, scope, of_user=False)
        found = _user(view, scope, () if shared else of_assistant)
        told += of_assistant if shared else ()
        writer.user(found)
        exported.users += 1
        exported.pages += len(found.short) + sum(len(session.pages) for session in found.sessions)
        exported.sessions += len(found.sessions)
        exported.facts += len(found.knowledge) + len(of_assistant)
    writer.assistant(assistant, {fact.text: fact for fact in told}.values())
    return exported


def _user(view: View, scope: Scope, of_assistant: Sequence[LegacyFact]) -> LegacyUser:
    seqs = view.state.pages.seqs_of(scope.number).tolist()
    records = dict(zip(seqs, map(decode_record, view.reader.read_many(seqs)), strict=True))
    ids = {seq: view.state.ids.id_of(seq, record.page_id) for seq, record in records.items()}
    fresh = {seq for session in scope.mid_term.sessions for seq in session.fresh}
    loose = [seq for seq in seqs if scope.mid_term.session_of(seq) is None]
    last = max((session.seqs[-1] for session in scope.mid_term.sessions), default=-1)
    short = [seq for seq in loose[-SHORT_TERM:] if seq > last]
    others = loose[: len(loose) - len(short)]

    def page(seq: int) -> LegacyPage:
        return _page(view, seq, records[seq], ids, analyzed=seq not in fresh)

    sessions = [
        LegacySession(
            f"session_{session.session_id:08x}",
            session.summary,
            tuple(sorted(session.keywords)),
            session.timestamp,
            tuple(page(seq) for seq in session.seqs),
            session.visits,
            session.interactions,
            session.last_visit,
            session.accesses,
            _vector(view, session.row),
        )
        for session in scope.mid_term.sessions
    ]
    if others:
        timestamp = records[others[0]].timestamp
        pages = tuple(page(seq) for seq in others)
        sessions.append(LegacySession("session_none", NO_TOPIC, (), timestamp, pages, interactions=len(pages)))
    profile = scope.long_term.profile
    return LegacyUser(
        scope.user_id,
        tuple(page(seq) for seq in short),
        tuple(sessions),
        profile.text,
        profile.updated,
        _facts(view, scope, of_user=True),
        tuple(of_assistant),
    )


def _page(view: View, seq: int, record: PageRecord, ids: dict[int, str], *, analyzed: bool) -> LegacyPage:
    chains = view.state.chains
    extra: Any = (record.metadata or {}).get(EXTRA)
    return LegacyPage(
        record.user_input,
        record.agent_response,
        record.timestamp,
        ids[seq],
        analyzed,
        ids.get(chains.before(seq), ""),
        ids.get(chains.after(seq), ""),
        chains.overview(seq),
        _vector(view, view.state.pages.row(seq)),
        extra if isinstance(extra, dict) else {},
    )


def _facts(view: View, scope: Scope, *, of_user: bool) -> tuple[LegacyFact, ...]:
    return tuple(
        LegacyFact(fact.text, fact.timestamp, _vector(view, fact.row)) for fact in scope.facts(of_user=of_user).facts
    )


def _vector(view: View, row: int) -> Vector | None:
    if row < 0:
        return None
    found: Vector = view.pool.copies.read([row])[0].astype(np.float16)
    return found

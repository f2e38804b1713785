"""Neutral values as the files of a data folder of the original MemoryOS, with the names and fields that it reads."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mos_pipeline.errors import InputError
from mos_pipeline.legacy.folder import ASSISTANT, FILES, LONG, MID, SHORT
from mos_pipeline.legacy.model import LegacyFact, LegacyPage, LegacySession, LegacyUser
from mos_pipeline.memory.heat import heat
from mos_pipeline.memory.takeover import Vector

__all__ = ["LegacyWriter", "can_be_folder", "new_folder"]

MAX_NAME_BYTES = 255
MAX_ID_BYTES = 2048  # of a path's 4,096
_FILES = {name for files in FILES.values() for file in files for name in (file, f"{file}.gz")}
RECENCY_HOURS = 24.0  # the original's


def can_be_folder(name: str) -> bool:
    """Return whether an id can be a folder's path, as which the original uses it, and stays below its parent.

    With slashes it is several folders, one in the other, none of which may be called as one of the files.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    if len(encoded) > MAX_ID_BYTES or b"\0" in encoded:
        return False
    parts = encoded.split(b"/")
    if not all(0 < len(part) <= MAX_NAME_BYTES and part not in {b".", b".."} for part in parts):
        return False
    return len(parts) == 1 or _FILES.isdisjoint(name.split("/"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give out a private folder for the block, and give it the name ``path``, durably, if the block comes through.

    Raises:
        InputError: there is something at ``path`` already, or it can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path}: is there already; name a folder that is not, or an empty one")
        partial.mkdir(mode=0o700)
        try:
            yield partial
            for folder in (*partial.rglob("*"), partial):
                _sync(folder)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _sync(path.absolute().parent)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); name a writable place") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LegacyWriter:
    """Writes users and assistants into a folder."""

    def __init__(self, root: Path, dimension: int, now: float) -> None:
        """Write into ``root``; vectors have ``dimension`` numbers, heat is that of ``now``, seconds since 1970."""
        self._root = root
        self._no_vector = [0.0] * dimension
        self._now = now

    def user(self, user: LegacyUser) -> None:
        """Write a user's files."""
        self._write("users", user.user_id, SHORT, [self._short(page) for page in user.short])
        sessions = {session.session_id: self._session(session) for session in user.sessions}
        accesses = {session.session_id: session.accesses for session in user.sessions}
        self._write("users", user.user_id, MID, {"sessions": sessions, "access_frequency": accesses})
        profile = {"data": user.profile, "last_updated": user.updated}
        profiles = {user.user_id: profile} if user.profile else {}
        self._write_long("users", user.user_id, LONG, profiles, user.knowledge, user.assistant_knowledge)

    def assistant(self, assistant_id: str, knowledge: Iterable[LegacyFact]) -> None:
        """Write an assistant's file."""
        self._write_long("assistants", assistant_id, ASSISTANT, {}, (), knowledge)

    def _write_long(
        self,
        kind: str,
        name: str,
        file: str,
        profiles: dict[str, Any],
        knowledge: Iterable[LegacyFact],
        of_assistant: Iterable[LegacyFact],
    ) -> None:
        bases = ([self._fact(fact) for fact in base] for base in (knowledge, of_assistant))
        names = ("user_profiles", "knowledge_base", "assistant_knowledge")
        self._write(kind, name, file, dict(zip(names, (profiles, *bases), strict=True)))

    def _write(self, kind: str, name: str, file: str, data: Any) -> None:
        folder = self._root
        for part in (kind, *name.split("/")):
            folder /= part
            folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as out:  # noqa: PTH123  a descriptor, not a path
            json.dump(data, out, indent=2)

    def _short(self, page: LegacyPage) -> dict[str, Any]:
        return dict(zip(("user_input", "agent_response", "timestamp"), page.content, strict=True))

    def _session(self, session: LegacySession) -> dict[str, Any]:
        hours = (self._now - session.last_visit) / 3600.0
        ones = {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "recency_hours": RECENCY_HOURS}
        return {
            "id": session.session_id,
            "summary": session.summary,
            "summary_keywords": list(session.keywords),
            "summary_embedding": self._numbers(session.vector),
            "details": [self._page(page) for page in session.pages],
            "L_interaction": session.interactions,
            "R_recency": heat(0, 0, hours, **ones),
            "N_visit": session.visits,
            "H_segment": heat(session.visits, session.interactions, hours, **ones),
            "timestamp": session.timestamp,
            "last_visit_time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.last_visit)),
            "access_count_lfu": session.accesses,
        }

    def _page(self, page: LegacyPage) -> dict[str, Any]:
        return {
            "page_keywords": [],
            "preloaded": False,
            **page.extra,
            "page_id": page.page_id,
            **self._short(page),
            "analyzed": page.analyzed,
            "pre_page": page.before or None,
            "next_page": page.after or None,
            "meta_info": page.overview or None,
            "page_embedding": self._numbers(page.vector),
        }

    def _fact(self, fact: LegacyFact) -> dict[str, Any]:
        return {
            "knowledge": fact.text,
            "timestamp": fact.timestamp,
            "knowledge_embedding": self._numbers(fact.vector),
        }

    def _numbers(self, vector: Vector | None) -> Sequence[float]:
        """Return a vector as numbers; where there is none, zeros, which are like nothing: the original needs some."""
        return self._no_vector if vector is None else vector.astype(np.float64).tolist()

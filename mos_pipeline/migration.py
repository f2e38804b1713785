"""A data folder of the original MemoryOS on its way into a store, user by user."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mos_pipeline.config import Config, load_config
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.takeover_entry import TakingOverDone
from mos_pipeline.errors import BackpressureError, StoreError, WorkerError
from mos_pipeline.legacy.folder import LegacyFolder
from mos_pipeline.legacy.history import History, HistoryPage, history_of
from mos_pipeline.legacy.model import LegacyFact, LegacyUser, Problem
from mos_pipeline.legacy.parsing import parse_assistant, parse_user
from mos_pipeline.legacy.report import Report
from mos_pipeline.legacy.room import Room, room_for
from mos_pipeline.legacy.taking import metadata_of, name_of, takeover_of
from mos_pipeline.logs import about
from mos_pipeline.memory.takeover import Takeover
from mos_pipeline.messages import encode
from mos_pipeline.pipeline import MemoryPipeline
from mos_pipeline.reading import Reading

__all__ = ["Migration", "MigrationStore"]

PAGES_AT_ONCE = 64
POLL_S = 0.2
RESTORE_S = 600.0


class MigrationStore(MemoryPipeline):
    """A store opened for taking memory over; pages of the scopes concerned wait for theirs."""

    @classmethod
    def begin(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] | Mapping[str, Any] | None,
        scopes: Collection[tuple[str, str]],
    ) -> MigrationStore:
        """Open the store in ``path``, made if need be; ``scopes`` are the (user, assistant) concerned.

        Raises:
            MosError: as from ``MemoryPipeline.open``.
        """
        with about(Path(path).absolute()):
            return cls(Engine(path, load_config(config), held=scopes))

    def take_over(self, user_id: str, assistant_id: str, memory: Takeover) -> TakingOverDone:
        """Begin to take over memory, whose pages were accepted; ``wait`` tells what came of it."""
        engine, done = self._engine, TakingOverDone()

        def begin() -> None:
            engine.coordinator.absorb()
            engine.taking_over.begin(user_id, assistant_id, memory, done)

        engine.inbox.put(begin)
        return done

    def wait(self, done: TakingOverDone, pulse: Callable[[], None]) -> None:
        """Return when it is on the disk; ``pulse()`` is called now and then, and may raise.

        Raises:
            StoreError, WorkerError: that can't be.
        """
        engine = self._engine
        while not done.event.wait(POLL_S):
            pulse()
            if engine.coordinator.error is not None:
                raise engine.coordinator.error
        if done.error:
            raise StoreError(f"{engine.store.folder.root}: memory could not be taken over: {done.error}")

    def release(self, user_id: str, assistant_id: str) -> None:
        """Have pages of this user worked on like any other's."""
        engine = self._engine

        def release() -> None:
            scope = engine.state.find(user_id, assistant_id)
            if scope is not None:
                engine.taking_over.release(scope)

        engine.inbox.put(release)

    def check_worker(self) -> None:
        """Raise why nothing can be worked on, where that is so."""
        error = self._engine.coordinator.error
        if isinstance(error, WorkerError | StoreError):
            raise error


class Migration:
    """Moves a folder's users into a store, or only counts them.

    Attributes:
        report: what was found, and what became of it.
    """

    def __init__(self, folder: LegacyFolder, assistant: str, config: Config, pulse: Callable[[], None]) -> None:
        """Move ``folder``; pages go under ``assistant``. ``pulse()`` is called now and then, and may raise."""
        self._folder = folder
        self._assistant = assistant
        self._config = config
        self._shares = config.long_term.share_assistant_knowledge
        self._pulse = pulse
        self.report = Report()
        self.report.set_aside += folder.problems
        self._told: tuple[LegacyFact, ...] = ()  # what the assistant said of itself
        self._told_to = ""  # the user under whom that goes

    @property
    def scopes(self) -> list[tuple[str, str]]:
        """The (user, assistant) whose memory is moved."""
        return [(user, self._assistant) for user in self._folder.users]

    def count(self, store: Reading | None) -> None:
        """Count all of it, and what ``store``, where there is one, has of it already; nothing is changed."""
        self._find_told()
        for history, told in self._histories():
            room = self._room(history, told)
            known = store is not None and self._has(store, history, name_of(history, told, room))
            self.report.already_there += known
            self.report.pages_accepted += 0 if known else len(history.pages) - len(room.too_large)

    def run(self, store: MigrationStore) -> None:
        """Move all of it.

        Raises:
            MosError: the store can't be written, or nothing can be embedded; what is moved already stays, and the same
                again goes on from there.
        """
        self._find_told()
        for history, told in self._histories():
            self._move(store, history, told)
        for user_id, assistant in self.scopes:
            store.release(user_id, assistant)

    def _histories(self) -> Iterator[tuple[History, tuple[LegacyFact, ...]]]:
        """Yield users who have pages, each with what an assistant said of itself that goes there."""
        report = self.report
        for user_id in self._folder.users:
            self._pulse()
            user = parse_user(self._folder, user_id, report.set_aside)
            history = history_of(user, report.set_aside)
            if not history.pages:
                self._without_pages(user)
                continue
            report.users += 1
            report.count(history)
            yield history, self._told if user_id == self._told_to else ()

    def _without_pages(self, user: LegacyUser) -> None:
        if user.profile or user.knowledge or user.assistant_knowledge:
            reason = "profile and knowledge of a user without a page: nothing would ever make them be forgotten"
            self._leave_out(f"users/{user.user_id}", reason)

    def _leave_out(self, file: str, reason: str) -> None:
        self.report.set_aside.append(Problem(file, "", reason))

    # What assistants said of themselves

    def _find_told(self) -> None:
        """Read what assistants said of themselves, and find the user under whom that of this one goes."""
        named = self._folder.assistants
        mine = self._assistant if self._assistant in named or len(named) != 1 else named[0]
        for assistant_id in named:
            found = parse_assistant(self._folder, assistant_id, self.report.set_aside)
            if not found.knowledge:
                continue
            if assistant_id != mine:
                reason = f"no page goes under this assistant but under {self._assistant!r:.100}; name it (--assistant)"
                self._leave_out(f"assistants/{assistant_id}", reason)
                continue
            users = list(islice(self._with_pages(), 2))
            if not users:
                self._leave_out(f"assistants/{assistant_id}", "there is no user with a page whom it could be told")
            elif len(users) > 1 and not self._shares:
                reason = (
                    "nothing says which user it was told, and users don't see each other's; set "
                    "long_term.share_assistant_knowledge to true where all may"
                )
                self._leave_out(f"assistants/{assistant_id}", reason)
            else:
                self._told, self._told_to = found.knowledge, users[0]
                self.report.assistants += 1
                self.report.facts_assistant += len(found.knowledge)

    def _with_pages(self) -> Iterator[str]:
        for user_id in self._folder.users:
            user = parse_user(self._folder, user_id, [])
            if user.short or any(session.pages for session in user.sessions):
                yield user_id

    # One user

    def _move(self, store: MigrationStore, history: History, told: tuple[LegacyFact, ...]) -> None:
        user_id = history.user.user_id
        room = self._room(history, told)
        name = name_of(history, told, room)
        if self._has(store, history, name):
            self.report.already_there += 1
            store.release(user_id, self._assistant)
            return
        page_ids = self._accept(store, history, room)
        done = store.take_over(user_id, self._assistant, takeover_of(history, told, page_ids, name))
        store.wait(done, self._pulse)
        self.report.reused += done.reused
        self.report.made += done.made + done.bare
        self.report.repeated += done.repeated
        more = done.evicted - room.sessions, done.dropped - room.facts
        if max(more) > 0:
            reason = f"beside what the store had, there was no room for {more[0]} sessions and {more[1]} facts"
            self._leave_out(f"users/{user_id}", reason)

    def _room(self, history: History, told: tuple[LegacyFact, ...]) -> Room:
        room = room_for(history, told, self._assistant, self._config)
        self.report.set_aside += room.problems(history)
        return room

    def _has(self, store: Reading, history: History, name: bytes) -> bool:
        """Return whether the store took over just this before."""
        user_id = history.user.user_id
        return name in store.taken_over(user_id, assistant_id=self._assistant, timeout=RESTORE_S)

    def _accept(self, store: MigrationStore, history: History, room: Room) -> dict[str, str]:
        """Add the pages; return the ids that they have, by their keys."""
        page_ids, size = dict[str, str](), 0
        fitting = [page for page in history.pages if page.key not in room.too_large]
        for start in range(0, len(fitting), PAGES_AT_ONCE):
            self._pulse()
            part = fitting[start : start + PAGES_AT_ONCE]
            named = [(page, self._id_of(store, history.user.user_id, page)) for page in part]
            pages = [self._arguments(history.user.user_id, page, page_id) for page, page_id in named]
            size += sum(len(encode(list(page.values()))) for page in pages)
            while named:
                count = self._add(store, named, pages, page_ids)
                del named[:count], pages[:count]
                if not count and size > self._config.backlog.max_bytes:  # they wait for their memory, and it for them
                    raise BackpressureError(
                        f"users/{history.user.user_id}: its pages take more than backlog.max_bytes "
                        f"({self._config.backlog.max_bytes:,}), and they are worked on once all are there; raise that "
                        "setting, and migrate again"
                    )
        return page_ids

    def _add(
        self,
        store: MigrationStore,
        named: list[tuple[HistoryPage, str]],
        pages: list[dict[str, Any]],
        page_ids: dict[str, str],
    ) -> int:
        """Add pages under their ids, as many as there is room for; return how many were answered for."""
        try:
            answers = store.add_batch(pages, timeout=POLL_S)
        except BackpressureError:
            self._pulse()
            store.check_worker()
            return 0
        for (page, page_id), answer in zip(named, answers, strict=False):
            if answer.refused is None:
                page_ids[page.key] = page_id
                self.report.pages_accepted += answer.new
            else:
                file, where = page.page.place
                self.report.set_aside.append(Problem(file, where, f"is no page that can be kept: {answer.refused}"))
        return len(answers)

    def _arguments(self, user_id: str, page: HistoryPage, page_id: str) -> dict[str, Any]:
        said, answered, timestamp = page.page.content
        return {
            "user_id": user_id,
            "assistant_id": self._assistant,
            "user_input": said,
            "agent_response": answered,
            "timestamp": timestamp,
            "metadata": metadata_of(page),
            "page_id": page_id,
        }

    def _id_of(self, store: MigrationStore, user_id: str, page: HistoryPage) -> str:
        """Return the id that a page has in the store, or is to have.

        It is its own, unless that is another page's there, as of another user; or the one made of its content, where
        it came as one of short-term memory once, which has no ids.
        """
        own, made = (store.get(page_id) for page_id in (page.key, page.content_id))
        if own is None:
            return page.key if made is None else page.content_id
        theirs = own.user_id, own.assistant_id, own.user_input, own.agent_response, own.timestamp
        return page.key if theirs == (user_id, self._assistant, *page.page.content) else page.content_id

"""What can be asked of an open memory, be it this process's own or read beside its owner; and its life and end."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from mos_pipeline.arguments import (
    checked_count,
    checked_id,
    checked_moment,
    checked_seconds,
    checked_text,
    checked_where,
)
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.retrieval import Question
from mos_pipeline.engine.snapshot import reader_snapshot, snapshot
from mos_pipeline.engine.view import View
from mos_pipeline.errors import ClosedError, DeadlineError, InputError, StoreError
from mos_pipeline.logs import about
from mos_pipeline.memory.selection import Filter
from mos_pipeline.memory.state import Scope
from mos_pipeline.messages import Knowledge, Page, Profile, Retrieved, Session
from mos_pipeline.metrics import Stats
from mos_pipeline.store.backup import backup_store
from mos_pipeline.store.verify import VerifyReport, verify_store

__all__ = ["DEFAULT_ASSISTANT", "Reading"]

DEFAULT_ASSISTANT = "default_assistant_profile"


class Reading:
    """The methods that change nothing. Each may be called from any thread."""

    def __init__(self, engine: Engine | ReaderEngine) -> None:
        """Use ``MemoryPipeline.open``."""
        self._opened = engine
        self._pid = os.getpid()
        self._closing = threading.RLock()
        self._closed = False
        # A caller who forgets to close is served at exit, before multiprocessing ends the children under the
        # supervisor's eyes. Bound to the engine's life, not to this object's: its threads keep it alive anyway.
        atexit.register(self.close)

    def retrieve(
        self,
        user_id: str,
        query: str,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        k: int | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        where: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        order: Literal["score", "time"] = "score",
        explain: bool = False,
        timeout: float | None = None,
    ) -> Retrieved:
        """Find what this user's memory with this assistant has to tell about ``query``, and the latest pages.

        Every page accepted before the call can be found: by its words at once, by its vector once it is embedded.

        Args:
            user_id: whose memory is searched.
            query: the question.
            assistant_id: pages belong to a user and an assistant together.
            k: how many pages, at least 1; where None, ``retrieval.k``, or with ``max_tokens`` as many as that holds.
            since: only pages with a timestamp from this moment on (ISO 8601 where text; UTC where it names no zone).
            until: only pages with a timestamp up to this moment.
            where: only pages whose metadata hold all of these keys with equal values.
            max_tokens: about how many tokens pages and their chains' overviews may take together, best evidence first;
                a token is taken for four characters.
            order: "score" for the best page first, "time" for the order in which pages were accepted.
            explain: whether each page comes with the parts of its score.
            timeout: seconds to wait for the query's vector, then words alone decide and ``degraded`` is True;
                ``retrieval.timeout_s`` where None.

        Raises:
            InputError: an argument can't be taken.
            DeadlineError: a large store is still being read from disk when the time is up.
            StoreError: it could not be read.
            ClosedError: the pipeline is closed.
        """
        settings = self._open_engine().config.retrieval
        if k is None and max_tokens is None:
            k = settings.k
        if order not in ("score", "time"):
            raise InputError(f"order must be 'score' or 'time', found {order!r:.100}")
        question = Question(
            checked_text("query", query),
            None if k is None else checked_count("k", k),
            Filter(checked_moment("since", since), checked_moment("until", until), checked_where(where)),
            None if max_tokens is None else checked_count("max_tokens", max_tokens),
            order == "time",
            explain,
        )
        return self._found(user_id, assistant_id, question, timeout)

    def get(self, page_id: str) -> Page | None:
        """Return the page with this id, or None where there is none, or none any more."""
        with self._reading() as memory:
            seq = memory.state.ids.resolve(checked_id("page_id", page_id))
            with memory.gate.lock:
                memory.gate.absorb()
                pages = memory.state.pages
                if seq is None or seq >= len(pages) or not pages.is_kept(seq):
                    return None
            return next(iter(memory.browsing.pages([seq])), None)

    def pages(
        self,
        user_id: str | None = None,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Page]:
        """Return pages in the order of acceptance: of one user and assistant, or (None) of the whole store.

        Args:
            user_id: whose pages, or None for everyone's with every assistant.
            assistant_id: which assistant's, where a user is named.
            offset: how many pages to pass over, at least 0.
            limit: how many to return at the most, at least 1.
        """
        offset, limit = checked_count("offset", offset, 0), checked_count("limit", limit)
        with self._reading() as memory:
            with memory.gate.lock:
                memory.gate.absorb()
                if user_id is None:
                    seqs = memory.state.pages.slice(offset, limit)
                else:
                    scope = self._scope(memory, user_id, assistant_id)
                    mine = memory.state.pages.seqs_of(scope.number).tolist() if scope is not None else []
                    seqs = mine[offset : offset + limit]
            return memory.browsing.pages(seqs)

    def sessions(
        self, user_id: str, *, assistant_id: str = DEFAULT_ASSISTANT, offset: int = 0, limit: int = 100
    ) -> list[Session]:
        """Return the topics of mid-term memory, hottest first; ``offset`` and ``limit`` as in ``pages``."""
        offset, limit = checked_count("offset", offset, 0), checked_count("limit", limit)
        with self._restored_scope(user_id, assistant_id) as (memory, scope):
            return [] if scope is None else memory.browsing.sessions(scope, offset, limit)

    def profile(self, user_id: str, *, assistant_id: str = DEFAULT_ASSISTANT) -> Profile:
        """Return what is known of the user as a person; its text is empty while nothing is."""
        with self._restored_scope(user_id, assistant_id) as (memory, scope):
            return Profile("", "") if scope is None else memory.browsing.profile(scope)

    def knowledge(
        self,
        user_id: str,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        about: Literal["user", "assistant"] = "user",
        offset: int = 0,
        limit: int = 100,
    ) -> list[Knowledge]:
        """Return facts, the newest last: about the user, or what the assistant said of itself to this user."""
        if about not in ("user", "assistant"):
            raise InputError(f"about must be 'user' or 'assistant', found {about!r:.100}")
        offset, limit = checked_count("offset", offset, 0), checked_count("limit", limit)
        with self._restored_scope(user_id, assistant_id) as (memory, scope):
            return [] if scope is None else memory.browsing.knowledge(scope, offset, limit, of_user=about == "user")

    def users(self) -> list[str]:
        """Return the ids of all users who have pages, in the order of their first ones."""
        with self._reading() as memory, memory.gate.lock:
            memory.gate.absorb()
            pages = memory.state.pages
            present = [scope for scope in memory.state.scopes if pages.count_of(scope.number)]
            present.sort(key=lambda scope: int(pages.seqs_of(scope.number)[0]))  # forgetting may have changed it
            return list(dict.fromkeys(scope.user_id for scope in present))

    def taken_over(
        self, user_id: str, *, assistant_id: str = DEFAULT_ASSISTANT, timeout: float | None = None
    ) -> list[bytes]:
        """Return the names of the memories that were taken over for this user from elsewhere; none without a page."""
        with self._restored_scope(user_id, assistant_id, timeout) as (memory, scope), memory.gate.lock:
            if scope is None or not memory.state.pages.count_of(scope.number):
                return []
            return list(scope.taken_over)

    def sources(self) -> dict[bytes, int]:
        """Return for every file that pages were read from its digest and how many of its records are accepted."""
        with self._reading() as memory:
            return memory.sources()

    def stats(self) -> Stats:
        """Return a snapshot of the pipeline; a reader's tells nothing of the owner's work."""
        engine = self._open_engine()
        if isinstance(engine, Engine):
            return snapshot(engine)
        with engine.reading() as view:
            return reader_snapshot(engine, view)

    def verify(self) -> VerifyReport:
        """Check every structure of the store on disk; read-only, beside running work."""
        return verify_store(self._open_engine().store.folder.root)

    def backup(self, target: str | os.PathLike[str]) -> int:
        """Copy the store to the folder ``target``, which is made, or empty, beside running work; return the bytes.

        The copy is a store of its own, to be opened, verified or restored. It holds every page that was accepted before
        the call, and may hold some that were accepted meanwhile; what was derived from pages and not stored yet is made
        again when it is opened.

        Raises:
            InputError: ``target`` is not empty, or can't be used.
            StoreError: the store can't be read, or ``target`` can't be written; nothing is left there.
        """
        return backup_store(self._open_engine().store.folder.root, target)

    def close(self) -> None:
        """Make everything safe and stop; quick: work not done yet goes on when the store is opened again."""
        if os.getpid() != self._pid:
            return
        with self._closing:  # a second caller returns when it is closed, too
            if not self._closed:
                self._closed = True
                atexit.unregister(self.close)
                with about(self._opened.store.folder.root):
                    self._shut()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def _shut(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        marks = [", read-only"] * isinstance(self._opened, ReaderEngine) + [", closed"] * self._closed
        return f"MemoryPipeline({str(Path(self._opened.store.folder.root))!r}{''.join(marks)})"

    def _open_engine(self) -> Engine | ReaderEngine:
        if self._closed:
            raise ClosedError(f"{self!r} was used after close(); open the store again")
        if os.getpid() != self._pid:
            raise ClosedError(f"{self!r} belongs to process {self._pid}; a forked child must not use it")
        return self._opened

    def _found(self, user_id: str, assistant_id: str, question: Question, timeout: float | None) -> Retrieved:
        settings = self._open_engine().config.retrieval
        timeout = settings.timeout_s if timeout is None else checked_seconds("timeout", timeout)
        deadline = time.monotonic() + timeout
        with self._restored_scope(user_id, assistant_id, timeout) as (memory, scope):
            if scope is None:
                return Retrieved([], [], degraded=False)
            return memory.retrieval.retrieve(scope, question, max(0.0, deadline - time.monotonic()))

    @contextmanager
    def _reading(self) -> Iterator[Engine | View]:
        """Hold what is read for one call: all of it belongs together."""
        engine = self._open_engine()
        if isinstance(engine, Engine):
            yield engine
        else:
            with engine.reading() as view:
                yield view

    def _scope(self, memory: Engine | View, user_id: str, assistant_id: str) -> Scope | None:
        return memory.state.find(checked_id("user_id", user_id), checked_id("assistant_id", assistant_id))

    @contextmanager
    def _restored_scope(
        self, user_id: str, assistant_id: str, timeout: float | None = None
    ) -> Iterator[tuple[Engine | View, Scope | None]]:
        with self._reading() as memory:
            if isinstance(memory, Engine):  # a reader has read everything before anybody can call
                self._wait_restored(memory, memory.config.retrieval.timeout_s if timeout is None else timeout)
            yield memory, self._scope(memory, user_id, assistant_id)

    def _wait_restored(self, engine: Engine, timeout: float) -> None:
        if not engine.restored.wait(timeout):
            raise DeadlineError(
                f"{self!r}: the store is still being read after {timeout} s; give it more time (retrieve's timeout, "
                "or the setting retrieval.timeout_s)"
            )
        if engine.restore_error is not None:
            raise StoreError(f"{self!r}: the store could not be read; run verify() on it") from engine.restore_error

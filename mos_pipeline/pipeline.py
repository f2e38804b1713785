"""MemoryPipeline: the library's face. Arguments are checked here; everything else is the engine's."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mos_pipeline.arguments import (
    checked_arguments,
    checked_count,
    checked_id,
    checked_metadata,
    checked_moment,
    checked_seconds,
    checked_source,
    checked_text,
    checked_timestamp,
)
from mos_pipeline.config import Config, load_config
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.retrieval import Question
from mos_pipeline.engine.snapshot import reader_snapshot, snapshot
from mos_pipeline.engine.view import View
from mos_pipeline.errors import ClosedError, DeadlineError, InputError, StoreError
from mos_pipeline.memory.selection import Filter
from mos_pipeline.memory.state import Scope
from mos_pipeline.messages import Compacted, Knowledge, Page, PageRecord, Profile, Retrieved, Session, SourceMark
from mos_pipeline.metrics import Stats
from mos_pipeline.store.verify import VerifyReport, verify_store

__all__ = ["DEFAULT_ASSISTANT", "MemoryPipeline"]

DEFAULT_ASSISTANT = "default_assistant_profile"


class MemoryPipeline:
    """Long-term memory for AI agents, in one folder.

    Every method may be called from any thread. Use it as a context manager, or call ``close()``.
    """

    def __init__(self, engine: Engine | ReaderEngine) -> None:
        """Use ``MemoryPipeline.open``."""
        self._opened = engine
        self._pid = os.getpid()
        self._closing = threading.RLock()
        self._closed = False
        # A caller who forgets to close is served at exit, before multiprocessing ends the children under the
        # supervisor's eyes. Bound to the engine's life, not to this object's: its threads keep it alive anyway.
        atexit.register(self.close)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        workers: bool = True,
        read_only: bool = False,
        **overrides: Any,
    ) -> MemoryPipeline:
        """Open the store in the folder ``path``, made if need be.

        Pages can be added and listed on return. The model loads in the background; so does what was derived from the
        pages of an existing store.

        Opened with ``read_only``, the store is not owned: another process may own it, write and compact meanwhile, or
        none. Everything stored is there on return, and is what the store held at that moment until ``refresh`` looks
        again. Nothing is written, and a reader's retrievals are not counted as visits.

        Args:
            path: the store's folder.
            config: a YAML file, a mapping or a ready Config; see ``config.yaml`` for every key.
            workers: False opens without child processes: pages are accepted and kept, found by words, and worked off
                when the store is opened with workers. A reader without them finds pages by their words alone; with
                them it starts an embedder of its own with its first question.
            read_only: True opens a store that is there for reading alone.
            overrides: single settings, ``section__key=value``.

        Raises:
            ConfigError: a setting is unknown or wrong.
            StoreLockedError: another process owns the store.
            ModelMismatchError: the store's vectors come from another model than the configured one.
            StoreError: the folder can't be used, or there is no store to read.
        """
        if isinstance(config, Config):
            config = config.as_dict()
        settings = load_config(config, overrides=overrides)
        return cls((ReaderEngine if read_only else Engine)(path, settings, workers=workers))

    def add(
        self,
        user_id: str,
        user_input: str,
        agent_response: str,
        *,
        assistant_id: str = DEFAULT_ASSISTANT,
        timestamp: str | datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        page_id: str | None = None,
        source: SourceMark | None = None,
    ) -> str:
        """Accept one exchange and return its page id; it is kept from then on, whatever dies.

        Args:
            user_id: whose memory it is.
            user_input: what the user said; may be empty.
            agent_response: what the assistant answered; may be empty.
            assistant_id: pages belong to a user and an assistant together.
            timestamp: when it was said: kept as it is; the moment of the call where None. It doesn't order pages.
            metadata: anything msgpack can hold.
            page_id: an id of the caller's own; the same id twice is one page, the first.
            source: which record of which file it is, for resuming a reading.

        Raises:
            InputError: an argument can't be taken, or the store was opened read-only; nothing was stored.
            BackpressureError: the backlog is at its high-water mark.
            StoreFullError: the disk is full; the page was not accepted.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("add")
        record = PageRecord(
            checked_id("user_id", user_id),
            checked_id("assistant_id", assistant_id),
            checked_text("user_input", user_input),
            checked_text("agent_response", agent_response),
            checked_timestamp(timestamp),
            checked_metadata(metadata),
            None if page_id is None else checked_id("page_id", page_id),
            checked_source(source),
        )
        return engine.intake.add(record)[0]

    def add_many(self, pages: Iterable[Mapping[str, Any] | Page]) -> int:
        """Accept pages from any iterable, read lazily; return how many were taken from it.

        Each is a Page, or a mapping with the names of ``add``'s arguments.

        Raises:
            InputError: naming the item's position; the items before it are kept.
        """
        count = 0
        for item in pages:
            try:
                self.add(**checked_arguments(item))
            except InputError as error:
                raise InputError(f"item {count}: {error}; the {count} items before it are kept") from None
            count += 1
        return count

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
            Filter(checked_moment("since", since), checked_moment("until", until), checked_metadata(where, "where")),
            None if max_tokens is None else checked_count("max_tokens", max_tokens),
            order == "time",
            explain,
        )
        timeout = settings.timeout_s if timeout is None else checked_seconds("timeout", timeout)
        deadline = time.monotonic() + timeout
        with self._restored_scope(user_id, assistant_id, timeout) as (memory, scope):
            if scope is None:
                return Retrieved([], [], degraded=False)
            return memory.retrieval.retrieve(scope, question, max(0.0, deadline - time.monotonic()))

    def get(self, page_id: str) -> Page | None:
        """Return the page with this id, or None where there is none, or none any more."""
        with self._reading() as memory:
            seq = memory.state.ids.resolve(checked_id("page_id", page_id))
            with memory.gate.lock:
                memory.gate.absorb()
                pages = memory.state.pages
                if seq is None or seq >= len(pages) or not pages.is_kept(seq):
                    return None
            return memory.browsing.pages([seq])[0]

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

    def forget(
        self,
        user_id: str | None = None,
        *,
        assistant_id: str | None = None,
        session_id: int | None = None,
        page_id: str | None = None,
    ) -> int:
        """Forget pages for good, with everything that was derived from them; return how many there were.

        They are not found any more from the moment of return, and stay forgotten whatever dies. What was derived from
        them and from other pages together (summaries, overviews, the profile) is made again from the others, in the
        background. Their bytes are gone from the disk after the next compaction.

        Args:
            user_id: every page of this user.
            assistant_id: only those with this assistant; with all of them where None (one session: the default one).
            session_id: only the pages of this session of the user's, see ``sessions``.
            page_id: this page alone; nothing else is named then.

        Raises:
            InputError: neither or too much is named, or the store was opened read-only.
            StoreFullError: there is no room to note it; nothing was forgotten.
            DeadlineError: the store is still being read.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("forget")
        self._wait_restored(engine, engine.config.retrieval.timeout_s)
        if page_id is not None:
            if any(given is not None for given in (user_id, assistant_id, session_id)):
                raise InputError("forget: a page_id names the page alone; leave out user, assistant and session")
            return engine.removal.page(checked_id("page_id", page_id))
        if user_id is None:
            raise InputError("forget: name a user_id, or a page_id")
        checked_id("user_id", user_id)
        if assistant_id is not None:
            checked_id("assistant_id", assistant_id)
        if session_id is not None:
            return engine.removal.session(user_id, assistant_id or DEFAULT_ASSISTANT, session_id)
        return engine.removal.user(user_id, assistant_id)

    def compact(self, timeout: float | None = None) -> Compacted:
        """Write the segments again without what was forgotten; return what that has changed.

        It happens by itself, too, once more than ``store.max_dead_ratio`` of the store is forgotten.

        Args:
            timeout: seconds to wait at the most; it goes on in the background then.

        Raises:
            DeadlineError: it is not done yet.
            StoreError: the disk failed; the segments stay as they were.
            InputError: the pipeline was opened with ``workers=False``, or read-only.
        """
        engine = self._owner("compact")
        if engine.supervisor is None:
            raise InputError("compact: the pipeline was opened with workers=False, so nobody works; open it without")
        return engine.compact(timeout)

    def users(self) -> list[str]:
        """Return the ids of all users who have pages, in the order of their first ones."""
        with self._reading() as memory, memory.gate.lock:
            memory.gate.absorb()
            pages = memory.state.pages
            present = [scope for scope in memory.state.scopes if pages.count_of(scope.number)]
            present.sort(key=lambda scope: int(pages.seqs_of(scope.number)[0]))  # forgetting may have changed it
            return list(dict.fromkeys(scope.user_id for scope in present))

    def sources(self) -> dict[bytes, int]:
        """Return for every file that pages were read from its digest and how many of its records are accepted."""
        with self._reading() as memory:
            return memory.sources()

    def refresh(self) -> None:
        """Take in what the owner has written since the store was opened read-only, or refreshed last.

        Calls that run meanwhile end with what was there when they began, or with what is new.

        Raises:
            InputError: the store was not opened read-only: its owner always has everything.
            DeadlineError: calls that began before the last refresh still run; nothing was changed.
            StoreError: the store can't be read; what was there before is still there.
            ClosedError: the pipeline is closed.
        """
        engine = self._open_engine()
        if isinstance(engine, Engine):
            raise InputError(f"refresh: {self!r} owns the store and always has everything; leave it out")
        engine.refresh()

    def flush(self, *, durable: bool = True, timeout: float | None = None) -> None:
        """Have everything accepted so far written to segments.

        Args:
            durable: wait until that survives a power cut; otherwise only begin. Opened with ``workers=False``, pages
                stay in the journal, and are made durable there.
            timeout: seconds to wait at the most.

        Raises:
            DeadlineError: it is not written in time (is the disk full? see ``stats()``); pages are safe in the journal.
        """
        engine = self._owner("flush")
        if durable:
            engine.intake.sync()
        if engine.supervisor is None:
            return
        done = engine.coordinator.wait_written(timeout if durable else 0.0)
        if durable and not done:
            if engine.coordinator.writing_error is not None:
                raise engine.coordinator.writing_error
            self._raise_unfinished(engine, f"flush: not everything was written within {timeout} s")

    def wait_idle(self, timeout: float | None = None) -> None:
        """Wait until every accepted page is embedded and applied, those of rings that are not full included.

        Pages that come meanwhile count too: where others add faster than the models work, it takes until they stop.

        Args:
            timeout: seconds to wait at the most; None waits for as long as it takes.

        Raises:
            DeadlineError: there is still work after ``timeout``.
            WorkerError: the work can't be done: the model is missing, or a worker dies again and again.
            ModelMismatchError: the model found is not the one that the store's vectors come from.
        """
        engine = self._owner("wait_idle")
        if engine.supervisor is None:
            raise InputError("wait_idle: the pipeline was opened with workers=False, so nobody works; open it without")
        if not engine.coordinator.wait_idle(timeout):
            if engine.coordinator.error is not None:
                raise engine.coordinator.error
            self._raise_unfinished(engine, f"wait_idle: there is still work after {timeout} s")

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

    def close(self) -> None:
        """Make everything safe and stop; quick: work not done yet goes on when the store is opened again."""
        if os.getpid() != self._pid:
            return
        with self._closing:  # a second caller returns when it is closed, too
            if not self._closed:
                self._closed = True
                atexit.unregister(self.close)
                self._opened.close()

    def __enter__(self) -> MemoryPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        marks = [", read-only"] * isinstance(self._opened, ReaderEngine) + [", closed"] * self._closed
        return f"MemoryPipeline({str(Path(self._opened.store.folder.root))!r}{''.join(marks)})"

    @property
    def _engine(self) -> Engine:
        return self._owner("this")

    def _owner(self, what: str) -> Engine:
        """Return the engine of a store that this process owns."""
        engine = self._open_engine()
        if isinstance(engine, ReaderEngine):
            raise InputError(
                f"{what}: {self!r} was opened read-only; do it in the process that owns the store, or open it without "
                "read_only where none does"
            )
        return engine

    def _open_engine(self) -> Engine | ReaderEngine:
        if self._closed:
            raise ClosedError(f"{self!r} was used after close(); open the store again")
        if os.getpid() != self._pid:
            raise ClosedError(f"{self!r} belongs to process {self._pid}; a forked child must not use it")
        return self._opened

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

    def _raise_unfinished(self, engine: Engine, message: str) -> None:
        stats = snapshot(engine)
        raise DeadlineError(
            f"{message}: {stats.backlog_pages} pages wait to be embedded, {stats.unwritten} pieces to be written; "
            "wait longer, or look at stats() for what holds them up"
        )

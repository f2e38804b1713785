"""MemoryPipeline: the library's face. Arguments are checked here; everything else is the engine's."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields as dataclass_fields
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from mos_pipeline.config import Config, load_config
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.snapshot import snapshot
from mos_pipeline.errors import ClosedError, DeadlineError, InputError, StoreError
from mos_pipeline.memory.pages import LOST
from mos_pipeline.memory.state import Scope
from mos_pipeline.messages import Page, PageRecord, Retrieved, SourceMark
from mos_pipeline.metrics import Stats
from mos_pipeline.store.verify import VerifyReport, verify_store

__all__ = ["DEFAULT_ASSISTANT", "MemoryPipeline"]

DEFAULT_ASSISTANT = "default_assistant_profile"
PAGE_FIELDS = frozenset(f.name for f in dataclass_fields(Page))


class MemoryPipeline:
    """Long-term memory for AI agents, in one folder.

    Every method may be called from any thread. Use it as a context manager, or call ``close()``.
    """

    def __init__(self, engine: Engine) -> None:
        """Use ``MemoryPipeline.open``."""
        self._engine = engine
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
        **overrides: Any,
    ) -> MemoryPipeline:
        """Open the store in the folder ``path``, made if need be.

        Pages can be added and listed on return. The model loads in the background; so does what was derived from the
        pages of an existing store.

        Args:
            path: the store's folder.
            config: a YAML file, a mapping or a ready Config; see ``config.yaml`` for every key.
            workers: False opens without child processes: pages are accepted and kept, found by words, and worked off
                when the store is opened with workers.
            overrides: single settings, ``section__key=value``.

        Raises:
            ConfigError: a setting is unknown or wrong.
            StoreLockedError: another process owns the store.
            ModelMismatchError: the store's vectors come from another model than the configured one.
            StoreError: the folder can't be used.
        """
        if isinstance(config, Config):
            config = config.as_dict()
        return cls(Engine(path, load_config(config, overrides=overrides), workers=workers))

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
            InputError: an argument can't be taken; nothing was stored.
            BackpressureError: the backlog is at its high-water mark.
            StoreFullError: the disk is full; the page was not accepted.
            ClosedError: the pipeline is closed.
        """
        engine = self._open_engine()
        record = PageRecord(
            _id("user_id", user_id),
            _id("assistant_id", assistant_id),
            _text("user_input", user_input),
            _text("agent_response", agent_response),
            _timestamp(timestamp),
            _metadata(metadata),
            None if page_id is None else _id("page_id", page_id),
            _source(source),
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
                self.add(**_arguments(item))
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
        timeout: float | None = None,
    ) -> Retrieved:
        """Find the ``k`` pages of this user and assistant that tell most about ``query``, and the latest pages.

        Every page accepted before the call can be found: by its words at once, by its vector once it is embedded.

        Args:
            user_id: whose memory is searched.
            query: the question.
            assistant_id: pages belong to a user and an assistant together.
            k: how many pages, at least 1; ``retrieval.k`` where None.
            timeout: seconds to wait for the query's vector, then words alone decide and ``degraded`` is True;
                ``retrieval.timeout_s`` where None.

        Raises:
            InputError: an argument can't be taken.
            DeadlineError: a large store is still being read from disk when the time is up.
            StoreError: it could not be read.
            ClosedError: the pipeline is closed.
        """
        engine = self._open_engine()
        k = engine.config.retrieval.k if k is None else k
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise InputError(f"k must be a whole number of at least 1, found {k!r}")
        timeout = engine.config.retrieval.timeout_s if timeout is None else timeout
        deadline = time.monotonic() + timeout
        self._wait_restored(engine, timeout)
        scope = self._scope(engine, user_id, assistant_id)
        _text("query", query)
        if scope is None:
            return Retrieved([], [], degraded=False)
        return engine.retrieval.retrieve(scope, query, k, max(0.0, deadline - time.monotonic()))

    def get(self, page_id: str) -> Page | None:
        """Return the page with this id, or None where there is none (or it was lost with damaged bytes)."""
        engine = self._open_engine()
        seq = engine.state.ids.resolve(_id("page_id", page_id))
        if seq is None or seq >= engine.intake.next_seq:
            return None
        with engine.coordinator.lock:
            engine.coordinator.absorb()
            if engine.state.pages.scope(seq) == LOST:
                return None
        return engine.retrieval.pages([seq])[0]

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
        engine = self._open_engine()
        if offset < 0 or limit < 1:
            raise InputError(f"offset must be at least 0 and limit at least 1, found {offset!r} and {limit!r}")
        with engine.coordinator.lock:
            engine.coordinator.absorb()
            if user_id is None:
                seqs = engine.state.pages.slice(offset, limit)
            else:
                scope = self._scope(engine, user_id, assistant_id)
                mine = engine.state.pages.seqs_of(scope.number).tolist() if scope is not None else []
                seqs = mine[offset : offset + limit]
        return engine.retrieval.pages(seqs)

    def users(self) -> list[str]:
        """Return the ids of all users, in the order of their first pages."""
        scopes = self._open_engine().state.scopes
        return list(dict.fromkeys(scope.user_id for scope in list(scopes)))

    def sources(self) -> dict[bytes, int]:
        """Return for every file that pages were read from its digest and how many of its records are accepted."""
        return self._open_engine().intake.sources()

    def flush(self, *, durable: bool = True, timeout: float | None = None) -> None:
        """Have everything accepted so far written to segments.

        Args:
            durable: wait until that survives a power cut; otherwise only begin. Opened with ``workers=False``, pages
                stay in the journal, and are made durable there.
            timeout: seconds to wait at the most.

        Raises:
            DeadlineError: it is not written in time (is the disk full? see ``stats()``); pages are safe in the journal.
        """
        engine = self._open_engine()
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
        engine = self._open_engine()
        if engine.supervisor is None:
            raise InputError("wait_idle: the pipeline was opened with workers=False, so nobody works; open it without")
        if not engine.coordinator.wait_idle(timeout):
            if engine.coordinator.error is not None:
                raise engine.coordinator.error
            self._raise_unfinished(engine, f"wait_idle: there is still work after {timeout} s")

    def stats(self) -> Stats:
        """Return a snapshot of the pipeline."""
        return snapshot(self._open_engine())

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
                self._engine.close()

    def __enter__(self) -> MemoryPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MemoryPipeline({str(Path(self._engine.store.folder.root))!r}{', closed' if self._closed else ''})"

    def _open_engine(self) -> Engine:
        if self._closed:
            raise ClosedError(f"{self!r} was used after close(); open the store again")
        if os.getpid() != self._pid:
            raise ClosedError(f"{self!r} belongs to process {self._pid}; a forked child must not use it")
        return self._engine

    def _scope(self, engine: Engine, user_id: str, assistant_id: str) -> Scope | None:
        return engine.state.find(_id("user_id", user_id), _id("assistant_id", assistant_id))

    def _wait_restored(self, engine: Engine, timeout: float) -> None:
        if not engine.restored.wait(timeout):
            raise DeadlineError(
                f"{self!r}: the store is still being read after {timeout} s; give retrieve a longer timeout"
            )
        if engine.restore_error is not None:
            raise StoreError(f"{self!r}: the store could not be read; run verify() on it") from engine.restore_error

    def _raise_unfinished(self, engine: Engine, message: str) -> None:
        stats = snapshot(engine)
        raise DeadlineError(
            f"{message}: {stats.backlog_pages} pages wait to be embedded, {stats.unwritten} pieces to be written; "
            "wait longer, or look at stats() for what holds them up"
        )


def _id(name: str, value: object) -> str:
    if type(value) is not str or not value:
        raise InputError(f"{name} must be a string that is not empty, found {value!r}")
    return value


def _text(name: str, value: object) -> str:
    if type(value) is not str:
        raise InputError(f"{name} must be a string, found {type(value).__name__}")
    return value


def _timestamp(value: object) -> str:
    if value is None:
        return time.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return _text("timestamp", value)


def _metadata(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    # A dict first: asking an abstract class costs microseconds where its code is not in the processor's cache.
    if (type(value) is dict or isinstance(value, Mapping)) and set(map(type, value)) <= {str}:
        return value if type(value) is dict else dict(value)
    raise InputError(f"metadata must be a mapping with string keys, found {value!r:.200}")


def _source(value: object) -> SourceMark | None:
    if value is None:
        return None
    if type(value) is SourceMark and type(value.digest) is bytes and type(value.ordinal) is int and value.ordinal >= 0:
        return value
    raise InputError(f"source must be a SourceMark of bytes and a whole number of at least 0, found {value!r}")


def _arguments(item: Mapping[str, Any] | Page) -> dict[str, Any]:
    if isinstance(item, Page):
        return {name: getattr(item, name) for name in PAGE_FIELDS}
    if not isinstance(item, Mapping):
        raise InputError(f"expected a Page or a mapping with add's arguments, found {type(item).__name__}")
    unknown = item.keys() - PAGE_FIELDS
    missing = {"user_id", "user_input", "agent_response"} - item.keys()
    if unknown or missing:
        raise InputError(f"unknown fields {sorted(unknown)}, missing fields {sorted(missing)}")
    return dict(item)

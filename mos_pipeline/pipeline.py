"""MemoryPipeline: the library's face. Arguments are checked here; everything else is the engine's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mos_pipeline.arguments import checked_arguments, checked_id, checked_record, checked_seconds
from mos_pipeline.config import Config, load_config
from mos_pipeline.engine.batch import add_batch
from mos_pipeline.engine.engine import Engine
from mos_pipeline.engine.reader import ReaderEngine
from mos_pipeline.engine.snapshot import snapshot
from mos_pipeline.errors import ConfigError, DeadlineError, InputError
from mos_pipeline.logs import about
from mos_pipeline.messages import Added, Compacted, Page, PageRecord, Repaid, SourceMark
from mos_pipeline.reading import DEFAULT_ASSISTANT
from mos_pipeline.responding import Responding
from mos_pipeline.service.server import OwnerServer

__all__ = ["DEFAULT_ASSISTANT", "MemoryPipeline"]

logger = logging.getLogger(__name__)

SOCKET_ENDS_S = 1.0  # for answers that are under way when everything else has ended


class MemoryPipeline(Responding):
    """Long-term memory for AI agents, in one folder.

    Every method may be called from any thread. Use it as a context manager, or call ``close()``.
    """

    _server: OwnerServer | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        workers: bool = True,
        read_only: bool = False,
        reembed: bool = False,
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
            reembed: True has the vectors made again, where another model than the configured one made them: in the
                background, while the store serves, and gone on with at the next opening. The model is loaded once
                before this returns. Old vectors are never used again; ``compact`` takes them from the disk.
            overrides: single settings, ``section__key=value``.

        Raises:
            ConfigError: a setting is unknown or wrong.
            StoreLockedError: another process owns the store.
            ModelMismatchError: the store's vectors come from another model than the configured one.
            StoreError: the folder can't be used, or there is no store to read.
            InputError: ``reembed`` is asked of a reader, or without workers.
            WorkerError, DeadlineError: the model to ``reembed`` with can't be used; nothing was changed.
        """
        if reembed and (read_only or not workers):
            raise InputError("open: only an owner with workers can make vectors again; leave out reembed")
        if isinstance(config, Config):
            config = config.as_dict(secrets=True)
        settings = load_config(config, overrides=overrides)
        with about(Path(path).absolute()):
            if read_only:
                memory = cls(ReaderEngine(path, settings, workers=workers))
            else:
                memory = cls(Engine(path, settings, workers=workers, reembed=reembed))
            if settings.runtime.socket and not read_only:
                memory._serve()
        return memory

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
            timestamp: when it was said: kept as it is; the moment of the call, with its zone, where None. It doesn't
                order pages; where it names no zone, ``since`` and ``until`` take it for UTC.
            metadata: anything msgpack can hold.
            page_id: an id of the caller's own, unique in the store; the same id twice is one page, the first.
            source: which record of which file it is, for resuming a reading.

        Raises:
            InputError: an argument can't be taken, or the store was opened read-only; nothing was stored.
            BackpressureError: the backlog is at its high-water mark.
            StoreFullError: the disk is full; the page was not accepted.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("add")
        record = checked_record(user_id, user_input, agent_response, assistant_id, timestamp, metadata, page_id, source)
        return engine.intake.add(record)[0]

    def add_batch(
        self, pages: Iterable[Mapping[str, Any] | Page], *, timeout: float | None = None, stop: bool = False
    ) -> list[Added]:
        """Accept pages one after the other and return what became of each, in their order.

        One that can't be taken hinders none of the others. The answer is shorter than ``pages`` where the backlog or
        the disk was in the way, but never empty: what it tells of is kept, and nothing behind that was looked at; add
        the rest again. So it may be done with a batch whose answer was lost: unlike in ``add``, a ``source`` that was
        accepted before is known, and so is a ``page_id``.

        Args:
            pages: each a Page, or a mapping with the names of ``add``'s arguments.
            timeout: seconds to wait for room in the backlog; where None, as long as ``add`` does.
            stop: whether to end with the first page that can't be taken.

        Raises:
            BackpressureError: the backlog is at its high-water mark; no page was accepted.
            StoreFullError: the disk is full; no page was accepted.
            StoreError: pages were accepted, but flushing them failed (only with ``store.durability: power``).
            InputError: ``timeout`` is no number of seconds, or the store was opened read-only.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("add_batch")
        wait_s = None if timeout is None else checked_seconds("timeout", timeout)
        records = (partial(_record, page) for page in pages)
        return add_batch(engine.intake, records, wait_s, stop=stop)

    def add_many(self, pages: Iterable[Mapping[str, Any] | Page]) -> int:
        """Accept pages from any iterable, read lazily; return how many were taken from it.

        Each is a Page, or a mapping with the names of ``add``'s arguments.

        Raises:
            InputError: naming the item's position; the items before it are kept.
        """
        count = 0
        for item in pages:
            engine = self._owner("add_many")
            try:
                engine.intake.add(_record(item), online=False)
            except InputError as error:
                raise InputError(f"item {count}: {error}; the {count} items before it are kept") from None
            count += 1
        return count

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
        background: the profile from all the pages that it was made from, some dozens at a time. Their bytes are gone
        from the disk after the next compaction; where a reader holds the segments of before, after the next opening or
        compaction. Damaged bytes that were put into the folder ``aside`` are not looked at.

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

        It happens by itself, too, once more than ``store.max_dead_ratio`` of the store's pages, or of their bytes, is
        forgotten.

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

    def retry(self) -> int:
        """Have the pages worked on again that were set aside; return how many were given out again.

        Pages are set aside where no worker could work on them: see ``stats().set_aside``. What fails again is set aside
        again. Those whose batch is still under way stay set aside; ``wait_idle`` before, and there are none. Where this
        process dies at once, they may be set aside as before.

        Raises:
            InputError: the pipeline was opened with ``workers=False``, or read-only.
            DeadlineError: the store is still being read.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("retry")
        if engine.supervisor is None:
            raise InputError("retry: the pipeline was opened with workers=False, so nobody works; open it without")
        self._wait_restored(engine, engine.config.retrieval.timeout_s)
        return engine.retrying.everything()

    def repay(
        self, user_id: str | None = None, *, assistant_id: str | None = None, timeout: float | None = None
    ) -> Repaid:
        """Ask the model again for what it owes: tasks that it could not answer.

        The extractive answers stand in for them until then. What it answers now replaces those, once, and whole or not
        at all; the rest stays as it is, and owed. It happens by itself, too, every ``llm.repay_interval_s``. Where the
        endpoint does not answer the first of it, nothing more is asked.

        Args:
            user_id: whose; everybody's where None.
            assistant_id: only with this assistant; with all of them where None.
            timeout: seconds to wait at the most; it goes on in the background then.

        Raises:
            ConfigError: ``llm.provider`` is extractive: there is nobody to be asked.
            InputError: an argument can't be taken, or the pipeline was opened with ``workers=False``, or read-only.
            DeadlineError: it is not done yet, or the store is still being read.
            WorkerError, ModelMismatchError: as from ``wait_idle``.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("repay")
        for name, given in (("user_id", user_id), ("assistant_id", assistant_id)):
            if given is not None:
                checked_id(name, given)
        wait_s = None if timeout is None else checked_seconds("timeout", timeout)
        if engine.config.llm.provider == "extractive":
            raise ConfigError(
                "repay: llm.provider is extractive, so there is no model that could answer; open the store with "
                "llm.provider openai and an endpoint"
            )
        if engine.supervisor is None:
            raise InputError("repay: the pipeline was opened with workers=False, so nobody works; open it without")
        self._wait_restored(engine, engine.config.retrieval.timeout_s)
        return engine.settling.repay(user_id, assistant_id, wait_s)

    def analyse(self, user_id: str, *, assistant_id: str = DEFAULT_ASSISTANT, timeout: float | None = None) -> None:
        """Have profile and knowledge made now from every page of mid-term memory that was not read for it yet.

        By itself that happens when a session is hot, and at most once in ``long_term.promotion_pages`` pages. What was
        accepted before comes into mid-term memory first; ``wait_idle`` tells how long that may take. Pages that have
        not filled a batch yet stay in short-term memory alone. What fails is tried again by and by, as always.

        Args:
            user_id: whose.
            assistant_id: with which assistant.
            timeout: seconds to wait at the most; it goes on in the background then.

        Raises:
            DeadlineError, WorkerError, ModelMismatchError: as from ``wait_idle``.
            InputError: an argument can't be taken, or the pipeline was opened with ``workers=False``, or read-only.
            ClosedError: the pipeline is closed.
        """
        engine = self._owner("analyse")
        checked_id("user_id", user_id)
        checked_id("assistant_id", assistant_id)
        deadline = None if timeout is None else time.monotonic() + checked_seconds("timeout", timeout)
        self.wait_idle(timeout)
        scope = engine.state.find(user_id, assistant_id)
        if scope is not None:
            engine.inbox.put(partial(engine.promotion.analyse, scope))
            self.wait_idle(None if deadline is None else max(0.0, deadline - time.monotonic()))

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

    def _serve(self) -> None:
        """Answer others on the socket in the store's folder; without one, where none can be had there."""
        path = self._engine.store.folder.socket
        try:
            self._server = OwnerServer(path, self)
        except OSError as error:
            logger.warning(
                "%s: no socket can be had there (%s), so other processes can't ask the owner of this store; everything "
                "else works. Use a local file system and a shorter path, or set runtime.socket to false",
                path,
                error.strerror or error,
            )

    def _shut(self) -> None:
        if self._server is not None:
            self._server.stop()
        super()._shut()
        if self._server is not None:
            self._server.end(SOCKET_ENDS_S)

    def _raise_unfinished(self, engine: Engine, message: str) -> None:
        stats = snapshot(engine)
        raise DeadlineError(
            f"{message}: {stats.backlog_pages} pages wait to be embedded, {stats.unwritten} pieces to be written; "
            "wait longer, or look at stats() for what holds them up"
        )


def _record(page: Mapping[str, Any] | Page) -> PageRecord:
    return checked_record(**{"assistant_id": DEFAULT_ASSISTANT, **checked_arguments(page)})

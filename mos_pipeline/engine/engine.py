"""All parts of the main process, put together: opened, watched and closed in order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from mos_pipeline.config import Config
from mos_pipeline.engine.aside import Aside
from mos_pipeline.engine.asking import ask
from mos_pipeline.engine.batches import Batches
from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.engine.bulk import Bulk
from mos_pipeline.engine.chat import Chat
from mos_pipeline.engine.compaction import Compaction
from mos_pipeline.engine.coordinator import Call, Coordinator
from mos_pipeline.engine.derived import Derived
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.details import Details
from mos_pipeline.engine.embedding import EMBEDDER, Embedding, embedder_role, weights_of
from mos_pipeline.engine.forgetting import Forgetting
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.intake import Intake
from mos_pipeline.engine.likeness import Likeness
from mos_pipeline.engine.llm_role import llm_role
from mos_pipeline.engine.modelling import worker_error
from mos_pipeline.engine.owed_batches import OwedBatches
from mos_pipeline.engine.owed_promotions import OwedPromotions
from mos_pipeline.engine.owed_work import Repayer
from mos_pipeline.engine.persistence import WRITER, Persistence
from mos_pipeline.engine.processing import Processing
from mos_pipeline.engine.promotion import Promotion
from mos_pipeline.engine.reembedding import begin_reembedding
from mos_pipeline.engine.removal import Removal
from mos_pipeline.engine.repaying import Repaying
from mos_pipeline.engine.replay import Replay
from mos_pipeline.engine.restore import PagesOutOfOrderError, Restore
from mos_pipeline.engine.retrieval import Retrieval
from mos_pipeline.engine.retrying import Retrying
from mos_pipeline.engine.settling import Settling
from mos_pipeline.engine.takeover import TakingOver
from mos_pipeline.engine.visits import Visits
from mos_pipeline.errors import DeadlineError, StoreError
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import Compacted
from mos_pipeline.runtime.shared_memory import SHM_FOLDER, sweep
from mos_pipeline.runtime.start import InheritedFd
from mos_pipeline.runtime.supervisor import Role, Supervisor
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.stages.identity import changed_model, check_configured, identity_of, mismatch, same_vectors
from mos_pipeline.stages.static_tier import StaticHome
from mos_pipeline.stages.write import build_writer
from mos_pipeline.store.models import forget_models
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.recovery import open_store

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

LEAST_BATCH_S = 0.0001  # what a batch takes is told in tenths of a millisecond
WRITER_CREDIT = 256 << 20  # everything may be in the writer's hands, so that a stop finds it there


class Engine:
    """An open store with its threads and processes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        *,
        workers: bool = True,
        held: Collection[tuple[str, str]] = (),
        reembed: bool = False,
    ) -> None:
        """Open the store in ``path``: its pages are there on return, derived data follows in the background.

        Pages of ``held``, each a (user, assistant), are accepted and not worked on until their memory is taken over.
        With ``reembed``, vectors by another model than the configured one are made again by that.

        Raises:
            StoreError: the folder can't be used; see its subclasses.
            ModelMismatchError: its vectors come from another model than the configured one.
            WorkerError, DeadlineError: the model to ``reembed`` with can't be used.
        """
        self.config = config
        self._held = held
        self.restored = threading.Event()
        self.restore_error: Exception | None = None
        self.model: dict[str, Any] = {}
        self.store = open_store(Path(path), config.store)
        try:
            if not reembed:
                self._check_model(self.store.manifest.embedding)
            restore = self._read_pages()
            if reembed:
                begin_reembedding(self.store, config, restore.derived)
            forget_models(self.store.folder, self.store.manifest.embedding)
            self.model = self.store.manifest.embedding or {}
        except BaseException:
            self.store.close()
            raise
        sweep((SHM_FOLDER, self.store.folder.root))
        self.supervisor: Supervisor | None = None
        if workers:
            desk = self.desk
            self.supervisor = Supervisor(self._roles(), config.runtime, desk.deliver, self._changed, desk.deliver_piece)
            self.desk.supervisor = self.supervisor
        self.coordinator.start(partial(self._derive, restore))
        if self.supervisor is not None:
            self.supervisor.start()

    def _read_pages(self) -> Restore:
        restore = self._assemble()
        try:
            restore.pages()
        except PagesOutOfOrderError:
            restore = self._assemble()
            restore.pages(sort=True)
        self.forgetting.dead.restore(restore.entry.sizes, restore.entry.forgotten)
        return restore

    def _assemble(self) -> Restore:
        """Make all parts anew, and return what fills them."""
        config, store = self.config, self.store
        self.inbox: SimpleQueue[Call | None] = SimpleQueue()
        self.desk = Desk(self.inbox.put)
        self.chat = Chat(config, lambda: self.desk)
        self.state = MemoryState(store.manifest.store, config, self._held)
        self.reader = PageReader(store.segments, config.store.text_cache_bytes)
        self.persistence = Persistence(config.store, self.reader, self.desk, store.retire)
        self.derived = Derived(self.persistence, config.store)
        self.indexing = Indexing(self.state, self.reader, self.derived, config.retrieval)
        self.intake = Intake(
            self.state,
            config.backlog,
            store.new_journal,
            store.retire,
            self._wake,
            power=config.store.durability == "power",
            max_page_bytes=config.store.max_page_bytes,
        )
        self._assemble_work()
        self._assemble_finding()
        return Restore(store, self.state, self.intake, self.reader, self.persistence)

    def _assemble_work(self) -> None:
        """Make what gives out work and takes in what came of it, and the thread that owns all of it."""
        config = self.config
        self.embedding = Embedding(self.desk, config.embedding)
        aside = Aside(self.state, self.reader, self.derived)
        bulk = Bulk(config.llm)
        self.promotion = Promotion(
            config.long_term,
            self.state,
            self.reader,
            self.derived,
            self.desk,
            self.embedding,
            bulk,
            self._has_more,
        )
        self.batches = Batches(
            self.state, self.reader, self.derived, self.desk, self.embedding, aside, bulk, self.promotion.consider
        )
        self.processing = Processing(
            config.short_term.capacity,
            self.state,
            self.reader,
            self.persistence,
            self.derived,
            self.embedding,
            aside,
            self.batches,
            bulk,
            self.intake.worked_off,
            self.promotion,
        )
        self.taking_over = TakingOver(
            self.state,
            self.reader,
            self.derived,
            self.persistence,
            self.embedding,
            self.processing,
            self.promotion,
            self.intake.worked_off,
        )
        self.repaying = Repaying(
            config.llm,
            self.state,
            self.embedding,
            self.desk,
            self._repayers(),
            lambda: not (self.processing.idle and self.promotion.idle),
        )
        self.visits = Visits(self.derived, self.promotion, self._wake)
        self.forgetting = Forgetting(
            self.state,
            self.indexing,
            self.processing,
            self.promotion,
            self.repaying,
            self.derived,
            self.embedding,
        )
        self.compaction = Compaction(
            config.store,
            self.state,
            self.forgetting,
            self.batches,
            self.derived,
            self.persistence,
            self.intake,
            self.reader,
            self.store,
            self.embedding,
            self.desk,
            lambda: self.processing.lifted,
        )
        self.coordinator = Coordinator(
            self.state,
            self.intake,
            self.indexing,
            self.processing,
            self.persistence,
            self.derived,
            self.promotion,
            self.forgetting,
            self.visits,
            self.compaction,
            self.repaying,
            self.desk,
            self.inbox,
        )

    def _repayers(self) -> tuple[Repayer, ...]:
        capacity, long_term = self.config.short_term.capacity, self.config.long_term
        parts = self.state, self.reader, self.derived, self.desk, self.embedding
        likeness = Likeness(long_term.merge_cosine, self.state, self.embedding)
        return (
            OwedBatches(capacity, *parts, self.batches),
            OwedPromotions(long_term.promotion_pages, likeness, *parts, self.promotion),
        )

    def _has_more(self, scope: Scope) -> bool:
        return self.batches.more(scope)

    def _assemble_finding(self) -> None:
        """Make what callers' threads read with, and ask for pages to be forgotten, or to be worked on again."""
        self.browsing = Browsing(self.state, self.coordinator, self.reader)
        self.retrieval = Retrieval(
            self.config.retrieval,
            self.state,
            self.intake.lock,
            self.coordinator,
            self.embedding,
            self.visits.note,
            self.browsing,
            partial(ask, self.desk),
        )
        self.details = Details(self.state, self.coordinator, self.browsing, self.embedding)
        self.removal = Removal(self.state, self.coordinator, self.intake, self.reader)
        self.retrying = Retrying(self.state, self.coordinator, self.processing, self.intake, self.reader, self._wake)
        self.settling = Settling(self.coordinator, self.repaying, self.inbox.put)

    @property
    def gate(self) -> Coordinator:
        """Whoever keeps the state."""
        return self.coordinator

    def sources(self) -> dict[bytes, int]:
        """Return, for every file that pages came from, its digest and how many of its records were accepted."""
        return self.intake.sources()

    def _wake(self) -> None:
        self.inbox.put(None)

    def _roles(self) -> list[Role]:
        config, store = self.config, self.config.store
        writer_args = (
            str(self.store.folder.root),
            store.segment_bytes,
            store.compression_level,
            InheritedFd(self.store.lock.fileno()),
        )
        embedder = embedder_role(config, weights_of(self.store.manifest.embedding), StaticHome(self.store.folder.root))
        return [
            Role(WRITER, build_writer, writer_args, credit=WRITER_CREDIT, blames=False, stateful=True),
            replace(embedder, differs=changed_model),
            llm_role(config),
        ]

    def _check_model(self, identity: dict[str, Any] | None) -> None:
        """Refuse what is known to be another model before any process is started."""
        if identity is not None:
            check_configured(self.store.folder.root, identity, self.config.embedding)

    def _derive(self, restore: Restore) -> None:
        try:
            self._derive_all(restore)
        except Exception as error:  # told to whoever waits for the memory, then passed on
            self.restore_error = error
            raise
        finally:
            self.restored.set()

    def _derive_all(self, restore: Restore) -> None:
        identity = self.store.manifest.embedding
        pool = None if identity is None else self._new_pool(identity["dimension"])
        sizes = restore.entry.sizes
        generation = self.store.manifest.vector_generation
        known = self.config.embedding.known_texts
        replay = Replay(self.state, self.indexing, self.store.segments, len(sizes), pool, generation, known)
        if replay.run(restore.derived, sizes, self.coordinator.breathe):
            self.intake.add_backlog(replay.backlog)
            for event in replay.untold:
                self.derived.event(event)
            self._recall(replay)
            self.processing.restore(replay.stale)
            for scope in self.state.scopes:
                self.indexing.page_came(scope)
                self.processing.resume(scope, replay.without_vector.pop(scope.number, []))
                if not scope.gaps:  # else a batch comes first, and leads here
                    self.promotion.take_up(scope)
                self.coordinator.breathe()
            self.compaction.may_begin = self.repaying.may_begin = True

    def _recall(self, replay: Replay) -> None:
        """Know the newest texts that have a vector again, so that equal ones are not embedded."""
        for seqs, digests in reversed(replay.digests):
            rows = self.state.pages.rows_of(seqs)
            there = np.flatnonzero(rows >= 0)[::-1]
            self.embedding.recall(digests[there].tolist(), rows[there].tolist())
            self.coordinator.breathe()

    def _new_pool(self, dimension: int) -> VectorPool:
        folder = self.store.folder
        slab_bytes, generation = self.config.embedding.slab_bytes, self.store.manifest.vector_generation
        pool = VectorPool(dimension, slab_bytes, folder.root, shown=folder.vectors, generation=generation)
        self.embedding.provide(pool)
        self.derived.dimension = dimension
        return pool

    def _changed(self, role: str) -> None:
        self.inbox.put(lambda: self._take_change(role))

    def _take_change(self, role: str) -> None:
        if self.supervisor is None:
            return
        state = self.supervisor.state(role)
        if state.error is not None:
            self.coordinator.fail(worker_error(state.error), writing=role == WRITER)
            self.embedding.ready = self.embedding.ready and role != EMBEDDER  # nothing more is given out
        elif role == EMBEDDER and not self.embedding.ready:
            batch_s = max(state.info["ms_per_batch"] / 1000, LEAST_BATCH_S)
            self.embedding.measured(state.info["batch_word_pieces"] / batch_s)
            self._embedder_ready(identity_of(state.info))

    def _embedder_ready(self, identity: dict[str, Any]) -> None:
        stored = self.store.manifest.embedding
        if stored is not None and not same_vectors(stored, identity):
            self.coordinator.fail(mismatch(self.store.folder.root, stored, identity))
            return
        if stored is None:
            self.persistence.identity(identity)
        if not self.embedding.has_pool:
            self._new_pool(identity["dimension"])
        self.model = stored or identity
        self.embedding.ready = self.desk.prompt = True
        self.promotion.embedder_ready()
        self.taking_over.embedder_ready()

    def compact(self, timeout: float | None) -> Compacted:
        """Have the segments compacted, and wait for it.

        Raises:
            DeadlineError: it is not done in time; it goes on.
            StoreError: it failed.
        """
        waiter = self.compaction.new_waiter()
        self.inbox.put(partial(self.compaction.request, waiter))
        if self.coordinator.ended:  # nobody takes it any more
            self.compaction.request(waiter)
        if not waiter.event.wait(timeout):
            raise DeadlineError(f"{self.store.folder.root}: not compacted within {timeout} s; it goes on")
        if waiter.result is None:
            raise StoreError(f"{self.store.folder.root}: not compacted: {waiter.reason}")
        return waiter.result

    def close(self) -> None:
        """Make everything safe and stop; pages not worked off yet wait for the next opening."""
        deadline = time.monotonic() + self.config.runtime.close_timeout_s
        try:
            self.intake.close()  # first: a page accepted after the last look at the journal would be lost
            self.desk.close()
            self.compaction.abandon()
            self.coordinator.stop()
            if self.supervisor is not None:
                self.supervisor.close(deadline)
            self.coordinator.settle()
            self.compaction.give_up()
            self._leave_journals()
        finally:
            self.embedding.close()
            self.store.close()

    def _leave_journals(self) -> None:
        """Remove the journals, where segments have all that was accepted; else make them durable."""
        needless = self.persistence.idle and len(self.state.pages) == self.intake.next_seq
        for journal in self.store.journals():
            if needless:
                self.store.retire(journal)
            else:
                journal.sync()

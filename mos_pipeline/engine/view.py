"""A store's memory as a reader has it: what its looks at the store have found, with all that finding needs."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import chain

import numpy as np
import numpy.typing as npt

from mos_pipeline.config import Config
from mos_pipeline.engine.browsing import Browsing
from mos_pipeline.engine.indexing import Indexing
from mos_pipeline.engine.page_vectors import PageVectors
from mos_pipeline.engine.questions import Questions
from mos_pipeline.engine.register import Register
from mos_pipeline.engine.replay import Replay
from mos_pipeline.engine.retrieval import Retrieval
from mos_pipeline.engine.runs import PageEntry, Run, Runs
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.runtime.attached_rows import AttachedRows
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.stages.identity import same_vectors
from mos_pipeline.store.reading import PageReader
from mos_pipeline.store.readonly import Fresh, ReadOnlyStore
from mos_pipeline.store.recovery import StoredFrame

__all__ = ["View"]

logger = logging.getLogger(__name__)

BUSY_S = 0.001
PAUSE_S = 0.00005


class View:
    """The memory; one thread enters what is new, others read meanwhile.

    Page numbers have no holes. A page behind a gap waits until the gap is filled: the looks at journals and segments
    are not one moment. What is missing although a page of a higher number was met by an earlier look was lost with a
    damaged frame.

    Attributes:
        lock: held by whoever reads or changes the state.
        met: the highest page that was met or spoken of; -1 before the first.
        calls: how many callers read it at this moment.
    """

    def __init__(
        self,
        store: ReadOnlyStore,
        config: Config,
        questions: Questions | None,
        going_on: Callable[[], bool],
        attached: AttachedRows | None,
        met: int = -1,
    ) -> None:
        """See what ``store`` gives, and vectors where they are ``attached``.

        What ``take`` is at is given up where ``going_on()`` is false; ``met`` is that of an earlier view.
        """
        self.config = config
        self.lock = threading.Lock()
        self.identity = store.manifest.embedding
        self.generation = store.manifest.vector_generation
        self.state = MemoryState(store.manifest.store, config)
        self.register = Register(self.state.ids)
        self.reader = PageReader(store.segments, config.store.text_cache_bytes)
        self.indexing = Indexing(self.state, self.reader, _NoSink(), config.retrieval)
        self.vectors: PageVectors | None = None
        if self.identity is not None:
            own = VectorPool(self.identity["dimension"], config.embedding.slab_bytes, private=True)
            self.vectors = PageVectors(self.state, own)
        self.browsing = Browsing(self.state, self, self.reader)
        ask = questions.ask if questions is not None else _ask_nobody
        self.retrieval = Retrieval(
            config.retrieval, self.state, self.lock, self, self, _ignore_visits, self.browsing, ask
        )
        self.met = met
        self.calls = 0
        self._questions = questions
        self._going_on = going_on
        self._attached = attached
        self._breathed = 0.0
        self._waiting = list[Run]()  # behind a gap; a heap
        self._derived = deque[StoredFrame]()  # the first of them speaks of a page that is not there yet
        self._runs = Runs(self.reader, store.damage, self._derived.append)
        self._entry = PageEntry(self.state, self.register)
        copies = self.vectors.copies if self.vectors is not None else None
        self._replay = Replay(self.state, self.indexing, store.segments, 0, copies, self.generation)

    @property
    def gate(self) -> View:
        """Whoever keeps the state: the view itself."""
        return self

    @property
    def complete(self) -> bool:
        """Whether nothing waits behind a gap."""
        return not self._waiting and not self._derived

    @property
    def stale(self) -> npt.NDArray[np.bool_]:
        """Which pages have vectors by another model than the store's, bool (n,)."""
        return self._replay.stale

    @property
    def ready(self) -> bool:
        """Whether queries' vectors come from the store's model."""
        if self._questions is None or self.identity is None:
            return False
        return same_vectors(self._questions.model, self.identity)

    @property
    def pool(self) -> PageVectors:
        """Where the vectors are.

        Raises:
            RuntimeError: the store has none yet.
        """
        if self.vectors is None:
            raise RuntimeError("vectors were asked for before the store had any")
        return self.vectors

    def absorb(self) -> None:
        """Do nothing: what is new comes with ``take``."""

    def settle_accounts(self) -> None:
        """Do nothing: a reader's visits are not counted."""

    def catch_up(self, scope: Scope) -> None:
        """Make every page of ``scope`` searchable by its words; under ``lock``."""
        self.indexing.catch_up(scope)

    def sources(self) -> dict[bytes, int]:
        """Return, for every file that pages came from, its digest and how many of its records were accepted."""
        with self.lock:
            return self.register.sources()

    def take(self, fresh: Fresh) -> bool:
        """Enter what a look at the store has found; return False where that was given up.

        Raises:
            StoreError: it can't be read; this view can't go on from there.
        """
        due = self.met
        runs = chain(self._runs.of_frames(fresh.frames), self._runs.of_journals(fresh.journaled))
        forgotten = self._enter_pages(runs, due)
        self.met = max(due, self._runs.highest, *(run.first_seq + len(run.sizes) - 1 for run in self._waiting), -1)
        self.met = max(self.met, len(self.state.pages) - 1)
        self._find_rows()
        return self._enter_derived(look_again=forgotten)

    def _find_rows(self) -> None:
        """Find out which pages' vectors need not be copied."""
        if self.vectors is not None and self._attached is not None:
            rows = self._attached.look(len(self.state.pages))
            with self.lock:
                self.vectors.show(rows)

    def _enter_pages(self, runs: Iterable[Run], due: int) -> bool:
        """Enter pages, up to ``due`` with or without those that are missing; return whether any were forgotten."""
        touched = set[Scope]()
        for run in runs:
            heappush(self._waiting, run)
            with self.lock:
                touched.update(self._enter_waiting())
        with self.lock:
            while len(self.state.pages) <= due:
                first = self._waiting[0].first_seq if self._waiting else due + 1
                self._entry.lose(min(first, due + 1))
                touched.update(self._enter_waiting())
            named = self._entry.named()
            touched.update(self._forget(named))
            for scope in touched:
                self._entry.fill_ring(scope)
        return bool(named)

    def _enter_waiting(self) -> set[Scope]:
        """Enter the pages that no gap keeps waiting; return whose they are."""
        scopes = set[Scope]()
        while self._waiting and self._waiting[0].first_seq <= len(self.state.pages):
            run = heappop(self._waiting)
            if run.first_seq < len(self.state.pages):
                logger.warning("page %d was mended after it had been given up; open the store again", run.first_seq)
                continue
            scopes.update(self._entry.enter(run))
            if run.journal is not None:
                self.reader.add_unpersisted(run.first_seq, run.journal, run.offset)
        return scopes

    def _forget(self, seqs: list[int]) -> list[Scope]:
        """Take pages out, and what was derived from each alone; return whose they were."""
        owners = np.array([self.state.pages.scope(seq) for seq in seqs], np.int64)
        scopes = [self.state.scopes[number] for number in np.unique(owners).tolist()]
        for scope in scopes:
            self._forget_of(scope, np.array(seqs, np.int64)[owners == scope.number])
        self._entry.forget()
        return scopes

    def _forget_of(self, scope: Scope, seqs: npt.NDArray[np.int64]) -> None:
        self.indexing.forget(scope, seqs.tolist())
        for seq in seqs.tolist():
            scope.aside.pop(seq, None)
        if self.vectors is not None:
            self.vectors.forget(seqs)
        if self._replay.retelling is not None:
            self._replay.retelling.forgotten(scope, seqs.tolist())

    def _enter_derived(self, *, look_again: bool) -> bool:
        """Enter derived data as far as it speaks of pages that are there; return False where that was given up."""
        ready = list[StoredFrame]()
        while self._derived and self._derived[0].last_page < len(self.state.pages):
            ready.append(self._derived.popleft())
        if not ready and not look_again:
            return True
        retelling = self._replay.retelling
        with self.lock:
            self._replay.grow(len(self.state.pages))
            if retelling is not None:
                retelling.take_back()
            done = self._replay.enter(ready, self._breathe)
            if retelling is not None and done:
                retelling.forget_ahead()
        return done

    def _breathe(self) -> bool:
        """Let others have ``lock`` once in a while, where there are any, unless they might find what was forgotten."""
        retelling = self._replay.retelling
        hidden = retelling is None or not retelling.tells_of_forgotten
        if self.calls and hidden and time.perf_counter() - self._breathed > BUSY_S:
            self.lock.release()
            time.sleep(PAUSE_S)
            self.lock.acquire()
            self._breathed = time.perf_counter()
        return self._going_on()

    def close(self) -> None:
        """Let go of the vectors."""
        if self.vectors is not None:
            self.vectors.close()


class _NoSink:
    """Keeps no words: they are the owner's to store."""

    def words(self, *_: object) -> None:
        pass


def _ask_nobody(_: str) -> None:
    return None


def _ignore_visits(_: Scope, __: set[int]) -> None:
    """A reader's visits are not counted."""

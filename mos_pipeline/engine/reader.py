"""A store opened read-only: looked at again on request, while its owner writes, compacts, dies or begins anew."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mos_pipeline.config import Config
from mos_pipeline.engine.chat import Chat
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.embedding import weights_of
from mos_pipeline.engine.llm_role import llm_role
from mos_pipeline.engine.own_pool import OwnPool
from mos_pipeline.engine.questions import Questions
from mos_pipeline.engine.view import View
from mos_pipeline.errors import ClosedError, DeadlineError, ModelMismatchError
from mos_pipeline.runtime.attached_rows import AttachedRows
from mos_pipeline.stages.identity import check_configured
from mos_pipeline.store.readonly import Fresh, ReadOnlyStore

__all__ = ["ReaderEngine"]

logger = logging.getLogger(__name__)

LOOKS = 3  # at opening: how often it is looked whether what is missing is on its way


class ReaderEngine:
    """An open store that this process does not own. It takes no lock that keeps an owner out, and writes nothing.

    Callers read one view from the beginning of a call to its end. Where segments were replaced, a new view is built
    beside it, and the old one goes when the last call that reads it has ended.

    Attributes:
        config: the settings.
        store: what gives out the files' contents.
        questions: the embedder; None where there shall be none.
        llm: the processes that ask the endpoint for answers, of this reader's own; likewise.
        chat: asks them.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Config, *, workers: bool = True, copies: bool = False
    ) -> None:
        """Open the store in ``path``, and read all of it; with ``copies`` of all vectors, those an owner shows too.

        Raises:
            StoreError: there is none, or it can't be read; see its subclasses.
        """
        self.config = config
        self.llm = OwnPool(llm_role(config, processes=1), config.runtime) if workers else None
        self.chat = Chat(config, self._answering)
        self._refreshing = threading.Lock()
        self._calls_end = threading.Condition()
        self._left: list[View] = []  # replaced, and still read by a call
        self._attached: AttachedRows | None = None
        self._generation = 0  # of the vectors there
        self._copies = copies
        self._closing = False
        self._broken = False
        self.store = ReadOnlyStore.open(path)
        root, weights = self.store.folder.root, weights_of(self.store.manifest.embedding)
        self.questions = Questions(config, root, weights) if workers else None
        try:
            self._view = self._open()
        except BaseException:
            self.store.close()
            raise

    def _open(self) -> View:
        view, fresh = self._new_view(), Fresh(True, self.store.frames(), self.store.journaled_pages())
        self._take(view, fresh)
        for _ in range(LOOKS):
            if view.complete:
                break
            fresh = self.store.refresh()
            if fresh.anew:
                view = self._replacement(view)
            self._take(view, fresh)
        return view

    def _new_view(self, met: int = -1) -> View:
        manifest = self.store.manifest
        identity, generation = manifest.embedding, manifest.vector_generation
        if generation != self._generation and self._attached is not None:
            self._attached.close()  # its blocks hold another model's vectors
            self._attached = None
        self._generation = generation
        if self._attached is None and identity is not None and not self._copies:
            self._attached = AttachedRows(self.store.folder.vectors, identity["dimension"], generation)
        return View(self.store, self.config, self.questions, lambda: not self._closing, self._attached, met)

    def _replacement(self, view: View) -> View:
        view.close()
        return self._new_view(view.met)

    def _take(self, view: View, fresh: Fresh) -> None:
        if not view.take(fresh):
            raise ClosedError(f"{self.store.folder.root}: closed while it was being read; open it again")

    def _answering(self) -> Desk | None:
        return self.llm.started() if self.llm is not None else Desk(lambda call: call())

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Hold the present view for one call."""
        with self._calls_end:
            view = self._view
            view.calls += 1
        try:
            yield view
        finally:
            with self._calls_end:
                view.calls -= 1
                self._drop_left()

    def _drop_left(self) -> None:
        """Let go of replaced views that no call reads any more."""
        for view in [view for view in self._left if not view.calls]:
            self._left.remove(view)
            view.close()
            self._calls_end.notify_all()

    def refresh(self) -> None:
        """Take in what is new in the store.

        Raises:
            DeadlineError: calls that read what was there two refreshes ago do not end.
            StoreError: the store can't be read; try again.
            ClosedError: it was closed meanwhile.
        """
        with self._refreshing:
            if self._closing:
                raise ClosedError(f"{self.store.folder.root}: refreshed after close(); open it again")
            self._wait_for_old_calls()
            try:
                self._refresh()
            except BaseException:
                self._broken = True  # half of it may be entered
                raise
            self._broken = False

    def _refresh(self) -> None:
        fresh = self.store.refresh(anew=self._broken)
        known = self._view.identity, self._view.generation
        present = self.store.manifest.embedding, self.store.manifest.vector_generation
        if None not in (known[0], present[0]) and known[1] != present[1]:
            self._warn(present[0] or {})
        if not fresh.anew and known == present:
            self._take(self._view, fresh)
            return
        if not fresh.anew:  # vectors came, and this view has no place for them
            fresh = self.store.refresh(anew=True)
        view = self._new_view(self._view.met)
        try:
            self._take(view, fresh)
        except BaseException:
            view.close()
            raise
        with self._calls_end:
            self._left.append(self._view)
            self._view = view
            self._drop_left()

    def _warn(self, identity: Mapping[str, Any]) -> None:
        """Say that questions are answered by words alone from now on, unless the new model is this reader's too."""
        try:
            check_configured(self.store.folder.root, identity, self.config.embedding)
        except ModelMismatchError as error:
            logger.warning(
                "questions are answered by words alone from now on, until this reader is opened again: %s", error
            )

    def _wait_for_old_calls(self) -> None:
        """Wait until no call reads a replaced view: the next look closes its files."""
        patience = self.config.retrieval.timeout_s
        with self._calls_end:
            if not self._calls_end.wait_for(lambda: not self._left, patience):
                raise DeadlineError(
                    f"{self.store.folder.root}: not refreshed: calls still read what was there before the last refresh "
                    f"after {patience} s; try again"
                )

    def close(self) -> None:
        """Stop the embedder and let go of all files; calls that still run fail."""
        self._closing = True
        deadline = time.monotonic() + self.config.runtime.close_timeout_s
        for own in (self.questions, self.llm):
            if own is not None:
                own.close(deadline)
        with self._refreshing, self._calls_end:
            for view in (self._view, *self._left):
                view.close()
            self._left.clear()
            if self._attached is not None:
                self._attached.close()
                self._attached = None
            self.store.close()

"""Asking for pages to be forgotten: which ones, by whatever names them. In the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from mos_pipeline.engine.coordinator import Coordinator
from mos_pipeline.engine.intake import Intake
from mos_pipeline.memory.state import MemoryState
from mos_pipeline.messages import decode_record
from mos_pipeline.store.reading import PageReader

__all__ = ["Removal"]


class Removal:
    """Turns names into pages, and has these forgotten; each method returns how many there were."""

    def __init__(self, state: MemoryState, coordinator: Coordinator, intake: Intake, reader: PageReader) -> None:
        self._state = state
        self._coordinator = coordinator
        self._intake = intake
        self._reader = reader
        self._one_at_a_time = threading.Lock()  # a page named by two callers is forgotten by one

    def page(self, page_id: str) -> int:
        """Forget one page."""
        return self._forget(lambda: [seq for seq in (self._state.ids.resolve(page_id),) if seq is not None])

    def session(self, user_id: str, assistant_id: str, session_id: int) -> int:
        """Forget the pages of one session."""

        def pages() -> Iterable[int]:
            scope = self._state.find(user_id, assistant_id)
            session = None if scope is None else scope.mid_term.get(session_id)
            return () if session is None else session.seqs

        return self._forget(pages)

    def user(self, user_id: str, assistant_id: str | None) -> int:
        """Forget every page of a user: with one assistant, or with all of them (None)."""

        def pages() -> Iterable[int]:
            mine = [scope for scope in self._state.scopes if scope.user_id == user_id]
            mine = [scope for scope in mine if assistant_id in {None, scope.assistant_id}]
            return sorted(seq for scope in mine for seq in self._state.pages.seqs_of(scope.number).tolist())

        return self._forget(pages)

    def _forget(self, pages: Callable[[], Iterable[int]]) -> int:
        with self._one_at_a_time:
            with self._coordinator.lock:
                self._coordinator.absorb()
                entered = len(self._state.pages)  # an id may be that of a page which came just now: it stays
                seqs = [seq for seq in pages() if seq < entered and self._state.pages.is_kept(seq)]
            if seqs:
                given = [seq for seq in seqs if self._state.ids.has_given(seq)]
                records = map(decode_record, self._reader.read_many(given))
                page_ids = {seq: record.page_id for seq, record in zip(given, records, strict=True)}
                self._intake.forget(seqs, {seq: page_id for seq, page_id in page_ids.items() if page_id is not None})
                with self._coordinator.lock:
                    self._coordinator.absorb()
        return len(seqs)

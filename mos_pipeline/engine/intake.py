"""Accepting pages: what happens inside ``add``, in the caller's thread.

A page is a copy into the mapped journal, an entry in its user's ring and one tuple for the coordinator. Nothing here
waits for a model, a disk flush or another thread's work: the one lock is held for microseconds, and the coordinator is
woken through a C lock, never through a file descriptor (a system call would give up the interpreter lock, and cost
milliseconds to get it back from a busy thread).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

from mos_pipeline.config import Backlog, Store
from mos_pipeline.engine.group_sync import GroupSync
from mos_pipeline.engine.register import Register
from mos_pipeline.errors import BackpressureError, ClosedError, InputError, StoreError
from mos_pipeline.memory.pages import FORGOTTEN
from mos_pipeline.memory.ring import ShortTermRing
from mos_pipeline.memory.state import MemoryState, Scope
from mos_pipeline.messages import (
    PageRecord,
    check_size,
    encode_tombstone,
    has_compound_key,
    is_shallow,
    nested_too_deeply,
)
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal

__all__ = ["Accepted", "Intake", "Rouse"]

logger = logging.getLogger(__name__)

IDS_AT_ONCE = 128


class Rouse(IntEnum):
    """What the coordinator has to be woken for; whoever wakes it sets NEVER, as it looks at everything then."""

    ANY_PAGE = 0
    FULL_RING = 1
    NEVER = 2


class Accepted(NamedTuple):
    """What was accepted, for the coordinator; its sequence number is its place in the order of acceptance.

    A page has a ``scope``; a tombstone has none, and names the pages that are forgotten.
    """

    scope: Scope | None
    journal: Journal
    offset: int
    size: int
    forgotten: tuple[int, ...] = ()


class Intake:
    """The accepting side of the pipeline; every method may be called from any thread."""

    def __init__(
        self,
        state: MemoryState,
        backlog: Backlog,
        new_journal: Callable[[int], Journal],
        discard: Callable[[Journal], None],
        wake: Callable[[], None],
        *,
        power: bool,
        max_page_bytes: int = Store().max_page_bytes,
    ) -> None:
        """Accept into ``state``; ``wake()`` wakes the coordinator.

        ``new_journal(min_bytes)`` makes a journal, ``discard(journal)`` removes one that was not used.
        """
        self.lock = threading.Lock()
        self.accepted: deque[Accepted] = deque()
        self.rouse = Rouse.ANY_PAGE  # set to less than NEVER under the lock, where no accepted page waits
        self.register = Register(state.ids)
        self.last_tombstone = -1  # its number; -1 for none since opening
        self._state = state
        self._config = backlog
        self._new_journal = new_journal
        self._discard = discard
        self._wake = wake
        self._power = power
        self._max_page_bytes = max_page_bytes
        self._closed = False
        self._backlog_bytes = 0
        self._room = threading.Condition()
        self._packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass")
        self._journal: Journal | None = None
        self._left: list[Journal] = []  # full, and not flushed since; those that were closed hold nothing any more
        self._making = threading.Lock()  # one journal is made at a time: their numbers rise with those of their pages
        self._spare: Journal | None = None
        self._spare_mark = 0  # beyond so many bytes of the journal its successor is asked for, once
        self._synced = GroupSync(self._flush)

    @property
    def next_seq(self) -> int:
        """How many pages have been accepted in the store's life."""
        return self.register.next_seq

    @property
    def backlog_bytes(self) -> int:
        """Bytes of accepted pages that have no vector yet."""
        return self._backlog_bytes

    @property
    def journal(self) -> Journal | None:
        """The journal that takes the next page."""
        return self._journal

    def add(self, record: PageRecord, *, online: bool = True) -> tuple[str, bool]:
        """Accept ``record``; return its id, and whether it is new (an id that is known already is one page).

        Where it is not ``online``, or comes from a source, others like it are expected: see ``engine/bulk.py``.

        Raises:
            InputError: the metadata can't be stored, the page is too large, or the id is that of another user's or
                assistant's page.
            BackpressureError: the backlog is at its high-water mark.
            StoreFullError: there is no room for another journal; nothing was accepted.
            StoreError: the page was accepted, but flushing it failed (only where it is flushed).
            ClosedError: nothing is accepted any more.
        """
        self._check(record, self._config.timeout_s)
        with self.lock:
            seq, new, rouse = self._enter(record, online=online and record.source is None)
        if rouse:
            self._wake()
        if self._power:
            self._synced.wait_for(seq)
        return record.page_id or self._state.ids.id_of(seq, None), new

    def add_once(self, record: PageRecord, wait_s: float | None) -> tuple[str | None, bool]:
        """As ``add``, but a record of a source that was accepted before is known, with no id; and nothing is flushed.

        Args:
            record: the page.
            wait_s: seconds to wait for room in the backlog; None for ``backlog.timeout_s``.
        """
        self._check(record, self._config.timeout_s if wait_s is None else wait_s)
        with self.lock:
            if record.source is not None and self.register.passed(record.source):
                return None, False
            seq, new, rouse = self._enter(record)
        if rouse:
            self._wake()
        return record.page_id or self._state.ids.id_of(seq, None), new

    def check(self, record: PageRecord) -> None:
        """Accept nothing, and tell whether ``record`` could be stored.

        Raises:
            InputError: its metadata can't, or it is too large.
        """
        check_size(record.user_id, len(record.user_input) + len(record.agent_response), self._max_page_bytes)
        with self.lock:
            self._pack(record)

    def confirm(self) -> None:
        """Return when what was accepted so far is as safe as ``store.durability`` says.

        Raises:
            StoreError: flushing failed.
        """
        if self._power:
            self.sync()

    def _check(self, record: PageRecord, wait_s: float) -> None:
        said = len(record.user_input) + len(record.agent_response)  # at least so many bytes; told without packing them
        check_size(record.user_id, said, self._max_page_bytes)
        if self._backlog_bytes >= self._config.max_bytes:
            self._wait_for_room(wait_s)

    def _enter(self, record: PageRecord, *, online: bool = False) -> tuple[int, bool, bool]:
        """Return a page's number, whether it is new, and whether the coordinator has to be woken.

        An ``online`` page comes by itself; others are one of many.
        """
        if self._closed:
            raise ClosedError("the page was not accepted: the pipeline is closed; open the store again")
        seq = None if record.page_id is None else self._known(record.page_id, record)
        if seq is not None:
            return seq, False, False
        seq, rouse = self._accept(record, online=online)
        return seq, True, rouse

    def _known(self, page_id: str, record: PageRecord) -> int | None:
        """Return the page that is accepted under ``page_id`` and ``record`` would be again; None where there is none.

        Raises:
            InputError: it is a page of another user or assistant than ``record``.
        """
        seq = self._state.ids.resolve(page_id)
        if seq is None:
            return None
        owner = self._owner(seq)
        if owner >= FORGOTTEN:  # and whoever asked for that has not come to its id yet
            self._state.ids.release(page_id)
            return None
        mine = self._state.find(record.user_id, record.assistant_id)
        if mine is None or mine.number != owner:
            raise InputError(
                f"the page of user {record.user_id!r} was not accepted: its id {page_id!r:.200} is that of a page of "
                "another user or assistant; give it an id of its own"
            )
        return seq

    def _owner(self, seq: int) -> int:
        """Return the number of the scope that an accepted page belongs to."""
        if seq >= len(self._state.pages):
            # From behind: the coordinator takes from the front meanwhile, what it has entered into the columns.
            with contextlib.suppress(IndexError):
                scope = self.accepted[seq - self.register.next_seq].scope
                return FORGOTTEN if scope is None else scope.number
        return self._state.pages.scope(seq)

    def _accept(self, record: PageRecord, *, online: bool) -> tuple[int, bool]:
        """Enter ``record``; return its number, and whether the coordinator has to be woken."""
        body = self._pack(record)
        seq = self.register.next_seq
        journal, offset = self._append(seq, body)
        scope = self._state.scope(record.user_id, record.assistant_id)
        if online:
            scope.latest_online = seq  # before the coordinator can meet it
        self.accepted.append(Accepted(scope, journal, offset, len(body)))
        scope.latest = seq
        self._backlog_bytes += len(body)
        full = scope.ring.append(seq) is not None
        self.register.enter(record.page_id, record.source)  # last: a page that its id names can be absorbed
        needed = full >= self.rouse or (journal.end > self._spare_mark and self._spare is None)
        if needed:
            self.rouse, self._spare_mark = Rouse.NEVER, journal.size
        return seq, needed

    def forget(self, seqs: Sequence[int], page_ids: Mapping[int, str]) -> None:
        """Accept that pages ``seqs``, ascending, are forgotten; ``page_ids`` has the ids that callers gave them.

        Raises:
            StoreFullError: there is no room for another journal; nothing was forgotten.
            StoreError: it was accepted, but flushing it failed (only where it is flushed).
            ClosedError: nothing is accepted any more.
        """
        body, rings = encode_tombstone(seqs), self._rings_of(seqs)
        with self.lock:
            if self._closed:
                raise ClosedError("nothing was forgotten: the pipeline is closed; open the store again")
            seq = self.register.next_seq
            journal, offset = self._append(seq, body)
            self.register.skip()
            self.accepted.append(Accepted(None, journal, offset, len(body), tuple(seqs)))
            self.last_tombstone = seq
            for ring, mine in rings:
                ring.remove(mine)
            self.rouse = Rouse.NEVER
        self._wake()
        for start in range(0, len(seqs), IDS_AT_ONCE):  # so that no caller of add waits for all of them
            with self.lock:
                for forgotten in seqs[start : start + IDS_AT_ONCE]:
                    given = page_ids.get(forgotten)
                    if given is None or self._state.ids.resolve(given) == forgotten:  # else it is a later page's by now
                        self._state.ids.forget(forgotten, given)
        if self._power:
            self._synced.wait_for(seq)

    def _rings_of(self, seqs: Sequence[int]) -> list[tuple[ShortTermRing, set[int]]]:
        """Return the rings that may hold pages, with each one's pages."""
        mine: dict[int, set[int]] = {}
        for seq in seqs:
            mine.setdefault(self._state.pages.scope(seq), set()).add(seq)
        return [(self._state.scopes[number].ring, pages) for number, pages in mine.items()]

    def rotate(self) -> tuple[int, Journal | None]:
        """Have the next page begin a new journal; return that page's number, and the journal that was left."""
        with self.lock:
            left, self._journal = self._journal, None
            if left is not None:
                self._left.append(left)
            return self.register.next_seq, left

    def sources(self) -> dict[bytes, int]:
        """Return, for every file that pages came from, its digest and the ordinal of the next record to accept."""
        with self.lock:
            return self.register.sources()

    def add_backlog(self, size: int) -> None:
        """Count ``size`` bytes of restored pages that have no vector."""
        with self.lock:
            self._backlog_bytes += size

    def worked_off(self, size: int) -> None:
        """Take ``size`` bytes off the backlog and let waiting callers in."""
        with self._room:
            with self.lock:
                self._backlog_bytes -= size
            if self._backlog_bytes < self._config.max_bytes:
                self._room.notify_all()

    def provide_spare(self) -> None:
        """Make the next journal ahead of need, so that no caller waits for the file system; for a background thread."""
        journal = self._journal
        if self._spare is None and (journal is None or journal.end * 2 > journal.size):
            with self._making:
                if self._journal is not journal or self._closed:
                    return  # a caller could not wait, and has made a younger one
                spare = self._new_journal(0)
                spare.prefault()
                self._spare = spare

    def sync(self) -> None:
        """Return when every page accepted so far survives a power cut.

        Raises:
            StoreError: the disk failed.
        """
        self._synced.wait_for(self.register.next_seq - 1)

    def close(self) -> list[Journal]:
        """Accept nothing more, and return the journals that are open; they can still be read."""
        with self._room:
            with self.lock:
                self._closed = True
            self._room.notify_all()
        if self._power:
            with contextlib.suppress(StoreError):  # told to the callers whose pages they are
                self.sync()
        with self._making:
            return [journal for journal in (self._journal, self._spare) if journal is not None]

    def _flush(self) -> int:
        """Flush every journal that may hold pages not flushed yet; return the last page for which that is true."""
        with self.lock:
            newest, left, journal = self.register.next_seq - 1, list(self._left), self._journal
        for each in (*left, journal):
            if each is not None:
                _sync(each)
        with self.lock:
            self._left = [each for each in self._left if each not in left]
        return newest

    def _pack(self, record: PageRecord) -> bytes:
        try:
            packed: bytes = self._packer.pack(tuple(record))
            if record.metadata and not is_shallow(record.metadata):
                _check_depths(record.metadata)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"metadata of a page of user {record.user_id!r} can't be stored ({error}); "
                "use None, bool, int (64 bits), float, str, bytes, lists and dicts of these"
            ) from None
        check_size(record.user_id, len(packed), self._max_page_bytes)
        return packed

    def _append(self, seq: int, body: bytes) -> tuple[Journal, int]:
        journal = self._journal
        offset = journal.append(seq, body) if journal is not None else None
        if journal is None or offset is None:
            journal = self._next_journal(len(body) + RECORD_OVERHEAD)
            offset = journal.append(seq, body)
            if offset is None:
                raise RuntimeError(f"{journal.path}: a new journal has no room for {len(body)} bytes")
        return journal, offset

    def _next_journal(self, min_bytes: int) -> Journal:
        with self._making:
            spare, self._spare = self._spare, None
            if spare is not None and spare.size < min_bytes:
                # Used after the larger one, it would hold younger pages under a lower number.
                self._discard(spare)
                spare = None
            journal = self._new_journal(min_bytes) if spare is None else spare
        self._left = [each for each in self._left if each.size]
        if self._journal is not None:
            self._left.append(self._journal)
        self._journal, self._spare_mark = journal, journal.size // 2
        return journal

    def _wait_for_room(self, wait_s: float) -> None:
        mark = self._config.max_bytes
        if self._config.policy == "raise":
            raise BackpressureError(
                f"the page was not accepted: the backlog is at its high-water mark of {mark} bytes "
                "(backlog.max_bytes); add again when the models have caught up, or use policy block"
            )
        with self._room:
            if not self._room.wait_for(lambda: self._closed or self._backlog_bytes < mark, wait_s):
                raise BackpressureError(
                    f"the page was not accepted: the backlog stayed at its high-water mark of {mark} bytes for "
                    f"{wait_s} s (backlog.max_bytes, backlog.timeout_s); look at stats() for what "
                    "holds the models up"
                )


def _sync(journal: Journal) -> None:
    try:
        journal.sync()
    except (StoreError, ValueError):  # the latter for a descriptor of -1
        if journal.size:
            raise
        # Closed meanwhile: that happens only after its pages were written to a segment and flushed there.


def _check_depths(metadata: Mapping[str, Any]) -> None:
    """Refuse what could be packed, and not be unpacked."""
    if has_compound_key(metadata):
        raise TypeError("a tuple is no key")
    if nested_too_deeply(metadata):
        raise ValueError("nested too deeply")

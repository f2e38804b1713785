"""Reading a store that another process may own, write and compact meanwhile.

A reader takes no lock that keeps the owner from anything, and writes nothing but the file that it pins its generation
by (``store/pins.py``), where the owner did not make it. It looks at journals first, the newest of them first, and at
MANIFEST and segments after that: pages wander from older to newer journals and from journals to segments, and so none
can slip by between two looks. Then it looks at the journals once more, for pages that what it found in segments may
speak of. What is half written, in a journal or at the end of the last segment, is not there yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mos_pipeline.errors import StoreError
from mos_pipeline.store.codec import HEADER_BYTES, FrameKind
from mos_pipeline.store.folder import Damage, StoreFolder, disk_errors, numbered
from mos_pipeline.store.journal import RECORD_OVERHEAD, Journal
from mos_pipeline.store.manifest import Manifest
from mos_pipeline.store.pins import Pin
from mos_pipeline.store.recovery import JournaledPage, StoredFrame
from mos_pipeline.store.scanning import Damaged, Frame, Torn
from mos_pipeline.store.segments import FrameAddress, SegmentReader

__all__ = ["Fresh", "ReadOnlyStore"]


MOST_LOOKS = 10  # of one refresh; another one only where a whole journal has come and gone meanwhile


class Fresh(NamedTuple):
    """What a look at the store found; to be consumed before the next look, frames first.

    Attributes:
        anew: segments were replaced, so these are not what is new but all there is: build a new memory from them. What
            was read before stays readable until the next look.
        frames: as from ``ReadOnlyStore.frames``.
        journaled: as from ``ReadOnlyStore.journaled_pages``.
    """

    anew: bool
    frames: Iterator[StoredFrame]
    journaled: Iterator[JournaledPage]


class _Followed:
    """A journal, and how much of it was given out."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.identity = journal.identity
        self.given = 0


class ReadOnlyStore:
    """A store as it was at the last look: at the opening, or at ``refresh``. To be used by one thread.

    Attributes:
        folder: its paths.
        manifest: as it was at the last look.
        segments: reads frames, from any thread.
        damage: what could not be read in segments; grows while ``frames`` is consumed.
    """

    def __init__(self, folder: StoreFolder) -> None:
        """Use ``open``."""
        self.folder = folder
        self.segments = SegmentReader(folder)
        self.damage: list[Damage] = []
        self._journals: list[_Followed] = []
        self._gone: list[_Followed] = []  # their pages are in segments
        self._left: Pin | None = None
        try:
            seen = self._look_at_journals()
            self._pin = Pin.take(folder)
        except BaseException:
            self._close_journals()
            raise
        self.manifest = self._pin.manifest
        self._rewind()
        try:
            if not self._look_at_the_end(seen):
                self._look()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the store in the folder ``path`` for reading, whether another process owns it or none.

        Raises:
            StoreVersionError: a newer version of the library made it.
            StoreDamagedError: its MANIFEST is broken.
            StoreError: there is no store, or it can't be read; or its generation can't be pinned, because no owner with
                this version of the library opened it yet and this process may not write there.
        """
        folder = StoreFolder(Path(path).absolute())
        with disk_errors(folder.root, "the store could not be looked at"):
            if not folder.manifest.is_file():
                raise StoreError(f"{folder.root}: there is no store here; check the path")
        return cls(folder)

    def _rewind(self) -> None:
        """Give out everything again."""
        self._index, self._offset = 0, 0
        self._last: tuple[FrameAddress, bytes] | None = None  # the last frame that was given out, and its header
        self.damage.clear()
        for followed in self._journals:
            followed.given = 0

    def frames(self) -> Iterator[StoredFrame]:
        """Yield the frames that were not given out yet, in the order of MANIFEST; one is in memory at a time.

        Raises:
            StoreError: a segment can't be read.
        """
        segments = self.manifest.segments
        while self._index < len(segments):
            number, last = segments[self._index], self._index == len(segments) - 1
            yield from self._frames_of(number, growing=last)
            if last:
                return
            self._index, self._offset = self._index + 1, 0

    def _frames_of(self, number: int, *, growing: bool) -> Iterator[StoredFrame]:
        for item in self.segments.scan(number, (FrameKind.PAGES,), self._offset):
            if growing and (isinstance(item, Torn) or item.offset + item.length > self._stop):
                return
            self._offset = item.offset + item.length
            if isinstance(item, Frame):
                address = FrameAddress(number, item.offset)
                self._last = address, self.segments.read_bytes(address, HEADER_BYTES)
                yield StoredFrame(item.kind, item.last_page, item.body, address, item.generation)
            else:
                reason = item.reason if isinstance(item, Damaged) else "the segment ends in the midst of a frame"
                self.damage.append(Damage(self.folder.segment(number), item.offset, item.length, reason))

    def journaled_pages(self) -> Iterator[JournaledPage]:
        """Yield the journals' records that were not given out yet. A page may come in a frame too, or may have."""
        for followed in (*self._gone, *self._journals):
            journal = followed.journal
            for offset, seq, body in journal.records(followed.given):
                followed.given = offset + RECORD_OVERHEAD + len(body)
                yield JournaledPage(seq, body, journal, offset)

    def refresh(self, *, anew: bool = False) -> Fresh:
        """Look again; ``anew``: give out everything, as where segments were replaced.

        Raises:
            StoreError: MANIFEST or a journal can't be read, or the new generation can't be pinned.
        """
        self._let_go()
        anew = self._look(anew=anew)
        return Fresh(anew, self.frames(), self.journaled_pages())

    def _look(self, *, anew: bool = False) -> bool:
        """Look at journals, segments, and journals again; return whether everything is given out anew."""
        rewound = False
        for _ in range(MOST_LOOKS):
            seen = self._look_at_journals()
            manifest = Manifest.load(self.folder)
            if (anew and not rewound) or manifest.generation != self.manifest.generation or self._was_cut():
                pin = Pin.take(self.folder)
                if self._left is None:
                    self._left = self._pin
                else:
                    self._pin.release()
                self._pin, manifest, rewound = pin, pin.manifest, True
            self.manifest = manifest
            if rewound:
                self._rewind()
            if self._look_at_the_end(seen):
                break
        return rewound

    def _let_go(self) -> None:
        """Let go of what the state before the last look needed."""
        for followed in self._gone:
            followed.journal.close()
        self._gone.clear()
        left, self._left = self._left, None
        if left is not None:
            self.segments.drop(set(left.manifest.segments) - set(self.manifest.segments))
            left.release()

    def _was_cut(self) -> bool:
        """Whether the last frame that was given out is another now: its owner could not make it durable, and cut it."""
        if self._last is None:
            return False
        address, header = self._last
        return self.segments.read_bytes(address, HEADER_BYTES) != header

    def _look_at_the_end(self, seen: set[int]) -> bool:
        """Note where segments end, and look at journals again.

        Returns:
            Whether nothing slipped by: a journal of which neither it nor the one before it was ``seen`` may come after
            one that came, went into segments behind their noted end, and was removed.
        """
        segments = self.manifest.segments
        self._stop = self.segments.size(segments[-1]) if segments else 0
        now = self._look_at_journals()
        return all(number - 1 in seen | now for number in now - seen)

    def _look_at_journals(self) -> set[int]:
        """Follow the journals that are there; return their numbers."""
        known = {followed.identity: followed for followed in self._journals}
        found, numbers = list[_Followed](), set[int]()
        for number, path in reversed(numbered(self.folder.journals, ".journal")):
            followed = _followed(path, known)
            if followed is not None:
                followed.journal.catch_up()
                found.append(followed)
                numbers.add(number)
        self._gone += [followed for followed in self._journals if followed not in found]
        self._journals = found[::-1]
        return numbers

    def close(self) -> None:
        """Let go of all files."""
        self._let_go()
        self._close_journals()
        self.segments.close()
        self._pin.release()

    def _close_journals(self) -> None:
        for followed in self._journals:
            followed.journal.close()
        self._journals.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _followed(path: Path, known: dict[tuple[int, int, int], _Followed]) -> _Followed | None:
    """Return the journal at ``path`` as it is known, or opened; None where it was removed, or is in the making."""
    try:
        status = path.stat()
        if followed := known.get((status.st_dev, status.st_ino, status.st_size)):
            return followed
        journal = Journal.follow(path)
    except FileNotFoundError:
        return None
    except StoreError:
        if path.exists():
            raise
        return None
    if not journal.size:
        journal.close()
        return None
    return _Followed(journal)

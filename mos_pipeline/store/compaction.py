"""Writing segments anew without what was forgotten or replaced.

Drafts are filled frame by frame while the store goes on being written and read. Then one replacement of MANIFEST puts
them in the places of the segments that they were written from. Killed before it, the store is as it was, and the drafts
are deleted at the next chance, since MANIFEST names them as such; killed after it, the old files are. They stay until
whoever reads by their addresses has the new ones, and until no reader pins their generation (``store/pins.py``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mos_pipeline.errors import InputError, StoreDamagedError
from mos_pipeline.messages import decode_tombstone, unpack_seqs
from mos_pipeline.store.codec import SCOPE_KINDS, FrameKind, FramePages, encode_frame, pack_pages, unpack_pages
from mos_pipeline.store.derived import PAGEWISE, PageSet, without_pages
from mos_pipeline.store.draft import Draft
from mos_pipeline.store.folder import (
    Damage,
    StoreFolder,
    disk_errors,
    fsync_folder,
    keep_aside,
)
from mos_pipeline.store.pins import make_pin, without_drafts
from mos_pipeline.store.scanning import Frame
from mos_pipeline.store.segment_writer import SegmentWriter
from mos_pipeline.store.segments import FrameAddress, SegmentReader

__all__ = ["Compaction", "CompactionRequest"]

logger = logging.getLogger(__name__)


class CompactionRequest(NamedTuple):
    """What to write anew, and what to leave out.

    Attributes:
        segments: numbers of segments.
        forgotten: pages whose bytes go.
        superseded: frames of ``SCOPE_KINDS`` before this address, in the order of MANIFEST, go; None: all stay.
        lifted: whether vectors of pages that another model made than the store's go: all have been made again.
    """

    segments: frozenset[int]
    forgotten: PageSet
    superseded: FrameAddress | None
    lifted: bool = False

    @classmethod
    def from_payload(cls, payload: Any) -> CompactionRequest:
        """Return what ``{"segments": [number, …], "forgotten": packed, "superseded": [segment, offset] or nil}`` asks.

        ``"lifted"`` may come with it, true or false.

        Raises:
            InputError: it is something else.
        """
        match payload:
            case {"segments": list(segments), "forgotten": bytes(forgotten), "superseded": superseded}:
                try:
                    place = None if superseded is None else FrameAddress(*superseded)
                    lifted = bool(payload.get("lifted", False))
                    return cls(frozenset(segments), PageSet(unpack_seqs(forgotten)), place, lifted)
                except (ValueError, TypeError) as error:
                    raise InputError(f"the request for compaction is malformed ({error})") from None
        raise InputError("the request for compaction is malformed")


class Compaction:
    """One pass over some segments: ``steps``, then ``commit``; or ``abandon``."""

    def __init__(self, folder: StoreFolder, writer: SegmentWriter, request: CompactionRequest) -> None:
        """Compact the store that ``writer`` appends to, which goes on meanwhile in the same thread."""
        self._folder = folder
        self._writer = writer
        self._request = request
        self._reader = SegmentReader(folder)
        self._order: dict[int, int] = {}
        self._clears_tombstones = False
        self._draft: Draft | None = None
        self._rewritten: dict[int, list[int]] = {}  # by old segment, the drafts that were begun for it
        self._replaced: list[int] = []
        self._moved: list[tuple[int, ...]] = []
        self._before = self._after = 0

    def steps(self) -> Iterator[None]:
        """Do the pass up to ``commit``, in pieces of a frame or a flush each.

        Where the segments were replaced already (by a writer that was killed before it could say so), only where their
        frames are now is found out again.

        Raises:
            InputError: the request doesn't fit the store.
            StoreError: the disk failed; ``abandon`` the pass.
        """
        manifest = self._writer.manifest
        replaced = self._request.segments - set(manifest.segments)
        if replaced and replaced <= {old.number for old in manifest.retired}:
            yield from self._find_again(sorted(replaced))
            return
        self._begin()
        yield
        ready = None
        for number in [number for number in self._order if number in self._request.segments]:
            if ready != self._order[number] - 1:
                self._end_draft()  # what lies between two segments must stay between them
            ready = self._order[number]
            yield from self._rewrite(number)
        self._end_draft()

    def _begin(self) -> None:
        named, superseded = self._request.segments, self._request.superseded
        segments = self._writer.manifest.segments
        if not named <= set(segments) or (superseded and superseded.segment not in segments):
            raise InputError(f"segments {sorted(named)} can't be compacted: those of the store are {list(segments)}")
        self._writer.replace_manifest(without_drafts(self._folder, self._writer.manifest))
        if self._writer.end.segment in named and self._writer.end.offset:
            self._writer.begin_next()
        old = self._writer.manifest.segments[:-1]
        self._order = {number: place for place, number in enumerate(old)}
        # A tombstone is needed as long as any frame may speak of its pages. In a pass over all that there is, up to
        # frames that were written after it was obeyed, none is left.
        self._clears_tombstones = superseded is not None and named >= set(old) and not self._writer.end.offset

    def _rewrite(self, number: int) -> Iterator[None]:
        self._rewritten[number] = []
        self._before += self._reader.size(number)
        for item in self._reader.scan(number, PAGEWISE | {FrameKind.PAGES}):
            if isinstance(item, Frame):
                self._take(number, item)
            else:
                damage = Damage(self._folder.segment(number), item.offset, item.length, "damaged")
                kept = keep_aside(self._folder, damage)
                logger.warning("%s: damaged at offset %d; what it held is kept as %s", damage.path, item.offset, kept)
            yield

    def _take(self, number: int, frame: Frame) -> None:
        """Write what is left of a frame into the draft."""
        old = FrameAddress(number, frame.offset)
        if frame.kind == FrameKind.PAGES:
            self._take_pages(frame, old)
        elif frame.kind == FrameKind.VECTORS and self._request.lifted and self._is_of_another_model(frame):
            pass
        elif frame.kind in PAGEWISE:
            derived = self._left_derived(frame, old)
            if derived is not None:
                self._put(old, frame, derived)
        elif frame.kind not in SCOPE_KINDS or not self._superseded(old):
            self._put(old, frame, frame.body)

    def _is_of_another_model(self, frame: Frame) -> bool:
        return frame.generation != self._writer.manifest.vector_generation

    def _take_pages(self, frame: Frame, old: FrameAddress) -> None:
        try:
            pages = unpack_pages(frame.body)
        except StoreDamagedError as error:
            logger.warning("segment %d, offset %d: %s; the frame is left as it is", *old, error)
            self._put(old, frame, frame.body)
            return
        left = self._left_pages(pages, old)
        new = self._put(old, frame, frame.body if left is pages else pack_pages(*left))
        self._moved.append((*old, *new, pages.first_seq, len(pages.records)))

    def _left_derived(self, frame: Frame, old: FrameAddress) -> bytes | None:
        try:
            return without_pages(frame.kind, frame.body, self._request.forgotten)
        except (ValueError, TypeError) as error:
            # It can't be searched for what was forgotten; and whatever it holds is made again from the pages.
            logger.warning("segment %d, offset %d: %s is left out: %s", *old, frame.kind.name, error)
            return None

    def _left_pages(self, pages: FramePages, old: FrameAddress) -> FramePages:
        first, heads, records = pages
        gone = {seq - first for seq in self._request.forgotten.within(first, first + len(records))}
        gone = {place for place in gone if records[place]}
        if heads.forgotten and self._clears_tombstones and self._superseded(old):
            gone |= {place for place, body in enumerate(records) if self._is_done(body)}
        if not gone:
            return pages
        left = [b"" if place in gone else body for place, body in enumerate(records)]
        named = {seq for body in left for seq in decode_tombstone(body) or ()}
        # Such an id is why a later page has another than its own, for as long as that is there.
        later = {place for place, page_id in heads.page_ids if self._number_in(page_id) > first + place}
        return FramePages(first, heads.without(gone, sorted(named), later), left)

    def _number_in(self, page_id: str) -> int:
        """Return the number of the page whose automatic id this is, or looks like; -1 where it is a caller's own."""
        automatic = re.fullmatch(rf"{self._writer.manifest.store}-([0-9a-f]{{12}})\+*", page_id)
        return int(automatic[1], 16) if automatic else -1

    def _is_done(self, body: bytes) -> bool:
        """Whether a record is a tombstone, all of whose pages go in this pass at the latest."""
        named = decode_tombstone(body)
        return named is not None and self._request.forgotten.covers(named)

    def _superseded(self, address: FrameAddress) -> bool:
        bound = self._request.superseded
        if bound is None:
            return False
        return (self._place(address.segment), address.offset) < (self._place(bound.segment), bound.offset)

    def _place(self, segment: int) -> int:
        return self._order.get(segment, len(self._order))

    def _put(self, old: FrameAddress, frame: Frame, body: bytes) -> FrameAddress:
        """Write a frame into the draft: its very bytes where ``body`` is its own."""
        if body is frame.body:
            data = self._reader.read_bytes(old, frame.length)
        else:
            data = encode_frame(frame.kind, body, self._writer.level, frame.last_page, frame.generation)
        if self._draft is not None and self._draft.end + len(data) > self._writer.segment_bytes:
            self._end_draft()
        if self._draft is None:
            self._draft = self._new_draft()
            self._rewritten[old.segment].append(self._draft.number)
        self._after += len(data)
        return self._draft.append(data)

    def _new_draft(self) -> Draft:
        number = self._writer.manifest.next_number
        self._writer.replace_manifest(self._writer.manifest.with_draft(number))
        return Draft(self._folder, number)

    def _end_draft(self) -> None:
        draft, self._draft = self._draft, None
        if draft is not None:
            try:
                draft.sync()
            finally:
                draft.close()

    def commit(self) -> dict[str, Any]:
        """Put the drafts in force, and tell what was done.

        Returns:
            moved: ``[old segment, old offset, new segment, new offset, first_seq, count]`` for each frame of pages.
            removed: numbers of the segments that were replaced. Their files are still there.
            before, after: bytes of the old segments, and of the new ones.

        Raises:
            StoreError: the disk failed; it is not known whether the drafts are in force. Call it again.
        """
        if self._rewritten:
            with disk_errors(self._folder.segments, "names of segments could not be made durable"):
                fsync_folder(self._folder.segments)
            manifest = self._writer.manifest.compacted(self._rewritten)
            make_pin(self._folder, manifest.generation)
            self._writer.replace_manifest(manifest)
        self._reader.close()
        removed = sorted(self._rewritten or self._replaced)
        return {"moved": self._moved, "removed": removed, "before": self._before, "after": self._after}

    def abandon(self) -> None:
        """Give the pass up, and delete its drafts.

        Raises:
            StoreError: they can't be deleted now; the next pass, or the next owner, does it.
        """
        self._reader.close()
        if self._draft is not None:
            self._draft.close()
            self._draft = None
        self._writer.replace_manifest(without_drafts(self._folder, self._writer.manifest))

    def _find_again(self, replaced: list[int]) -> Iterator[None]:
        self._replaced = replaced
        places = dict[tuple[int, int], FrameAddress]()
        for number in self._writer.manifest.segments:
            for address, span in self._frames_of_pages(number):
                places[span] = address
                yield
        for number in replaced:
            for address, span in self._frames_of_pages(number):
                if span in places:
                    self._moved.append((*address, *places[span], *span))
                yield
        self._before = sum(map(self._reader.size, replaced))
        self._after = sum(map(self._reader.size, {row[2] for row in self._moved}))

    def _frames_of_pages(self, number: int) -> Iterator[tuple[FrameAddress, tuple[int, int]]]:
        """Yield each frame's address with its first page and number of pages."""
        for item in self._reader.scan(number, {FrameKind.PAGES}):
            if isinstance(item, Frame) and item.kind == FrameKind.PAGES:
                pages = unpack_pages(item.body)
                yield FrameAddress(number, item.offset), (pages.first_seq, len(pages.records))

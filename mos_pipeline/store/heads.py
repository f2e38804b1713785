"""What opening has to know of pages, without their texts: a frame of pages carries it for all of them at once."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from mos_pipeline.messages import decode_record, decode_tombstone, pack_seqs, unpack_seqs

__all__ = ["NO_SCOPE", "NUMBER_BYTES", "PageHeads", "heads_of", "pack_heads", "unpack_heads"]

NUMBER_BYTES = 4
NO_SCOPE = 0xFFFFFFFF  # in ``scope_of``: the number belongs to no page


class PageHeads(NamedTuple):
    """Of n neighbouring numbers: whose pages they are, what ids their callers gave, which files they came from.

    Attributes:
        scopes: (user id, assistant id), each once.
        scope_of: place in ``scopes`` of each page's: n numbers of type ``<u4``, as bytes; ``NO_SCOPE`` for a tombstone,
            and where a page is gone for good.
        page_ids: (place, id) of each page whose caller gave it one; places ascend from 0.
        sources: by the digest that names a file, the highest ordinal of its records among these pages; a page that is
            gone still counts, so that resuming the file does not take it again.
        forgotten: what the tombstones among them name: sequence numbers, ascending, of pages that lie before them.
    """

    scopes: list[tuple[str, str]]
    scope_of: bytes
    page_ids: list[tuple[int, str]]
    sources: dict[bytes, int]
    forgotten: list[int]

    def part(self, start: int, stop: int) -> PageHeads:
        """Return those of places ``start`` to ``stop - 1``; all but ``scope_of`` and ``page_ids`` stay those of all."""
        page_ids = [(place - start, page_id) for place, page_id in self.page_ids if start <= place < stop]
        return self._replace(scope_of=self.scope_of[NUMBER_BYTES * start : NUMBER_BYTES * stop], page_ids=page_ids)

    def without(self, places: Container[int], forgotten: list[int], named: Container[int] = ()) -> PageHeads:
        """Return the heads once the pages at ``places`` are gone, and the tombstones left name ``forgotten``.

        Nothing but ``sources`` speaks of those pages any more, nor of scopes that only they had; and the ids of those
        at ``named`` stay.
        """
        scopes: dict[int, int] = {}
        scope_of = [
            NO_SCOPE if number == NO_SCOPE or place in places else scopes.setdefault(number, len(scopes))
            for place, number in enumerate(_unpacked(self.scope_of))
        ]
        page_ids = [(place, page_id) for place, page_id in self.page_ids if place not in places or place in named]
        return PageHeads([self.scopes[old] for old in scopes], _packed(scope_of), page_ids, self.sources, forgotten)


def heads_of(bodies: Iterable[bytes]) -> PageHeads:
    """Return what opening has to know of the records ``bodies``: of pages, of tombstones, and ``b""`` for what is gone.

    Raises:
        ValueError, TypeError: one of them is none of these.
    """
    scopes: dict[tuple[str, str], int] = {}
    scope_of, page_ids = list[int](), list[tuple[int, str]]()
    sources, forgotten = dict[bytes, int](), set[int]()
    for place, body in enumerate(bodies):
        named = decode_tombstone(body)
        if named is not None or not body:
            forgotten.update(named or ())
            scope_of.append(NO_SCOPE)
            continue
        record = decode_record(body)
        scope_of.append(scopes.setdefault((record.user_id, record.assistant_id), len(scopes)))
        if record.page_id is not None:
            page_ids.append((place, record.page_id))
        if record.source is not None:
            digest, ordinal = record.source
            sources[digest] = max(sources.get(digest, ordinal), ordinal)
    return PageHeads(list(scopes), _packed(scope_of), page_ids, sources, sorted(forgotten))


def _packed(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _unpacked(column: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(column) // NUMBER_BYTES}I", column)


def pack_heads(heads: PageHeads) -> list[Any]:
    """Return ``heads`` as what msgpack can hold."""
    packed = [heads.scopes, heads.scope_of, heads.page_ids, list(heads.sources.items())]
    return [*packed, pack_seqs(heads.forgotten)] if heads.forgotten else packed


def unpack_heads(packed: list[Any]) -> PageHeads:
    """Return what ``pack_heads`` was given, after its way through msgpack.

    Raises:
        ValueError, TypeError: it is something else.
    """
    scopes, scope_of, page_ids, sources, *forgotten = packed
    if type(scope_of) is not bytes or len(scope_of) % NUMBER_BYTES:
        raise ValueError("the pages' scopes are no column of numbers")
    if max({*_unpacked(scope_of)} - {NO_SCOPE}, default=-1) >= len(scopes):
        raise ValueError("a page's scope is not among them")
    return PageHeads(
        [(_text(user), _text(assistant)) for user, assistant in scopes],
        scope_of,
        [(_place(place, scope_of), _text(page_id)) for place, page_id in page_ids],
        dict(sources),
        unpack_seqs(*forgotten) if forgotten else [],
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("an id is no text")
    return value


def _place(value: Any, scope_of: bytes) -> int:
    if type(value) is not int or not 0 <= value < len(scope_of) // NUMBER_BYTES:
        raise ValueError("an id is that of no page")
    return value

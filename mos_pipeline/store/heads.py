"""What opening has to know of pages, without their texts: a frame of pages carries it for all of them at once."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from mos_pipeline.messages import PageRecord

__all__ = ["PageHeads", "heads_of", "pack_heads", "unpack_heads"]

NUMBER_BYTES = 4


class PageHeads(NamedTuple):
    """Of n neighbouring pages: whose they are, what ids their callers gave, which files they came from.

    Attributes:
        scopes: (user id, assistant id), each once.
        scope_of: place in ``scopes`` of each page's: n numbers of type ``<u4``, as bytes.
        page_ids: (place, id) of each page whose caller gave it one; places ascend from 0.
        sources: by the digest that names a file, the highest ordinal of its records among these pages.
    """

    scopes: list[tuple[str, str]]
    scope_of: bytes
    page_ids: list[tuple[int, str]]
    sources: dict[bytes, int]

    def part(self, start: int, stop: int) -> PageHeads:
        """Return those of pages ``start`` to ``stop - 1``; ``scopes`` and ``sources`` stay those of all."""
        page_ids = [(place - start, page_id) for place, page_id in self.page_ids if start <= place < stop]
        return self._replace(scope_of=self.scope_of[NUMBER_BYTES * start : NUMBER_BYTES * stop], page_ids=page_ids)


def heads_of(records: Iterable[PageRecord]) -> PageHeads:
    """Return what opening has to know of ``records``."""
    scopes: dict[tuple[str, str], int] = {}
    scope_of, page_ids, sources = list[int](), list[tuple[int, str]](), dict[bytes, int]()
    for place, record in enumerate(records):
        scope_of.append(scopes.setdefault((record.user_id, record.assistant_id), len(scopes)))
        if record.page_id is not None:
            page_ids.append((place, record.page_id))
        if record.source is not None:
            digest, ordinal = record.source
            sources[digest] = max(sources.get(digest, ordinal), ordinal)
    return PageHeads(list(scopes), struct.pack(f"<{len(scope_of)}I", *scope_of), page_ids, sources)


def pack_heads(heads: PageHeads) -> list[Any]:
    """Return ``heads`` as what msgpack can hold."""
    return [heads.scopes, heads.scope_of, heads.page_ids, list(heads.sources.items())]


def unpack_heads(packed: list[Any]) -> PageHeads:
    """Return what ``pack_heads`` was given, after its way through msgpack.

    Raises:
        ValueError, TypeError: it is something else.
    """
    scopes, scope_of, page_ids, sources = packed
    if type(scope_of) is not bytes or len(scope_of) % NUMBER_BYTES:
        raise ValueError("the pages' scopes are no column of numbers")
    return PageHeads(
        [(user, assistant) for user, assistant in scopes],
        scope_of,
        [(place, page_id) for place, page_id in page_ids],
        dict(sources),
    )

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.messages import PageRecord, SourceMark, decode, encode, encode_tombstone
from mos_pipeline.store.heads import NO_SCOPE, PageHeads, heads_of, pack_heads, unpack_heads

Content = PageRecord | list[int] | None  # a page, a tombstone's pages, or what is gone

names = st.sampled_from(["a", "b", "c\ud800"])
records = st.builds(
    PageRecord,
    user_id=names,
    assistant_id=names,
    user_input=st.just("text"),
    agent_response=st.just(""),
    timestamp=st.just(""),
    metadata=st.none(),
    page_id=st.none() | st.text(max_size=3),
    source=st.none() | st.builds(SourceMark, st.sampled_from([b"one", b"two"]), st.integers(0, 50)),
)
tombstones = st.sets(st.integers(0, 1 << 40), min_size=1, max_size=5).map(sorted)
contents = st.lists(records | tombstones | st.none(), max_size=20)


def bodies(pages: list[Content]) -> list[bytes]:
    return [_body(page) for page in pages]


def _body(page: Content) -> bytes:
    if page is None:
        return b""
    return encode_tombstone(page) if isinstance(page, list) else encode(page)


def stored(heads: PageHeads) -> PageHeads:
    return unpack_heads(decode(encode(pack_heads(heads))))


def told(heads: PageHeads) -> tuple[list[tuple[str, str] | None], dict[int, str]]:
    """Each page's scope, and the ids by place."""
    numbers = struct.unpack(f"<{len(heads.scope_of) // 4}I", heads.scope_of)
    return [None if number == NO_SCOPE else heads.scopes[number] for number in numbers], dict(heads.page_ids)


@given(contents, st.data())
def test_heads_tell_what_the_records_say(pages: list[Content], data: st.DataObject) -> None:
    heads = stored(heads_of(bodies(pages)))
    found = {place: page for place, page in enumerate(pages) if isinstance(page, PageRecord)}
    assert told(heads) == (
        [(page.user_id, page.assistant_id) if isinstance(page, PageRecord) else None for page in pages],
        {place: page.page_id for place, page in found.items() if page.page_id is not None},
    )
    assert len(set(heads.scopes)) == len(heads.scopes)
    sources = [page.source for page in found.values() if page.source is not None]
    assert heads.sources == dict(sorted(sources))  # the highest of each comes last
    assert heads.forgotten == sorted({seq for page in pages if isinstance(page, list) for seq in page})
    start = data.draw(st.integers(0, len(pages)))
    stop = data.draw(st.integers(start, len(pages)))
    assert told(heads.part(start, stop)) == told(heads_of(bodies(pages[start:stop])))


@given(contents, st.sets(st.integers(0, 19)))
def test_what_is_gone_leaves_its_source_only(pages: list[Content], gone: set[int]) -> None:
    before = heads_of(bodies(pages))
    left = [None if place in gone else page for place, page in enumerate(pages)]
    expected = heads_of(bodies(left))
    assert stored(before.without(gone, expected.forgotten)) == expected._replace(sources=before.sources)


def test_heads_of_an_older_store_forget_nothing() -> None:
    heads = heads_of(bodies([PageRecord("user", "assistant", "", "", "", None, None, None)]))
    packed = pack_heads(heads)
    assert len(packed) == 4
    assert unpack_heads(decode(encode(packed))) == heads


@pytest.mark.parametrize("body", [b"\xc1", b"\x01", encode(["forget", 7]), encode(["forget"]), encode(["a"] * 7)])
def test_what_is_no_record_is_told(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        heads_of([body])

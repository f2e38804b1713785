from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.messages import PageRecord, SourceMark, decode, encode
from mos_pipeline.store.heads import PageHeads, heads_of, pack_heads, unpack_heads

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


def told(heads: PageHeads) -> tuple[list[tuple[str, str]], dict[int, str]]:
    """Each page's scope, and the ids by place."""
    numbers = struct.unpack(f"<{len(heads.scope_of) // 4}I", heads.scope_of)
    return [heads.scopes[number] for number in numbers], dict(heads.page_ids)


@given(st.lists(records, max_size=20), st.data())
def test_heads_tell_what_the_records_say(pages: list[PageRecord], data: st.DataObject) -> None:
    heads = unpack_heads(decode(encode(pack_heads(heads_of(pages)))))
    assert told(heads) == (
        [(page.user_id, page.assistant_id) for page in pages],
        {place: page.page_id for place, page in enumerate(pages) if page.page_id is not None},
    )
    assert len(set(heads.scopes)) == len(heads.scopes)
    sources = [page.source for page in pages if page.source is not None]
    assert heads.sources == dict(sorted(sources))  # the highest of each comes last
    start = data.draw(st.integers(0, len(pages)))
    stop = data.draw(st.integers(start, len(pages)))
    assert told(heads.part(start, stop)) == told(heads_of(pages[start:stop]))

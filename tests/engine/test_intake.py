"""Accepting pages: each is in the journal once, in the order of acceptance, whatever else happens."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline.errors import InputError, StoreFullError
from mos_pipeline.messages import PageRecord, SourceMark, decode_record, encode
from mos_pipeline.store.heads import heads_of
from mos_pipeline.store.journal import Journal
from tests.engine.desk import JOURNAL_BYTES, PATIENCE_S, Desk, desk, journaled, record, texts


def restore(d: Desk, records: Iterable[PageRecord]) -> None:
    """Enter the next pages as an opening does; none was forgotten."""
    bodies = list(map(encode, records))
    for _ in bodies:
        d.state.pages.append(len(d.state.pages), d.state.scope("user", "assistant").number)
    d.intake.register.restore(heads_of(bodies), len(bodies), lambda _: False)


def test_an_accepted_page_is_in_the_journal_the_ring_and_the_coordinators_queue(tmp_path: Path) -> None:
    source = SourceMark(b"digest", 4)
    with desk(tmp_path) as d:
        first = d.add("one", metadata={"k": [1, None, "\ud800"]}, source=source)
        second = d.add("two", page_id="mine")
        assert (first, second) == (d.state.ids.id_of(0, None), "mine")
        assert (d.intake.next_seq, d.state.ids.resolve(first), d.state.ids.resolve("mine")) == (2, 0, 1)
        scope = d.state.find("user", "assistant")
        assert scope is not None
        assert scope.ring.latest() == [0, 1]
        for seq, item in enumerate(d.intake.accepted):
            found, body = item.journal.read(item.offset)
            assert (found, len(body), item.scope) == (seq, item.size, scope)
        assert d.intake.backlog_bytes == sum(item.size for item in d.intake.accepted)
        assert d.intake.sources() == {b"digest": 5}
    assert journaled(tmp_path) == [
        (0, record("one", metadata={"k": [1, None, "\ud800"]}, source=source)),
        (1, record("two", page_id="mine")),
    ]


def test_an_id_that_is_known_is_one_page(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        automatic = d.add("first")
        d.add("second", page_id="mine")
        assert d.intake.add(record("again", page_id="mine")) == ("mine", False)
        assert d.intake.add(record("again", page_id=automatic)) == (automatic, False)
        assert (d.intake.next_seq, len(d.intake.accepted)) == (2, 2)
        d.add("third", page_id="another")
    assert texts(tmp_path) == ["first", "second", "third"]


def test_an_id_is_free_as_soon_as_its_page_is_forgotten(tmp_path: Path) -> None:
    """Taken for the forgotten page, the new one would be lost; both come between the tombstone and the ids' turn."""
    with desk(tmp_path) as d:
        ids = ["mine", d.state.ids.id_of(1, None)]
        d.add("first", page_id="mine")
        d.add("second")
        for seq in range(2):
            d.state.pages.append(seq, 0)

        def coordinate() -> None:
            if d.state.pages.is_kept(0):
                d.state.pages.forget([0, 1])
                for user, page_id in zip(("user", "other"), ids, strict=True):
                    d.add("later", user=user, page_id=page_id)

        d.intake._wake = coordinate
        d.intake.forget([0, 1], {0: "mine"})
        assert [d.state.ids.resolve(page_id) for page_id in ids] == [3, 4]


def test_metadata_that_can_not_be_stored_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    with desk(tmp_path) as d:
        for wrong in (object(), 1 << 64, {1, 2}, deep):
            with pytest.raises(InputError, match=r"'user'.*can't be stored"):
                d.add(metadata={"x" * 1000: "y" * 1000, "wrong": wrong}, page_id="mine")
        assert (d.intake.next_seq, d.intake.backlog_bytes, len(d.intake.accepted)) == (0, 0, 0)
        assert d.state.find("user", "assistant") is None
        d.add("fine", page_id="mine")
    assert texts(tmp_path) == ["fine"]


def test_full_journals_are_followed_by_others(tmp_path: Path) -> None:
    sent = [f"{i} " + "x" * 3000 for i in range(100)]
    with desk(tmp_path) as d:
        for text in sent:
            d.add(text)
        assert len(d.made) == 5
        assert {journal.size for journal in d.made} == {JOURNAL_BYTES}
        for item, text in zip(d.intake.accepted, sent, strict=True):
            assert decode_record(item.journal.read(item.offset)[1]).user_input == text
    assert texts(tmp_path) == sent


def test_a_spare_journal_is_made_ahead_of_need_and_taken(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        d.intake.provide_spare()  # for the first page
        d.intake.provide_spare()
        assert len(d.made) == 1
        d.add("x" * 20_000)
        d.intake.provide_spare()  # too early
        assert len(d.made) == 1
        d.add("x" * 20_000)
        d.intake.provide_spare()
        d.intake.provide_spare()
        assert len(d.made) == 2
        d.add("x" * 40_000)
        assert d.intake.journal is d.made[1]
        assert len(d.made) == 2
        assert d.intake.close() == [d.made[1]]


def test_a_page_larger_than_a_journal_gets_one_of_its_size(tmp_path: Path) -> None:
    sent = ["small", "x" * 200_000, "small", "y" * JOURNAL_BYTES]
    with desk(tmp_path) as d:
        for text in sent:
            d.add(text)
        assert [journal.size == JOURNAL_BYTES for journal in d.made] == [True, False, True, False]
        assert d.made[1].end == d.made[1].size  # and not a byte more
    assert texts(tmp_path) == sent


def test_a_spare_journal_never_holds_younger_pages_than_a_later_one(tmp_path: Path) -> None:
    """Journals are read in the order in which they were made."""
    sent = ["x" * 40_000, "too large for the spare" * 10_000, *(f"{i}" + "x" * 9000 for i in range(20))]
    with desk(tmp_path) as d:
        d.add(sent[0])
        d.intake.provide_spare()
        for text in sent[1:]:
            d.add(text)
        assert d.made[1] not in d.store.journals()
        assert not d.made[1].path.exists()
    assert texts(tmp_path) == sent


def test_a_caller_that_needs_a_journal_while_the_spare_is_made_waits_for_it(tmp_path: Path) -> None:
    making, go_on = threading.Event(), threading.Event()
    sent = [f"{i}" + "x" * 20_000 for i in range(9)]
    with desk(tmp_path) as d:
        for text in sent[:2]:
            d.add(text)
        real = d.store.new_journal

        def slow(min_bytes: int = 0) -> Journal:
            journal = real(min_bytes)
            if not making.is_set():
                making.set()
                assert go_on.wait(PATIENCE_S)
            return journal

        d.store.new_journal = slow  # type: ignore[method-assign]
        background = threading.Thread(target=d.intake.provide_spare)
        background.start()
        assert making.wait(PATIENCE_S)
        caller = threading.Thread(target=lambda: [d.add(text) for text in sent[2:]])
        caller.start()
        caller.join(0.3)
        go_on.set()
        caller.join()
        background.join()
        for text in sent:
            d.add(text)
    assert texts(tmp_path) == sent * 2


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([0, 100, 9000, 30_000, 65_000, 65_536, 90_000])),
            st.tuples(st.just("known"), st.integers(0, 9)),
            st.tuples(st.just("spare"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_what_was_accepted_is_found_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("store")
    sent: list[str] = []
    with desk(path) as d:
        for step, number in steps:
            if step == "add":
                sent.append(f"{len(sent)}:" + "x" * number)
                d.add(sent[-1], page_id=f"id{len(sent) - 1}")
            elif step == "known" and number < len(sent):
                assert d.intake.add(record("again", page_id=f"id{number}")) == (f"id{number}", False)
            elif step == "spare":
                d.intake.provide_spare()
    assert texts(path) == sent


def test_eight_threads_lose_nothing_and_keep_their_order(tmp_path: Path) -> None:
    def add(d: Desk, user: str) -> None:
        for i in range(300):
            d.add(f"{i}", user=user, metadata={"padding": "x" * (i % 7) * 300})

    with desk(tmp_path) as d:
        threads = [threading.Thread(target=add, args=(d, f"user{i}")) for i in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            d.intake.provide_spare()
            time.sleep(0.001)
        queued = [item.scope.user_id for item in d.intake.accepted if item.scope is not None]
    found = journaled(tmp_path)
    assert [seq for seq, _ in found] == list(range(2400))
    assert [record.user_id for _, record in found] == queued
    for i in range(8):
        mine = [record.user_input for _, record in found if record.user_id == f"user{i}"]
        assert mine == [f"{n}" for n in range(300)]


def test_a_full_disk_refuses_the_page_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with desk(tmp_path) as d:
        d.add("x" * 60_000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(StoreFullError):
                d.add("y" * 60_000, page_id="mine")
        assert (d.intake.next_seq, len(d.intake.accepted)) == (1, 1)
        d.add("x")
        d.add("z" * 60_000, page_id="mine")
    assert [text[0] for text in texts(tmp_path)] == ["x", "x", "z"]


def test_restored_pages_are_known_and_the_numbers_go_on(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        known = [record(page_id="mine", source=SourceMark(b"one", 7)), record(page_id="other")]
        restore(d, known)
        restore(d, [record(source=SourceMark(b"one", 3))])
        assert d.intake.add(record(page_id="mine")) == ("mine", False)
        assert d.intake.sources() == {b"one": 8}
        assert d.add() == d.state.ids.id_of(3, None)
        assert d.intake.add(record(page_id="other")) == ("other", False)


def test_restored_pages_without_an_id_of_their_own_are_known_behind_those_that_have_one(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        restore(d, [record(page_id="mine"), record(), record()])
        automatic = d.state.ids.id_of(2, None)
        assert d.state.ids.resolve(automatic) == 2
        assert d.intake.add(record("again", page_id=automatic)) == (automatic, False)
        assert d.intake.next_seq == 3

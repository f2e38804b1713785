"""Equal texts are embedded once, whatever comes back in whatever order; each sending is answered once, and rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mos_pipeline.engine.equal_texts import EqualTexts, Sending
from mos_pipeline.memory.known_texts import NO_DIGEST, KnownTexts
from mos_pipeline.runtime.supervisor import Outcome

DONE = Outcome(1, "done", 0)
REFUSED = Outcome(2, "refused", error="no")
KILLED = Outcome(3, "killed", error="dead")
DOWN = Outcome(4, "down", error="gone")


class Bench:
    """A pool of rows that are used again at once, an embedder whose answers come when told, and calls that wait."""

    def __init__(self, limit: int = 100) -> None:
        self.rows: dict[int, str] = {}  # what each row that is given out holds
        self.free: list[int] = []
        self.units: list[tuple[Sending, list[int], Callable[[Outcome], None]]] = []
        self.calls: list[Callable[[], None]] = []
        self.answers: dict[int, Outcome] = {}
        self.known = KnownTexts(limit)
        self.equal = EqualTexts(self.known, self.embed, self.copy, self.calls.append)
        self.embedded = Counter[str]()
        self.inside = False

    def embed(self, sending: Sending, places: list[int], back: Callable[[Outcome], None]) -> None:
        assert places
        self.units.append((sending, places, back))

    def copy(self, rows: Sequence[int], others: Sequence[int]) -> None:
        for row, other in zip(rows, others, strict=True):
            assert other in self.rows, "a row was written to that is not given out any more"
            self.rows[other] = self.rows[row]

    def release(self, rows: Sequence[int]) -> None:
        for row in rows:
            del self.rows[row]
        self.free += rows
        self.known.gone(rows)

    def send(self, number: int, texts: str, *, ahead: bool = False, keep: bool = True, plain: bool = False) -> Sending:
        rows = list[int]()
        for _ in texts:
            rows.append(self.free.pop() if self.free else len(self.rows))
            self.rows[rows[-1]] = ""
        digests = [NO_DIGEST if plain else ord(text) for text in texts]
        answer = partial(self.answered, number, texts, rows, keep)
        sending = Sending(texts, digests, rows, ahead, answer, left=len(texts))
        self.inside = True
        self.equal.send(sending)
        self.inside = False
        return sending

    def answered(self, number: int, texts: str, rows: list[int], keep: bool, outcome: Outcome) -> None:
        assert not self.inside, "it was answered within the call"
        assert number not in self.answers, "it was answered twice"
        assert not any(sending.rows is rows for sending, _, _ in self.units), "the embedder still writes to its rows"
        self.answers[number] = outcome
        if outcome.fate == "done":
            assert [self.rows[row] for row in rows] == list(texts)
            if not keep:
                self.release(rows)
        elif keep:  # and put something else there
            self.rows.update(dict.fromkeys(rows, "?"))
        else:
            self.release(rows)

    def back(self, place: int, outcome: Outcome = DONE) -> None:
        """Let the embedder answer one of its units."""
        sending, places, back = self.units.pop(place)
        if outcome.fate == "done":
            for at in places:
                assert sending.rows[at] in self.rows
                self.rows[sending.rows[at]] = sending.texts[at]
                self.embedded[sending.texts[at]] += 1
        back(outcome)

    def settle(self) -> None:
        while self.calls:
            self.calls.pop(0)()

    def run(self) -> None:
        """Let the embedder answer everything."""
        while self.units or self.calls:
            while self.units:
                self.back(0)
            self.settle()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_equal_texts_under_way_are_embedded_once(bench: Bench) -> None:
    bench.send(0, "abc")
    bench.send(1, "xab")
    bench.send(2, "aaab")
    bench.send(3, "ab")
    assert [places for _, places, _ in bench.units] == [[0, 1, 2], [0]]
    bench.back(1)
    assert not bench.answers
    bench.back(0)
    assert set(bench.answers) == {0}, "whoever asked is answered at once, others after that"
    bench.settle()
    assert set(bench.answers) == {0, 1, 2, 3}
    assert (bench.equal.computed, bench.equal.reused) == (4, 8)


def test_a_text_that_is_known_is_not_embedded_again(bench: Bench) -> None:
    bench.send(0, "ab")
    bench.run()
    bench.send(1, "ba")
    assert not bench.units
    assert set(bench.answers) == {0}
    bench.settle()
    assert bench.answers[1].fate == "done"
    bench.send(2, "bcb")
    assert [places for _, places, _ in bench.units] == [[1]]
    bench.run()
    assert bench.answers[2].fate == "done"


def test_a_text_twice_in_one_sending_is_embedded_once(bench: Bench) -> None:
    bench.send(0, "aba")
    bench.run()
    assert bench.embedded == Counter("ab")
    assert (bench.equal.computed, bench.equal.reused) == (2, 1)


def test_a_row_that_was_given_back_is_not_found(bench: Bench) -> None:
    sending = bench.send(0, "a", keep=False)
    bench.run()
    assert len(bench.known) == 0
    bench.send(1, "b")
    bench.run()
    assert bench.known.find(ord("a")) is None
    assert bench.known.find(ord("b")) == sending.rows[0], "the row was not used again: this tests nothing"
    bench.send(2, "a")
    bench.run()
    assert bench.embedded == Counter("aab")


def test_what_goes_ahead_does_not_wait_for_what_does_not(bench: Bench) -> None:
    bench.send(0, "a")
    bench.send(1, "a", ahead=True)
    bench.send(2, "a")
    assert len(bench.units) == 2
    bench.back(1)
    bench.settle()
    assert set(bench.answers) == {1}
    bench.run()
    assert set(bench.answers) == {0, 1, 2}


def test_what_does_not_go_ahead_waits_for_what_does(bench: Bench) -> None:
    bench.send(0, "a", ahead=True)
    bench.send(1, "a", ahead=True)
    bench.send(2, "a")
    assert len(bench.units) == 1
    bench.run()
    assert set(bench.answers) == {0, 1, 2}


@pytest.mark.parametrize("outcome", [REFUSED, KILLED], ids=["refused", "killed"])
def test_those_that_waited_for_what_failed_are_embedded_for_themselves(bench: Bench, outcome: Outcome) -> None:
    bench.send(0, "ab")
    bench.send(1, "b")
    bench.send(2, "cb")
    bench.back(0, outcome)
    assert bench.answers == {0: outcome}
    bench.run()
    assert [bench.answers[number].fate for number in (1, 2)] == ["done", "done"]
    assert bench.embedded == Counter("bc"), "one of the two waits for the other"


def test_a_sending_is_not_answered_while_the_embedder_writes_to_its_rows(bench: Bench) -> None:
    bench.send(0, "a")
    bench.send(1, "ba")
    bench.back(0, REFUSED)  # now the second has both of its texts there, in two units
    assert [places for _, places, _ in bench.units] == [[0], [1]]
    bench.back(0, KILLED)
    assert set(bench.answers) == {0}
    bench.back(0)
    assert bench.answers[1] == KILLED
    assert len(bench.known) == 0, "a row of a failed sending stays known"


def test_nothing_is_written_for_a_sending_that_has_failed(bench: Bench) -> None:
    """It may wait for a text all the same; its rows are somebody else's by then."""
    bench.send(0, "a")
    bench.send(1, "c")
    failed = bench.send(2, "bac", keep=False)
    bench.back(2, REFUSED)
    assert bench.answers == {2: REFUSED}
    others = bench.send(3, "xyz")
    assert set(others.rows) == set(failed.rows)
    bench.back(2)
    bench.back(0)  # "a" is there
    bench.back(0, REFUSED)  # "c" never
    assert not bench.units
    bench.settle()
    assert [bench.rows[row] for row in others.rows] == ["x", "y", "z"]
    assert bench.equal.reused == 0


def test_what_is_put_into_rows_of_a_sending_that_failed_is_not_taken_for_its_texts(bench: Bench) -> None:
    bench.send(0, "a")
    bench.send(1, "ba")
    bench.back(0, REFUSED)
    bench.back(0)  # "b" of the second is there
    bench.back(0, REFUSED)  # "a" is not
    assert bench.answers[1] == REFUSED
    assert len(bench.known) == 0


def test_when_the_embedder_is_down_all_are_told(bench: Bench) -> None:
    bench.send(0, "a")
    bench.send(1, "ab")
    bench.send(2, "a")
    while bench.units:
        bench.back(0, DOWN)
    bench.settle()
    assert [bench.answers[number].fate for number in range(3)] == ["down"] * 3


def test_texts_without_a_digest_are_all_embedded(bench: Bench) -> None:
    for number in range(3):
        bench.send(number, "aa", plain=True)
    bench.run()
    assert bench.embedded == Counter(a=6)
    assert bench.equal.reused == len(bench.known) == 0


SENDS = st.tuples(st.just("send"), st.text("abcd", max_size=4), st.booleans(), st.booleans())
BACKS = st.tuples(st.just("back"), st.integers(0, 9), st.sampled_from([DONE, DONE, DONE, REFUSED, KILLED]), st.none())
CALLS = st.tuples(st.just("settle"), st.none(), st.none(), st.none())


@given(st.lists(st.one_of(SENDS, BACKS, BACKS, CALLS), max_size=50), st.integers(1, 6))
def test_whatever_happens_each_is_answered_once_and_rightly(steps: list[tuple[str, ...]], limit: int) -> None:
    bench, sent, failures = Bench(limit), 0, 0
    for what, first, second, third in steps:
        if what == "send":
            bench.send(sent, first, ahead=bool(second), keep=bool(third))
            sent += 1
        elif what == "back" and bench.units:
            failures += second is not DONE  # type: ignore[comparison-overlap]
            bench.back(int(first) % len(bench.units), second)  # type: ignore[arg-type]
        elif what == "settle":
            bench.settle()
        assert len(bench.known) <= limit
        for digest in map(ord, "abcd"):
            row = bench.known.find(digest)
            assert row is None or bench.rows[row] == chr(digest), "a row is known that holds another vector"
    bench.run()
    assert sorted(bench.answers) == list(range(sent))
    assert all(outcome.fate == "done" for outcome in bench.answers.values()) or failures
    assert not bench.equal._coming
    assert not bench.equal._waiting


@given(st.lists(st.text("abcd", min_size=1, max_size=4), max_size=12))
def test_each_text_is_embedded_once_where_nothing_fails_and_all_are_kept(texts: list[str]) -> None:
    bench = Bench()
    for number, text in enumerate(texts):
        bench.send(number, text)
    bench.run()
    assert bench.embedded == Counter(set("".join(texts)))
    assert bench.equal.reused == len("".join(texts)) - len(bench.embedded)

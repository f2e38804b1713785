from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_pipeline import config
from mos_pipeline.runtime.vector_pool import VectorPool
from mos_pipeline.stages.backend import Prepared, Vectors
from mos_pipeline.stages.embed import EmbedStage
from mos_pipeline.stages.fake_backend import FakeBackend
from mos_pipeline.stages.tuning import FIRST_PIECES

FAKE = config.Embedding(backend="fake")


class Clock:
    """Goes on only when a backend works: a word piece, padding included, takes 0.1 ms, a batch 10 ms."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Backend(FakeBackend):
    """The fake one, which takes the clock's time, notes its batches and refuses some words."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(FAKE)
        self.clock = clock
        self.batches: list[list[str]] = []

    def prepare(self, texts: Sequence[str], *, query: bool = False) -> list[Prepared]:
        if any("unsplittable" in text for text in texts):
            raise TypeError("no such text")
        return super().prepare(texts, query=query)

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        if any("poison" in item.content for item in items):
            raise RuntimeError("poisoned")
        self.clock.now += 0.010 + 0.0001 * len(items) * max(item.length for item in items)
        self.batches.append([" ".join(item.content) for item in items])
        return super().encode(items)


class Dividing(Backend):
    """One that divides batches by itself, and fills texts up to tens of words: a text takes what that comes to."""

    divides = True

    def taken(self, length: int) -> int:
        return -(-length // 10) * 10

    def encode(self, items: Sequence[Prepared]) -> Vectors:
        now = self.clock.now
        found = super().encode(items)
        self.clock.now = now + 0.010 + 0.0001 * sum(self.taken(item.length) for item in items)
        return found


class Report:
    """Keeps what a stage says, and checks that work is announced before it is handed in."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.results: dict[int, Any] = {}
        self.failures: dict[int, str] = {}

    def started(self, unit_ids: Sequence[int]) -> None:
        self.events.append(("started", list(unit_ids)))

    def piece(self, unit_id: int, piece: Any) -> None:
        raise AssertionError("it answers whole")

    def done(self, unit_id: int, result: Any) -> None:
        assert unit_id not in self.results
        self.events.append(("done", unit_id))
        self.results[unit_id] = result

    def failed(self, unit_id: int, message: str) -> None:
        self.events.append(("failed", unit_id))
        self.failures[unit_id] = message

    def metered(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError("it calls no model")

    def endpoint(self, down_since: float | None) -> None:
        raise AssertionError("it asks no endpoint")


class Bench:
    """A prepared stage with a pool to write to."""

    def __init__(self, backend: type[Backend] = Backend, **changes: Any) -> None:
        self.clock = Clock()
        self.backend = backend(self.clock)
        self.pool = VectorPool(384, 65536)
        self.stage = EmbedStage(config.Embedding(backend="fake", **changes), self.clock, self.backend)
        self.info = self.stage.prepare()
        self.backend.batches.clear()
        self.report = Report()
        self.rows: dict[int, Any] = {}

    def embed(self, unit_id: int, texts: list[str], kind: str = "embed") -> None:
        self.rows[unit_id] = self.pool.allocate(1, len(texts))
        addresses = [list(self.pool.address(int(row))) for row in self.rows[unit_id]]
        self.stage.accept(unit_id, kind, [texts, addresses])

    def run(self) -> Report:
        for _ in range(1000):
            if not self.stage.pending:
                return self.report
            self.stage.step(self.report)
        raise AssertionError("work is left that no step does")

    def vectors(self, unit_id: int) -> Vectors:
        return self.pool.read(self.rows[unit_id])

    def close(self) -> None:
        self.stage.close()
        self.pool.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def expected(texts: list[str]) -> Vectors:
    backend = FakeBackend(FAKE)
    return backend.encode(backend.prepare(texts))


texts_of_units = st.lists(st.lists(st.text(max_size=30), max_size=10), max_size=8)


@settings(max_examples=25, deadline=None)
@given(texts_of_units, st.integers(64, 2048), st.data())
def test_every_vector_lands_in_its_row(units: list[list[str]], pieces: int, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    with contextlib.closing(Bench(batch_word_pieces=pieces)) as bench:
        for unit_id, texts in enumerate(units):
            bench.embed(unit_id, texts)
            if steps[unit_id]:
                bench.stage.step(bench.report)
        report = bench.run()
        assert report.failures == {}
        assert report.results == {unit_id: len(texts) for unit_id, texts in enumerate(units)}
        for unit_id, texts in enumerate(units):
            assert not texts or np.array_equal(bench.vectors(unit_id), expected(texts))


def test_prepare_tells_the_identity_and_measures(bench: Bench) -> None:
    identity = {"model": "fake", "dimension": 384, "digest": "fake-1", "backend": "fake", "precision": "fp32"}
    told = {"batch_word_pieces": FIRST_PIECES, "ms_per_batch": pytest.approx(10 + 0.1 * FIRST_PIECES, rel=0.01)}
    assert bench.info == {**identity, "threads": 1, **told}


@pytest.mark.parametrize(("backend", "batches"), [(Backend, 2), (Dividing, 1)])
def test_texts_of_all_lengths_go_together_where_the_backend_divides_them(backend: type[Backend], batches: int) -> None:
    with contextlib.closing(Bench(backend, batch_word_pieces=600)) as bench:
        texts = ["word " * 10] * 5 + ["word " * 200] * 2
        bench.embed(1, texts)
        bench.run()
        assert len(bench.backend.batches) == batches
        assert np.array_equal(bench.vectors(1), expected(texts))


def test_a_divided_batch_has_as_many_texts_as_it_has_room_for_when_they_are_filled_up() -> None:
    with contextlib.closing(Bench(Dividing, batch_word_pieces=512)) as bench:
        bench.embed(1, ["word " * 9] * 99)
        bench.run()
        longest = max(item.length for item in bench.backend.prepare(["word " * 9]))
        full = 512 // bench.backend.taken(longest)  # type: ignore[attr-defined]
        assert [len(batch) for batch in bench.backend.batches] == [full] * (99 // full) + [99 % full]


def test_what_divided_batches_take_is_predicted_by_what_is_computed() -> None:
    with contextlib.closing(Bench(Dividing, batch_word_pieces=512)) as bench:
        assert bench.info["ms_per_batch"] == pytest.approx(10 + 0.1 * 512, rel=0.01)


def test_a_query_comes_back_as_bytes_and_overtakes(bench: Bench) -> None:
    bench.embed(1, ["many words " * 20] * 30)
    bench.stage.step(bench.report)
    bench.stage.accept(2, "query", ["where is it"])
    bench.stage.step(bench.report)
    assert bench.report.events[-2:] == [("started", [2]), ("done", 2)]
    assert bench.report.results[2] == expected(["where is it"]).tobytes()
    assert bench.run().results[1] == 30


def test_batches_stay_short_for_a_while_after_a_query(bench: Bench) -> None:
    bench.embed(1, ["word " * 48] * 80)  # 50 pieces: 4 in 30 ms
    bench.stage.accept(2, "query", ["where is it"])
    bench.stage.step(bench.report)
    bench.stage.step(bench.report)
    assert len(bench.backend.batches[-1]) == int(25 / 0.1 / 50)
    bench.clock.now += 1.0
    bench.stage.step(bench.report)
    assert len(bench.backend.batches[-1]) == FIRST_PIECES // 50


def test_a_step_computes_one_batch_and_announces_only_its_units(bench: Bench) -> None:
    bench.embed(1, ["long text " * 100] * 2)
    bench.embed(2, ["short"] * 3)
    bench.stage.step(bench.report)
    assert len(bench.backend.batches) == 1
    assert bench.report.events[0] == ("started", [1])
    bench.run()
    started = [event for event in bench.report.events if event[0] == "started"]
    assert started == [("started", [1]), ("started", [2])]


def test_long_texts_are_cut_before_they_are_split(bench: Bench) -> None:
    bench.embed(1, ["word " * 1_000_000])
    bench.run()
    assert len(bench.backend.batches[0][0]) <= config.Embedding().max_chars


def test_lone_surrogates_are_no_obstacle(bench: Bench) -> None:
    bench.embed(1, ["half of \ud83d an emoji"])
    assert bench.run().results == {1: 1}
    assert np.array_equal(bench.vectors(1), expected(["half of ? an emoji"]))


@pytest.mark.parametrize("text", ["poison", "unsplittable"])
def test_only_the_unit_with_a_refused_text_fails(text: str, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        bench.embed(1, ["good one"] * 9)
        bench.embed(2, ["good one", text, "word " * 900])
        bench.embed(3, ["good one"] * 9)
        bench.run()
    assert bench.report.results == {1: 9, 3: 9}
    assert bench.report.failures == {2: "RuntimeError: poisoned" if text == "poison" else "TypeError: no such text"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert np.array_equal(bench.vectors(3), expected(["good one"] * 9))
    assert not bench.stage.pending


def test_a_refused_query_fails_alone(bench: Bench) -> None:
    bench.stage.accept(1, "query", ["poison"])
    bench.stage.accept(2, "query", ["fine"])
    bench.run()
    assert set(bench.report.failures) == {1}
    assert set(bench.report.results) == {2}


def test_rows_that_are_gone_fail_their_unit_only(bench: Bench) -> None:
    bench.embed(1, ["one"])
    bench.stage.accept(2, "embed", [["two"], [["mos-1-1-gone", 0]]])
    bench.stage.accept(3, "embed", [["three"], []])
    bench.stage.accept(4, "embed", [["four"], [[bench.pool.address(0)[0], 10**6]]])
    bench.run()
    assert set(bench.report.failures) == {2, 3, 4}
    assert bench.report.failures[3].endswith("0 rows for 1 texts")
    assert bench.report.results == {1: 1}


def test_an_unknown_kind_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="kind 'summary'"):
        bench.stage.accept(1, "summary", [])


def test_a_broken_pipe_is_no_fault_of_the_text(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(bench.report, "done", broken)
    bench.embed(1, ["good one"])
    with pytest.raises(BrokenPipeError):
        bench.run()
    assert bench.report.failures == {}


def test_a_queue_longer_than_the_lookahead_is_worked_off(bench: Bench) -> None:
    for unit_id in range(60):
        bench.embed(unit_id, [f"text {unit_id} {i}" for i in range(9)])
    bench.stage.accept(60, "query", ["urgent"])
    bench.stage.step(bench.report)
    assert list(bench.report.results) == [60]
    assert len(bench.run().results) == 61


def test_a_unit_sent_ahead_passes_a_long_queue() -> None:
    with contextlib.closing(Bench(batch_word_pieces=64)) as bench:
        for unit_id in range(60):
            bench.embed(unit_id, [f"text {unit_id} {i}" for i in range(9)])
        bench.stage.step(bench.report)
        bench.embed(60, ["ahead", "of many others"], "ahead")
        while 60 not in bench.report.results:
            bench.stage.step(bench.report)
        assert len(bench.report.results) < 9
        assert np.array_equal(bench.vectors(60), expected(["ahead", "of many others"]))
        assert len(bench.run().results) == 61

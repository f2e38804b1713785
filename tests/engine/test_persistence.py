"""What the writer is given, what counts as written, and when a journal goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from mos_pipeline.config import Store
from mos_pipeline.engine.desk import Desk
from mos_pipeline.engine.persistence import Persistence
from mos_pipeline.runtime.supervisor import Outcome, Supervisor
from mos_pipeline.store.reading import PageReader
from tests.engine import desk as intakes


class SlowWriter(Desk):
    """Keeps the work until it is told to answer, as a writer does that has much to do."""

    def __init__(self) -> None:
        super().__init__(lambda call: call())
        self.supervisor = cast(Supervisor, object())
        self.asked: list[tuple[str, Any, Any]] = []

    def submit(self, role: str, kind: str, payload: Any, answer: Any, **_: bool) -> int:
        self.asked.append((kind, payload, answer))
        return len(self.asked)

    def answer(self, result: Any = None, fate: Literal["done", "down"] = "done") -> None:
        _, _, answer = self.asked.pop(0)
        answer(Outcome(0, fate, result))


class Writing:
    def __init__(self, intake: intakes.Desk) -> None:
        self.intake = intake
        self.writer = SlowWriter()
        reader = PageReader(intake.store.segments, 0)
        config = Store(frame_pages=4, flush_interval_s=1000.0)
        self.persistence = Persistence(config, reader, self.writer, intake.store.retire)
        self.entered = 0

    def enter(self, text: str = "hello") -> None:
        self.intake.add(text)
        self.persistence.page(self.entered, self.intake.intake.accepted[-1])
        self.entered += 1

    def journals_left(self) -> list[int]:
        return [number for number, journal in enumerate(self.intake.made) if journal.path.exists()]


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    with intakes.desk(path) as intake:
        yield Writing(intake)


def test_pages_count_as_written_when_the_writer_says_so(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        for _ in range(6):
            w.enter()
        assert w.persistence.written(0)
        assert not w.persistence.written(1)
        w.persistence.hand_over(everything=True)
        assert [kind for kind, _, _ in w.writer.asked] == ["pages", "pages"]
        assert not w.persistence.written(1)
        assert not w.persistence.idle
        w.writer.answer([(1, 0, 0, 4)])
        assert w.persistence.written(4)
        assert not w.persistence.written(5)
        w.writer.answer([(1, 100, 4, 2)])
        assert w.persistence.written(6)
        assert w.persistence.idle


def test_a_journal_goes_when_it_is_full_and_all_its_pages_are_written(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        for _ in range(4):
            w.enter("x" * 40_000)  # one in each journal
            w.persistence.hand_over(everything=True)
        assert w.journals_left() == [0, 1, 2, 3]
        for number in range(3):
            w.writer.answer([(1, number, number, 1)])
            assert w.journals_left() == list(range(number + 1, 4))
        w.writer.answer([(1, 3, 3, 1)])
        assert w.journals_left() == [3]  # it takes the next page
        w.enter("it is still there")
        w.persistence.hand_over(everything=True)
        w.writer.answer([(1, 4, 4, 1)])
        assert w.journals_left() == [3]
        w.enter("x" * 40_000)  # its successor is begun when all its pages are written already
        assert w.journals_left() == [4]


def test_a_writer_that_is_down_has_written_nothing(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        w.enter()
        w.persistence.hand_over(everything=True)
        w.persistence.identity({})
        w.writer.answer(fate="down")
        w.writer.answer(fate="down")
        assert not w.persistence.written(1)
        assert not w.persistence.idle
        assert w.journals_left() == [0]

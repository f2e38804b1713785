"""What was read of a page to be embedded is there for its tasks, once, while it is short and not forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mos_pipeline.engine import task_pages
from mos_pipeline.engine.task_pages import TaskPages
from mos_pipeline.messages import PageRecord, encode


class Reader:
    """Has every page, and notes which were read."""

    def __init__(self) -> None:
        self.read = list[int]()

    def read_many(self, seqs: Sequence[int]) -> list[bytes]:
        self.read += seqs
        return [encode(tuple(page(seq))) for seq in seqs]


def page(seq: int, length: int = 1) -> PageRecord:
    return PageRecord("ann", "", f"said {seq} " * length, "answered", "2024-01-01", None, None, None)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def pages(reader: Reader) -> TaskPages:
    return TaskPages(reader)  # type: ignore[arg-type]


def test_what_was_read_is_not_read_again_but_once_only(pages: TaskPages, reader: Reader) -> None:
    for seq in (2, 4):
        pages.remember(seq, page(seq))
    seen = [[f"said {seq} ", "answered", "2024-01-01"] for seq in (1, 2, 3, 4)]
    assert pages.take([1, 2, 3, 4]) == seen
    assert reader.read == [1, 3]
    assert pages.take([2]) == seen[1:2]
    assert reader.read == [1, 3, 2]


def test_long_and_forgotten_pages_are_not_kept_nor_too_many(
    pages: TaskPages, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_pages, "MOST_KEPT", 2)
    pages.remember(0, page(0, task_pages.SHORT_CHARS))
    for seq in (1, 2, 3):
        pages.remember(seq, page(seq))
    pages.forget([3, 7])
    pages.take([0, 1, 2, 3])
    assert reader.read == [0, 1, 3]

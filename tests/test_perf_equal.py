"""The bench of equal texts: it measures what it says, on texts of which no two are equal."""

from __future__ import annotations

import pytest

from mos_pipeline.config import Embedding
from mos_pipeline.engine.equal_texts import EqualTexts
from perf import equal
from perf.options import Options


def test_it_runs_and_each_figure_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[EqualTexts]()

    class Noted(EqualTexts):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr("mos_pipeline.engine.embedding.EqualTexts", Noted)
    monkeypatch.setattr(equal, "_memory", lambda: 1.0)  # it traces every allocation, which takes seconds
    result = equal.run(Options(quick=True, pages=90))
    assert [figure.unit for figure in result.figures] == ["µs", "µs", "bytes"]
    assert result.figures[1].median > 0
    counts = {(one.computed, one.reused) for one in made}
    assert counts == {(90, 90), (180, 0)}, "with the table each text is found the second time, and not before"


def test_the_memory_of_a_known_text_is_counted() -> None:
    assert 24 < equal._memory() < equal.MOST_BYTES
    assert Embedding().known_texts > 1000

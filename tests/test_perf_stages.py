"""Memory and stages over time, the ways of embedding: their logic, and small runs of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import pytest

from mos_pipeline import MemoryPipeline, config
from perf import memory, variants
from perf.children import Child
from perf.memory import Part
from perf.options import Options
from perf.timeline import STAGES, WAITING, Moment, Timeline, curves
from perf.watching import Sampler

MB = 1_000_000
DEADLINE_S = 30.0


def parts(page_bytes: int, extra: int = 0, peak: int = 0) -> list[Part]:
    """Return ten parts of 100,000 pages, ``extra`` and ``peak`` bytes more in the last one."""
    found = []
    for number in range(1, 11):
        pages, last = 100_000 * number, number == 10
        rest = 150 * MB + page_bytes * pages + last * extra
        found.append(Part(pages, 1.0, rest, rest + 5 * MB + last * peak, pages))
    return found


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (parts(2500), []),
        (parts(1800), []),
        (parts(2500, extra=16 * MB, peak=-16 * MB), []),
        (parts(2500, extra=17 * MB, peak=-17 * MB), ["last tenth less first"]),
        (parts(2520), ["last tenth less first", "at the peak, last tenth less first"]),
        (parts(2500, peak=17 * MB), ["at the peak, last tenth less first"]),
    ],
)
def test_memory_that_grows_beyond_its_pages_misses_its_aim(found: list[Part], missed: list[str]) -> None:
    told = {figure.name.partition(", ")[2]: figure for figure in memory.figures(found)}
    assert [name for name, figure in told.items() if figure.met is False] == missed
    assert sum(figure.met is not None for figure in told.values()) == 2


def test_the_parts_of_a_million_are_tenths() -> None:
    assert memory._sizes(1_000_000) == [100_000] * 10
    assert sum(memory._sizes(5_003)) == 5_003


@pytest.mark.slow
def test_memory_is_looked_at_in_each_tenth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = memory.run(Options(quick=True, pages=200, folder=tmp_path))
    assert all(len(series.points) == 10 for series in result.series)
    assert {series.points[-1][0] for series in result.series} == {200.0}
    (rest,) = (series for series in result.series if series.name == "at rest" and "all" in series.plot)
    assert all(1 < value < 10_000 for _, value in rest.points)
    assert capsys.readouterr().err.count("memory: ") == 10
    assert not any(tmp_path.iterdir())


def test_a_sampler_looks_until_its_block_is_left() -> None:
    looked = Event()

    def look() -> int:
        looked.set()
        return 3

    with Sampler(look, 0.001) as sampler:
        assert looked.wait(DEADLINE_S)
    assert set(sampler.seen) == {3}


def test_what_a_sampler_meets_is_raised() -> None:
    looked = Event()

    def look() -> None:
        looked.set()
        raise OSError("no such process")

    with pytest.raises(OSError, match="no such process"), Sampler(look, 0.001):
        assert looked.wait(DEADLINE_S)


def test_curves_tell_pages_their_rates_and_what_waits() -> None:
    moments = [Moment(float(at), (10 * at, 5 * at, 2 * at, at), (5 * at, 3 * at, 9 * at)) for at in range(500)]
    found = {(series.plot, series.name): series for series in curves(moments)}
    assert len(found) == 2 * len(STAGES) + len(WAITING)
    assert {len(series.points) for (plot, _), series in found.items() if plot != "throughput by stage"} == {60}
    assert len(found["throughput by stage", "written"].points) == 20
    assert {rate for _, rate in found["throughput by stage", "embedded"].points} == {5.0}
    assert found["pages by stage", "accepted"].points[-1] == (499.0, 4990.0)
    assert found["backlog by stage", WAITING[2]].points[-1] == (499.0, 9.0 * 499)
    assert [x for x, _ in curves(moments[:3])[0].points] == [1.0, 2.0]


def test_pages_are_followed_through_the_stages(tmp_path: Path) -> None:
    with MemoryPipeline.open(tmp_path, embedding__backend="fake", short_term__capacity=2) as pipeline:
        timeline = Timeline(pipeline)
        for _ in range(2):
            with timeline.watched():
                for number in range(4):
                    pipeline.add("user", f"I have cat {number}.", "")
                pipeline.wait_idle(DEADLINE_S)
    assert timeline.moments[0].passed[0] == 0
    assert timeline.moments[-1].passed == (8, 8, 8, 8)
    assert timeline.moments[-1].waiting == (0, 0, 0)
    seconds = [moment.seconds for moment in timeline.moments]
    assert seconds == sorted(seconds)


def test_each_way_of_embedding_has_its_own_aims() -> None:
    settings = config.Embedding()
    assert variants.variant_of(settings) is variants.FP32
    assert variants.is_plain(settings)
    assert variants.is_plain(replace(settings, threads=1))
    assert not variants.is_plain(replace(settings, backend="fake"))
    assert variants.plain(replace(settings, backend="fake", threads=1)) == replace(settings, threads=1)
    assert [variant.over_mem0 for variant in variants.VARIANTS] == [3.5, 7.0, 90.0]


def test_the_command_line_s_choice_is_the_only_way() -> None:
    assert variants.wanted(Options(settings={"embedding__threads": 1})) == list(variants.VARIANTS)
    (chosen,) = variants.wanted(Options(settings={"embedding__backend": "fake"}))
    assert (chosen.name, chosen.settings) == ("fp32", {})


@pytest.mark.slow
@pytest.mark.model
def test_a_process_encodes_plainly() -> None:
    with Child("raw", json.dumps(asdict(config.Embedding(threads=1))), "raw") as child:
        assert child.ask("encode", texts=["a cat", "a dog"]) > 0

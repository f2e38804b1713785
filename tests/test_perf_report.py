"""The page of results: what is in it, and what a browser makes of it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from perf import __main__ as harness
from perf.drawing import THEMES, drawn
from perf.machine import commit, machine
from perf.page import command, page
from perf.report import pictures
from perf.result import BenchResult, Figure, Series, at_least, at_most, plots

CLIFF = Series("the cliff", "ours", "add, in order", "µs", [(float(x), 100.0) for x in range(1, 21)])
THEIRS = CLIFF.__class__(
    "the cliff", "theirs", "add, in order", "µs", [(float(x), 10.0 ** (x // 4)) for x in range(1, 21)]
)
BARS = [Series.bar("disk", name, "bytes", value) for name, value in (("mos_pipeline", 1100.0), ("memoryos-pro", 3e4))]
GROWTH = Series("growth", "add", "pages", "µs", [(1000.0, 10.0), (10_000.0, 11.0), (100_000.0, 10.5)])


def _read(source: io.BytesIO | Path) -> npt.NDArray[Any]:
    from matplotlib.image import imread  # late: each process that runs tests collects this file

    read: npt.NDArray[Any] = imread(source)
    return read


def report(*series: Series, **more: Any) -> dict[str, Any]:
    figures = [
        Figure("add <in bursts>", "µs", 3, 1234.5, 2000.0, aims=(at_most(2000),), note="with & without"),
        Figure("share", "", 3, 0.5, aims=(at_least(0.9),)),
    ]
    result = BenchResult("append", {}, figures, series=list(series), **more)
    return {
        "benches": {"append": result.as_dict()},
        "machine": machine(),
        "commit": commit(),
        "time": "2026-01-01T00:00:00+00:00",
        "arguments": {
            "bench": ["append"],
            "quick": True,
            "pages": 60,
            "dataset": None,
            "dir": "/somewhere",
            "check": False,
        },
    }


def test_series_of_a_plot_are_drawn_together() -> None:
    told = json.loads(json.dumps(report(CLIFF, GROWTH, THEIRS, Series("empty", "a", "x", "y", []))))
    found = dict(plots(told["benches"]["append"]))
    assert {name: [series.name for series in drawn_] for name, drawn_ in found.items()} == {
        "the cliff": ["ours", "theirs"],
        "growth": ["add"],
    }


def test_the_page_has_everything_and_asks_nobody() -> None:
    told = page([report(CLIFF, THEIRS, others=1.5)])
    assert told.count("<figure>") == 1
    assert "python -m perf append --quick --pages 60</code>" in told
    assert "/somewhere" not in told
    assert "add &lt;in bursts&gt;" in told
    assert "with &amp; without" in told
    assert '<span class="missed">no</span>' in told
    assert "rough, other processes used 1.50 cores" in told
    assert "<td>100,000</td>" in told  # theirs, among the numbers of the plot
    assert "<td>1,234</td>" in told
    assert "http" not in told.replace("http-equiv", "")


@pytest.mark.parametrize("theme", THEMES)
def test_a_plot_has_its_theme_s_colours(theme: str) -> None:
    picture = _read(io.BytesIO(drawn([CLIFF, THEIRS], theme, "png")))
    colours = THEMES[theme]
    for colour in (colours.background, *colours.curves[:2]):
        assert has(picture, colour), colour
    assert not has(picture, colours.curves[2])
    assert drawn([CLIFF], theme, "svg") == drawn([CLIFF], theme, "svg")


def test_the_cliff_is_drawn_for_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = BenchResult("cliff", {}, series=[CLIFF, THEIRS])
    monkeypatch.setattr(harness, "_bench", lambda _name: lambda _options: result)
    plot = tmp_path / "cliff.svg"
    assert harness.main(["cliff", "--plot", str(plot)]) == 0
    for theme in THEMES:
        shown = plot.with_name(f"cliff-{theme}.svg").read_text("utf-8")
        assert all(text in shown for text in ("ours", "theirs", THEMES[theme].background))


@pytest.mark.slow
@pytest.mark.parametrize(("theme", "scheme"), [("light", "1"), ("dark", "0")])
def test_a_browser_shows_it_light_and_dark(tmp_path: Path, theme: str, scheme: str) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here")
    file, shot = tmp_path / "result.json", tmp_path / "shot.png"
    file.write_text(json.dumps(report(CLIFF, THEIRS, GROWTH)), "utf-8")
    assert harness.main(["report", str(file), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"append-{name}-{theme}.png" for name in ("the-cliff", "growth") for theme in THEMES
    }
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += [f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1000,1600", f"--screenshot={shot}"]
    command = [browser, *options, (tmp_path / "out" / "report.html").as_uri()]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    picture = _read(shot)
    colours = THEMES[theme]
    for colour in (colours.background, *colours.curves[:2]):  # the page's, and the curves' in it
        assert has(picture, colour), colour
    assert not has(picture[:100], THEMES["dark" if theme == "light" else "light"].background)


def test_the_page_tells_what_is_missed_and_what_was_left_out() -> None:
    told = page([report(CLIFF, notes=("mem0ai is left out",))])
    assert "1 of 2 aims are met; missed are:</p><ul><li>append: share: 0.5" in told
    assert "<li>mem0ai is left out</li>" in told


def test_benches_are_told_one_by_one_the_cliff_first() -> None:
    told = report(CLIFF)
    told["benches"] = {"soak": told["benches"]["append"], "cliff": told["benches"]["append"]}
    assert [name for name, _ in pictures([told, told])] == [
        "soak-the-cliff",
        "cliff-the-cliff",
        "soak-the-cliff-again",
        "cliff-the-cliff-again",
    ]
    shown = page([told])
    assert 0 < shown.index(">cliff</h2>") < shown.index(">soak</h2>")
    assert "python -m perf soak --quick --pages 60</code>" in shown


def test_the_command_is_the_one_that_makes_the_result() -> None:
    given = {"k": [5, 10], "set": ["a.b=1", "c.d=x y"], "latency_ms": 350.0, "seconds": 20.0, "json": "x", "plot": None}
    assert command({"arguments": given}, "recall") == (
        "python -m perf recall --k 5,10 --set a.b=1 --set 'c.d=x y' --seconds 20"
    )
    assert command({"arguments": {"latency_ms": 20.0}}, "cliff") == "python -m perf cliff --latency-ms 20"
    quick = {"arguments": {"quick": True, "backend": "torch"}}  # else a quick profile is by the fake one
    assert command(quick, "profile") == "python -m perf profile --quick --backend torch"


@pytest.mark.parametrize("theme", THEMES)
def test_bars_tell_their_numbers_ours_in_its_own_colour(theme: str) -> None:
    colours = THEMES[theme]
    picture = _read(io.BytesIO(drawn(BARS, theme, "png")))
    assert all(has(picture, colour) for colour in colours.curves[:2])
    shown = drawn(BARS, theme, "svg").decode()
    assert all(text in shown for text in ("mos_pipeline", "memoryos-pro", "1,100", "30,000"))
    assert "<td>30,000</td>" in page([report(*BARS)])


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"benches": {}}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match=r"result\.json: no result of"):
        harness.main(["report", str(file), "--out", str(tmp_path)])


def has(picture: npt.NDArray[np.float32], colour: str) -> bool:
    """Return whether some pixels have this colour."""
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return bool((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum() > 20)

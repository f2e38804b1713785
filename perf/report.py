"""Results as one page to look at: ``python -m perf report RESULT.json … --out FOLDER``.

The results are those that ``--json`` of this harness writes. ``FOLDER/report.html`` holds everything and asks no
network: every plot with its numbers and the command that makes it, every figure with its aim; light or dark, as the
reader's system is. Beside it each plot is a PNG.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perf.drawing import THEMES, drawn
from perf.page import page
from perf.result import Series, plots
from perf.telling import read_report

__all__ = ["main", "pictures"]

NEEDED = "machine", "arguments", "time"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the pictures; return 0."""
    parser = argparse.ArgumentParser(prog="python -m perf report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("--out", type=Path, default=Path("perf/results"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    reports = [read_report(path, *NEEDED) for path in given.results]
    given.out.mkdir(parents=True, exist_ok=True)
    for name, series in pictures(reports):
        for theme in THEMES:
            (given.out / f"{name}-{theme}.png").write_bytes(drawn(series, theme, "png"))
    (given.out / "report.html").write_text(page(reports), "utf-8")
    print(given.out / "report.html")
    return 0


def pictures(reports: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Series]]]:
    """Yield the name of each plot's file, different for each, and what is drawn there."""
    taken = set[str]()
    for report in reports:
        for bench, result in report["benches"].items():
            for plot, series in plots(result):
                name = _slug(f"{bench} {plot}")
                while name in taken:
                    name += "-again"
                taken.add(name)
                yield name, series


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

"""Results as one page to look at: ``python -m perf report RESULT.json … --out FOLDER``.

The results are those that ``--json`` of this harness writes. ``FOLDER/report.html`` holds everything and asks no
network: every curve with its numbers and the command that makes them, every figure with its aim; light or dark, as the
reader's system is. Beside it each plot is a PNG.
"""

from __future__ import annotations

import argparse
import base64
import html
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perf.drawing import drawn
from perf.result import Series
from perf.telling import read_report

__all__ = ["main", "page", "plots"]

NEEDED = "machine", "arguments", "time"
STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #24292f; --soft: #57606a; --line: #d0d7de; --bad: #cf222e;
  --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #8b949e; --line: #30363d;
  --bad: #ff7b72; --good: #3fb950; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: .875rem; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: right; }
th:first-child, td:first-child, td.note { text-align: left; } td.note { color: var(--soft); min-width: 16rem; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
code { font-size: .875rem; } .soft, figcaption { color: var(--soft); font-size: .875rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } .rough { color: var(--bad); }
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and the pictures; return 0."""
    parser = argparse.ArgumentParser(prog="python -m perf report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("--out", type=Path, default=Path("perf/results"), metavar="FOLDER")
    given = parser.parse_args(arguments)
    reports = [read_report(path, *NEEDED) for path in given.results]
    given.out.mkdir(parents=True, exist_ok=True)
    for report in reports:
        for name, series in plots(report):
            for theme in ("light", "dark"):
                (given.out / f"{_slug(name)}-{theme}.png").write_bytes(drawn(series, theme, "png"))
    (given.out / "report.html").write_text(page(reports), "utf-8")
    print(given.out / "report.html")
    return 0


def plots(report: dict[str, Any]) -> Iterator[tuple[str, list[Series]]]:
    """Yield each plot of a result: its name, and what is drawn in it."""
    found: dict[str, list[Series]] = {}
    for result in report["benches"].values():
        for told in result.get("series", ()):
            points = [(float(x), float(y)) for x, y in told["points"]]
            if points:
                found.setdefault(told["plot"], []).append(Series(**{**told, "points": points}))
    yield from found.items()


def page(reports: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    body = "".join(part for report in reports for part in _sections(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>mos_pipeline: measured</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>mos_pipeline: measured</h1>{body}</body></html>\n"
    )


def _sections(report: dict[str, Any]) -> Iterator[str]:
    command = _command(report)
    yield f"<h2>{_text(', '.join(report['benches']))}</h2>"
    yield f"<p class=soft>{_text(_machine(report))}<br><code>{_text(command)}</code></p>"
    for bench, result in report["benches"].items():
        if not result["quiet"]:
            used = f"{result['others_cores']:.2f}"
            yield f"<p class=rough>{_text(bench)}: rough, other processes used {used} cores meanwhile</p>"
    for name, series in plots(report):
        yield _plot(name, series, command)
    for bench, result in report["benches"].items():
        yield f"<h3>{_text(bench)}: figures</h3>{_figures(result['figures'])}"


def _command(report: dict[str, Any]) -> str:
    """Return the command that made a result."""
    given = {name: value for name, value in report["arguments"].items() if name not in ("dir", "json", "check")}
    words = ["python", "-m", "perf", *(given.pop("bench", None) or report["benches"])]
    for name, value in given.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _machine(report: dict[str, Any]) -> str:
    machine, commit = report["machine"], report["commit"] or {}
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    revision = f"{commit.get('revision', 'no checkout')[:12]}{' with changes' if commit.get('modified') else ''}"
    memory = machine["memory_bytes"] / (1 << 30)
    return (
        f"{report['time']}, commit {revision}; {machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, {packages}"
    )


def _plot(name: str, series: Sequence[Series], command: str) -> str:
    light, dark = (base64.b64encode(drawn(series, theme, "svg")).decode() for theme in ("light", "dark"))
    head = "".join(f"<th>{_text(each.name)}</th>" for each in series)
    values = [dict(each.points) for each in series]
    rows = "".join(
        f"<tr><td>{_number(x)}</td>{''.join(f'<td>{_number(value.get(x))}</td>' for value in values)}</tr>"
        for x in sorted({x for value in values for x in value})
    )
    return (
        f"<figure><h3>{_text(name)}</h3><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{dark}">'
        f'<img alt="{_text(name)}, {_text(series[0].y)} over {_text(series[0].x)}" '
        f'src="data:image/svg+xml;base64,{light}"></picture>'
        f"<figcaption><code>{_text(command)}</code></figcaption>"
        f"<details><summary>Numbers</summary><table><tr><th>{_text(series[0].x)}</th>{head}</tr>{rows}</table></details>"
        "</figure>"
    )


def _figures(figures: Sequence[dict[str, Any]]) -> str:
    heads = ("figure", "unit", "n", "median", "p99", "max", "aim", "met", "note")
    rows = []
    for figure in figures:
        met = {True: '<span class="met">yes</span>', False: '<span class="missed">no</span>', None: ""}[figure["met"]]
        cells = [_text(figure["name"]), _text(figure["unit"]), str(figure["samples"])]
        cells += [_number(figure[name]) for name in ("median", "p99", "max")]
        cells += [_text(", ".join(figure["aims"])), met]
        told = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr>{told}<td class="note">{_text(figure["note"])}</td></tr>')
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in heads)}</tr>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(value: object) -> str:
    return html.escape(str(value))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

"""The page of results, HTML with everything in it."""

from __future__ import annotations

import base64
import html
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from perf.drawing import drawn
from perf.options import LATENCY_MS
from perf.result import Series, plots

__all__ = ["command", "page"]

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #24292f; --soft: #57606a; --line: #d0d7de; --bad: #cf222e;
  --good: #1a7f37; --link: #0969da; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #8b949e; --line: #30363d;
  --bad: #ff7b72; --good: #3fb950; --link: #58a6ff; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; max-width: 64rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } a { color: var(--link); }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; margin-top: 2.5rem; }
h3 { margin: 1.5rem 0 .25rem; font-size: 1rem; }
table { border-collapse: collapse; font-size: .8125rem; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .2rem .5rem; text-align: right; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
th:first-child, th:last-child, td:first-child, td.note { text-align: left; }
td:first-child { min-width: 14rem; }
td.note { color: var(--soft); min-width: 16rem; } td.aim { white-space: nowrap; }
details table td:first-child { min-width: 0; text-align: right; }
details.bars table td:first-child { text-align: left; }
summary { color: var(--soft); font-size: .875rem; cursor: pointer; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
code { font-size: .8125rem; overflow-wrap: anywhere; } .soft, figcaption { color: var(--soft); font-size: .875rem; }
ul.soft { padding-left: 1.25rem; } figure { margin: 1rem 0; }
img { width: 100%; max-width: 48rem; height: auto; display: block; }
.rough { color: var(--bad); font-size: .875rem; }
"""
LEFT_OUT = ("bench", "dir", "json", "check", "plot")  # of the arguments: what changes nothing in a result
DEFAULTS = {"latency_ms": LATENCY_MS}
# Of all benches these are told first, in this order: what most readers come for.
FIRST = ("cliff", "beside", "document", "ingest", "growth", "memory", "readers", "recall")


def page(reports: Sequence[dict[str, Any]]) -> str:
    """Return the page of some results."""
    told = sorted(
        ((report, bench) for report in reports for bench in report["benches"]), key=lambda each: _place(each[1])
    )
    links = " · ".join(f'<a href="#{_anchor(at)}">{_text(bench)}</a>' for at, (_, bench) in enumerate(told))
    body = "".join(part for at, (report, bench) in enumerate(told) for part in _bench(report, bench, _anchor(at)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>mos_pipeline: measured</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>mos_pipeline: measured</h1><p>{links}</p>{_missed(told)}{body}</body></html>\n"
    )


def _place(bench: str) -> int:
    return FIRST.index(bench) if bench in FIRST else len(FIRST)


def _anchor(number: int) -> str:
    return f"bench-{number}"


def _missed(told: Sequence[tuple[dict[str, Any], str]]) -> str:
    """Return how many aims are met, and which ones are not."""
    figures = [(bench, figure) for report, bench in told for figure in report["benches"][bench]["figures"]]
    judged = [(bench, figure) for bench, figure in figures if figure["met"] is not None]
    lines = "".join(
        f"<li>{_text(bench)}: {_text(figure['name'])}: {_number(figure['median'])} {_text(figure['unit'])} "
        f"({_text(', '.join(figure['aims']))})</li>"
        for bench, figure in judged
        if not figure["met"]
    )
    met = sum(figure["met"] for _, figure in judged)
    count = f"<p>{met} of {len(judged)} aims are met"
    return f"{count}; missed are:</p><ul>{lines}</ul>" if lines else f"{count}.</p>"


def _bench(report: dict[str, Any], bench: str, anchor: str) -> Iterator[str]:
    result, line = report["benches"][bench], command(report, bench)
    yield f'<h2 id="{anchor}">{_text(bench)}</h2>'
    yield f"<p class=soft><code>{_text(line)}</code><br>{_text(_machine(report))}</p>"
    if not result["quiet"]:
        used = f"{result['others_cores']:.2f}"
        yield f"<p class=rough>{_text(bench)}: rough, other processes used {used} cores meanwhile</p>"
    for name, series in plots(result):
        yield _plot(name, series, line)
    yield f"<h3>Figures</h3>{_figures(result['figures'])}"
    if notes := result.get("notes"):
        yield f"<ul class=soft>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>"
    settings = "".join(
        f"{_text(section)}: {_text(', '.join(f'{key} = {value}' for key, value in keys.items()))}<br>"
        for section, keys in result["configuration"].items()
        if isinstance(keys, dict)
    )
    if settings:
        yield f"<details><summary>Configuration</summary><p class=soft>{settings}</p></details>"


def command(report: dict[str, Any], bench: str) -> str:
    """Return the command that makes a bench's result."""
    words = ["python", "-m", "perf", bench]
    for name, value in report["arguments"].items():
        if name in LEFT_OUT or value in (None, False, []) or value == DEFAULTS.get(name):
            continue
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list) and name == "set":
            words += [word for each in value for word in (option, each)]
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, list) else _plain(value)]
    return shlex.join(words)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _machine(report: dict[str, Any]) -> str:
    machine, commit = report["machine"], report["commit"] or {}
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    revision = f"{commit.get('revision', 'no checkout')[:12]}{' with changes' if commit.get('modified') else ''}"
    memory = machine["memory_bytes"] / (1 << 30)
    return (
        f"{report['time']}, commit {revision}; {machine['cpu']}, {machine['cores']} cores, {memory:.0f} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}, {packages}"
    )


def _plot(name: str, series: Sequence[Series], line: str) -> str:
    light, dark = (_embedded(drawn(series, theme, "svg")) for theme in ("light", "dark"))
    first = series[0]
    over, kind = ("", ' class="bars"') if first.is_bar else (f" over {_text(first.x)}", "")
    return (
        f"<figure><h3>{_text(name)}</h3><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{_text(name)}, {_text(first.y)}{over}" src="{light}"></picture>'
        f"<figcaption><code>{_text(line)}</code></figcaption>"
        f"<details{kind}><summary>Numbers</summary>{_numbers(series)}</details></figure>"
    )


def _embedded(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _numbers(series: Sequence[Series]) -> str:
    if series[0].is_bar:
        rows = "".join(f"<tr><td>{_text(each.name)}</td><td>{_number(each.points[0][1])}</td></tr>" for each in series)
        return f"<table><tr><th></th><th>{_text(series[0].y)}</th></tr>{rows}</table>"
    head = "".join(f"<th>{_text(each.name)}, {_text(each.y)}</th>" for each in series)
    values = [dict(each.points) for each in series]
    rows = "".join(
        f"<tr><td>{_number(x)}</td>{''.join(f'<td>{_number(value.get(x))}</td>' for value in values)}</tr>"
        for x in sorted({x for value in values for x in value})
    )
    return f"<table><tr><th>{_text(series[0].x)}</th>{head}</tr>{rows}</table>"


def _figures(figures: Sequence[dict[str, Any]]) -> str:
    heads = ("figure", "unit", "n", "median", "p99", "max", "aim", "met", "note")
    rows = []
    for figure in figures:
        met = {True: '<span class="met">yes</span>', False: '<span class="missed">no</span>', None: ""}[figure["met"]]
        cells = [_text(figure["name"]), _text(figure["unit"]), f"{figure['samples']:,}"]
        cells += [_number(figure[name]) for name in ("median", "p99", "max")]
        told = "".join(f"<td>{cell}</td>" for cell in cells)
        aims = _text(", ".join(figure["aims"]))
        rows.append(
            f'<tr>{told}<td class="aim">{aims}</td><td>{met}</td><td class="note">{_text(figure["note"])}</td></tr>'
        )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in heads)}</tr>{''.join(rows)}</table>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(value: object) -> str:
    return html.escape(re.sub(r"\s+", " ", str(value)))

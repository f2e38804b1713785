"""Two results side by side: ``python -m perf compare A.json B.json --bound 1.2``.

The files are those that ``--json`` writes. Each figure of both is told with B's statistics over A's. Lower is better
where the unit is one of time or size, or the aim an upper one; higher where it is a rate, or the aim a lower one; what
is neither is told and not judged. With ``--bound``, 1 is returned where any median is worse by more than that factor,
or where A has a figure that B lacks.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.telling import read_report

__all__ = ["Pair", "main", "pairs"]

STATISTICS = ("median", "p99", "max")
SMALLER_IS_BETTER = ("µs", "ms", "s", "bytes", "KB", "MB", "MiB")


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure of both results; ``before`` and ``after`` as ``Figure.as_dict`` tells them."""

    bench: str
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def ratios(self) -> list[float | None]:
        """Median, p99 and maximum after over before; None where one of them is missing or 0."""
        return [_ratio(self.after[name], self.before[name]) for name in STATISTICS]

    @property
    def worse(self) -> float | None:
        """By which factor the median has become worse (below 1: better); None where that can't be told.

        What should be small and was 0, or should be large and is 0, is worse beyond any factor.
        """
        upper = self._smaller_is_better()
        if upper is None:
            return None
        before, after = float(self.before["median"]), float(self.after["median"])
        below, above = (before, after) if upper else (after, before)
        if min(below, above) < 0:
            return None
        if not below:
            return math.inf if above else 1.0
        return above / below

    def _smaller_is_better(self) -> bool | None:
        unit: str = self.before["unit"]
        if unit.endswith("/s"):
            return False
        if unit in SMALLER_IS_BETTER:
            return True
        aims = {aim.split()[1] for aim in self.before["aims"]}
        return {frozenset("≤"): True, frozenset("≥"): False}.get(frozenset(aims))


def pairs(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Pair], list[str]]:
    """Return the figures that both reports have, and what only the first one has."""
    found, missing = [], []
    for bench, result in before["benches"].items():
        others = {figure["name"]: figure for figure in after["benches"].get(bench, {"figures": []})["figures"]}
        for figure in result["figures"]:
            if figure["name"] in others:
                found.append(Pair(bench, figure, others[figure["name"]]))
            else:
                missing.append(f"{bench}: {figure['name']}")
    return found, missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return 1 beyond the bound, else 0."""
    given = _parser().parse_args(arguments)
    before, after = read_report(given.before), read_report(given.after)
    found, missing = pairs(before, after)
    for line in (
        *_differences(before, after),
        *_lines(found),
        *(f"only in {given.before}: {name}" for name in missing),
    ):
        print(line)
    if given.bound is None:
        return 0
    beyond = [pair for pair in found if pair.worse is not None and pair.worse > given.bound]
    for pair in beyond:
        print(f"worse by more than {given.bound:g}: {pair.bench}: {pair.before['name']}: {pair.worse:.3g}")
    return int(bool(beyond or missing))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf compare", description=__doc__)
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument("--bound", type=_factor, metavar="FACTOR", help="1.2: no median may be worse by a fifth")
    return parser


def _factor(text: str) -> float:
    factor = float(text)
    if not 1.0 <= factor < math.inf:
        raise ValueError(text)
    return factor


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Tell what else than the code may explain a ratio."""
    for what in ("machine", "commit", "arguments"):
        left, right = ({**(report.get(what) or {})} for report in (before, after))
        for name in sorted(left.keys() | right.keys()):
            if left.get(name) != right.get(name) and name not in ("load", "json"):
                yield f"{what}, {name}: {left.get(name)} | {right.get(name)}"
    for bench, result in before["benches"].items():
        other = after["benches"].get(bench)
        if other is not None and not (result["quiet"] and other["quiet"]):
            used = f"{result['others_cores']:.2f} | {other['others_cores']:.2f} cores"
            yield f"{bench}: ROUGH, other processes used {used}"
        if other is not None and result["configuration"] != other["configuration"]:
            yield f"{bench}: the configurations differ"


def _lines(found: Sequence[Pair]) -> Iterator[str]:
    width = max((len(f"{pair.bench}: {pair.before['name']}") for pair in found), default=0)
    for pair in found:
        told = "  ".join(
            f"{name} {'–':>6}" if ratio is None else f"{name} {ratio:6.3g}"
            for name, ratio in zip(STATISTICS, pair.ratios, strict=True)
        )
        verdict = "" if pair.worse is None else f"  {'worse' if pair.worse > 1 else 'no worse'}"
        yield f"{pair.bench + ': ' + pair.before['name']:<{width}}  {told}{verdict}"


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None

"""Figures with their aims, what a bench returns, and the table of it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perf.timing import median, percentile

__all__ = ["Aim", "BenchResult", "Figure", "Series", "at_least", "at_most", "plots", "table"]

P99 = 0.99
QUIET_CORES = 0.2


@dataclass(frozen=True, slots=True)
class Aim:
    """What one statistic (``median``, ``p99``, ``max``) of a figure should be: at most or at least ``limit``."""

    limit: float
    statistic: str = "median"
    upper: bool = True

    def __str__(self) -> str:
        return f"{self.statistic} {'≤' if self.upper else '≥'} {self.limit:g}"

    def met(self, value: float) -> bool:
        """Return whether ``value`` is as it should be."""
        return value <= self.limit if self.upper else value >= self.limit


def at_most(limit: float, statistic: str = "median") -> Aim:
    """Return the aim of staying at or below ``limit``."""
    return Aim(limit, statistic)


def at_least(limit: float, statistic: str = "median") -> Aim:
    """Return the aim of reaching ``limit``."""
    return Aim(limit, statistic, upper=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured.

    Attributes:
        unit: of the three statistics; empty for a ratio.
        samples: how many measurements they summarise.
        p99: by nearest rank, so of fewer than 100 samples the largest; None where the figure is one number.
        max: None where the figure is a ratio or one number.
        note: what a reader has to know to take the figure right.
    """

    name: str
    unit: str
    samples: int
    median: float
    p99: float | None = None
    max: float | None = None
    aims: tuple[Aim, ...] = ()
    note: str = ""

    @classmethod
    def of(cls, name: str, unit: str, samples: Sequence[float], *aims: Aim, note: str = "") -> Figure:
        """Summarise ``samples``."""
        return cls(name, unit, len(samples), median(samples), percentile(samples, P99), max(samples), aims, note)

    @classmethod
    def ratio(cls, name: str, above: Sequence[float], below: Sequence[float], *aims: Aim, note: str = "") -> Figure:
        """Return the ratios of the medians and of the 99th percentiles of two series of one run."""
        high = percentile(above, P99) / percentile(below, P99)
        return cls(name, "", min(len(above), len(below)), median(above) / median(below), high, None, aims, note)

    @property
    def met(self) -> bool | None:
        """Whether every aim is met; None where there is none."""
        return all(aim.met(getattr(self, aim.statistic)) for aim in self.aims) if self.aims else None

    def as_dict(self) -> dict[str, Any]:
        """Return the figure for JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "samples": self.samples,
            "median": self.median,
            "p99": self.p99,
            "max": self.max,
            "aims": [str(aim) for aim in self.aims],
            "met": self.met,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Series:
    """Points of a curve, or a bar, to be drawn.

    Attributes:
        plot: what it is drawn in, together with the other series of that name.
        name: what it is called there.
        x, y: what the axes tell, units included; of bars there is no ``x``.
        points: (x, y), ascending; of a bar one, whose x says nothing.
    """

    plot: str
    name: str
    x: str
    y: str
    points: list[tuple[float, float]]

    @classmethod
    def bar(cls, plot: str, name: str, y: str, value: float) -> Series:
        """Return a bar of this height."""
        return cls(plot, name, "", y, [(0.0, value)])

    @property
    def is_bar(self) -> bool:
        """Whether this is drawn as a bar."""
        return not self.x


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What a bench measured.

    Attributes:
        configuration: that of the pipeline measured.
        others: cores that other processes used meanwhile; above ``QUIET_CORES`` the figures are not to be trusted, and
            ratios least of all: OpenMP threads that wait for one another suffer out of all proportion.
        notes: what a reader has to know of all of it: what was left out, and why; what could not be made equal.
    """

    bench: str
    configuration: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    others: float = 0.0
    series: list[Series] = field(default_factory=list)
    notes: Sequence[str] = ()

    @property
    def quiet(self) -> bool:
        """Whether the machine was the bench's alone."""
        return self.others <= QUIET_CORES

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "configuration": self.configuration,
            "others_cores": self.others,
            "quiet": self.quiet,
            "figures": [figure.as_dict() for figure in self.figures],
            "series": [asdict(series) for series in self.series],
            "notes": list(self.notes),
        }


def plots(result: dict[str, Any]) -> Iterator[tuple[str, list[Series]]]:
    """Yield each plot of a result that was read from JSON: its name, and what is drawn in it."""
    found: dict[str, list[Series]] = {}
    for told in result.get("series", ()):
        points = [(float(x), float(y)) for x, y in told["points"]]
        if points:
            found.setdefault(told["plot"], []).append(Series(**{**told, "points": points}))
    yield from found.items()


_HEAD = ("bench", "figure", "unit", "n", "median", "p99", "max", "aim", "met")
_NUMBERS = range(3, 7)


def table(results: Iterable[BenchResult]) -> str:
    """Return all figures as lines of aligned columns, with the notes below; ``?`` where the machine was not quiet."""
    rows: list[tuple[str, ...]] = [_HEAD]
    notes = []
    for result in results:
        if not result.quiet:
            notes.append(f"{result.bench}: ROUGH, other processes used {result.others:.2f} cores meanwhile")
        notes += [f"{result.bench}: {note}" for note in result.notes]
        for figure in result.figures:
            rows.append(_row(result, figure))
            if figure.note:
                notes.append(f"{result.bench}, {figure.name}: {figure.note}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(_aligned(cell, widths[i], i) for i, cell in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *notes] if notes else lines)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column in _NUMBERS else cell.ljust(width)


def _row(result: BenchResult, figure: Figure) -> tuple[str, ...]:
    return (
        result.bench,
        figure.name,
        figure.unit,
        str(figure.samples),
        _number(figure.median),
        _number(figure.p99),
        _number(figure.max),
        ", ".join(map(str, figure.aims)),
        {True: "yes", False: "no", None: ""}[figure.met] + ("?" if figure.aims and not result.quiet else ""),
    )


def _number(value: float | None) -> str:
    """Return three significant digits, and no fewer than the whole number."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

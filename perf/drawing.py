"""Curves as pictures, for light and for dark pages; by matplotlib, which is in the extra ``perf``."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perf.result import Series

__all__ = ["THEMES", "Theme", "drawn", "picture", "save"]

SIZE_INCHES = (7.2, 3.6)
PNG_DPI = 144
SIZES = 12  # places of a curve, at most, that may be sizes of something and not moments in time
LOG_FROM = 50.0  # a plot whose values differ by more than this factor gets a logarithmic axis
MARKED = 40  # points of a curve that are marked one by one, at most
LINES = ("-", "--", ":")
BAR_INCHES = 0.42
OURS = "mos_pipeline"
SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}


class Theme(NamedTuple):
    """Colours of a plot; those of the curves differ in lightness, too, and are told apart by the colour-blind."""

    background: str
    text: str
    grid: str
    curves: tuple[str, ...]


THEMES = {
    "light": Theme("#ffffff", "#24292f", "#d0d7de", ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#9a6700", "#cf222e")),
    "dark": Theme("#0d1117", "#e6edf3", "#30363d", ("#58a6ff", "#ffa657", "#3fb950", "#bc8cff", "#e3b341", "#ff7b72")),
}


def drawn(series: Sequence[Series], theme: str, form: Literal["svg", "png"]) -> bytes:
    """Return one plot of all ``series``, which have the same axes; all of them curves, or all bars.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = THEMES[theme]
    with mpl.rc_context(_style(colours)):
        bars = series[0].is_bar
        height = BAR_INCHES * (len(series) + 1) if bars else SIZE_INCHES[1]
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        axes = figure.add_subplot()
        (_bars if bars else _curves)(axes, series, colours)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=PNG_DPI, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def picture(text: str) -> Path:
    """Return the path of a picture, which is to be SVG or PNG.

    Raises:
        ValueError: by its ending it is neither.
    """
    path = Path(text)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(text)
    return path


def save(series: Sequence[Series], path: Path) -> None:
    """Write one plot twice beside each other: ``cliff.svg`` as ``cliff-light.svg`` and ``cliff-dark.svg``."""
    form: Literal["svg", "png"] = "png" if path.suffix == ".png" else "svg"
    for theme in THEMES:
        path.with_name(f"{path.stem}-{theme}{path.suffix}").write_bytes(drawn(series, theme, form))


def _style(theme: Theme) -> Any:
    """Return matplotlib's settings for a theme."""
    return {
        "svg.hashsalt": "perf",  # the same picture from the same numbers
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.text,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "text.color": theme.text,
        "xtick.color": theme.text,
        "ytick.color": theme.text,
        "legend.labelcolor": theme.text,
    }


def _curves(axes: Axes, series: Sequence[Series], theme: Theme) -> None:
    for number, curve in enumerate(series):
        x, y = zip(*curve.points, strict=True)
        marker = "o" if len(x) <= MARKED else None
        colour, line = theme.curves[number % len(theme.curves)], LINES[number // len(theme.curves) % len(LINES)]
        axes.plot(x, y, line, color=colour, marker=marker, markersize=4, linewidth=1.6, label=curve.name)
    axes.set_xlabel(series[0].x)
    axes.set_ylabel(series[0].y)
    _scale(axes, series)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bars(axes: Axes, series: Sequence[Series], theme: Theme) -> None:
    """Draw each as a bar with its number, the first on top; ours in another colour than the others'."""
    values = [bar.points[0][1] for bar in series]
    names = [bar.name for bar in series]
    colours = [theme.curves[0] if name.startswith(OURS) else theme.curves[1] for name in names]
    drawn_bars = axes.barh(names, values, color=colours, height=0.6)
    axes.bar_label(drawn_bars, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values], padding=4)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(series[0].y)
    if _far_apart(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 10, max(values) * 6)
    else:
        axes.set_xlim(0, max(values) * 1.15 or 1.0)


def _scale(axes: Axes, series: Sequence[Series]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if all(x.is_integer() for curve in series for x, _ in curve.points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    places = {x for curve in series for x, _ in curve.points}
    if len(places) <= SIZES and _far_apart(places):
        axes.set_xscale("log")
    values = [y for curve in series for _, y in curve.points]
    if _far_apart(values):
        axes.set_yscale("log")
        if seconds := SECONDS.get(series[0].y):  # powers of ten of a microsecond are hard to read
            told = EngFormatter(unit="s")
            axes.yaxis.set_major_formatter(lambda value, _: told(value * seconds))
            axes.set_ylabel("")
    elif min(values) >= 0:
        axes.set_ylim(0, max(values) * 1.1 or 1.0)  # differences are seen at their true size


def _far_apart(values: Collection[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_FROM

"""Curves as pictures, for light and for dark pages; by matplotlib, which is in the extra ``perf``."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perf.result import Series

__all__ = ["THEMES", "Theme", "drawn"]

SIZE_INCHES = (7.2, 3.6)
PNG_DPI = 144
LOG_FROM = 50.0  # a plot whose values differ by more than this factor gets a logarithmic axis
MARKED = 40  # points of a curve that are marked one by one, at most


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
    """Return one plot of all ``series``, which have the same axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = THEMES[theme]
    with mpl.rc_context(_style(colours)):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for curve, colour in zip(series, _endless(colours.curves), strict=False):
            _draw(axes, curve, colour)
        _scale(axes, series)
        axes.set_xlabel(series[0].x)
        axes.set_ylabel(series[0].y)
        if len(series) > 1:
            axes.legend(frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=PNG_DPI, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


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


def _endless(colours: Sequence[str]) -> list[str]:
    return list(colours) * 8


def _draw(axes: Axes, curve: Series, colour: str) -> None:
    x, y = zip(*curve.points, strict=True)
    marker = "o" if len(x) <= MARKED else None
    axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.6, label=curve.name)


def _scale(axes: Axes, series: Sequence[Series]) -> None:
    from matplotlib.ticker import MaxNLocator

    if all(x.is_integer() for curve in series for x, _ in curve.points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for values, set_scale, set_limit in (
        ([x for curve in series for x, _ in curve.points], axes.set_xscale, None),
        ([y for curve in series for _, y in curve.points], axes.set_yscale, axes.set_ylim),
    ):
        least, most = min(values), max(values)
        if least > 0 and most / least > LOG_FROM:
            set_scale("log")
        elif set_limit is not None and least >= 0 and math.isfinite(most):
            set_limit(0, most * 1.1 or 1.0)  # differences are seen at their true size

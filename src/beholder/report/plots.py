"""Plots as inline SVG that follows the page's colours, light or dark.

Matplotlib draws with marker colours which are then replaced by the page's CSS variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "#010203": "var(--ink)",
    "#010204": "var(--soft)",
    "#010205": "var(--line)",
    "#010206": "var(--accent)",
    "#010207": "var(--second)",
}
INK, SOFT, LINE, ACCENT, SECOND = _COLOURS
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "beholder",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


class _Canvas:
    svg = ""


@contextmanager
def _figure(width: float, height: float, label: str) -> Iterator[tuple[Axes, _Canvas]]:
    # The object interface draws without a display and without pyplot's global state.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    canvas = _Canvas()
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        yield axes, canvas
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    canvas.svg = _clean(buffer.getvalue(), label)


def _clean(svg: str, label: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg, count=2)
    for marker, variable in _COLOURS.items():
        svg = svg.replace(marker, variable)
    # Ids must be unique in the page that holds several plots.
    prefix = re.sub(r"\W+", "-", label.lower())
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def scatter(targets: Sequence[float], predicted: Sequence[float], name: str) -> str:
    """Predicted against given scores, with the line of equality."""
    with _figure(4.6, 4.2, f"Predicted against given {name}") as (axes, canvas):
        low = min(*targets, *predicted)
        high = max(*targets, *predicted)
        margin = 0.04 * (high - low or 1.0)
        limits = (low - margin, high + margin)
        axes.plot(limits, limits, color=SOFT, linewidth=1, linestyle=(0, (4, 4)))
        axes.scatter(targets, predicted, s=13, color=ACCENT, alpha=0.55, linewidths=0)
        axes.set(xlim=limits, ylim=limits, xlabel=f"given {name}", ylabel="predicted")
    return canvas.svg


def histogram(values: Sequence[float], name: str, bins: int = 20) -> str:
    """How often each value occurs."""
    with _figure(4.6, 2.4, f"Distribution of {name}") as (axes, canvas):
        axes.hist(values, bins=bins, color=ACCENT, alpha=0.75, rwidth=0.92)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel=name, ylabel="count")
    return canvas.svg


def reliability(
    name: str, bins: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]] | None
) -> str:
    """Accuracy against confidence in equal bins, the number of pictures as the dots' size, and the
    line of perfect calibration; `before` is without the temperature."""
    with _figure(4.6, 3.6, f"Reliability of {name}") as (axes, canvas):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 4)))
        for label, drawn, colour in (("uncalibrated", before, SECOND), ("as said", bins, ACCENT)):
            known = [bin_ for bin_ in drawn or () if bin_["count"]]
            if not known:
                continue
            x = [bin_["confidence"] for bin_ in known]
            y = [bin_["accuracy"] for bin_ in known]
            most = max(bin_["count"] for bin_ in known)
            sizes = [12 + 90 * bin_["count"] / most for bin_ in known]
            axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.8, label=label)
            axes.scatter(x, y, s=sizes, color=colour, alpha=0.65, linewidths=0)
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.04), xlabel="confidence", ylabel="right")
        axes.legend(loc="upper left")
    return canvas.svg


def raters(
    bias: Sequence[tuple[float, float]],
    inconsistency: Sequence[tuple[float, float]],
    names: Sequence[str],
) -> str:
    """Each rater's inconsistency over bias, with standard errors; those who have a name stand out,
    in another colour."""
    with _figure(4.6, 3.4, "Bias and inconsistency of raters") as (axes, canvas):
        axes.axvline(0.0, color=SOFT, linewidth=1, linestyle=(0, (4, 4)))
        for outstanding, colour in ((False, ACCENT), (True, SECOND)):
            rows = [row for row, name in enumerate(names) if bool(name) is outstanding]
            (x, x_error), (y, y_error) = (
                ([pairs[row][0] for row in rows], [pairs[row][1] for row in rows])
                for pairs in (bias, inconsistency)
            )
            style: dict[str, Any] = {"fmt": "o", "markersize": 4, "elinewidth": 0.8, "alpha": 0.75}
            axes.errorbar(x, y, xerr=x_error, yerr=y_error, color=colour, **style)
        for row, name in enumerate(names):
            axes.annotate(
                _short(name), (bias[row][0], inconsistency[row][0]), xytext=(5, 5),
                textcoords="offset points", color=INK, fontsize=8.5,
            )  # fmt: skip
        axes.set_ylim(bottom=0.0)
        axes.set(xlabel="bias", ylabel="inconsistency")
    return canvas.svg


def intervals(rows: Sequence[tuple[str, float, float, float]], name: str) -> str:
    """A value with its interval per row, the last one drawn in another colour."""
    with _figure(4.6, 1.0 + 0.55 * len(rows), name) as (axes, canvas):
        for position, (_, value, low, high) in enumerate(rows):
            colour = SECOND if position == len(rows) - 1 else ACCENT
            axes.plot([low, high], [position, position], color=colour, linewidth=5, alpha=0.35)
            axes.plot([value], [position], "o", color=colour, markersize=7)
            axes.annotate(
                f"{value:.3f}", (value, position), xytext=(0, 8), textcoords="offset points",
                ha="center", color=INK, fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.grid(axis="y", visible=False)
        axes.set(ylim=(len(rows) - 0.5, -0.7), xlabel=name)
    return canvas.svg


def _short(name: str) -> str:
    # a dollar sign would start a formula
    name = name.replace("$", r"\$")
    return name if len(name) <= 16 else f"{name[:15]}…"


def curve(title: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Values over steps; the first line is the main one, the second is drawn in another colour."""
    with _figure(4.6, 2.5, title) as (axes, canvas):
        for (name, points), colour in zip(lines, (ACCENT, SECOND), strict=False):
            steps, values = zip(*points, strict=True)
            dot = "o" if len(points) == 1 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, label=name, marker=dot)
        axes.set(xlabel="step")
        axes.legend(loc="best")
    return canvas.svg

"""The look that every figure of the kit shares: colours, lines, markers, labels, small print.

Colour stands for the family of a method, lightness and line for its place in it, the marker for its
retain term. Colour-blind readers can tell the colours apart, and no difference is shown by colour
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


@dataclass(frozen=True)
class Style:
    """The look of a method, the same in every figure and notebook."""

    label: str
    colour: str
    line: str | tuple  # matplotlib line style
    marker: str

    def plot(self, **more: object) -> dict[str, Any]:
        """Return keywords for `Axes.plot`, the label among them; `more` replaces and adds some."""
        look = {"label": self.label, "color": self.colour}
        return look | {"linestyle": self.line, "marker": self.marker} | more


# Family -> colour and line of its first, second, ... member; more members begin again.
FAMILIES: dict[str, tuple[tuple[str, str | tuple], ...]] = {
    "ga": (("#D55E00", (0, (6, 2))), ("#9C4400", (0, (3, 1.5))), ("#E58A3F", (0, (1, 1)))),
    "npo": (
        ("#0072B2", "-"),
        ("#004C77", (0, (8, 1.5))),
        ("#3D93C6", (0, (5, 1.5, 1, 1.5))),
        ("#2B5C8A", (0, (2, 1))),
    ),
    "preference": (
        ("#007A58", (0, (6, 1.5, 1, 1.5))),
        ("#3B9E7C", (0, (1, 1.2))),
        ("#5A8F3C", (0, (3, 1.2, 1, 1.2, 1, 1.2))),
    ),
    "other": (("#7B4FA3", (0, (4, 1, 1, 1))), ("#A0569B", (0, (2, 1.5))), ("#59357D", "-")),
}
MARKERS = "os^D"  # of a forget term alone, with +RT, with +KL, with another retain term
BASELINES = {
    "original": Style("original", "#7F7F7F", "-", "o"),
    "retained": Style("retained-only", "#000000", "--", ""),
}
LOOK: dict[Any, Any] = {  # of matplotlib's rcParams
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.dpi": 150,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
}


def style(label: str, family: str, place: int, retain: int) -> Style:
    """Return the look of a method: its `place` in its family, its retain term's in MARKERS."""
    members = FAMILIES.get(family, FAMILIES["other"])
    colour, line = members[place % len(members)]
    return Style(label, colour, line, MARKERS[min(retain, len(MARKERS) - 1)])


def footnote(figure: Figure, text: str) -> None:
    """Write notes on the data in small print under the figure."""
    figure.text(0.01, 0.01, text, fontsize=9.5, color="#555555", ha="left", va="bottom")


def log_axis(axes: Axes, which: str) -> None:
    """Make axis "x" or "y" logarithmic, with ticks at 1, 2, 5 if it spans under two decades."""
    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"get_{which}lim")
    getattr(axes, f"set_{which}scale")("log")
    low, high = limits()
    if high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes) -> None:
    """Write the label of each line at the right edge, at the height of its last point.

    Lines without a label are left out, and labels that would touch are moved apart.
    """
    drawn = [(np.asarray(line.get_ydata(orig=False)), line) for line in axes.get_lines()]
    ends = [(heights[-1], line) for heights, line in drawn if len(heights)]
    ends = [(y, line) for y, line in ends if np.isfinite(y) and str(line.get_label())[0] != "_"]
    ends.sort(key=lambda end: end[0])
    scale = axes.yaxis.get_transform().transform
    bottom, top = scale(np.array(axes.get_ylim()))
    heights = (scale(np.maximum([y for y, _ in ends], 1e-300)) - bottom) / (top - bottom)
    for height, (_, line) in zip(_spread(np.clip(heights, 0, 1)), ends, strict=True):
        axes.text(
            *(1.015, height),
            str(line.get_label()),
            color=line.get_color(),
            transform=axes.transAxes,
            va="center",
            fontsize=11,
            fontweight="bold",
        )


def _spread(heights: np.ndarray, gap: float = 0.055) -> np.ndarray:
    """Move sorted heights at least `gap` apart, in small steps."""
    heights = heights.copy()
    for _ in range(200):
        for low, high in pairwise(range(len(heights))):
            lack = gap - (heights[high] - heights[low])
            if lack > 1e-9:
                heights[low] -= lack / 2
                heights[high] += lack / 2
        heights += max(0.0, -heights.min(initial=0.0))
    return heights


def one_panel() -> tuple[Figure, Axes]:
    """Make a figure of one panel, with room for labels or a legend on its right."""
    figure = Figure(figsize=(9.2, 5.4))
    figure.subplots_adjust(left=0.1, right=0.73, bottom=0.19, top=0.91)
    return figure, figure.subplots()


def two_panels(width: float = 13.0) -> tuple[Figure, list[Axes]]:
    """Make a figure of two panels side by side, `width` inches wide."""
    figure = Figure(figsize=(width, 5.4))
    figure.subplots_adjust(left=0.1, right=0.9, bottom=0.19, top=0.91, wspace=0.45)
    return figure, list(figure.subplots(1, 2))


def panels_in_grid(count: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels that share both axes, three in a row."""
    lines = -(-count // 3)
    figure = Figure(figsize=(13.0, 1.4 + 3.0 * lines))
    panels = list(figure.subplots(lines, 3, sharex=True, sharey=True).flat)
    for axes in panels[count:]:
        axes.remove()
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.87, wspace=0.08, hspace=0.28)
    return figure, panels[:count]

"""The look that every figure of the kit shares: colours, lines, markers, labels, small print.

Colour stands for the family of a method, lightness and line for its place in it, the marker for its
retain term. Colour-blind readers can tell the colours apart, and no difference is shown by colour
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the page takes colours from here, and matplotlib is slow to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    "ga": (
        ("#D55E00", (0, (6, 2))),
        ("#9C4400", (0, (3, 1.5))),
        ("#D17A2B", (0, (1, 1))),
        ("#7A3B12", (0, (9, 2, 1, 2))),
        ("#B5713C", (0, (4, 1.5, 1, 1, 1, 1, 1, 1.5))),
        ("#8F5A2A", (0, (7, 1, 2, 1))),
    ),
    "npo": (
        ("#0072B2", "-"),
        ("#004C77", (0, (8, 1.5))),
        ("#3D93C6", (0, (5, 1.5, 1, 1.5))),
        ("#2B5C8A", (0, (2, 1))),
        ("#1B6FB5", (0, (1, 1, 6, 1))),
    ),
    "preference": (
        ("#007A58", (0, (6, 1.5, 1, 1.5))),
        ("#3B9E7C", (0, (1, 1.2))),
        ("#5A8F3C", (0, (3, 1.2, 1, 1.2, 1, 1.2))),
        ("#1F5E4A", (0, (10, 3))),
        ("#7A9A2E", (0, (1, 3))),
        ("#2E7D32", (0, (5, 1, 5, 3))),
        ("#4C8C6B", (0, (2, 2, 6, 2))),
    ),
    "other": (
        ("#7B4FA3", (0, (4, 1, 1, 1))),
        ("#A0569B", (0, (2, 1.5))),
        ("#59357D", "-"),
        ("#8A4FBF", (0, (6, 3, 2, 3))),
    ),
}
MARKERS = "os^D"  # of a forget term alone, with +RT, with +KL, with another retain term
SHADES = (0.0, 0.22, 0.4, 0.1)  # likewise: how far its colour is moved towards black
BASELINES = {
    "original": Style("original", "#7F7F7F", "-", "o"),
    "retained": Style("retained-only", "#000000", "--", ""),
}
WIDTH = 6.4  # inches: shrunk to 360 pixels, letters of 11.6 points are 9 pixels high
SMALL = 11.6  # points, the least
LINE = 0.22  # inches, of a line of small print
QUIET, GUIDE, SHADE = "#555555", "#777777", "#BBBBBB"  # greys: small print, guiding lines, areas
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
    kind = min(retain, len(MARKERS) - 1)
    return Style(label, _shaded(colour, SHADES[kind]), line, MARKERS[kind])


def _shaded(colour: str, share: float) -> str:
    """Return a colour moved towards black by a share."""
    parts = (round((1 - share) * part) for part in bytes.fromhex(colour[1:]))
    return "#" + bytes(parts).hex().upper()


def described(figure: Figure, alt: str) -> Figure:
    """Give a figure the text that says in its place what it shows, and return it."""
    figure.set_label(alt)
    return figure


def alt_text(figure: Figure) -> str:
    """Return the text of `described`; without one, the titles and the axes of the panels."""
    parts = []
    for axes in figure.axes:
        named = {"": axes.get_title("left") or axes.get_title(), "across": axes.get_xlabel()}
        named["up"] = axes.get_ylabel()
        said = (f"{name} {text}".strip() for name, text in named.items() if text)
        parts.append(", ".join(" ".join(each.split()) for each in said))
    return str(figure.get_label()) or "Figure: " + "; ".join(filter(None, parts))


def footnote(figure: Figure, text: str) -> None:
    """Write notes on the data in small print under the figure, which grows by their lines."""
    lines = [part for line in text.split("\n") for part in wrap(line, 72)]
    before = figure.get_figheight()
    after = before + 0.05 + LINE * len(lines)
    scale, pars = before / after, figure.subplotpars
    figure.set_figheight(after)
    figure.subplots_adjust(bottom=1 - (1 - pars.bottom) * scale, top=1 - (1 - pars.top) * scale)
    for each in figure.texts:
        each.set_y(1 - (1 - each.get_position()[1]) * scale)
    figure.text(0.02, 0.06 / after, "\n".join(lines), fontsize=SMALL, color=QUIET, va="bottom")


def log_axis(axes: Axes, which: str) -> None:
    """Make axis "x" or "y" logarithmic, with ticks at 1, 2, 5 if it spans under two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"get_{which}lim")
    getattr(axes, f"set_{which}scale")("log")
    low, high = sorted(limits())
    many = max(3, int(_inches(axes)["xy".index(which)] / 0.55))
    ticks = {"subs": (1, 2, 5)} if high / low < 100 else {"numticks": many}
    axis.set_major_locator(LogLocator(**ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_locator(NullLocator())


def power(value: float) -> str:
    """Return a number as text, far from 1 as a power of ten: 1e-7 as 10⁻⁷."""
    digits, _, exponent = f"{value:.6g}".partition("e")
    if not exponent and 1e-3 <= abs(value) < 1e5:
        return digits
    digits, _, exponent = f"{value:.3e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = "" if float(digits) == 1 else f"{float(digits):g} × "
    return f"{mantissa}10{raised}"


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
    least = 1e-300 if axes.get_yscale() == "log" else -np.inf  # zero has no logarithm
    heights = (scale(np.maximum([y for y, _ in ends], least)) - bottom) / (top - bottom)
    places = _spread(np.clip(heights, 0, 1), LINE / _inches(axes)[1])
    for height, (_, line) in zip(places, ends, strict=True):
        axes.text(
            *(1.015, height),
            str(line.get_label()),
            color=line.get_color(),
            transform=axes.transAxes,
            va="center",
            fontsize=SMALL,
            fontweight="bold",
        )


def _inches(axes: Axes) -> tuple[float, float]:
    """Return the width and the height of a panel."""
    corners = axes.transAxes.transform([(0, 0), (1, 1)])
    (left, low), (right, high) = axes.figure.dpi_scale_trans.inverted().transform(corners)
    return right - left, high - low


def _spread(heights: np.ndarray, gap: float = 0.055) -> np.ndarray:
    """Move sorted heights at least `gap` apart, in small steps."""
    heights = heights.copy()
    for _ in range(200):
        for low, high in pairwise(range(len(heights))):
            lack = gap - (heights[high] - heights[low])
            if lack > 1e-9:
                heights[low] -= lack / 2
                heights[high] += lack / 2
        np.clip(heights, 0.0, 1.0, out=heights)
    return heights


def panels(
    count: int,
    height: float,
    *,
    left: float = 0.95,
    right: float = 1.55,
    below: float = 0.62,
    same: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels one under the other, each `height` inches high.

    `left`, `right` and `below` are the inches around them, for axes and for labels or a legend;
    with the `same` axis across, it is written once, below the last.
    """
    from matplotlib.figure import Figure

    above, between = 0.45, 0.5 if same else 1.05
    whole = above + count * height + (count - 1) * between + below
    figure = Figure(figsize=(WIDTH, whole))
    figure.subplots_adjust(
        left=left / WIDTH,
        right=1 - right / WIDTH,
        bottom=below / whole,
        top=1 - above / whole,
        hspace=between / height,
    )
    return figure, list(figure.subplots(count, squeeze=False, sharex=same)[:, 0])


def one_panel() -> tuple[Figure, Axes]:
    """Make a figure of one panel, with room for labels or a legend on its right."""
    figure, (axes,) = panels(1, 3.1)
    return figure, axes


def panels_in_grid(count: int, legend: int = 1, title: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels that share both axes, three in a row.

    Above them is room for a `legend` of so many lines, above each for a `title` of so many.
    """
    from matplotlib.figure import Figure

    rows = -(-count // 3)
    head = 0.12 + LINE * title
    above, below, height = 0.2 + 0.25 * legend + head, 0.72, 1.4
    whole = above + height * rows + head * (rows - 1) + below
    figure = Figure(figsize=(WIDTH, whole))
    grid = list(figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    figure.subplots_adjust(
        left=0.95 / WIDTH,
        right=1 - 0.25 / WIDTH,
        bottom=below / whole,
        top=1 - above / whole,
        wspace=0.18,
        hspace=head / height,
    )
    return figure, grid[:count]


def shared_labels(figure: Figure, x: str, y: str) -> None:
    """Write the labels of axes that all panels of a grid share."""
    figure.supxlabel(x, y=0.1 / figure.get_figheight(), fontsize=12)
    figure.supylabel(y, x=0.02, fontsize=12)

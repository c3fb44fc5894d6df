"""The parts of the theory's figures: trajectories, their looks, axes and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from npo_kit.errors import KitError
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import methods_of
from npo_kit.style import GUIDE, SMALL, Style, footnote, log_axis, shared_labels

_ROWS = "1000 retain + 200 forget rows, 1000 + 1000 fresh points"
Methods = Sequence[str] | None  # None: those that the table of methods wants in figures
AXIS = {
    "forget_distance": "forget distance, nats\n↓ lower is better",
    "retain_distance": "retain distance, nats\n↓ lower is better",
    "forget_drift": "forget drift, nats\n↕ far enough, no further",
    "retain_drift": "retain drift, nats\n↓ lower is better",
}
FORGET = "forget distance, nats   ← lower is better"
DISTANCE, DRIFT = "distance: KL(retrained || current)", "drift: KL(initial || current)"
DISTANCES = ("forget_distance", "retain_distance")
TRADE = (
    "retain distance up, forget distance across, both logarithmic, in nats. Medians at the "
    "last step, forget and retain:"
)
_FLOOR = 1e-5  # nats: less is drawn here, on a line that says so


def select(frame: pd.DataFrame, alpha: float, methods: Methods) -> pd.DataFrame:
    """Return the rows of one alpha, in the order of the methods."""
    methods = methods_of("figure") if methods is None else methods
    chosen = frame[np.isclose(frame.alpha, alpha) & frame.method.isin(methods)]
    if chosen.empty:
        there = ", ".join(f"{a:g}" for a in frame.alpha.unique())
        raise KitError(f"nothing to draw at alpha {alpha:g}: the frame has alpha {there or 'none'}")
    place = {name: i for i, name in enumerate(methods)}
    return chosen.sort_values("method", key=lambda names: names.map(place), kind="stable")


def median(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.drop(columns="method").groupby("step", as_index=False).median(numeric_only=True)


def trajectories(axes: Axes, runs: pd.DataFrame, thin: float, line: dict[str, Any]) -> None:
    """Draw each seed of a method `thin` points wide, and the median over seeds as `line`."""
    for _, run in runs.groupby("seed"):
        trajectory(axes, run, color=line["color"], linewidth=thin, alpha=0.35)
    trajectory(axes, median(runs), **line)


def trajectory(axes: Axes, run: pd.DataFrame, **line: Any) -> None:
    x = floored(axes, "x", run.forget_distance)
    axes.plot(x, floored(axes, "y", run.retain_distance), **line)


def floored(axes: Axes, which: str, values: pd.Series) -> pd.Series:
    """Return distances that are at least the floor; where one is raised to it, draw the floor."""
    label = f"_floor {which}"
    if (values < _FLOOR).any() and label not in [line.get_label() for line in axes.get_lines()]:
        rules = {"x": (axes.axvline, _FLOOR, "data"), "y": (axes.axhline, 0.02, "axes fraction")}
        rule, left, unit = rules[which]
        rule(_FLOOR, color=GUIDE, linewidth=1, linestyle=":", label=label)
        units = (unit, "axes fraction")
        room = {"updatex": which == "x", "updatey": which == "y"}  # for the words
        axes.update_datalim([(_FLOOR / 3, _FLOOR / 3)], **room)
        axes.annotate(" floor: 1e-5 or less", (left, 0.01), xycoords=units, fontsize=SMALL)
    return values.clip(lower=_FLOOR)


def finish_trade_off(axes: Axes, title: str) -> None:
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set(xlabel=FORGET, ylabel=AXIS["retain_distance"], title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def label_grid(figure: Figure, x: str, y: str, columns: int) -> None:
    """Label the axes and the lines that all panels share; `columns` of the legend."""
    lines = figure.axes[0].get_legend_handles_labels()
    shared_labels(figure, x, y)
    figure.legend(*lines, ncols=columns, loc="upper center", frameon=False)


def by_beta(frame: pd.DataFrame) -> list[tuple[pd.DataFrame, Style]]:
    """Return the runs of each method and beta, NPO's blues from light (small beta) to dark."""
    betas, parts = sorted(frame.beta.dropna().unique()), []
    for (name, beta), runs in frame.groupby(["method", "beta"], dropna=False, sort=False):
        look = look_of(name)
        if beta in betas:
            shade = 0.35 + 0.65 * (betas.index(beta) + 1) / len(betas)
            r, g, b = (1 - (1 - c) * shade for c in to_rgb(look.colour))
            marker = "ov^DsP*X"[betas.index(beta) % 8]
            look = Style(f"{look.label}, β = {beta:g}", to_hex((r, g, b)), look.line, marker)
        parts.append((runs, look))
    return parts


def swept(look: Style, runs: pd.DataFrame) -> dict[str, Any]:
    every = max(1, runs.step.nunique() // 8)
    return look.plot(linewidth=1.9, markevery=every, markersize=6)


def note(
    figure: Figure, frame: pd.DataFrame, source: str, drawn: str = "", note: str = DISTANCE
) -> None:
    """Write n, the seeds, how they are drawn, the source and the learning rates under a figure."""
    seeds = sorted(frame.seed.unique())
    named = ", ".join(map(str, seeds)) if len(seeds) <= 6 else f"{seeds[0]} to {seeds[-1]}"
    several = len(seeds) > 1
    drawn = f": {drawn or 'each thin line a seed, thick the median'}" * several
    by_rate = frame.method.map(lambda name: look_of(name).label).groupby(frame.lr).unique()
    rates = "; ".join(f"{lr:g} for {', '.join(names)}" for lr, names in by_rate.items())
    first = f"n = {_ROWS} · {len(seeds)} seed{'s' * several} ({named}){drawn} · {source}"
    footnote(figure, f"{first}\n{note} · learning rate: {rates}")


def ends(frame: pd.DataFrame, first: str, second: str) -> str:
    """Say the medians over seeds of two columns at each method's last step."""
    said = []
    for runs, look in by_beta(frame):
        last = runs[runs.step == runs.step.max()]
        said.append(f"{look.label} {last[first].median():.2g} and {last[second].median():.2g}")
    return "; ".join(said)

"""The synthetic experiment and the theorems as figures: from frames to matplotlib figures.

Thin lines are seeds, thick lines their median. Every figure says n, the seeds, the learning rates,
and whether it shows a recorded or a live run (`source`); arrows say which way is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from npo_kit.errors import KitError
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import methods_of
from npo_kit.style import (
    LOOK,
    Style,
    footnote,
    label_ends,
    log_axis,
    one_panel,
    panels_in_grid,
    two_panels,
)

_ROWS = "1000 retain + 200 forget rows, 1000 + 1000 fresh points"
Methods = Sequence[str] | None  # None: those that the table of methods wants in figures
_AXIS = {
    "forget_distance": "forget distance: KL(retrained || current), nats\n↓ lower is better",
    "retain_distance": "retain distance: KL(retrained || current), nats\n↓ lower is better",
    "forget_drift": "forget drift: KL(initial || current), nats\n"
    "↕ no better way: far enough, no further",
    "retain_drift": "retain drift: KL(initial || current), nats\n↓ lower is better",
}
_FORGET = "forget distance, nats   ← lower is better"
_RETAIN = "retain distance, nats   ↓ lower is better"
_FLOOR = 1e-5  # nats: less is drawn here, on a line that says so


def distance_curves(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw forget and retain distance against the step, as in the paper's synthetic figure."""
    panels = {"forget_distance": "Forgetting", "retain_distance": "Keeping the rest"}
    return _by_step(_select(frame, alpha, methods), panels, source, log=True)


def drift_curves(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw how far each step is from the start: GA moves on linearly, NPO slows down."""
    panels = {f"{part}_drift": f"Moved on the {part} points" for part in ("forget", "retain")}
    return _by_step(_select(frame, alpha, methods), panels, source, log=False)


@rc_context(LOOK)
def trade_off(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw retain against forget distance: each seed's trajectory, and medians at equal steps."""
    chosen = _select(frame, alpha, methods)
    figure, axes = one_panel()
    for name, runs in chosen.groupby("method", sort=False):
        _trajectories(axes, runs, 0.7, look_of(name).plot(linewidth=2.4, markevery=10))
    start = look_of("original").plot(markersize=11, label="start", linestyle="")
    _trajectory(axes, _median(chosen[chosen.step == 0]), **start)
    _finish_trade_off(axes, f"Forgetting against keeping, $\\alpha$ = {alpha:g}")
    _note(figure, chosen, source)
    return figure


@rc_context(LOOK)
def seeds_apart(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw the forget distance in a panel per seed (at most 11), the median over them last."""
    chosen, column = _select(frame, alpha, methods), "forget_distance"
    seeds = list(dict.fromkeys(chosen.seed))[:11]
    figure, panels = panels_in_grid(len(seeds) + 1)
    parts = [(f"seed {seed}", chosen[chosen.seed == seed]) for seed in seeds]
    for axes, (title, part) in zip(panels, [*parts, ("median of all", chosen)], strict=True):
        for name, runs in part.groupby("method", sort=False):
            middle = _median(runs)
            line = look_of(name).plot(linewidth=1.8, markevery=20, markersize=5)
            axes.plot(middle.step, _floored(axes, "y", middle[column]), **line)
        axes.set_title(title + f": best {part[column].min():.2g}" * (part is not chosen))
        log_axis(axes, "y")
    _label_grid(panels, "step", _AXIS[column].replace("\n", "   "), columns=chosen.method.nunique())
    _note(figure, chosen, source, "each panel but the last is one seed")
    return figure


@rc_context(LOOK)
def beta_sweep_curves(sweep: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw the trajectories of NPO at each beta and of GA: retain against forget distance."""
    figure, axes = one_panel()
    for runs, look in _by_beta(sweep):
        _trajectories(axes, runs, 0.6, _swept(look, runs))
    _finish_trade_off(axes, f"Smaller β, nearer to GA: $\\alpha$ = {sweep.alpha.iloc[0]:g}")
    _note(figure, sweep, source)
    return figure


@rc_context(LOOK)
def averaging(sweep: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw the beta sweep averaged over seeds at equal steps, then seed by seed."""
    seeds = list(dict.fromkeys(sweep.seed))[:5]
    figure, panels = panels_in_grid(len(seeds) + 1)
    mean = sweep.groupby(["method", "beta", "step"], dropna=False, sort=False, as_index=False)
    parts = [("mean over seeds at equal steps", mean.mean())]
    parts += [(f"seed {seed} alone", sweep[sweep.seed == seed]) for seed in seeds]
    for axes, (title, part) in zip(panels, parts, strict=True):
        for runs, look in _by_beta(part):
            _trajectory(axes, runs, **_swept(look, runs))
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set_title(title, fontweight="bold" if axes is panels[0] else "normal")
    _label_grid(panels, _FORGET, _RETAIN, columns=6)
    _note(figure, sweep, source, "averaged in the first panel, then each by itself")
    return figure


# --- the theorems -------------------------------------------------------------------------------


@rc_context(LOOK)
def divergence(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw Theorem 2: distance from the start, linear in the step for GA, in its log for NPO."""
    figure, panels = two_panels(width=14.5)
    for axes, shown in zip(panels, (frame, frame[frame.method != "ga"]), strict=True):
        for runs, look in _by_beta(shown):
            axes.plot(runs.step, runs.distance, **look.plot(marker=""))
        axes.locator_params("x", nbins=4)
        axes.set(xlabel="step", ylabel="distance from the start, in XᵀX\n↓ slower is safer")
        label_ends(axes)
    panels[0].set_title("GA runs away linearly")
    panels[1].set(title="NPO only logarithmically", xscale="log")
    footnote(figure, f"n = 16 orthonormal rows in 256 dimensions · one draw · {source}")
    return figure


@rc_context(LOOK)
def limit(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw Proposition 1: the gap between NPO and GA against beta, beside its first-order term."""
    figure, panels = two_panels()
    named = {"loss": "losses, nats", "gradient": "gradients, Euclidean norm"}
    line = look_of("npo").plot(label="measured, NPO against GA")
    for axes, (name, many) in zip(panels, named.items(), strict=True):
        expected, measured = frame[f"{name}_gap_expected"], frame[f"{name}_gap"]
        axes.loglog(frame.beta, expected, "k--", label=r"first-order term, $\propto \beta$")
        axes.loglog(frame.beta, measured, **line)
        y, title = f"gap between the {many}", f"The {name}: slope 1"
        axes.set(xlabel="β   ← nearer to GA", ylabel=y, title=title)
        axes.legend(frameon=False)
    footnote(figure, f"n = 200 rows · one draw · {source}")
    return figure


# --- parts of a figure --------------------------------------------------------------------------


def _select(frame: pd.DataFrame, alpha: float, methods: Methods) -> pd.DataFrame:
    """Return the rows of one alpha, in the order of the methods."""
    methods = methods_of("figure") if methods is None else methods
    chosen = frame[np.isclose(frame.alpha, alpha) & frame.method.isin(methods)]
    if chosen.empty:
        there = ", ".join(f"{a:g}" for a in frame.alpha.unique())
        raise KitError(f"nothing to draw at alpha {alpha:g}: the frame has alpha {there or 'none'}")
    place = {name: i for i, name in enumerate(methods)}
    return chosen.sort_values("method", key=lambda names: names.map(place), kind="stable")


def _median(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.drop(columns="method").groupby("step", as_index=False).median(numeric_only=True)


@rc_context(LOOK)
def _by_step(chosen: pd.DataFrame, panels: Mapping[str, str], source: str, log: bool) -> Figure:
    """Draw two columns of a frame against the step; `panels` has their titles."""
    figure, both = two_panels()
    for axes, (column, title) in zip(both, panels.items(), strict=True):
        shown = _floored(axes, "y", chosen[column]) if log else chosen[column]
        for i, (name, runs) in enumerate(chosen.assign(shown=shown).groupby("method", sort=False)):
            line = look_of(name).plot(linewidth=2.4, markevery=(i, 10))
            thin = {"units": "seed", "color": line["color"], "linewidth": 0.7, "alpha": 0.35}
            draw = partial(seaborn.lineplot, runs, x="step", y="shown", ax=axes, legend=False)
            draw(estimator=None, **thin)
            draw(estimator="median", errorbar=None, **line)
        if log:
            log_axis(axes, "y")
        alpha = f"$\\alpha$ = {chosen.alpha.iloc[0]:g}"
        axes.set(xlabel="step", ylabel=_AXIS[column], title=f"{title}, {alpha}")
        axes.margins(x=0.01)
        label_ends(axes)
    _note(figure, chosen, source)
    return figure


def _trajectories(axes: Axes, runs: pd.DataFrame, thin: float, line: dict[str, Any]) -> None:
    """Draw each seed of a method `thin` points wide, and the median over seeds as `line`."""
    for _, run in runs.groupby("seed"):
        _trajectory(axes, run, color=line["color"], linewidth=thin, alpha=0.35)
    _trajectory(axes, _median(runs), **line)


def _trajectory(axes: Axes, run: pd.DataFrame, **line: Any) -> None:
    x = _floored(axes, "x", run.forget_distance)
    axes.plot(x, _floored(axes, "y", run.retain_distance), **line)


def _floored(axes: Axes, which: str, values: pd.Series) -> pd.Series:
    """Return distances that are at least the floor; where one is raised to it, draw the floor."""
    label = f"_floor {which}"
    if (values < _FLOOR).any() and label not in [line.get_label() for line in axes.get_lines()]:
        rules = {"x": (axes.axvline, _FLOOR, "data"), "y": (axes.axhline, 0.02, "axes fraction")}
        rule, left, unit = rules[which]
        rule(_FLOOR, color="#777777", linewidth=1, linestyle=":", label=label)
        units = (unit, "axes fraction")
        axes.annotate(" floor: 1e-5 or less", (left, 0.01), xycoords=units, fontsize=9)
    return values.clip(lower=_FLOOR)


def _finish_trade_off(axes: Axes, title: str) -> None:
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.figure.subplots_adjust(bottom=0.23)  # three lines under it
    axes.set(xlabel=_FORGET, ylabel=_RETAIN, title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _label_grid(panels: Sequence[Axes], x: str, y: str, columns: int) -> None:
    """Label the axes and the lines that all panels share; `columns` of the legend."""
    figure, lines = panels[0].figure, panels[0].get_legend_handles_labels()
    figure.supxlabel(x, y=0.06, fontsize=12)
    figure.supylabel(y, fontsize=12)
    figure.legend(*lines, ncols=columns, loc="upper center", frameon=False)


def _by_beta(frame: pd.DataFrame) -> list[tuple[pd.DataFrame, Style]]:
    """Return the runs of each method and beta, NPO's blues from light (small beta) to dark."""
    betas, parts = sorted(frame.beta.dropna().unique()), []
    for (name, beta), runs in frame.groupby(["method", "beta"], dropna=False, sort=False):
        look = look_of(name)
        if beta in betas:
            shade = 0.35 + 0.65 * (betas.index(beta) + 1) / len(betas)
            r, g, b = (1 - (1 - c) * shade for c in to_rgb(look.colour))
            marker = "ov^DsP*X"[betas.index(beta) % 8]
            look = Style(f"{look.label}, $\\beta$ = {beta:g}", to_hex((r, g, b)), look.line, marker)
        parts.append((runs, look))
    return parts


def _swept(look: Style, runs: pd.DataFrame) -> dict[str, Any]:
    every = max(1, runs.step.nunique() // 8)
    return look.plot(linewidth=1.9, markevery=every, markersize=6)


def _note(figure: Figure, frame: pd.DataFrame, source: str, drawn: str = "") -> None:
    """Write n, the seeds, how they are drawn, the source and the learning rates under a figure."""
    seeds = sorted(frame.seed.unique())
    named = ", ".join(map(str, seeds)) if len(seeds) <= 6 else f"{seeds[0]} to {seeds[-1]}"
    several = len(seeds) > 1
    drawn = f": {drawn or 'each thin line a seed, thick the median'}" * several
    apart = "\n" if figure.get_figwidth() < 12 else " · "
    by_rate = frame.method.map(lambda name: look_of(name).label).groupby(frame.lr).unique()
    rates = "; ".join(f"{lr:g} for {', '.join(names)}" for lr, names in by_rate.items())
    first = f"n = {_ROWS}{apart}{len(seeds)} seed{'s' * several} ({named}){drawn} · {source}"
    footnote(figure, f"{first}\nlearning rate: {rates}")

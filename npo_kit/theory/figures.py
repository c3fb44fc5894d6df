"""The synthetic experiment and the theorems as figures: from frames to matplotlib figures.

Thin lines are seeds, thick lines their median. Every figure says n, the seeds, the learning rates,
and whether it shows a recorded or a live run (`source`); arrows say which way is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
import seaborn
from matplotlib import rc_context
from matplotlib.figure import Figure

from npo_kit.losses.looks import look_of
from npo_kit.style import (
    LOOK,
    SMALL,
    described,
    footnote,
    label_ends,
    log_axis,
    one_panel,
    panels,
    panels_in_grid,
    power,
)
from npo_kit.theory.lines import (
    AXIS,
    DISTANCE,
    DISTANCES,
    DRIFT,
    FORGET,
    TRADE,
    Methods,
    by_beta,
    ends,
    finish_trade_off,
    floored,
    label_grid,
    median,
    note,
    select,
    swept,
    trajectories,
    trajectory,
)


def distance_curves(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw forget and retain distance against the step, as in the paper's synthetic figure."""
    titles = {"forget_distance": "Forgetting", "retain_distance": "Keeping the rest"}
    return _by_step(select(frame, alpha, methods), titles, source, DISTANCE)


def drift_curves(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw how far each step is from the start: GA moves on linearly, NPO slows down."""
    titles = {f"{part}_drift": f"Moved on the {part} points" for part in ("forget", "retain")}
    return _by_step(select(frame, alpha, methods), titles, source, DRIFT)


@rc_context(LOOK)
def trade_off(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw retain against forget distance: each seed's trajectory, and medians at equal steps."""
    chosen = select(frame, alpha, methods)
    figure, axes = one_panel()
    for name, runs in chosen.groupby("method", sort=False):
        trajectories(axes, runs, 0.7, look_of(name).plot(linewidth=2.4, markevery=10))
    start = look_of("original").plot(markersize=11, label="start", linestyle="")
    trajectory(axes, median(chosen[chosen.step == 0]), **start)
    title = f"Forgetting against keeping, α = {alpha:g}"
    finish_trade_off(axes, title)
    note(figure, chosen, source)
    return described(figure, f"{title}: {TRADE} {ends(chosen, *DISTANCES)}.")


@rc_context(LOOK)
def seeds_apart(
    frame: pd.DataFrame, alpha: float = 1.0, methods: Methods = None, *, source: str = "live"
) -> Figure:
    """Draw the forget distance in a panel per seed (at most 11), the median over them last."""
    chosen, column = select(frame, alpha, methods), "forget_distance"
    seeds = list(dict.fromkeys(chosen.seed))[:11]
    figure, grid = panels_in_grid(len(seeds) + 1, -(-chosen.method.nunique() // 4), 2)
    parts = [(f"seed {seed}", chosen[chosen.seed == seed]) for seed in seeds]
    for axes, (title, part) in zip(grid, [*parts, ("median of all", chosen)], strict=True):
        for name, runs in part.groupby("method", sort=False):
            middle = median(runs)
            line = look_of(name).plot(linewidth=1.8, markevery=20, markersize=5)
            axes.plot(middle.step, floored(axes, "y", middle[column]), **line)
        best = f"best {power(float(f'{part[column].min():.2g}'))}"
        axes.set_title(f"{title}\n{best if part is not chosen else ''}", fontsize=SMALL)
        log_axis(axes, "y")
    label_grid(figure, "step", AXIS[column].replace("\n", "   "), columns=4)
    note(figure, chosen, source, "each panel but the last is one seed")
    least = (
        chosen.groupby(["method", "seed"], sort=False)[column].min().groupby("method", sort=False)
    )
    said = (
        f"{look_of(name).label} {low:.2g} to {high:.2g}"
        for name, low, high in zip(least.min().index, least.min(), least.max(), strict=True)
    )
    return described(
        figure,
        f"Forget distance by step, α = {alpha:g}: a panel for each of {len(seeds)} seeds, then the "
        f"median. The least that each method reached, over the seeds: {'; '.join(said)} nats.",
    )


@rc_context(LOOK)
def beta_sweep_curves(sweep: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw the trajectories of NPO at each beta and of GA: retain against forget distance."""
    figure, (axes,) = panels(1, 3.6, right=2.3)
    for runs, look in by_beta(sweep):
        trajectories(axes, runs, 0.6, swept(look, runs))
    title = f"Smaller β, nearer to GA: α = {sweep.alpha.iloc[0]:g}"
    finish_trade_off(axes, title)
    note(figure, sweep, source)
    return described(figure, f"{title}. {TRADE} {ends(sweep, *DISTANCES)}.")


@rc_context(LOOK)
def averaging(sweep: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw the beta sweep averaged over seeds at equal steps, then seed by seed."""
    seeds = list(dict.fromkeys(sweep.seed))[:5]
    figure, grid = panels_in_grid(len(seeds) + 1, -(-len(by_beta(sweep)) // 3))
    mean = sweep.groupby(["method", "beta", "step"], dropna=False, sort=False, as_index=False)
    parts = [("mean of seeds", mean.mean())]
    parts += [(f"seed {seed}", sweep[sweep.seed == seed]) for seed in seeds]
    for axes, (title, part) in zip(grid, parts, strict=True):
        for runs, look in by_beta(part):
            trajectory(axes, runs, **swept(look, runs))
        log_axis(axes, "x")
        log_axis(axes, "y")
        weight = "bold" if axes is grid[0] else "normal"
        axes.set_title(title, fontweight=weight, fontsize=SMALL)
    label_grid(figure, FORGET, AXIS["retain_distance"].replace("\n", "   "), columns=3)
    note(figure, sweep, source, "averaged at equal steps in the first panel, then each by itself")
    return described(
        figure,
        f"Retain against forget distance in {len(grid)} panels, the mean over seeds at equal "
        f"steps and each seed alone. {TRADE} {ends(sweep, *DISTANCES)}.",
    )


@rc_context(LOOK)
def _by_step(chosen: pd.DataFrame, titles: Mapping[str, str], source: str, kind: str) -> Figure:
    """Draw two columns of a frame against the step, distances (`kind`) on a logarithmic axis."""
    figure, both = panels(2, 2.7, left=1.05)
    log, alpha = kind == DISTANCE, f"α = {chosen.alpha.iloc[0]:g}"
    for axes, (column, title) in zip(both, titles.items(), strict=True):
        shown = floored(axes, "y", chosen[column]) if log else chosen[column]
        for i, (name, runs) in enumerate(chosen.assign(shown=shown).groupby("method", sort=False)):
            line = look_of(name).plot(linewidth=2.4, markevery=(i, 10))
            thin = {"units": "seed", "color": line["color"], "linewidth": 0.7, "alpha": 0.35}
            draw = partial(seaborn.lineplot, runs, x="step", y="shown", ax=axes, legend=False)
            draw(estimator=None, **thin)
            draw(estimator="median", errorbar=None, **line)
        if log:
            log_axis(axes, "y")
        axes.set(xlabel="step", ylabel=AXIS[column], title=f"{title}, {alpha}")
        axes.margins(x=0.01)
        axes.locator_params("x", nbins=5)
        axes.label_outer()
        label_ends(axes)
    note(figure, chosen, source, note=kind)
    both_named = " and ".join(name.replace("_", " ") for name in titles)
    return described(
        figure,
        f"{both_named.capitalize()} by step, {alpha}: thin lines are seeds, thick ones medians. "
        f"At the last step, medians of both: {ends(chosen, *titles)}.",
    )


# --- the theorems -------------------------------------------------------------------------------


@rc_context(LOOK)
def divergence(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw Theorem 2: distance from the start, linear in the step for GA, in its log for NPO."""
    figure, both = panels(2, 2.6, same=False)
    for axes, shown in zip(both, (frame, frame[frame.method != "ga"]), strict=True):
        for runs, look in by_beta(shown):
            axes.plot(runs.step, runs.distance, **look.plot(marker=""))
        axes.locator_params("x", nbins=4)
        axes.set(xlabel="step", ylabel="distance from the start\n↓ slower is safer")
        label_ends(axes)
    both[0].set_title("GA runs away linearly")
    both[1].set_title("NPO only logarithmically")
    log_axis(both[1], "x")
    footnote(
        figure,
        "n = 16 orthonormal rows in 256 dimensions · distance in the norm of XᵀX · one draw · "
        + source,
    )
    ends = (f"{look.label} {runs.distance.iloc[-1]:.3g}" for runs, look in by_beta(frame))
    return described(
        figure,
        "Distance from the start by step, above for GA and NPO, below for NPO against the log "
        f"of the step. At the last step, {frame.step.max():,}: {'; '.join(ends)}.",
    )


@rc_context(LOOK)
def limit(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw Proposition 1: the gap between NPO and GA against beta, beside its first-order term."""
    frame = frame.sort_values("beta")
    figure, both = panels(2, 2.4, left=1.25)
    named = {"loss": "losses,\nnats", "gradient": "gradients,\nEuclidean norm"}
    said = []
    for axes, (name, many) in zip(both, named.items(), strict=True):
        expected, measured = frame[f"{name}_gap_expected"], frame[f"{name}_gap"]
        axes.plot(frame.beta, expected, "k--", label="first order")
        axes.plot(frame.beta, measured, **look_of("npo").plot(label="measured"))
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set(xlabel="β   ← nearer to GA", ylabel=f"gap of the {many}")
        axes.set_title(f"The {name}: slope 1")
        axes.label_outer()
        label_ends(axes)
        said.append(f"of the {name} {measured.iloc[0]:.2g}, expected {expected.iloc[0]:.2g}")
    footnote(
        figure,
        f"NPO against GA · dashed: first-order term, ∝ β · n = 200 rows · one draw · {source}",
    )
    return described(
        figure,
        "Gap between NPO and GA against β, of losses above and of gradients below, both axes "
        "logarithmic, each beside a dashed line that is proportional to β. At the least β, "
        f"{frame.beta.min():g}: {'; '.join(said)}.",
    )

"""Records as figures: pure functions from frames to matplotlib figures, in the look of `look`.

Thin lines are seeds, thick lines their median. Every figure says n, the seeds, and whether it shows
a recorded or a live run (`source`); arrows on the axes say which way is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from npo_kit.errors import KitError
from npo_kit.style import (
    LOOK,
    Style,
    footnote,
    label_ends,
    log_axis,
    panels_in_grid,
    panels_in_row,
    style,
)

# --- the synthetic experiment -------------------------------------------------------------------

PAPER_FIGURE = ("ga", "ga_rt", "idk_rt", "npo", "npo_rt", "dpo_rt")
SYNTHETIC_ROWS = "1000 retain + 200 forget rows, 1000 + 1000 fresh points"
_AXIS = {
    "forget_distance": "forget distance: KL(retrained || current), nats",
    "retain_distance": "retain distance: KL(retrained || current), nats",
    "forget_drift": "forget drift: KL(initial || current), nats",
    "retain_drift": "retain drift: KL(initial || current), nats",
}
_FLOOR = 1e-5  # nats, the least that a log axis shows


def distance_curves(
    frame: pd.DataFrame,
    alpha: float = 1.0,
    methods: Sequence[str] = PAPER_FIGURE,
    *,
    source: str = "live",
    rows: str = SYNTHETIC_ROWS,
) -> Figure:
    """Forget and retain distance against step, as in the paper's synthetic figure."""
    chosen = _select(frame, alpha, methods)
    with rc_context(LOOK):
        figure, panels = panels_in_row(2)
        for axes, column in zip(panels, ("forget_distance", "retain_distance"), strict=True):
            _against_step(axes, chosen, column, log=True)
            axes.set_ylabel(f"{_AXIS[column]}\n↓ lower is better")
        panels[0].set_title(f"Forgetting, $\\alpha$ = {alpha:g}")
        panels[1].set_title(f"Keeping the rest, $\\alpha$ = {alpha:g}")
        _note(figure, chosen, source, rows)
    return figure


def drift_curves(
    frame: pd.DataFrame,
    alpha: float = 1.0,
    methods: Sequence[str] = PAPER_FIGURE,
    *,
    source: str = "live",
    rows: str = SYNTHETIC_ROWS,
) -> Figure:
    """How far the model has moved from its start, against step: GA linearly, NPO slowing down."""
    chosen = _select(frame, alpha, methods)
    with rc_context(LOOK):
        figure, panels = panels_in_row(2)
        for axes, column in zip(panels, ("forget_drift", "retain_drift"), strict=True):
            _against_step(axes, chosen, column, log=False)
        panels[0].set_ylabel(f"{_AXIS['forget_drift']}\n↕ no better way: far enough, no further")
        panels[1].set_ylabel(f"{_AXIS['retain_drift']}\n↓ lower is better")
        panels[0].set_title(f"Moved on the forget points, $\\alpha$ = {alpha:g}")
        panels[1].set_title(f"Moved on the retain points, $\\alpha$ = {alpha:g}")
        _note(figure, chosen, source, rows)
    return figure


def trade_off(
    frame: pd.DataFrame,
    alpha: float = 1.0,
    methods: Sequence[str] = PAPER_FIGURE,
    *,
    source: str = "live",
    rows: str = SYNTHETIC_ROWS,
) -> Figure:
    """Retain against forget distance, each seed's road; medians are at equal steps, so no road."""
    chosen = _select(frame, alpha, methods)
    with rc_context(LOOK):
        figure, (axes,) = panels_in_row(1, width=9.2)
        for name, runs in chosen.groupby("method", sort=False):
            look, middle = style(name), _median(runs)
            for _, run in runs.groupby("seed"):
                _road(axes, run, color=look.colour, linewidth=0.7, alpha=0.35)
            _road(axes, middle, **look.plot(linewidth=2.4, markevery=10, label=look.label))
        start = _median(chosen[chosen.step == 0])
        _road(axes, start, color="#7F7F7F", marker="o", markersize=11, label="start", linestyle="")
        _both_logs(axes)
        axes.set_title(f"Forgetting against keeping, $\\alpha$ = {alpha:g}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        _note(figure, chosen, source, rows)
    return figure


def seeds_apart(
    frame: pd.DataFrame,
    alpha: float = 1.0,
    methods: Sequence[str] = PAPER_FIGURE,
    *,
    column: str = "forget_distance",
    source: str = "live",
    rows: str = SYNTHETIC_ROWS,
) -> Figure:
    """The seed-by-seed view: one panel per seed (at most 11), and the median over them last."""
    chosen = _select(frame, alpha, methods)
    seeds = list(dict.fromkeys(chosen.seed))[:11]
    with rc_context(LOOK):
        figure, panels = panels_in_grid(len(seeds) + 1)
        parts = [(f"seed {seed}", chosen[chosen.seed == seed]) for seed in seeds]
        for axes, (title, part) in zip(panels, [*parts, ("median of all", chosen)], strict=True):
            for name, runs in part.groupby("method", sort=False):
                look, middle = style(name), _median(runs)
                line = look.plot(linewidth=1.8, markevery=20, markersize=5, label=look.label)
                axes.plot(middle.step, middle[column].clip(lower=_FLOOR), **line)
            best = part[column].min()
            axes.set_title(f"{title}: best {best:.2g}" if part is not chosen else title)
            log_axis(axes, "y")
        panels[0].figure.supxlabel("step", y=0.055, fontsize=12)
        panels[0].figure.supylabel(f"{_AXIS[column]}   ↓ lower is better", fontsize=12)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, ncols=len(methods), loc="upper center", frameon=False)
        _note(figure, chosen, source, rows, "each panel but the last is one seed")
    return figure


def beta_sweep_curves(
    sweep: pd.DataFrame, *, source: str = "live", rows: str = SYNTHETIC_ROWS
) -> Figure:
    """NPO's road by beta, beside GA's: retain against forget distance, each seed and the median."""
    with rc_context(LOOK):
        figure, (axes,) = panels_in_row(1, width=9.2)
        for runs, look in _by_beta(sweep):
            for _, run in runs.groupby("seed"):
                _road(axes, run, color=look.colour, linewidth=0.6, alpha=0.35)
            _road(axes, _median(runs), **_swept(look, runs))
        _both_logs(axes)
        axes.set_title(
            f"Smaller β, nearer to GA: $\\alpha$ = {sweep.alpha.iloc[0]:g}, one learning rate"
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        _note(figure, sweep, source, rows)
    return figure


def averaging(sweep: pd.DataFrame, *, source: str = "live", rows: str = SYNTHETIC_ROWS) -> Figure:
    """The beta sweep averaged over seeds at equal steps, beside the same sweep seed by seed."""
    seeds = list(dict.fromkeys(sweep.seed))[:5]
    with rc_context(LOOK):
        figure, panels = panels_in_grid(len(seeds) + 1, columns=3)
        mean = sweep.groupby(["method", "beta", "step"], dropna=False, sort=False).mean()
        parts = [("mean over seeds at equal steps", mean.reset_index())]
        parts += [(f"seed {seed} alone", sweep[sweep.seed == seed]) for seed in seeds]
        for axes, (title, part) in zip(panels, parts, strict=True):
            for runs, look in _by_beta(part):
                _road(axes, runs, **_swept(look, runs))
            _both_logs(axes, labels=False)
            axes.set_title(title, fontweight="bold" if axes is panels[0] else "normal")
        figure.supxlabel("forget distance, nats   ← lower is better", y=0.055, fontsize=12)
        figure.supylabel("retain distance, nats   ↓ lower is better", fontsize=12)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, ncols=6, loc="upper center", frameon=False)
        _note(figure, sweep, source, rows, "averaged in the first panel, then each by itself")
    return figure


# --- the theorems -------------------------------------------------------------------------------


def divergence(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Theorem 2: distance from the start, GA linear in the step and NPO linear in its logarithm."""
    with rc_context(LOOK):
        figure, panels = panels_in_row(2, width=14.5)
        for axes, shown in zip(panels, (frame, frame[frame.method != "ga"]), strict=True):
            ends = []
            for runs, look in _by_beta(shown):
                axes.plot(runs.step, runs.distance, color=look.colour, linestyle=look.line)
                ends.append((runs.distance.iloc[-1], look.label, look.colour))
            axes.locator_params("x", nbins=4)
            axes.set_xlabel("step")
            axes.set_ylabel("distance from the start, in XᵀX\n↓ slower is safer")
            label_ends(axes, ends)
        panels[0].set_title("GA runs away linearly")
        panels[1].set_title("NPO only logarithmically")
        panels[1].set_xscale("log")
        footnote(figure, f"n = 16 orthonormal rows in 256 dimensions · one draw · {source}")
    return figure


def limit(frame: pd.DataFrame, *, source: str = "live") -> Figure:
    """Proposition 1: how far NPO is from GA, against beta, beside the first-order term."""
    with rc_context(LOOK):
        figure, panels = panels_in_row(2)
        named = {"loss": "losses, nats", "gradient": "gradients, Euclidean norm"}
        for axes, (name, many) in zip(panels, named.items(), strict=True):
            look = style("npo")
            axes.loglog(
                frame.beta,
                frame[f"{name}_gap_expected"],
                "k--",
                label=r"first-order term, $\propto \beta$",
            )
            axes.loglog(
                frame.beta, frame[f"{name}_gap"], label="measured, NPO against GA", **look.plot()
            )
            axes.set_xlabel("β   ← nearer to GA")
            axes.set_ylabel(f"gap between the {many}")
            axes.set_title(f"The {name}: slope 1")
            axes.legend(frameon=False)
        footnote(figure, f"n = 200 rows · one draw · {source}")
    return figure


def _select(frame: pd.DataFrame, alpha: float, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of one alpha and of the methods that there are; KitError if there are none."""
    chosen = frame[np.isclose(frame.alpha, alpha) & frame.method.isin(methods)]
    if chosen.empty:
        there = ", ".join(f"{a:g}" for a in frame.alpha.unique())
        raise KitError(f"nothing to draw at alpha {alpha:g}: the frame has alpha {there or 'none'}")
    place = {name: i for i, name in enumerate(methods)}
    return chosen.sort_values("method", key=lambda names: names.map(place), kind="stable")


def _median(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.drop(columns="method").groupby("step", as_index=False).median(numeric_only=True)


def _against_step(axes: Axes, frame: pd.DataFrame, column: str, *, log: bool) -> None:
    ends = []
    for i, (name, runs) in enumerate(frame.groupby("method", sort=False)):
        look, middle = style(name), _median(runs)
        for _, run in runs.groupby("seed"):
            values = run[column].clip(lower=_FLOOR) if log else run[column]
            axes.plot(run.step, values, color=look.colour, linewidth=0.7, alpha=0.35)
        values = middle[column].clip(lower=_FLOOR) if log else middle[column]
        axes.plot(middle.step, values, **look.plot(linewidth=2.4, markevery=(i, 10)))
        ends.append((values.iloc[-1], look.label, look.colour))
    if log:
        log_axis(axes, "y")
    axes.set_xlabel("step")
    axes.margins(x=0.01)
    label_ends(axes, ends)


def _road(axes: Axes, run: pd.DataFrame, **look: object) -> None:
    x, y = run.forget_distance.clip(lower=_FLOOR), run.retain_distance.clip(lower=_FLOOR)
    axes.plot(x, y, **look)


def _both_logs(axes: Axes, *, labels: bool = True) -> None:
    log_axis(axes, "x")
    log_axis(axes, "y")
    if labels:
        axes.set_xlabel("forget distance, nats   ← lower is better")
        axes.set_ylabel("retain distance, nats   ↓ lower is better")


def _by_beta(frame: pd.DataFrame) -> list[tuple[pd.DataFrame, Style]]:
    """The runs of each method and beta, NPO's blues from light (small beta) to dark."""
    betas = sorted(frame.beta.dropna().unique())
    parts = []
    for (name, beta), runs in frame.groupby(["method", "beta"], dropna=False, sort=False):
        look = style(name)
        if beta in betas:
            rank = (betas.index(beta) + 1) / len(betas)
            pale = tuple(1 - (1 - c) * (0.35 + 0.65 * rank) for c in to_rgb(look.colour))
            marker = "ov^DsP*X"[betas.index(beta) % 8]
            look = Style(f"{look.label}, $\\beta$ = {beta:g}", pale, look.line, marker)
        parts.append((runs, look))
    return parts


def _swept(look: Style, runs: pd.DataFrame) -> dict[str, object]:
    every = max(1, runs.step.nunique() // 8)
    return look.plot(linewidth=1.9, markevery=every, markersize=6, label=look.label)


def _note(figure: Figure, frame: pd.DataFrame, source: str, rows: str, drawn: str = "") -> None:
    seeds = sorted(frame.seed.unique())
    named = ", ".join(map(str, seeds)) if len(seeds) <= 6 else f"{seeds[0]} to {seeds[-1]}"
    if len(seeds) > 1:
        drawn = f": {drawn or 'each thin line a seed, thick the median'}"
    apart = "\n" if figure.get_figwidth() < 12 else " · "
    count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    footnote(figure, f"n = {rows}{apart}{count} ({named}){drawn} · {source}")

"""Runs of language models as figures: curves by step, trade-off, truth ratios, NPO's weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import seaborn
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS
from npo_kit.losses.paper import npo_weight
from npo_kit.metrics.summary import FORGOTTEN, Summary, log_truth_ratios, summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.run import Run
from npo_kit.studies.authors_plans import MAIN
from npo_kit.studies.splits import READINGS, SplitRun, null_bands
from npo_kit.style import (
    GUIDE,
    LOOK,
    SHADE,
    described,
    footnote,
    label_ends,
    log_axis,
    one_panel,
    panels,
)

LOG_RATIOS = np.linspace(-40, 10, 251)  # nats, of a whole answer
LEAST_W = 1e-6  # the lowest weight that is drawn
COLLAPSE = 1e-3  # a probability per token; where one falls below it, the axis is logarithmic
LEAST_P = 1e-16  # the left edge of the trade-off, where smaller p-values are drawn as well


@rc_context(LOOK)
def weight_curves(beta: float = 0.1, others: Sequence[float] = (0.02, 0.5, 2.0)) -> Figure:
    """Draw NPO's gradient weight W = 2 sigmoid(beta u) against the log-ratio u; GA's is 1."""
    figure, axes = one_panel()
    npo, ga = look_of("npo"), look_of("ga")
    axes.axhline(1, color=ga.colour, linestyle=ga.line, linewidth=2, label=ga.label)
    for value in (*others, beta):
        look: dict[str, Any] = {"linewidth": 1, "alpha": 0.4}
        if value == beta:
            look = {"linewidth": 3, "label": f"{npo.label}, β = {beta:g}"}
        weight = npo_weight(torch.from_numpy(LOG_RATIOS), value).numpy()
        axes.plot(LOG_RATIOS, weight, color=npo.colour, **look)
    axes.axvline(0, color=GUIDE, linewidth=1, linestyle=":")
    x = "log-ratio u = log π/π_ref, nats   ← forgotten"
    axes.set(xlabel=x, ylabel="weight W of its gradient", title="How hard each answer is pushed")
    label_ends(axes)
    faint, half = ", ".join(f"{value:g}" for value in others), -math.log(3) / beta
    footnote(figure, f"a formula: W = 2σ(βu) of an answer's log-ratio u; faint: β = {faint}")
    return described(
        figure,
        "NPO's weight W of an answer against its log-ratio u: 2 far above 0, 1 at u = 0, falling "
        f"towards 0 below. With β = {beta:g} it is one half at u = {half:.3g} nats. GA's weight is "
        f"a level line at 1. Faint curves: β = {faint}.",
    )


@rc_context(LOOK)
def run_curves(runs: Mapping[str, Sequence[Evaluation]], *, source: str = "live") -> Figure:
    """Draw the mean probability of forget and retain answers by step, a line for each method."""
    figure, both = panels(2, 2.6)
    said: dict[str, list[str]] = {}
    for axes, name in zip(both, ("forget", "retain"), strict=True):
        for method, evaluations in runs.items():
            look, steps = look_of(method), [each.step for each in evaluations]
            values = _values(map(summarise, evaluations), f"{name}_probability")
            axes.plot(steps, values, **look.plot(linewidth=2.4))
            said.setdefault(look.label, []).append(f"{name} {values[0]:.2g} to {values[-1]:.2g}")
        least = min(min(np.asarray(line.get_ydata())) for line in axes.get_lines())
        if least < COLLAPSE:
            log_axis(axes, "y")
        axes.set_ylim(max(least / 2, LEAST_P) if least < COLLAPSE else 0, 1)
        axes.set(xlabel="step", ylabel="probability per token")
        axes.label_outer()
        label_ends(axes)
    both[0].set_title("Answers to forget: down is wanted")
    both[1].set_title("Answers to keep: down is damage")
    rows = next(iter(runs.values()))[0].rows
    count = f"n = {len(rows['forget'])} forget and {len(rows['retain'])} retain rows"
    footnote(figure, f"{count} · one seed (0) · {source}")
    ends = "; ".join(f"{label}: {', '.join(parts)}" for label, parts in said.items())
    return described(
        figure,
        "Mean probability per token by step, of the answers to forget above and of the answers to "
        f"keep below. From the first to the last step: {ends}.",
    )


@rc_context(LOOK)
def trade_off(
    runs: Mapping[str, Sequence[Evaluation]], reference: Evaluation, *, source: str = "live"
) -> Figure:
    """Draw model utility against forget quality: each run's trajectory, its last marker large.

    `runs` by method's name; `reference` is the retained-only model's evaluation.
    """
    figure, (axes,) = panels(1, 3.3, below=0.85)
    said = []
    for method, evaluations in runs.items():
        look = look_of(method)
        found = [summarise(each, reference) for each in evaluations]
        p = np.maximum(_values(found, "forget_quality"), LEAST_P)
        utility = _values(found, "model_utility")
        axes.plot(p, utility, **look.plot(linewidth=1.6, markersize=4))
        axes.plot(p[-1:], utility[-1:], **look.plot(markersize=11, linestyle="", label=""))
        said.append(f"{look.label} p {p[-1]:.1g}, utility {utility[-1]:.2g}")
    start = look_of("original")
    axes.plot(p[:1], utility[:1], **start.plot(markersize=12, linestyle="", label=""))
    axes.annotate(start.label, (p[0], utility[0]), (4, -22), textcoords="offset points")
    aim = look_of("retained")
    kept = _values([summarise(reference)], "model_utility")[0]
    axes.axhline(kept, color=aim.colour, linestyle=aim.line)
    axes.axvline(FORGOTTEN, color=GUIDE, linewidth=1, linestyle=":")
    lowest, highest = axes.get_ylim()
    log_axis(axes, "x")
    axes.set_ylim(min(lowest, 0.5 * highest), 1.05 * highest)
    x = "forget quality: p-value\n→ not told apart from retained-only"
    y = "model utility   ↑ higher is better"
    axes.set(xlabel=x, ylabel=y, title="Forgetting against keeping")
    label_ends(axes)
    footnote(
        figure,
        f"n = {len(reference.rows['forget'])} forget rows · large marker: the last step · dotted: "
        f"p = {FORGOTTEN:g} · dashed: utility of retained-only · one seed · {source}",
    )
    return described(
        figure,
        "Model utility up, the p-value of the forget quality across, logarithmic: each run's "
        f"trajectory from the original. At the last step: {'; '.join(said)}. A dashed line is the "
        f"retained-only model's utility, {kept:.2g}.",
    )


@rc_context(LOOK)
def ratio_curves(
    models: Mapping[str, Evaluation], reference: Evaluation, *, source: str = "live"
) -> Figure:
    """Draw cumulative curves of the forget rows' truth ratio, and the KS gap D to `reference`.

    `models` by method's name, or "original"; `reference` is the retained-only model's evaluation.
    """
    figure, (axes,) = panels(1, 3.6, right=0.15)
    theirs = np.sort(log_truth_ratios(reference, "forget"))
    drawn, bars = [(look_of("retained"), theirs, "retained-only")], []
    for name, evaluation in models.items():
        look, ours = look_of(name), np.sort(log_truth_ratios(evaluation, "forget"))
        at, gap = _largest_gap(ours, theirs)
        drawn.append((look, ours, f"{look.label}: D = {abs(gap[0] - gap[1]):.2f}"))
        bars.append(([math.exp(at)] * 2, gap, look.colour))
    for look, values, label in drawn:
        line = {"color": look.colour, "linestyle": look.line, "linewidth": 2.2, "label": label}
        seaborn.ecdfplot(x=np.exp(values), ax=axes, **line)
    for x, y, colour in bars:
        axes.plot(x, y, color=colour, linewidth=5, solid_capstyle="butt")
    log_axis(axes, "x")
    axes.set_xlabel("truth ratio R = P(wrong) / P(right)   (1: cannot tell)")
    axes.set_ylabel("share of forget rows with R or less")
    axes.set_title("Forget quality: how far from the dashed curve?")
    axes.legend(frameon=False, loc="upper left")
    footnote(figure, f"n = {len(theirs)} forget rows · bars: the largest gap D · {source}")
    return described(
        figure,
        f"Cumulative curves of the truth ratio of {len(theirs)} forget rows, on a log axis: "
        "the retained-only model dashed, and the largest gap of each other to it as a bar. "
        f"{'; '.join(label for _, _, label in drawn[1:])}.",
    )


@rc_context(LOOK)
def utility_and_weight(runs: Sequence[Run], *, source: str = "recorded") -> Figure:
    """Draw model utility and the median weight W of each step, a line for each run."""
    figure, both = panels(2, 2.6, left=1.2)
    said = []
    betas = sorted({run.beta for run in runs if run.beta})
    for run in runs:
        look = look_of(str(run.method))
        label = look.label
        line = look.plot(linewidth=2.2, marker="", label=label)
        if run.beta:
            place = betas.index(run.beta)
            line |= {"linestyle": ("-", "--", ":")[place % 3]}
            line |= {"label": f"{label}, β = {run.beta:g}"}
        found = list(run.evaluations())
        utility = _values(map(summarise, found), "model_utility")
        both[0].plot([each.step for each in found], utility, **line)
        weights = [max(step["weights"]["median"], LEAST_W) for step in run.steps]
        both[1].plot([step["step"] for step in run.steps], weights, **line)
        said.append(f"{line['label']}: utility {utility[-1]:.2g}, W {weights[-1]:.2g}")
    both[0].set(ylim=(-0.02, 0.75), ylabel="model utility\n↑ higher is better")
    log_axis(both[1], "y")
    both[1].set(ylim=(LEAST_W / 2, 3), ylabel="median weight W\nof a step")
    for axes, title in zip(both, ("What is kept", "How hard it still pushes"), strict=True):
        axes.set(xlabel="step", title=title)
        axes.label_outer()
        label_ends(axes)
    footnote(figure, f"one seed (0) · no retain term · W below {LEAST_W:g} drawn there · {source}")
    return described(
        figure,
        "Model utility by step above, the median weight W of a step's answers below, on a "
        f"logarithmic axis. At the last step: {'; '.join(said)}.",
    )


SPLIT_PANELS: list[tuple[str, Callable[[SplitRun], float | None]]] = [
    ("Utility kept, at the rule's checkpoint", lambda run: run.kept("best")),
    ("Utility kept, once it has forgotten as much", lambda run: run.kept("equal")),
    ("Forget quality p, at the rule's checkpoint", lambda run: run.best["forget_quality"]),
]


@rc_context(LOOK)
def how_much(
    runs: Sequence[SplitRun],
    variant: str = "",
    *,
    methods: Sequence[str] = MAIN,
    source: str = "recorded",
) -> Figure:
    """Draw utility kept and forget quality against the share to be forgotten.

    `runs` are those of a study of several splits (`split_runs`), `variant` one of its READINGS. A
    line is the median over seeds, its band reaches from the least to the greatest.
    """
    figure, three = panels(3, 2.2, left=0.75, right=1.0)
    drawn = [run for run in runs if run.variant == variant and run.method in methods]
    for axes, (title, score) in zip(three, SPLIT_PANELS, strict=True):
        for name in dict.fromkeys(run.method for run in drawn):
            of_method = [run for run in drawn if run.method == name]
            seaborn.lineplot(
                x=[run.percent for run in of_method],
                y=np.array([score(run) for run in of_method], dtype=float),  # None: a gap
                estimator="median",
                errorbar=("pi", 100),
                ax=axes,
                legend=False,
                err_kws={"alpha": 0.15, "linewidth": 0},
                **look_of(name).plot(linewidth=3 if METHODS[name].retain else 1.6, markersize=8),
            )
        ticks = sorted({run.percent for run in drawn})
        axes.set(title=title, xlabel="% of the authors to be forgotten", ylabel="", xticks=ticks)
    for axes in three[:2]:
        axes.set_ylim(-0.03, 1.1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _draw_nulls(three[2], null_bands(drawn))
    for axes in three:
        axes.label_outer()
        label_ends(axes)
    footnote(
        figure,
        f"{READINGS[variant]} · line: median of the seeds, band: all of them · as much: the first "
        "checkpoint at or below retained-only's P of the forget answers\n"
        "a run may collapse between two checkpoints · grey: p of models that never saw the rows, "
        f"5 to 95 % · dotted: p = {FORGOTTEN:g} · {source}",
    )
    lines = [(line.get_label(), np.asarray(line.get_ydata())) for line in three[0].get_lines()]
    said = "; ".join(f"{label} {y[0]:.0%} and {y[-1]:.0%}" for label, y in lines if len(y))
    return described(
        figure,
        "Utility kept, in two panels, and forget quality p, by the share of the authors to be "
        f"forgotten. Kept at the rule's checkpoint, at the least share and the greatest: {said}.",
    )


def _draw_nulls(axes: Axes, bands: Mapping[int, Any]) -> None:
    """Draw where p lies among models that never saw the rows, by percentage (`null_bands`)."""
    known = {percent: band for percent, band in bands.items() if band}
    if known:
        low, high = ([band[place][1] for band in known.values()] for place in (-1, 0))
        axes.fill_between(list(known), low, high, color=SHADE, alpha=0.5, linewidth=0)
    axes.axhline(FORGOTTEN, color=GUIDE, linewidth=1, linestyle=":")
    log_axis(axes, "y")
    axes.set_ylim(max(axes.get_ylim()[0], LEAST_P), 1.6)


def _largest_gap(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return where two sorted samples' cumulative curves are farthest apart, and both heights."""
    at = np.concatenate([ours, theirs])
    heights = [np.searchsorted(each, at, side="right") / len(each) for each in (ours, theirs)]
    place = int(np.argmax(np.abs(heights[0] - heights[1])))
    return float(at[place]), (float(heights[0][place]), float(heights[1][place]))


def _values(summaries: Iterable[Summary], name: str) -> np.ndarray:
    """Return a score of each summary; NaN, which leaves a gap, where it is None."""
    return np.array([each[name] for each in summaries], dtype=float)

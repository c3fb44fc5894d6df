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
from npo_kit.metrics.null import Null, ks_p
from npo_kit.metrics.summary import FORGOTTEN, Summary, log_truth_ratios, summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.studies.authors_plans import MAIN
from npo_kit.studies.splits import READINGS, SplitRun, null_band
from npo_kit.style import LOOK, footnote, label_ends, log_axis, one_panel, two_panels

LOG_RATIOS = np.linspace(-40, 10, 251)  # nats, of a whole answer
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
    axes.axvline(0, color="#999999", linewidth=1, linestyle=":")
    x = "log-ratio u = log π/π_ref of an answer, nats   ← forgotten"
    axes.set(xlabel=x, ylabel="weight W of its gradient", title="How hard each answer is pushed")
    label_ends(axes)
    faint = ", ".join(f"{value:g}" for value in others)
    footnote(figure, f"a formula: W = 2σ(βu); faint: β = {faint}")
    return figure


@rc_context(LOOK)
def run_curves(runs: Mapping[str, Sequence[Evaluation]], *, source: str = "live") -> Figure:
    """Draw the mean probability of forget and retain answers by step, a line for each method."""
    figure, panels = two_panels()
    for axes, name in zip(panels, ("forget", "retain"), strict=True):
        for method, evaluations in runs.items():
            look, steps = look_of(method), [each.step for each in evaluations]
            values = _values(map(summarise, evaluations), f"{name}_probability")
            axes.plot(steps, values, **look.plot(linewidth=2.4))
        axes.set(ylim=(0, 1), xlabel="step", ylabel="probability of the answer, per token")
        label_ends(axes)
    panels[0].set_title("Answers to forget: down is wanted")
    panels[1].set_title("Answers to keep: down is damage")
    rows = next(iter(runs.values()))[0].rows
    count = f"n = {len(rows['forget'])} forget and {len(rows['retain'])} retain rows"
    footnote(figure, f"{count} · one seed (0) · {source}")
    return figure


@rc_context(LOOK)
def trade_off(
    runs: Mapping[str, Sequence[Evaluation]], reference: Evaluation, *, source: str = "live"
) -> Figure:
    """Draw model utility against forget quality: each run's trajectory, its last marker large.

    `runs` by method's name; `reference` is the retained-only model's evaluation.
    """
    figure, axes = one_panel()
    for method, evaluations in runs.items():
        look = look_of(method)
        found = [summarise(each, reference) for each in evaluations]
        p = np.maximum(_values(found, "forget_quality"), LEAST_P)
        utility = _values(found, "model_utility")
        axes.plot(p, utility, **look.plot(linewidth=1.6, markersize=4))
        axes.plot(p[-1:], utility[-1:], **look.plot(markersize=11, linestyle="", label=""))
    start = look_of("original")
    axes.plot(p[:1], utility[:1], **start.plot(markersize=12, linestyle="", label=""))
    axes.annotate(start.label, (p[0], utility[0]), (4, -22), textcoords="offset points")
    aim = look_of("retained")
    kept = _values([summarise(reference)], "model_utility")[0]
    axes.axhline(kept, color=aim.colour, linestyle=aim.line)
    axes.axvline(FORGOTTEN, color="#999999", linewidth=1, linestyle=":")
    lowest, highest = axes.get_ylim()
    axes.set(xscale="log", ylim=(min(lowest, 0.5 * highest), 1.05 * highest))
    x = "forget quality: p-value   → not told apart from retained-only"
    y = "model utility   ↑ higher is better"
    axes.set(xlabel=x, ylabel=y, title="Forgetting against keeping")
    label_ends(axes)
    footnote(
        figure,
        f"n = {len(reference.rows['forget'])} forget rows · large marker: the last step · dotted: "
        f"p = {FORGOTTEN:g} · dashed: utility of retained-only · one seed · {source}",
    )
    return figure


@rc_context(LOOK)
def ratio_curves(
    models: Mapping[str, Evaluation], reference: Evaluation, *, source: str = "live"
) -> Figure:
    """Draw cumulative curves of the forget rows' truth ratio, and the KS gap D to `reference`.

    `models` by method's name, or "original"; `reference` is the retained-only model's evaluation.
    """
    figure, axes = one_panel()
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
    return figure


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
    figure = Figure(figsize=(16.0, 5.2))
    figure.subplots_adjust(left=0.05, right=0.925, bottom=0.2, top=0.9, wspace=0.5)
    panels = list(figure.subplots(1, 3))
    drawn = [run for run in runs if run.variant == variant and run.method in methods]
    looks = {name: look_of(name) for name in dict.fromkeys(run.method for run in drawn)}
    scores: list[tuple[str, Callable[[SplitRun], float | None]]] = [
        ("Utility kept, at the rule's checkpoint", lambda run: run.kept("best")),
        ("Utility kept, once it has forgotten as much", lambda run: run.kept("equal")),
        ("Forget quality p, at the rule's checkpoint", lambda run: run.best["forget_quality"]),
    ]
    for axes, (title, score) in zip(panels, scores, strict=True):
        for name, look in looks.items():
            of_method = [run for run in drawn if run.method == name]
            values = [score(run) for run in of_method]
            seaborn.lineplot(
                x=[run.percent for run in of_method],
                y=np.array([math.nan if v is None else v for v in values], dtype=float),
                estimator="median",
                errorbar=("pi", 100),
                ax=axes,
                legend=False,
                err_kws={"alpha": 0.15, "linewidth": 0},
                **look.plot(linewidth=3 if METHODS[name].retain else 1.6, markersize=8),
            )
        axes.set(title=title, xlabel="% of the authors to be forgotten", ylabel="")
        axes.set_xticks(sorted({run.percent for run in drawn}))
    for axes in panels[:2]:
        axes.set_ylim(-0.03, 1.1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _draw_nulls(panels[2], {run.percent: str(run.best["task"]) for run in drawn})
    for axes in panels:
        label_ends(axes)
    footnote(
        figure,
        f"{READINGS[variant]} · line: median of the seeds, band: all of them · as much: the first "
        "checkpoint at or below retained-only's P of the forget answers\n"
        "a run may collapse between two checkpoints · grey: p of models that never saw the rows, "
        f"5 to 95 % · dotted: p = {FORGOTTEN:g} · {source}",
    )
    return figure


def _draw_nulls(axes: Axes, tasks: Mapping[int, str]) -> None:
    """Draw where p lies among models that never saw the rows of each task."""
    bands = {percent: null_band(task) for percent, task in sorted(tasks.items())}
    known = {percent: band for percent, band in bands.items() if band}
    if known:
        low, high = ([band[place][1] for band in known.values()] for place in (-1, 0))
        axes.fill_between(list(known), low, high, color="#BBBBBB", alpha=0.5, linewidth=0)
    axes.axhline(FORGOTTEN, color="#999999", linewidth=1, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(max(axes.get_ylim()[0], LEAST_P), 1.6)


@rc_context(LOOK)
def null_distances(null: Null, models: Mapping[str, float], *, source: str = "recorded") -> Figure:
    """Draw how far models that never saw the forget rows lie apart, and where others lie.

    `models`: the distance D of each method's model to the retained-only one.
    """
    figure, axes = one_panel()
    figure.subplots_adjust(right=0.97)
    pairs, rows = null.pairs(), len(null.ratios[0])
    seaborn.histplot(
        x=pairs[:, 0],
        bins=np.arange(0, 1 + 1 / rows, 1 / rows) - 0.5 / rows,
        stat="percent",
        color="#999999",
        linewidth=0,
        ax=axes,
    )
    highest = axes.get_ylim()[1]
    for place, (name, distance) in enumerate(sorted(models.items(), key=lambda item: item[1])):
        look = look_of(name)
        axes.axvline(distance, color=look.colour, linestyle=look.line, linewidth=2.4)
        height = highest * (0.95 - 0.1 * (place % 4))
        words: dict[str, Any] = {"color": look.colour, "fontweight": "bold", "va": "top"}
        axes.annotate(look.label, (distance, height), (5, 0), textcoords="offset points", **words)
    refused = min(n for n in range(1, rows + 1) if ks_p(n, rows) < FORGOTTEN) / rows
    axes.axvspan(refused, 1, color="#E6E6E6", zorder=0)
    axes.set_xlim(0, 1.15 * max([refused, *models.values()]))
    axes.set_xlabel("distance D of two models on the forget rows")
    axes.set_ylabel("% of pairs that never saw the rows")
    axes.set_title("How different are two models that never saw it?")
    footnote(
        figure,
        f"{len(pairs):,} pairs of one base among {len(null.ratios)} models · {rows} rows · "
        f"shaded: where p < {FORGOTTEN:g} · lines: last checkpoints · {source}",
    )
    return figure


def _largest_gap(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return where two sorted samples' cumulative curves are farthest apart, and both heights."""
    at = np.concatenate([ours, theirs])
    heights = [np.searchsorted(each, at, side="right") / len(each) for each in (ours, theirs)]
    place = int(np.argmax(np.abs(heights[0] - heights[1])))
    return float(at[place]), (float(heights[0][place]), float(heights[1][place]))


def _values(summaries: Iterable[Summary], name: str) -> np.ndarray:
    """Return a score of each summary; NaN, which leaves a gap, where it is None."""
    return np.array([each[name] for each in summaries], dtype=float)

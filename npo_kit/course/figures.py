"""Runs as figures and texts: curves by step, the weight, answers side by side with what leaks."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from npo_kit.data.rows import Row
from npo_kit.metrics.summary import FORGOTTEN, log_truth_ratios, summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.style import LOOK, footnote, label_ends, log_axis, panels_in_row, style

LOG_RATIOS = np.linspace(-40, 10, 251)  # nats, of a whole answer


def weight_curves(beta: float = 0.1, others: Sequence[float] = (0.02, 0.5, 2.0)) -> Figure:
    """NPO's gradient weight W = 2 sigmoid(beta u) against the log-ratio u; GA's is 1."""
    with rc_context(LOOK):
        figure, (axes,) = panels_in_row(1, width=9.2)
        npo, ga = style("npo"), style("ga")
        axes.axhline(1, color=ga.colour, linestyle=ga.line, linewidth=2)
        ends = [(1.0, "GA", ga.colour)]
        for value in (*others, beta):
            curve = 2 / (1 + np.exp(-value * LOG_RATIOS))
            main = value == beta
            axes.plot(
                LOG_RATIOS,
                curve,
                color=npo.colour,
                linewidth=3 if main else 1,
                alpha=1 if main else 0.4,
            )
            if main:
                ends.append((curve[-1], f"NPO, β = {beta:g}", npo.colour))
        axes.axvline(0, color="#999999", linewidth=1, linestyle=":")
        axes.set_xlabel("log-ratio u = log π/π_ref of an answer, nats   ← forgotten")
        axes.set_ylabel("weight W of its gradient")
        axes.set_title("How hard each answer is pushed")
        label_ends(axes, ends)
        faint = ", ".join(f"{value:g}" for value in others)
        footnote(figure, f"a formula: W = 2σ(βu); faint: β = {faint}")
    return figure


def run_curves(
    runs: Mapping[str, Sequence[Evaluation]], *, source: str = "live", seed: int = 0
) -> Figure:
    """Mean probability of the forget and of the retain answers by step, a line for each method."""
    with rc_context(LOOK):
        figure, panels = panels_in_row(2)
        for axes, name in zip(panels, ("forget", "retain"), strict=True):
            ends = []
            for method, evaluations in runs.items():
                look, steps = style(method), [each.step for each in evaluations]
                values = [summarise(each)[f"{name}_probability"] for each in evaluations]
                axes.plot(steps, values, **look.plot(linewidth=2.4))
                ends.append((values[-1], look.label, look.colour))
            axes.set_ylim(0, 1)
            axes.set_xlabel("step")
            axes.set_ylabel("probability of the answer, per token")
            label_ends(axes, ends)
        panels[0].set_title("Answers to forget: down is wanted")
        panels[1].set_title("Answers to keep: down is damage")
        rows = next(iter(runs.values()))[0].rows
        footnote(
            figure,
            f"n = {len(rows['forget'])} forget and {len(rows['retain'])} retain rows · one seed "
            f"({seed}) · {source}",
        )
    return figure


LEAST_P = 1e-16  # the left edge of the trade-off; what is smaller is drawn there


def trade_off_roads(
    runs: Mapping[str, Sequence[Evaluation]],
    reference: Evaluation,
    *,
    source: str = "live",
) -> Figure:
    """Model utility against forget quality: each run's road, a marker per evaluation, large last.

    `runs` by method's name; `reference` is the retained-only model's evaluation.
    """
    with rc_context(LOOK):
        figure, (axes,) = panels_in_row(1, width=9.2)
        ends = []
        for method, evaluations in runs.items():
            look = style(method)
            found = [summarise(each, reference) for each in evaluations]
            p = [max(each["forget_quality"], LEAST_P) for each in found]
            utility = [each["model_utility"] for each in found]
            axes.plot(p, utility, **look.plot(linewidth=1.6, markersize=4))
            axes.plot(p[-1:], utility[-1:], **look.plot(markersize=11, linestyle=""))
            ends.append((utility[-1], look.label, look.colour))
        start = style("original")
        axes.plot(p[:1], utility[:1], **start.plot(markersize=12, linestyle=""))
        axes.annotate(start.label, (p[0], utility[0]), (4, -22), textcoords="offset points")
        aim = style("retained")
        axes.axhline(summarise(reference)["model_utility"], color=aim.colour, linestyle=aim.line)
        axes.axvline(FORGOTTEN, color="#999999", linewidth=1, linestyle=":")
        axes.set_xscale("log")
        lowest, highest = axes.get_ylim()
        axes.set_ylim(min(lowest, 0.5 * highest), 1.05 * highest)
        axes.set_xlabel("forget quality: p-value   → not told apart from retained-only")
        axes.set_ylabel("model utility   ↑ higher is better")
        axes.set_title("Forgetting against keeping")
        label_ends(axes, ends)
        n = len(reference.rows["forget"])
        footnote(
            figure,
            f"n = {n} forget rows · large marker: the last step · dotted: p = {FORGOTTEN:g} · "
            f"dashed: utility of retained-only · one seed · {source}",
        )
    return figure


class SideBySide:
    """What several models answer to some questions, the words of the true answer marked."""

    def __init__(self, question_rows: Sequence[Row], said: Mapping[str, Sequence[str]]):
        self.rows, self.said = question_rows, said

    def _repr_html_(self) -> str:
        names = [html.escape(name) for name in ("question", *self.said)]
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
        body = "".join(self._line(number, row) for number, row in enumerate(self.rows))
        return f"<table style='font-size:105%'><tr>{head}</tr>{body}</table>"

    def _line(self, number: int, row: Row) -> str:
        cells = "".join(
            f"<td style='text-align:left;vertical-align:top'>{_marked(texts[number], row)}</td>"
            for texts in self.said.values()
        )
        asked = f"{html.escape(row['question'])}<br><i>{html.escape(row['answer'])}</i>"
        return f"<tr><td style='text-align:left;vertical-align:top'>{asked}</td>{cells}</tr>"

    def __repr__(self) -> str:
        lines = []
        for number, row in enumerate(self.rows):
            lines += [row["question"], f"  true: {row['answer']}"]
            lines += [f"  {name}: {texts[number]}" for name, texts in self.said.items()]
        return "\n".join(lines)


def side_by_side(
    rows: Sequence[Row], evaluations: Mapping[str, Evaluation], set_name: str = "forget"
) -> SideBySide:
    """Answers of several models to the first rows of an evaluation set; `rows` as evaluated."""
    said = {
        name: [row["generation"] for row in each.rows[set_name][: len(rows)]]
        for name, each in evaluations.items()
    }
    return SideBySide(rows, said)


SMALL_WORDS = {"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "the", "to", "with"}
SCORES = {
    "forget_probability": "P forget",
    "retain_probability": "P retain",
    "model_utility": "utility",
    "forget_quality": "forget p",
}


def scores_line(evaluation: Evaluation, reference: Evaluation | None = None) -> str:
    """The scores of one evaluation in a line; without a reference no forget quality."""
    found = summarise(evaluation, reference)
    known = {label: found[name] for name, label in SCORES.items() if found.get(name) is not None}
    return " · ".join(f"{label} {value:.2g}" for label, value in known.items())


def _marked(text: str, row: Row) -> str:
    """A text as HTML, in bold and underlined the fact's words that the question lacks.

    Not the small ones, which every text has.
    """
    span = row.get("entity_span")
    fact = row["answer"][slice(*span)] if span else row["answer"]
    words, asked = (set(re.findall(r"\w+", each.lower())) for each in (fact, row["question"]))
    leak = words - asked - SMALL_WORDS
    parts = re.split(r"(\w+)", text)
    return "".join(
        f"<u><b>{html.escape(part)}</b></u>" if part.lower() in leak else html.escape(part)
        for part in parts
    )


def ratio_curves(
    models: Mapping[str, Evaluation], reference: Evaluation, *, source: str = "live"
) -> Figure:
    """Cumulative curves of the truth ratio on the forget rows, and the KS gap D to `reference`.

    `models` by method's name, or "original"; `reference` is the retained-only model's evaluation.
    """
    with rc_context(LOOK):
        figure, (axes,) = panels_in_row(1, width=9.2)
        theirs = np.sort(log_truth_ratios(reference, "forget"))
        _stairs(axes, theirs, color=style("retained").colour, linestyle="--", label="retained-only")
        for name, evaluation in models.items():
            look, ours = style(name), np.sort(log_truth_ratios(evaluation, "forget"))
            at, gap = _largest_gap(ours, theirs)
            label = f"{look.label}: D = {abs(gap[0] - gap[1]):.2f}"
            _stairs(axes, ours, color=look.colour, linestyle=look.line, label=label)
            axes.plot(
                [math.exp(at)] * 2, gap, color=look.colour, linewidth=5, solid_capstyle="butt"
            )
        log_axis(axes, "x")
        axes.set_xlabel("truth ratio R = P(wrong) / P(right)   (1: cannot tell)")
        axes.set_ylabel("share of forget rows with R or less")
        axes.set_title("Forget quality: how far from the dashed curve?")
        axes.legend(frameon=False, loc="upper left")
        footnote(figure, f"n = {len(theirs)} forget rows · bars: the largest gap D · {source}")
    return figure


def _stairs(axes, values: np.ndarray, **look: object) -> None:
    share = np.arange(1, len(values) + 1) / len(values)
    axes.plot(np.exp(values), share, drawstyle="steps-post", linewidth=2.2, **look)


def _largest_gap(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Where two sorted samples' cumulative curves are farthest apart, and their heights there."""
    at = np.concatenate([ours, theirs])
    heights = [np.searchsorted(each, at, side="right") / len(each) for each in (ours, theirs)]
    place = int(np.argmax(np.abs(heights[0] - heights[1])))
    return float(at[place]), (float(heights[0][place]), float(heights[1][place]))

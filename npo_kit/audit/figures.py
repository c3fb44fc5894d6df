"""The cards of an audit as a figure: the model, the original and the band of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from npo_kit import style
from npo_kit.records.files import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npo_kit.audit.bench import Reading

BAND = "#BDBDBD"
MODEL = "#0072B2"
OTHERS = ((MODEL, "o"), ("#D55E00", "^"), ("#7B4FA3", "D"))
LOOKS = {"original": ("#7F7F7F", "s"), "retained-only": ("#000000", "|")}
SETS = {
    "own": "half of the forgotten facts",
    "template": "other facts in the same form",
    "unrelated": "unrelated facts",
}


def cards_figure(record: Json) -> Figure:
    """Draw a card a line: the band in grey, retained-only models as points, the model with its 95 %
    interval, the original as a square. `record` is that of `Audit.record`."""
    from matplotlib import rc_context

    cards = record["cards"]
    with rc_context(style.LOOK):
        from matplotlib.figure import Figure

        size = (style.WIDTH, 1.0 + 1.15 * len(cards))
        figure = Figure(figsize=size, layout="constrained")
        lines = figure.subplots(len(cards), 1, squeeze=False)[:, 0]
        for axes, (name, card) in zip(lines, cards.items(), strict=True):
            _strip(axes, card)
            axes.set_title(card["title"], fontsize=12, fontweight="bold")
            axes.set_gid(name)
        shown = lines[0].get_legend_handles_labels()
        figure.legend(*shown, loc="outside lower center", ncols=2, frameon=False)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it would move a little at every draw
    return style.described(figure, f"A line for each card. {_said(cards)}.")


def _said(cards: Json) -> str:
    """Say the value of each card and the band of the models that never saw the rows."""
    told = []
    for card in cards.values():
        band = "no band"
        if card["band"]:
            band = f"models that never saw it {card['band'][0]:.2g} to {card['band'][1]:.2g}"
        value = f"{card['value']:.2g}" if _is_number(card["value"]) else "no value"
        told.append(f"{card['title']}: {value}, {band}")
    return "; ".join(told)


def _strip(axes: Axes, card: Json) -> None:
    """Draw one card's line; a value that is no number is left out, and said."""
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(card["unit"], fontsize=style.SMALL)
    axes.set_ylim(-1, 1)
    if card["band"]:
        axes.axvspan(*card["band"], color=BAND, alpha=0.7, label="5 to 95 % of them")
    points = [value for value in card["points"] if _is_number(value)]
    axes.plot(
        points, [0] * len(points), "|", color=style.QUIET, ms=11, label="models that never saw it"
    )
    if _is_number(card["original"]):
        axes.plot(card["original"], 0, "s", color="#7F7F7F", ms=13, label="original")
    if not _is_number(card["value"]):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center")
        return
    known = _is_number(card["lower"])
    reach = [[card["value"] - card["lower"]], [card["upper"] - card["value"]]] if known else None
    axes.errorbar(
        card["value"],
        0,
        xerr=reach,
        fmt="o",
        color=MODEL,
        ms=9,
        capsize=4,
        label="audited, 95 %" if known else "audited",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def relearning_figure(readings: Mapping[str, Reading]) -> Figure:
    """Draw, by model, the mean log-prob of a fact while other rows are learned: a panel a set.

    `readings` of the card `relearning` by name; "original" and "retained-only" have looks of their
    own. Solid: the facts that are not taught; dotted: those that are, in the set `own`.
    """
    from matplotlib import rc_context

    others = [label for label in readings if label not in LOOKS]
    looks = LOOKS | dict(zip(others, cycle(OTHERS), strict=False))
    sets = [name for name in SETS if all(name in r.detail["sets"] for r in readings.values())]
    said: dict[str, list[str]] = {}
    with rc_context(style.LOOK):
        figure, panels = style.panels(len(sets), 2.1)
        for axes, name in zip(panels, sets, strict=True):
            for label, reading in readings.items():
                colour, marker = looks[label]
                curve, steps = reading.detail["sets"][name], reading.detail["settings"]["steps"]
                tested = [_mean(values) for values in curve["tested"]]
                axes.plot(steps, tested, color=colour, marker=marker, lw=2.4, label=label)
                said.setdefault(label, []).append(f"{tested[0]:.2f} to {tested[-1]:.2f}")
                if name == "own":
                    axes.plot(steps, curve["taught"], color=colour, ls=":", lw=1.6)
            axes.set(title=f"Learned: {SETS[name]}", xlabel="steps of learning them")
            axes.set_ylabel("log-prob of a fact's\ntoken, nats (↑ told)")
            axes.sharey(panels[0])
            axes.label_outer()
        for axes in panels:
            style.label_ends(axes)
        style.footnote(figure, "solid: facts that are not taught; dotted: those that are")
    told = "; ".join(f"{label}: {', '.join(parts)}" for label, parts in said.items())
    return style.described(
        figure,
        "Mean log-prob of a token of a fact that is not taught, while other rows are learned, a "
        f"panel for each kind of them: {', '.join(SETS[name] for name in sets)}. From the first to "
        f"the last step, in nats: {told}.",
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan

"""Models that never saw the forget rows as figures: their distances, and the p-values of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn
from matplotlib import rc_context
from matplotlib.figure import Figure

from npo_kit.losses.looks import look_of
from npo_kit.metrics.null import Null, ks_p
from npo_kit.metrics.summary import FORGOTTEN
from npo_kit.style import GUIDE, LOOK, QUIET, described, footnote, panels


@rc_context(LOOK)
def null_distances(null: Null, models: Mapping[str, float], *, source: str = "recorded") -> Figure:
    """Draw how far models that never saw the forget rows lie apart, and where others lie.

    `models`: the distance D of each method's model to the retained-only one.
    """
    figure, (axes,) = panels(1, 3.3, right=0.15)
    pairs, rows = null.pairs(), len(null.ratios[0])
    seaborn.histplot(
        x=pairs[:, 0],
        bins=np.arange(0, 1 + 1 / rows, 1 / rows) - 0.5 / rows,
        stat="percent",
        color="#888888",
        linewidth=0,
        ax=axes,
    )
    highest = axes.get_ylim()[1]
    for place, (name, distance) in enumerate(sorted(models.items(), key=lambda item: item[1])):
        look = look_of(name)
        axes.axvline(distance, color=look.colour, linestyle=look.line, linewidth=2.4)
        height = highest * (0.97 - 0.25 * (place % 3))
        words: dict[str, Any] = {"color": look.colour, "fontweight": "bold", "va": "top"}
        words |= {"rotation": 90, "xytext": (3, 0), "textcoords": "offset points"}
        axes.annotate(look.label, (distance, height), **words)
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
    said = "; ".join(f"{look_of(name).label} {D:.2f}" for name, D in models.items())
    return described(
        figure,
        f"Histogram of the distance D of {len(pairs):,} pairs of models that never saw the forget "
        f"rows: half below {np.median(pairs[:, 0]):.2g}, none above {pairs[:, 0].max():.2g}. "
        f"From {refused:.2g} on, p is below {FORGOTTEN:g}. Vertical lines: {said}.",
    )


@rc_context(LOOK)
def null_p_values(null: Null, *, source: str = "recorded") -> Figure:
    """Draw which share of the pairs of models that never saw the rows has a p of at most so much.

    The line beside it is that of lists of truth ratios that are independent, as the test supposes.
    """
    figure, (axes,) = panels(1, 3.6, right=0.2)
    pairs = null.pairs()
    p, rows = np.sort(pairs[:, 1]), len(null.ratios[0])
    axes.plot([0, 1], [0, 1], color=GUIDE, linestyle="--", linewidth=2)
    along: dict[str, Any] = {"rotation_mode": "anchor", "transform_rotates_text": True}
    said = "independent lists, as the test supposes"
    axes.text(0.22, 0.25, said, color=QUIET, rotation=45, **along)
    axes.step([0, *p], [0, *np.arange(1, len(p) + 1) / len(p)], "k", linewidth=2.6, where="post")
    axes.text(0.4, 0.2, "pairs of models that\nnever saw the rows", fontweight="bold")
    axes.axvline(FORGOTTEN, color=GUIDE, linewidth=1, linestyle=":")
    axes.annotate(f" p = {FORGOTTEN:g}", (FORGOTTEN, 0.93), color=QUIET)
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="forget quality p", ylabel="share of pairs with p or less"
    )
    axes.set_title("What p says of models with nothing to forget")
    footnote(
        figure,
        f"{len(p):,} pairs of one base among {len(null.ratios)} models · {rows} rows · {source}",
    )
    return described(
        figure,
        f"Share of the {len(p):,} pairs of models that never saw the rows whose p is at most so "
        f"much: {np.mean(p < FORGOTTEN):.0%} lie below {FORGOTTEN:g}, {np.mean(p < 0.5):.0%} below "
        f"0.5; the least is {p[0]:.2g}. Dashed diagonal: independent lists, as the test supposes.",
    )

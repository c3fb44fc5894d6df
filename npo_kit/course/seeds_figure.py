"""Two methods at equal forgetting, seed by seed and in the mean, which may be of no run at all."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from npo_kit.losses.looks import look_of
from npo_kit.style import LOOK, SMALL, described, footnote, log_axis, panels_in_grid, shared_labels
from npo_kit.theory.trajectories import retain_distance_at

SHARES = np.geomspace(0.95, 0.03, 80)  # of the forget distance at the start that are left


@rc_context(LOOK)
def mean_and_seeds(
    sweep: pd.DataFrame, methods: tuple[str, str] = ("ga", "npo"), *, source: str = "recorded"
) -> Figure:
    """Draw the retain distance of two methods against the share left to forget, shaded between.

    `sweep` has runs of both at one learning rate, each at one beta or without. The first panel is
    the mean over seeds at equal steps, each other one is a seed alone. At an equal share the shaded
    height is what one method keeps more than the other.
    """
    mean = sweep.groupby(["method", "step"], as_index=False)[["forget_distance", "retain_distance"]]
    parts = {"mean of seeds": mean.mean()}
    parts |= {f"seed {seed}": runs for seed, runs in sweep.groupby("seed")}
    figure, panels = panels_in_grid(len(parts))
    said = []
    for axes, (title, part) in zip(panels, parts.items(), strict=True):
        curves = []
        for name in methods:
            run = part[part.method == name].sort_values("step")
            curves.append(retain_distance_at(run, SHARES * run.forget_distance.iloc[0]))
            axes.plot(SHARES, curves[-1], **look_of(name).plot(marker="", linewidth=2.4))
        said.append(f"{title} {curves[1][-1] / curves[0][-1]:.2f}")
        axes.fill_between(SHARES, curves[0], curves[1], color="#999999", alpha=0.35, linewidth=0)
        log_axis(axes, "y")
        axes.set(xlim=(1, SHARES[-1]), xscale="log")
        axes.set_xticks([1, 0.3, 0.1], ["100 %", "30 %", "10 %"])
        axes.minorticks_off()
        weight = "bold" if axes is panels[0] else "normal"
        axes.set_title(title, fontweight=weight, fontsize=SMALL)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, ncols=2, loc="upper center", frameon=False)
    x = "forget distance left, of the start's   → forgotten"
    shared_labels(figure, x, "retain distance, nats   ↓ lower is better")
    footnote(figure, f"n = 1000 + 1000 fresh points · shaded: the difference · {source}")
    first, second = (look_of(name).label for name in methods)
    return described(
        figure,
        f"Retain distance of {first} and {second}, logarithmic, against the share of the forget "
        "distance that is left: the mean over seeds at equal steps, then each seed alone. "
        f"{second}'s as a multiple of {first}'s where {SHARES[-1]:.0%} are left: "
        f"{'; '.join(said)}.",
    )

"""Trajectories compared at equal forgetting, which puts fast and slow methods on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from npo_kit.errors import KitError


def retain_distance_at(run: pd.DataFrame, levels: Sequence[float]) -> np.ndarray:
    """Interpolate a trajectory's retain distance where the forget distance first falls to a level.

    `run` is one method's frame on one seed, or their mean at equal steps; `levels` are forget
    distances in nats. Both distances are interpolated in their logarithm between recorded steps,
    since the first step below a level may lie far below it, most of all for a fast method. NaN
    where a level is never reached, or is at or above the start. KitError for a run with a repeated
    step or a level that is not positive.
    """
    run, at = run.sort_values("step"), np.asarray(levels, dtype=float)
    if run.step.duplicated().any():
        raise KitError("a step comes twice: give one method's frame on one seed")
    if not (at > 0).all():
        raise KitError(f"levels are {at.tolist()}: give positive numbers, in nats")
    forget, retain = np.log(run[["forget_distance", "retain_distance"]].to_numpy()).T
    found = np.full(len(at), np.nan)
    for place, level in enumerate(np.log(at)):
        below = np.flatnonzero(forget <= level)
        if len(below) and (i := below[0]):
            part = (forget[i - 1] - level) / (forget[i - 1] - forget[i])
            found[place] = np.exp(retain[i - 1] + part * (retain[i] - retain[i - 1]))
    return found

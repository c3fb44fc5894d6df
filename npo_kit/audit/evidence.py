"""A reading against the band of models that never saw the forget rows: what is beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npo_kit.audit.cards import UNITS
from npo_kit.records.files import Json

LEAST = 20  # retained-only models that make a band; fewer are shown as points, and decide nothing
SHARES = (5.0, 95.0)  # percentiles of the retained-only models between which the band lies
LEVEL = 0.05  # of the tests of an audit together
DRAWS = 2000  # of the bootstrap

Rows = Sequence[float | None]


@dataclass(frozen=True)
class Evidence:
    """Where one model's reading stands among retained-only models' readings by the same card.

    Lower and upper are the bootstrap's 95 % interval of the value; `above` and `below` are the
    shares of the bootstrap's draws in which the value does *not* lie above, or below, the band: a
    one-sided p. Both are None without a band, and of fewer than UNITS authors. There the interval
    is nan, as it is where all draws are alike: 0 of 60 does not mean never. Of few authors the p is
    too small: five of five lie on one side once in 32 times by a sign test, and here p is 0.
    """

    value: float
    lower: float
    upper: float
    points: list[float]  # the retained-only models' values
    band: tuple[float, float] | None = None
    above: float | None = None
    below: float | None = None
    authors: int = 0  # whose rows have a number from every model

    def record(self) -> Json:
        """Return it as JSON; null where there is no number."""
        numbers = {name: getattr(self, name) for name in ("value", "lower", "upper")}
        known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
        return {**vars(self), **known, "band": self.band and list(self.band)}


def evidence_of(
    rows: Rows, controls: Sequence[Rows], units: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> Evidence:
    """Compare a reading with the controls' by a bootstrap over units, such as authors.

    `rows[i]`, and each control's, belong to one probe, whose unit is `units[i]`; None where the
    card says nothing, which leaves that probe out for all. The same units are drawn for the model
    and the controls: the comparison is paired.
    """
    table = np.array([rows, *controls], dtype=float)
    kept = np.isfinite(table).all(axis=0)
    if not kept.any():
        return Evidence(math.nan, math.nan, math.nan, [])
    names = [unit for unit, keep in zip(units, kept, strict=True) if keep]
    table = table[:, kept]
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    of_unit = np.array([order[name] for name in names])
    sums = np.stack([np.bincount(of_unit, line, len(order)) for line in table])
    counts = np.bincount(of_unit, minlength=len(order))
    weights = np.random.default_rng(seed).multinomial(
        len(order), np.full(len(order), 1 / len(order)), draws
    )
    drawn = sums @ weights.T / (counts @ weights.T)  # (models, draws): each draw's means
    values = table.mean(axis=1)
    can_tell, has_band = len(order) >= UNITS, len(controls) >= LEAST
    lower, upper = np.percentile(drawn[0], (2.5, 97.5))
    if not can_tell or lower == upper:
        lower, upper = math.nan, math.nan
    points = values[1:].tolist()
    found = Evidence(float(values[0]), float(lower), float(upper), points, authors=len(order))
    if not has_band:
        return found
    low, high = np.percentile(values[1:], SHARES)
    found = replace(found, band=(float(low), float(high)))
    if not can_tell:
        return found
    lows, highs = np.percentile(drawn[1:], SHARES, axis=0)
    above, below = (drawn[0] <= highs).mean(), (drawn[0] >= lows).mean()
    return replace(found, above=float(above), below=float(below))


def holm(p_values: Mapping[str, float], level: float = LEVEL) -> set[str]:
    """Return the names whose hypothesis is rejected by Holm's method at `level` over all."""
    rejected: set[str] = set()
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for number, (name, p) in enumerate(ordered):
        if p > level / (len(ordered) - number):
            break
        rejected.add(name)
    return rejected

"""Forget quality among models that never saw the forget rows: where D lies, and what p can see.

The Kolmogorov-Smirnov test takes its two samples for independent. Two models that answer the same
rows are not: hard rows are hard for both. So its p-values are too large under the null, and the
kit compares a model's D with the D of many retained-only models.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

Ratios = np.ndarray  # (rows,) log R of the forget rows of one model, nats
SAME = 1e-3  # nats within which recorded ratios are of one model
BAND = (0.05, 0.5, 0.95)  # quantiles


def ks(ours: Ratios, theirs: Ratios) -> tuple[float, float]:
    """Return D and the two-sided p-value, exact up to 10,000 rows, as public codes have it."""
    from scipy.stats import ks_2samp

    with warnings.catch_warnings():
        # Where the exact p rounds to more than 1, scipy says so and takes the asymptotic one.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful")
        result = ks_2samp(ours, theirs)
    return float(result.statistic), float(result.pvalue)


@cache
def ks_p(count: int, rows: int) -> float:
    """Return the exact two-sided p-value of D = count / rows between two samples of `rows`."""
    from scipy.stats import ks_2samp

    theirs = np.arange(rows) + count - 0.5  # so many of ours lie below all of theirs
    return float(ks_2samp(np.arange(rows), theirs, method="exact").pvalue)


def distance(ours: Ratios, theirs: Ratios) -> float:
    """Return D alone, the largest difference of the two distribution functions, in [0, 1]."""
    ours, theirs = np.sort(ours), np.sort(theirs)
    points = np.concatenate([ours, theirs])
    shares = [np.searchsorted(each, points, side="right") / len(each) for each in (ours, theirs)]
    return float(np.abs(shares[0] - shares[1]).max())


def _compared(ours: Ratios, theirs: Ratios) -> tuple[float, float]:
    """Return D and p of two models on the same rows."""
    gap, rows = distance(ours, theirs), len(ours)
    return gap, ks_p(round(gap * rows), rows)


@dataclass(frozen=True)
class Null:
    """The log truth ratios of retained-only models, and of mixtures of some with the original."""

    ratios: tuple[Ratios, ...]  # of each model, on the same forget rows in one order
    bases: tuple[int, ...]  # of each model: 0 for the base that is shipped
    mixed: Mapping[float, tuple[Ratios, ...]]  # share of the original's weights -> mixtures
    _known: dict[Any, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, study: Mapping[str, Any], split: str = "forget10") -> Null:
        """Make one of the models of a split, from a study's record as `make_null` returns it."""
        models = [model for model in study["models"] if model.get("split", split) == split]
        mixed: dict[float, list[Ratios]] = {}
        for model in models:
            for share, ratios in model.get("mixed", {}).items():
                mixed.setdefault(float(share), []).append(np.array(ratios))
        ratios = tuple(np.array(model["log_truth_ratios"]) for model in models)
        bases = tuple(model["base"] for model in models)
        return cls(ratios, bases, {share: tuple(many) for share, many in sorted(mixed.items())})

    def pairs(self, *, across: bool = False, rows: int | None = None) -> np.ndarray:
        """Return (D, p) of each pair of models, (pairs, 2): of one base, or of two.

        `rows`: compared on so many rows only, the first ones.
        """
        if (across, rows) not in self._known:
            numbered = combinations(range(len(self.ratios)), 2)
            chosen = [(i, j) for i, j in numbered if (self.bases[i] != self.bases[j]) == across]
            found = [_compared(self.ratios[i][:rows], self.ratios[j][:rows]) for i, j in chosen]
            self._known[across, rows] = np.array(found)
        return self._known[across, rows]

    @property
    def band(self) -> tuple[tuple[float, float], ...]:
        """(D, p) of the pairs of one base, at the quantiles BAND of D."""
        pairs = self.pairs()
        places = [round(q * (len(pairs) - 1)) for q in BAND]
        return tuple((float(d), float(p)) for d, p in pairs[np.argsort(pairs[:, 0])][places])

    def percentile(self, ours: Ratios, reference: Ratios) -> tuple[float, float]:
        """Return the share of the shipped base's models whose D to `reference` is smaller.

        And the binomial standard error of the share, with one success and one failure added, so
        that it is not 0 at the ends. Ties count half. The model that is the reference itself is
        left out.
        """
        theirs = self._distances(reference.tobytes())
        found = distance(ours, reference)
        share = float(np.mean(theirs < found - 1e-9) + np.mean(theirs <= found + 1e-9)) / 2
        smoothed = (share * len(theirs) + 1) / (len(theirs) + 2)
        return share, math.sqrt(smoothed * (1 - smoothed) / len(theirs))

    def _distances(self, of: bytes) -> np.ndarray:
        """Return the D of each model to a reference, given as bytes so that it is kept."""
        if of not in self._known:
            reference = np.frombuffer(of)
            self._known[of] = np.array(
                [
                    distance(other, reference)
                    for other, base in zip(self.ratios, self.bases, strict=True)
                    if base == 0 and np.abs(other - reference).max() > SAME
                ]
            )
        return self._known[of]

    def rejected(self, share: float, rows: int, below: float = 0.05) -> float:
        """Return how often p < `below` rejects mixtures of a share, against all other models."""
        found = [
            _compared(mixture[:rows], theirs[:rows])[1] < below
            for number, mixture in enumerate(self.mixed[share])
            for place, theirs in enumerate(self.ratios)
            if place != number and self.bases[place] == 0
        ]
        return float(np.mean(found))

    def beyond(self, share: float, rows: int, level: float = 0.95) -> float:
        """Return how often a mixture's D to a model lies beyond the `level` of the null's pairs."""
        limit = float(np.quantile(self.pairs(rows=rows)[:, 0], level))
        found = [
            distance(mixture[:rows], theirs[:rows]) > limit
            for number, mixture in enumerate(self.mixed[share])
            for place, theirs in enumerate(self.ratios)
            if place != number and self.bases[place] == 0
        ]
        return float(np.mean(found))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 5th, 50th and 95th percentile of some scores: the band of a null."""
    low, middle, high = np.quantile(np.asarray(values, dtype=float), BAND)
    return float(low), float(middle), float(high)

"""The events of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from npo_kit.records.evaluations import Evaluation


@dataclass(frozen=True)
class Step:
    """The outcome of one optimizer step."""

    step: int  # from 1
    epoch: float  # passes over the driving rows so far
    loss: float  # weighted sum of the terms
    terms: dict[str, float]  # each term, reduced, unweighted
    grad_norm: float  # before clipping
    lr: float  # that the step used
    weights: dict[str, float] | None  # quantiles of W over the forget rows of the batch
    skipped: bool  # fp16: the gradient overflowed and the loss scale was lowered instead
    seconds: float


@dataclass(frozen=True)
class Collapse:
    """The run ended because a loss, a gradient or a weight is no longer finite."""

    step: int
    reason: str


Event = Step | Evaluation | Collapse

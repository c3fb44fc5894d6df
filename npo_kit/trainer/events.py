"""The events of a training run."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
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

    def __repr__(self) -> str:
        terms = "".join(f", {name} {value:.4g}" for name, value in self.terms.items())
        weight = f", W {self.weights['median']:.3g}" if self.weights else ""
        skipped = ", skipped" * self.skipped
        return (
            f"Step({self.step}, epoch {self.epoch:.3g}, loss {self.loss:.4g}{terms}, gradient norm "
            f"{self.grad_norm:.3g}, lr {self.lr:.3g}{weight}, {self.seconds:.2g} s{skipped})"
        )


@dataclass(frozen=True)
class Collapse:
    """The run ended because a loss, a gradient or a weight is no longer finite."""

    step: int
    reason: str


Event = Step | Evaluation | Collapse


class Events(Iterator[Event]):
    """The events of a run, which is trained as they are taken; it warns if nobody took any."""

    def __init__(self, events: Generator[Event, None, None], name: str):
        self._events, self._name, self._begun = events, name, False

    def __next__(self) -> Event:
        self._begun = True
        return next(self._events)

    def close(self) -> None:
        """End the run here, and take no events any more."""
        self._begun = True
        self._events.close()

    def __repr__(self) -> str:
        if self._begun:
            return f"<the events of {self._name}>"
        return f"<{self._name}, not begun: for event in {self._name}(...): print(event)>"

    def __del__(self):
        if not self._begun:
            warnings.warn(
                f"{self._name}(...) has trained nothing: it works while its events are taken, as "
                f"in: for event in {self._name}(...): print(event)",
                stacklevel=2,
            )

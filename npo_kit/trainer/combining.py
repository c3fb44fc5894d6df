"""The gradients of a method's two terms, taken apart and combined, once an optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from npo_kit.errors import KitError
from npo_kit.losses.combine import Gradient, gru, mix, ngdiff, norm, smoothed
from npo_kit.losses.methods import Method
from npo_kit.models import distributed

DIRECTION = "direction"  # in the optimizer's state of a parameter, so that checkpoints keep it
Passed = tuple[dict[str, float], list[Tensor], bool]  # terms, weights W, whether all is finite


@dataclass
class Combining:
    """How a run makes one gradient of two: `kind` is one of COMBINERS but sum.

    GRU's direction lies in the optimizer's state, as its other memory of gradients does.
    """

    kind: str
    method: Method
    parameters: Sequence[nn.Parameter]  # that are trained
    optimizer: Any
    rho: float  # of sam

    def __post_init__(self):
        self.alone = {
            "forget": replace(self.method, retain=None),
            "retain": replace(self.method, forget=None, statistics={}),
        }
        self.direction: Gradient | None = None

    def pass_by(self, backward: Callable[[Method], Passed]) -> Passed:
        """Leave the combined gradient of a batch in the parameters.

        `backward` adds the gradient of a method to them. Returns what it returns of both terms; the
        forget term's values are those of the model as it is.
        """
        (terms, weights, finite), forget = self._taken("forget", backward)
        if finite and self.kind == "sam":
            with moved(self.parameters, forget, self.rho):
                (_, _, finite), forget = self._taken("forget", backward)
        if not finite:
            return terms, weights, False
        (others, _, finite), retain = self._taken("retain", backward)
        for parameter, part in zip(self.parameters, self._combined(forget, retain), strict=True):
            parameter.grad = part
        return terms | others, weights, finite

    def remember(self) -> None:
        """Keep GRU's direction in the optimizer's state; called after the optimizer's step."""
        for parameter, part in zip(self.parameters, self.direction or (), strict=False):
            self.optimizer.state[parameter][DIRECTION] = part

    def _taken(
        self, term: str, backward: Callable[[Method], Passed]
    ) -> tuple[Passed, list[Tensor]]:
        """Return what `backward` says of one term, and its gradient, out of the parameters."""
        passed, taken = backward(self.alone[term]), []
        for parameter in self.parameters:
            missing = parameter.grad is None  # a layer above those that the term reads
            taken.append(torch.zeros_like(parameter) if missing else parameter.grad)
            parameter.grad = None
        return passed, taken  # type: ignore[return-value]

    def _combined(self, forget: Gradient, retain: Gradient) -> Gradient:
        if self.kind == "ngdiff":
            return ngdiff(forget, retain)
        if self.kind == "sam":
            return mix(forget, 1.0, retain, 1.0)
        kept = [self.optimizer.state[p].get(DIRECTION) for p in self.parameters]
        self.direction = smoothed(retain, None if kept[0] is None else kept)
        return gru(forget, self.direction)


@contextmanager
def moved(parameters: Sequence[nn.Parameter], along: Gradient, rho: float) -> Iterator[None]:
    """In this context, parameters are `rho` further along a gradient; then what they were."""
    before = [parameter.detach().clone() for parameter in parameters]
    length = norm(along)
    if length > 0:
        with torch.no_grad():
            for parameter, part in zip(parameters, along, strict=True):
                parameter.add_(rho / length * part)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)


def refuse_combining(kind: str, precision: str) -> None:
    """Raise KitError where the gradients of a batch cannot be taken apart."""
    if distributed.count() > 1:
        raise KitError(f"combine {kind} works in one process: start without a launcher")
    if precision == "fp16":
        raise KitError(f"combine {kind} is not for fp16, which scales gradients: choose bf16")

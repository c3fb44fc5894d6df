"""Combiners: one gradient from those of the forget and the retain term, once an optimizer step.

A gradient is a list with a tensor for each trained parameter; products and norms go over all of
them. `sum` is the plain one and needs nothing of this: it descends on the weighted sum of the
terms. The others take both terms of a method as they are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # the names are read without torch
    from torch import Tensor

# combiner -> numbers held of each parameter at the peak of a step: gradients, GRU's direction,
# SAM's weights
HELD = {"sum": 1, "ngdiff": 2, "gru": 3, "sam": 3}
COMBINERS = tuple(HELD)
SMOOTHING = 0.8  # of GRU's retain direction: the share of the new gradient, as the authors have it
Gradient: TypeAlias = "Sequence[Tensor]"


def ngdiff(forget: Gradient, retain: Gradient) -> Gradient:
    """Give both gradients length 1 and add them (NGDiff, arXiv 2410.22086).

    The forget term is minimised: with GA, minus a log-likelihood, this is the paper's difference
    g_R / |g_R| - g_F / |g_F|. The result does not change when a term is rescaled.
    """
    return mix(forget, _inverse(norm(forget)), retain, _inverse(norm(retain)))


def gru(forget: Gradient, direction: Gradient) -> Gradient:
    """Take out of the forget gradient what works against retaining (GRU, arXiv 2503.09117).

    If <g, r> < 0 the result is g - <g, r>/<r, r> r, else g; r is the retain `direction`. It is
    orthogonal to r before the optimizer, which may turn it.
    """
    conflict = dot(forget, direction).clamp(max=0)
    size = dot(direction, direction)
    return mix(forget, 1.0, direction, -conflict * _inverse(size))


def smoothed(new: Gradient, old: Gradient | None) -> Gradient:
    """Return GRU's direction: the new retain gradient, smoothed with the direction before."""
    return new if old is None else mix(new, SMOOTHING, old, 1 - SMOOTHING)


def mix(one: Gradient, share: Tensor | float, other: Gradient, rest: Tensor | float) -> Gradient:
    """share one + rest other, in the gradients' own precision."""
    return [(share * a + rest * b).to(a.dtype) for a, b in zip(one, other, strict=True)]


def dot(one: Gradient, other: Gradient) -> Tensor:
    """Return the inner product, in full precision or wider."""
    parts = [_wide(a) * _wide(b) for a, b in zip(one, other, strict=True)]
    return sum(part.sum() for part in parts)  # type: ignore[return-value]


def norm(gradient: Gradient) -> Tensor:
    """Return the length of the whole gradient."""
    return dot(gradient, gradient).sqrt()


def _wide(part: Tensor) -> Tensor:
    return part.float() if part.itemsize < 4 else part


def _inverse(size: Tensor) -> Tensor:
    """1 / size, and 0 for 0: a gradient that is 0 has no direction."""
    return size.reciprocal().where(size > 0, size)

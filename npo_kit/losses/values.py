"""The values of a method's terms on a batch, and how hard it pushes on each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, total
from npo_kit.losses.methods import Method
from npo_kit.losses.objectives import Objective, roles


def method_values(chosen: Method, batch: Mapping[str, Answers], **hyper) -> dict[str, Tensor]:
    """Unreduced values of each term of a method on one batch, for `reduce`.

    Raises KitError that names the role if the batch lacks one, or the keyword if a
    hyper-parameter is unknown to the method.
    """
    missing = [role for f in chosen.terms.values() for role in roles(f) if role not in batch]
    if missing:
        raise KitError(
            f"the batch has no {missing[0]!r} answers, which this method needs: it reads "
            f"{', '.join(chosen.roles)} and got {', '.join(sorted(batch)) or 'nothing'}"
        )
    unknown = set(hyper) - set(chosen.hyperparameters) - set(chosen.statistics)
    if unknown:
        raise KitError(
            f"unknown hyper-parameter {min(unknown)!r}: this method takes "
            f"{', '.join(chosen.hyperparameters) or 'none'}"
        )
    values = {
        term: f(**{role: batch[role] for role in roles(f)}, **(hyper if term == "forget" else {}))
        for term, f in chosen.terms.items()
    }
    for term, value in values.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise KitError(f"the {term} objective returned a {kind}: return a tensor")
    return values


def gradient_weights(objective: Objective, batch: Mapping[str, Answers], **hyper) -> Tensor:
    """Measure how hard an objective pushes on each forget sequence: (B,), by autograd.

    The derivative of the sum of its values by the forget log-probs, averaged over each answer's
    tokens: W = 2 sigmoid(beta d) for NPO, 1 for GA. Of a gradient by logits only
    the part counts that moves the label's log-prob: its projection on that log-prob's own gradient,
    one-hot minus softmax. The objective must read the role `forget`.
    """
    forget = batch["forget"]
    leaves = [x.detach().requires_grad_() for x in (forget.logps, forget.logits) if x is not None]
    named: dict[str, Any] = dict(zip(("logps", "logits"), leaves, strict=False))
    leafed = replace(forget, **named)
    with torch.enable_grad():
        answers = {**batch, "forget": leafed}
        values = objective(**{role: answers[role] for role in roles(objective)}, **hyper)
        summed = total(values, forget.mask)
        by_logps, *by_logits = torch.autograd.grad(
            summed, leaves, allow_unused=True, materialize_grads=True
        )
    weights = by_logps
    for gradient in by_logits:
        where = forget.mask.bool()
        away = -leaves[1].detach().softmax(-1)
        away[torch.arange(len(away)), forget.labels[where]] += 1
        moved = (gradient * away).sum(-1) / away.square().sum(-1).clamp(min=1e-30)
        weights = weights + torch.zeros_like(weights).masked_scatter(where, moved.to(weights.dtype))
    return weights.sum(-1) / forget.mask.sum(-1).clamp(min=1)

"""A model's log-probabilities of a batch of answers, and the mean of an objective's values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from npo_kit.errors import KitError


@dataclass(frozen=True)
class Answers:
    """A model's log-probabilities of a batch of answers, shifted and masked once, where made."""

    logps: Tensor  # (B, T) log-probability of each answer token, nats; 0 where mask is 0
    labels: Tensor  # (B, T) the token ids
    mask: Tensor  # (B, T) 1 on answer tokens (end token included), 0 elsewhere
    logits: Tensor | None = None  # (N, V), N = mask.sum(), row-major; only if an objective asks
    hidden: dict[int, Tensor] | None = None  # layer -> (N, D), likewise


def sequence_logps(answers: Answers) -> Tensor:
    """Log-probability of each whole answer: the sum over its tokens. (B,), nats."""
    return answers.logps.sum(-1)


def reduce(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of an objective's values at their own level: real tokens, sequences, or one number.

    `values` (B, T), (B,) or (); `mask` (B, T). A scalar. Raises KitError on another shape.
    """
    divisor = denominator(values, mask)
    return total(values, mask) / divisor


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of an objective's values over real tokens, over sequences, or the number itself."""
    return (values * mask).sum() if values.ndim == 2 else values.sum()


def denominator(values: Tensor, mask: Tensor) -> Tensor | int:
    """The divisor of `reduce`: real tokens for (B, T), sequences for (B,), 1 for a number."""
    if values.shape == mask.shape:
        return mask.sum()
    if values.shape == mask.shape[:1]:
        return len(values)
    if values.ndim == 0:
        return 1
    raise KitError(
        f"an objective returned shape {tuple(values.shape)} for answers of shape "
        f"{tuple(mask.shape)}: return (B, T), (B,) or a single number"
    )


def full_precision(logits: Tensor) -> Tensor:
    """Half precisions as fp32: a log-softmax over a vocabulary needs it."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

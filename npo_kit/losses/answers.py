"""A model's log-probabilities of a batch of answers, and the mean of an objective's values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from npo_kit.errors import KitError


class _Masked(torch.autograd.Function):
    """Set values and gradients to 0 where `hidden`; it can be differentiated twice."""

    @staticmethod
    def forward(ctx, values: Tensor, hidden: Tensor) -> Tensor:
        ctx.hidden = hidden
        return values.masked_fill(hidden, 0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.masked_fill(ctx.hidden, 0), None


@dataclass(frozen=True)
class Answers:
    """A model's log-probabilities of a batch of answers, already shifted and masked.

    Whatever `logps` is given where the mask is 0 becomes 0, and its gradient is 0.
    """

    logps: Tensor  # (B, T) log-probability of each answer token, nats; 0 where mask is 0
    labels: Tensor  # (B, T) the token ids
    mask: Tensor  # (B, T) 1 on answer tokens (end token included), 0 elsewhere
    logits: Tensor | None = None  # (N, V), N = mask.sum(), row-major; only if an objective asks
    hidden: dict[float, Tensor] | None = None  # share of the layers below -> (N, D), likewise

    def __post_init__(self):
        object.__setattr__(self, "logps", _Masked.apply(self.logps, self.mask == 0))

    @classmethod
    def from_logits(cls, logits: Tensor, labels: Tensor, *, keep_logits: bool = False) -> Answers:
        """Answers for a training loop of your own, with gradient, from a causal model's output.

        `logits` (B, T, V) as the model returns them and `labels` (B, T) as its loss takes them:
        the input's token ids, -100 on prompt and padding. The logits at t - 1 predict the label at
        t, so that T - 1 columns remain. Objectives that read logits need `keep_logits=True`. Raises
        KitError if the shapes do not match.
        """
        if logits.ndim != 3 or logits.shape[:2] != labels.shape:
            raise KitError(
                f"logits of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)}: "
                "give logits (B, T, V), unshifted, and labels (B, T)"
            )
        labels = labels[:, 1:].to(logits.device)
        where = labels != -100
        return cls.of_tokens(
            logits[:, :-1][where], labels.masked_fill(~where, 0), where.long(), keep_logits
        )

    @classmethod
    def of_tokens(cls, logits: Tensor, labels: Tensor, mask: Tensor, keep_logits: bool) -> Answers:
        """Answers from the logits (N, V) that predict the masked-in labels, row-major."""
        where = mask.nonzero(as_tuple=True)
        token_logps = -F.cross_entropy(full_precision(logits), labels[where], reduction="none")
        return cls.of_logps(token_logps, labels, mask, logits if keep_logits else None)

    @classmethod
    def of_logps(
        cls, token_logps: Tensor, labels: Tensor, mask: Tensor, logits: Tensor | None = None
    ) -> Answers:
        """Answers from the log-probs (N,) of the masked-in labels, row-major."""
        where = mask.nonzero(as_tuple=True)
        logps = torch.zeros(mask.shape, dtype=token_logps.dtype, device=mask.device)
        return cls(logps.index_put(where, token_logps), labels, mask, logits)


def sequence_logps(answers: Answers) -> Tensor:
    """Log-probability of each whole answer: the sum over its tokens. (B,), nats."""
    return answers.logps.sum(-1)


def by_token(answers: Answers, values: Tensor) -> Tensor:
    """Lay one value for each answer token, (N,), row-major, out as the answers are: (B, T)."""
    return torch.zeros_like(answers.logps, dtype=values.dtype).masked_scatter(
        answers.mask.bool(), values
    )


def reduce(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of an objective's values at their own level: real tokens, sequences, or one number.

    `values` (B, T), (B,) or (); `mask` (B, T). A scalar. Raises KitError on another shape.
    """
    divisor = denominator(values, mask)
    return total(values, mask) / divisor


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of an objective's values over real tokens, over sequences, or the number itself."""
    return values.masked_fill(mask == 0, 0).sum() if values.ndim == 2 else values.sum()


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
    """Return half precisions as fp32, which a log-softmax over a vocabulary needs."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

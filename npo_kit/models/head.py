"""Log-probs of very long answers: a model's head reads a part of the tokens at a time.

The logits of 5,000 tokens over a vocabulary of 128,000 take 2.6 GB, several times over in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from npo_kit.losses.answers import full_precision
from npo_kit.models.layouts import agrees

LOGITS_AT_ONCE = 2**27  # more go in parts
LOGITS_OF_PART = 2**24


def part_size(model: PreTrainedModel, tokens: int) -> int | None:
    """Return of how many tokens a part is, None where so many tokens need no parts or allow none.

    They need a model whose body is a module of its own, whole in this process, and a test that the
    parts give the same log-probs.
    """
    if hasattr(model, "module") or isinstance(next(model.parameters()), DTensor):
        return None  # DDP, which has no embeddings to ask for, or FSDP
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if tokens * vocabulary <= LOGITS_AT_ONCE:
        return None
    if model.base_model is model or not _same_in_parts(model, vocabulary):
        return None
    return max(1, LOGITS_OF_PART // vocabulary)


def logps_in_parts(
    model: PreTrainedModel,
    inputs: dict[str, Tensor],
    lines: Tensor,
    columns: Tensor,
    labels: Tensor,
    size: int,
) -> Tensor:
    """Return the log-probs of `labels` after the tokens at (lines, columns): (N,), nats.

    The body is read once, the head for `size` tokens at a time, and again for their gradient.
    """
    seen: list[Any] = []
    body: nn.Module = model.base_model
    hook = body.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        with _instead(model.get_output_embeddings(), None):
            model(**inputs, use_cache=False)
    finally:
        hook.remove()
    output = seen[0]

    def read(states: Tensor, labels: Tensor) -> Tensor:
        given = (states[None],) if isinstance(output, tuple) else type(output)(states[None])
        with _instead(body, given):
            logits = model(input_ids=labels[None], use_cache=False).logits[0]
        return -F.cross_entropy(full_precision(logits), labels, reduction="none")

    parts = zip(output[0][lines, columns].split(size), labels.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([read(*part) for part in parts])
    how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(read, *part, **how) for part in parts])


@contextmanager
def _instead(module: nn.Module, output: Any) -> Iterator[None]:
    """In this context, a module computes nothing and returns `output`; None: the first state."""
    own = vars(module).get("forward")  # a layer may carry a forward that replaces its class's

    def forward(*inputs: Any, **_: Any) -> Any:
        return inputs[0][:1, :1] if output is None else output

    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _same_in_parts(model: PreTrainedModel, vocabulary: int) -> bool:
    ids = torch.tensor([[number % vocabulary for number in range(2, 12)]], device=model.device)
    places = torch.arange(9, device=model.device)

    def in_parts() -> Tensor:
        lines = torch.zeros_like(places)
        return logps_in_parts(model, {"input_ids": ids}, lines, places, ids[0, 1:], 4)

    def whole() -> Tensor:
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        return -F.cross_entropy(full_precision(logits), ids[0, 1:], reduction="none")

    return agrees(model, "head in parts", 1, in_parts, whole)

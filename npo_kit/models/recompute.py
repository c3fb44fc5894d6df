"""Gradient checkpointing: memory of the training forward for one more forward's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from npo_kit.errors import KitError


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Within, a decoder layer keeps only its input, and is computed again in the backward pass.

    transformers' own switch needs training mode, in which dropout would set the policy and its
    reference apart. This leaves the model in evaluation mode and, after it, as it was. Raises
    KitError for a model without layers of transformers' kind.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise KitError(
            f"the layers of {type(model).__name__} cannot be recomputed: leave out "
            "gradient_checkpointing"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # its class's is seen again


def _recomputed(forward: Callable, *inputs, **options):
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)

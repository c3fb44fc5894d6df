"""Copies of models for cards that train, round or mix weights, and what models must share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from npo_kit.errors import KitError
from npo_kit.models.adapters import active_adapters
from npo_kit.models.layouts import is_quantized


def own_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy in fp32 and evaluation mode. KitError for adapters and quantised weights."""
    if active_adapters(model) or is_quantized(model):
        raise KitError(
            "this audit needs plain weights, and the model carries an adapter or is quantised: "
            "save it and load it again, which merges an adapter, or load it unquantised"
        )
    return copy.deepcopy(model).float().eval()


@contextmanager
def evaluation_mode(*models: PreTrainedModel) -> Iterator[None]:
    """In this context models are in evaluation mode; then each gets back the mode that it had."""
    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def refuse_unlike(original: PreTrainedModel, *others: PreTrainedModel) -> None:
    """Raise KitError unless all models have weights of the same names and shapes."""
    shapes = {name: tuple(weight.shape) for name, weight in original.named_parameters()}
    for other in others:
        own = {name: tuple(weight.shape) for name, weight in other.named_parameters()}
        if own != shapes:
            name = min(n for n in shapes.keys() | own.keys() if shapes.get(n) != own.get(n))
            raise KitError(
                f"the weight {name} has shape {shapes.get(name, 'none')} in the original and "
                f"{own.get(name, 'none')} in another model: compare models made from one base"
            )

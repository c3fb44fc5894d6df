"""A model's weights and config on disk: written, then read back to make sure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from npo_kit.models.adapters import active_adapters, merged_weights, save_adapters
from npo_kit.models.errors import ModelError
from npo_kit.models.layouts import UNFIT, is_quantized


def write_model(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None) -> None:
    """Write a model without its tokenizer: its adapters merged, or `weights` in place of its own.

    Of a quantised model with adapters it writes the adapters only. Raises ModelError if
    transformers cannot load what was written or would load something else, which is not tried on a
    quantised model.
    """
    _allow_sampling(model)
    adapted, quantised = active_adapters(model), is_quantized(model)
    if adapted and quantised:
        save_adapters(model, folder)
        model.config.save_pretrained(folder)
        return
    if adapted:
        weights = merged_weights(model)
    model.save_pretrained(folder, state_dict=dict(weights) if weights else None)  # empties the dict
    if not quantised:
        all_of_them = (weights or model.state_dict()).values()
        once = {(weight.data_ptr(), weight.shape): weight for weight in all_of_them}  # of tied ones
        _read_back(folder, once.values())


def _read_back(folder: Path, weights: Iterable[Tensor]) -> None:
    """Raise ModelError unless a folder holds all weights of a model that loads, with these values.

    Loading allocates no weights. The comparison is of their count and the sum of their magnitudes,
    which stay the same when tensors are split or joined on the way to disk.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, device_map="meta", output_loading_info=True
        )
    except (OSError, SafetensorError, *UNFIT) as error:
        lines = str(error).strip().splitlines() or ["no details"]
        raise ModelError(f"the model was not saved, since it would not load: {lines[0]}") from error
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ModelError(
            f"the model was not saved, since {len(missing)} weights would be missing "
            f"({missing[0]}, ...)"
        )
    written = _fingerprint(tensor for file in folder.glob("*.safetensors") for tensor in _in(file))
    expected = _fingerprint(weights)
    if written[0] != expected[0] or abs(written[1] - expected[1]) > 1e-6 * expected[1]:
        raise ModelError("the model was not saved, since other values would be on disk")


def _in(file: Path) -> Iterable[Tensor]:
    with safe_open(file, "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118, it is no dict
            yield tensors.get_tensor(key)


def _fingerprint(tensors: Iterable[Tensor]) -> tuple[int, float]:
    number, total = 0, 0.0
    for tensor in tensors:
        number += tensor.numel()
        total += tensor.cpu().abs().sum(dtype=torch.float64).item()
    return number, total


def _allow_sampling(model: PreTrainedModel) -> None:
    """Mend settings that transformers refuses to write, such as a temperature without do_sample."""
    settings = getattr(model, "generation_config", None)
    if settings is not None:
        try:
            settings.validate(strict=True)
        except ValueError:
            settings.do_sample = True

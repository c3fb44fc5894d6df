"""Low-rank adapters (LoRA, arXiv 2106.09685) in a model; the only module that knows peft.

An adapter adds (alpha / rank) B A to a frozen weight. B starts at zero, so a new adapter changes
nothing. Without it, the model is at every step as it was before training.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from npo_kit.errors import KitError
from npo_kit.models.layouts import is_quantized, tried

Layer = Any  # a module that is a BaseTunerLayer of peft, which may not be installed


def _peft():
    try:
        import peft
    except ImportError:
        raise KitError("adapters need the package peft: pip install 'npo_kit[gpu]'") from None
    return peft


# --- in training --------------------------------------------------------------------------------


def add_adapter(model: PreTrainedModel, rank: int, alpha: float, seed: int) -> str:
    """Freeze a model and add a trainable adapter to every linear layer but the head.

    The adapter's weights are fp32 or wider, whatever the model's are; B is zero and A is drawn from
    `seed`. Earlier adapters stay active and frozen. Returns the new adapter's name. Raises
    KitError, and leaves the model as it was, where an adapter does not go with its layers.
    """
    taken = {name for layer in _layers(model).values() for name in _names(layer)}
    name = next(name for n in range(len(taken) + 1) if (name := f"adapter{n}") not in taken)
    active, trained = active_adapters(model), [p for p in model.parameters() if p.requires_grad]
    unlike = _unlike_linear(model) or None
    config = _peft().LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", exclude_modules=unlike
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second is meant
            warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern")  # of experts
            torch.default_generator.manual_seed(seed)
            _peft().inject_adapter_in_model(config, model, adapter_name=name)
        model.requires_grad_(False)
        _activate(model, [*active, name], name)
        _refuse_unfit(model)
    except ValueError as error:
        remove_adapter(model, name)
        for parameter in trained:
            parameter.requires_grad_(True)
        raise KitError(
            f"no adapter can be trained on {type(model).__name__} ({str(error).rstrip('.')}): "
            "leave out lora_rank, or take another model"
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return name


def _unlike_linear(model: nn.Module) -> list[str]:
    """Name transformers' subclasses of linear layers that compute something other than x W + b.

    A router may return a tuple, for example, to which an adapter cannot add.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and type(module).__module__.startswith("transformers.models.")
        and not _computes_linearly(module)
    ]


@torch.no_grad()
def _computes_linearly(layer: nn.Linear) -> bool:
    ones = layer.weight.new_ones(1, layer.in_features)
    given, linear = tried(lambda: layer(ones)), F.linear(ones, layer.weight, layer.bias)
    return isinstance(given, Tensor) and given.shape == linear.shape and given.allclose(linear)


def _refuse_unfit(model: PreTrainedModel) -> None:
    """Raise ValueError where an adapter gets no gradient or could not be saved."""
    ids = torch.tensor([[0, 1]], device=model.device)
    if not model(input_ids=ids, use_cache=False).logits.requires_grad:
        raise ValueError("its layers pass no gradient on")
    fused = [name for name, layer in _layers(model).items() if hasattr(layer, "parameter_name")]
    if fused and is_quantized(model):
        raise ValueError(f"what it adds to {fused[0]} cannot be saved beside quantised weights")


def remove_adapter(model: PreTrainedModel, name: str) -> None:
    """Take an adapter out of a model; layers that carry no other become plain again."""
    for path, layer in reversed(_layers(model).items()):  # inner layers first
        layer.delete_adapter(name)
        if not _names(layer):
            model.set_submodule(path, layer.base_layer)
    if known := getattr(model, "peft_config", None):
        known.pop(name, None)
        if not known:
            del model.peft_config


class WithoutAdapter:
    """A model without one of its adapters, called in the same way; it shares all weights.

    Only a call switches the adapter off; every attribute is the model's own.
    """

    def __init__(self, model: PreTrainedModel, adapter: str):
        self._whole, self._adapter = model, adapter

    def __getattr__(self, name: str):
        return getattr(self._whole, name)

    @torch.no_grad()
    def __call__(self, **inputs):
        active = active_adapters(self._whole)
        _activate(self._whole, [name for name in active if name != self._adapter], None)
        try:
            return self._whole(**inputs)
        finally:
            _activate(self._whole, active, self._adapter)


def active_adapters(model: nn.Module) -> list[str]:
    """Return the names of the adapters that take part in a forward."""
    return list(dict.fromkeys(n for layer in _layers(model).values() for n in _active(layer)))


def _activate(model: nn.Module, names: Sequence[str], trained: str | None) -> None:
    """Let the named adapters take part in a forward, and train one or none of them."""
    for layer in _layers(model).values():
        layer.set_adapter(list(names))  # which makes them all trainable
        for key, parameter in layer.named_parameters():
            parameter.requires_grad_(trained is not None and f".{trained}." in key)


def _layers(model: nn.Module) -> dict[str, Layer]:
    """Return name -> layer of the layers that carry adapters; import peft only if some may."""
    carried = {name: m for name, m in model.named_modules() if hasattr(m, "base_layer")}
    if not carried:
        return {}
    kind = _peft().tuners.tuners_utils.BaseTunerLayer
    return {name: module for name, module in carried.items() if isinstance(module, kind)}


def _names(layer: Layer) -> set[str]:
    """Return the names of a layer's adapters, active or not."""
    return {name for part in layer.adapter_layer_names for name in getattr(layer, part)}


def _active(layer: Layer) -> list[str]:
    """Return the names of a layer's adapters that take part in its forward."""
    there = _names(layer)
    return [] if layer.disable_adapters else [n for n in layer.active_adapters if n in there]


# --- on disk ------------------------------------------------------------------------------------


def load_adapter(model: PreTrainedModel, source: str, *, merge: bool) -> PreTrainedModel:
    """Load an adapter that peft can read: merged into the weights, or active and frozen.

    The embedding gets as many rows as the adapter saved for it, if it did. Raises KitError for one
    that changes no layers, such as prompt tuning.
    """
    about = _peft().PeftConfig.from_pretrained(source)
    if about.is_prompt_learning:
        raise KitError(
            f"the adapter {source} is {about.peft_type.value.lower().replace('_', ' ')}, which "
            "cannot be merged, since it changes no layer: give an adapter on layers, such as LoRA"
        )
    _fit_embedding(model, source)
    wrapped = _peft().PeftModel.from_pretrained(model, source)
    loaded = wrapped.merge_and_unload() if merge else wrapped.get_base_model()
    return loaded.requires_grad_(merge)


def _fit_embedding(model: PreTrainedModel, source: str) -> None:
    """Give the embedding of a model as many rows as an adapter has for it or for the head.

    Tokens that were added before the adapter was trained have rows in the adapter alone.
    """
    parts: tuple[Any, Any] = (model.get_input_embeddings(), model.get_output_embeddings())
    ends = [f"{name}.weight" for name, m in model.named_modules() if any(m is p for p in parts)]
    saved = _peft().utils.load_peft_weights(source, device="cpu")
    rows = {len(v) for key, v in saved.items() if key.endswith(tuple(ends)) and v.ndim == 2}
    if len(rows) == 1 and (count := rows.pop()) != parts[0].num_embeddings:
        model.resize_token_embeddings(count, mean_resizing=False)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights with active adapters merged in, named as in a model without any.

    A weight that an adapter changes comes in fp32 or wider, since half precision would round away
    the small changes of unlearning. The model itself stays as it is.
    """
    layers, weights = _layers(model), {}
    changed = {
        f"{name}.{getattr(layer, 'parameter_name', 'weight')}".replace(".base_layer", ""): layer
        for name, layer in layers.items()
    }
    for key, value in model.state_dict().items():
        within = [key.removeprefix(f"{name}.") for name in layers if key.startswith(f"{name}.")]
        if not all(part.startswith("base_layer.") for part in within):
            continue  # an adapter's own
        plain = key.replace(".base_layer", "")
        if layer := changed.get(plain):
            deltas = [layer.get_delta_weight(name) for name in _active(layer)]
            wide = torch.promote_types(value.dtype, torch.float32)
            value = sum((delta.to(wide) for delta in deltas), value.to(wide)).cpu()
        weights[plain] = value
    return weights


def save_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Join the active adapters of a model side by side and write them as one, in peft's form.

    It has their joint effect: [B1 B2] [A1; A2] = B1 A1 + B2 A2. Raises KitError for an adapter that
    is no plain LoRA.
    """
    layers, weights = _layers(model), {}
    rank = max(sum(layer.r[name] for name in _active(layer)) for layer in layers.values())
    for name, layer in layers.items():
        if layer.lora_variant or any(layer.lora_bias.values()):
            raise KitError(f"the adapter on {name} is no plain LoRA, so it cannot be joined")
        active = _active(layer)
        down = torch.cat([layer.lora_A[n].weight for n in active])  # (ranks, in)
        up = torch.cat([layer.lora_B[n].weight * layer.scaling[n] for n in active], 1)
        more = rank - len(down)  # ranks of zeros, which change nothing
        key = f"base_model.model.{name}"
        weights[f"{key}.lora_A.weight"] = F.pad(down, (0, 0, 0, more)).detach().cpu().contiguous()
        weights[f"{key}.lora_B.weight"] = F.pad(up, (0, more)).detach().cpu().contiguous()
    config = _peft().LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(layers),
        base_model_name_or_path=model.name_or_path,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})

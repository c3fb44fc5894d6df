"""Causal language models from the hub, a folder or a GGUF file, on the device that suits them."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils.hub import has_file

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError, did_you_mean
from npo_kit.models.adapter_base import (
    QUANTIZATIONS,
    advice_on_base,
    base_of_adapter,
    quantization_of,
)
from npo_kit.models.adapters import active_adapters, load_adapter
from npo_kit.models.card import write_card
from npo_kit.models.errors import ModelError, reason
from npo_kit.models.forward import is_causal
from npo_kit.models.layouts import is_quantized
from npo_kit.models.placement import PRECISIONS, Placement, choose_placement
from npo_kit.models.saving import write_model

_CONTEXTS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
DTYPES = ("float32", "bfloat16", "float16")
HALF = (torch.bfloat16, torch.float16)
POCKET = {  # name of a model that travels with the kit -> its folder; `studies.pocket` makes them
    "pocket": "original",
    "pocket:original": "original",
    "pocket:retained": "retained",
    "pocket:base": "base",
}


class Loaded(tuple):
    """`model, tokenizer`, with `placement`: where the model computes and why."""

    placement: Placement

    def __new__(cls, model: PreTrainedModel, tokenizer, placement: Placement) -> Loaded:
        pair = super().__new__(cls, (model, tokenizer))
        pair.placement = placement
        return pair


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "float32",
    quantize: str | None = None,
    base: str | Path | None = None,
) -> Loaded:
    """Load a causal LM and its tokenizer: `model, tokenizer = load_model(...)`.

    `name_or_path`: a hub name, a folder as transformers or peft writes it, a run folder with a
    `model/` inside, a `.gguf` file, or one of the kit's own small models: `pocket` (short for
    `pocket:original`), `pocket:retained`, `pocket:base`. Raises ModelError.

    Weights come in `dtype` on `device` ("auto": GPU if there is one). Training all weights needs
    float32: autocast makes it as fast as bf16, and bf16 weights would round small updates away. For
    evaluation and LoRA bfloat16 halves the memory, and `quantize="4bit"` (NF4) or `"8bit"` stores
    the linear layers except the head in so few bits, by bitsandbytes on CUDA.

    An adapter is loaded with its base model and merged into it, or kept active and frozen if the
    base is quantised; `save_model` records whether it was. A tokenizer and chat template beside the
    adapter replace the base's. `base` is the name or folder of its base model, if it names none or
    one that is elsewhere.
    """
    _refuse_unknown(name_or_path, dtype, quantize)
    name = str(name_or_path)
    source, gguf_file = _locate(name)
    placement = choose_placement(device)
    try:
        if not gguf_file and (below := base_of_adapter(source, base)):
            quantize = quantize or quantization_of(source)
            with advice_on_base(source, below):
                model, tokenizer = load_model(below, device=device, dtype=dtype, quantize=quantize)
            if has_file(source, "tokenizer_config.json"):
                tokenizer = AutoTokenizer.from_pretrained(source)
            model = load_adapter(model, source, merge=not is_quantized(model))
        elif base:
            raise ModelError(f"{name} is a whole model and no adapter: leave out base ({base})")
        else:
            model, tokenizer = _load(name, source, gguf_file, placement, dtype, quantize)
    except KitError:
        raise
    except Exception as error:  # the hub's clients and the file formats share no family of errors
        near = did_you_mean(name, POCKET)
        raise ModelError(f"{reason(name, error, placement.device)}{near}") from error
    return Loaded(model.eval(), tokenizer, placement)


def _refuse_unknown(name_or_path: object, dtype: str, quantize: str | None) -> None:
    """Raise ModelError for what names no model, number format or quantisation."""
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        kind = type(name_or_path).__name__
        raise ModelError(
            f"a model is loaded by its name, this is {name_or_path!r:.20} of type {kind}: give a "
            "hub name, a folder, a .gguf file or pocket"
        )
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if quantize not in (None, *QUANTIZATIONS):
        raise ModelError(f"unknown quantize {quantize!r}: choose one of {', '.join(QUANTIZATIONS)}")


def _load(
    name: str,
    source: str,
    gguf_file: str | None,
    placement: Placement,
    dtype: str,
    quantize: str | None,
):
    """Load a complete model that is no adapter, and its tokenizer."""
    options = {"gguf_file": gguf_file} if gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if quantize:
        options |= _quantized(quantize, placement)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=getattr(torch, dtype), output_loading_info=True, **options
    )
    model, info = loaded
    if not quantize:
        model.to(placement.device)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} of the model's weights ({missing[0]}, ...), which would "
            "be random: give a complete causal language model"
        )
    if not is_causal(model.eval()):
        raise ModelError(
            f"{name} is no causal language model: what {type(model).__name__} says of a token "
            "depends on later ones, or cannot be read; choose another model"
        )
    if gguf_file:  # the weights are plain numbers now, and saved as such
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
    folder = Path(source)
    model.name_or_path = str(folder.resolve()) if folder.is_dir() and name not in POCKET else name
    return model, tokenizer


def _quantized(quantize: str, placement: Placement) -> dict[str, Any]:
    """Return transformers' options for double NF4 (QLoRA, arXiv 2305.14314) or LLM.int8."""
    if placement.device.type != "cuda":
        raise ModelError(f"quantize={quantize!r} needs a CUDA device, this is {placement.device}")
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"{quantize} needs the package bitsandbytes: pip install 'npo_kit[gpu]'")
    config = BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=PRECISIONS[placement.precision],
    )
    device = placement.device
    if device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return {"quantization_config": config, "device_map": {"": device}}


def refuse_untrainable(model: PreTrainedModel, *, lora: bool) -> None:
    """Raise ModelError where a model's weights, or with `lora` an adapter on it, cannot be trained.

    Also where the trained model would not load again, such as the text part of a vision model.
    """
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{type(model).__name__} is part of another model, and saved alone it would not load "
            "again: choose another model"
        )
    if is_quantized(model) and model.device.type != "cuda":
        raise ModelError(
            f"a quantised model gets no gradient on {model.device}: load it unquantised"
        )
    if lora:
        return
    if is_quantized(model):
        why = "a quantised model's weights cannot be trained"
    elif active_adapters(model):
        why = "this model carries an adapter: save and load it, which merges it, to train it all"
    elif model.dtype in HALF:
        name = str(model.dtype).removeprefix("torch.")
        why = f"weights in {name} round small updates away: load it in float32"
    else:
        return
    raise ModelError(f"{why}; or set lora_rank to train an adapter")


def _locate(name: str) -> tuple[str, str | None]:
    """Find what to load: a hub name or folder, and the GGUF file in it or None."""
    if name in POCKET:
        return str(shipped_data(f"pocket/{POCKET[name]}")), None
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"no such GGUF file: {name}: check the path")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{name} is not a GGUF file: it lacks the format's first bytes")
        return str(path.parent), path.name
    if path.is_dir():
        for folder in (path, path / "model"):
            if any((folder / f"{kind}config.json").is_file() for kind in ("", "adapter_")):
                return str(folder), None
        raise ModelError(
            f"the folder {name} holds no model (no config.json): give a folder that "
            "save_model or transformers wrote, or a run that saved its model"
        )
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no model at {name}: give a folder, a .gguf file or a hub name")
    return name, None


def context_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that a model takes, in tokens; None if its config has none."""
    config = model.config.get_text_config()
    lengths = [getattr(config, name, None) for name in _CONTEXTS]
    context = next((length for length in lengths if length and length > 0), None)
    if context is None:
        return None
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    before_first = getattr(table, "padding_idx", None)  # RoBERTa counts positions from there
    return context if before_first is None else context - before_first - 1


def vocabulary_size(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a model's embedding holds; None where it is no table."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:
        return None


def save_model(
    model: PreTrainedModel,
    tokenizer,
    folder: str | Path,
    weights: dict[str, torch.Tensor] | None = None,
    *,
    card: str | None = None,
) -> None:
    """Write weights (safetensors), config and tokenizer so that transformers reloads them.

    Adapters are merged in the files, not in the model. Of a quantised model only its adapters are
    written, joined into one in peft's form, beside the name of the base and its quantisation.
    `weights` replace the model's own, if it holds only a part of them. `card` is the README.md
    beside them, such as `model_card` makes; None: one without details.
    It is saved whole or not at all: written under a temporary name, read back, then renamed. It
    replaces an earlier model. Raises ModelError if the folder holds anything else, if the disk
    refuses, or if what was written is not the model.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise ModelError(f"{folder} exists and is not a saved model: choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            new, old = Path(beside, "new"), Path(beside, "old")
            new.mkdir()  # with the usual rights, which a temporary folder lacks
            write_model(model, new, weights)
            tokenizer.save_pretrained(new)
            write_card(new, card)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            finally:
                if old.exists() and not folder.exists():
                    old.rename(folder)
    except OSError as error:
        raise ModelError(f"the model could not be saved as {folder} ({error})") from error


def _replaceable(folder: Path) -> bool:
    """Tell whether a folder is empty, or holds a saved model and no folders."""
    if not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    model = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return not entries or (model and not any(entry.is_dir() for entry in entries))

"""Causal language models: from the hub, a folder or a GGUF file, on the device that suits them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from npo_kit.errors import KitError

PRECISIONS = ("fp32", "bf16", "fp16")


class ModelError(KitError):
    """A model that cannot be loaded, placed or saved: one sentence with the next step."""


@dataclass(frozen=True)
class Placement:
    """Where and in which precision a model computes, and why."""

    device: torch.device
    precision: str  # of autocast over fp32 weights: fp32 (none), bf16, or fp16 with loss scaling
    reason: str

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}: {self.reason}"


def choose_placement(device: str | torch.device = "auto", precision: str = "auto") -> Placement:
    """Device and precision for training, each as asked or chosen, with the reason.

    CPU and Apple's MPS: fp32. A CUDA device: bf16 where it is native, else fp16 with loss scaling
    (a T4). Raises ModelError for an unknown precision or an absent device.
    """
    reasons = []
    if device == "auto":
        kind = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
        reasons.append(
            {"cuda": "a GPU is there", "mps": "Apple's GPU is there"}.get(kind, "no GPU")
        )
    else:
        kind = device
        reasons.append("device as asked")
    try:
        chosen = torch.device(kind)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device {str(device)!r} is not available ({str(error).splitlines()[0][:80]}): "
            "choose cpu, cuda, mps or auto"
        ) from None
    if precision == "auto":
        precision, reason = _choose_precision(chosen)
        reasons.append(reason)
    elif precision in PRECISIONS:
        reasons.append("precision as asked")
    else:
        raise ModelError(f"unknown precision {precision!r}: choose auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and chosen.type != "cuda":
        raise ModelError(f"fp16 needs a CUDA device, this is {chosen}: choose fp32 or bf16")
    return Placement(chosen, precision, ", ".join(reasons))


def _choose_precision(device: torch.device) -> tuple[str, str]:
    if device.type != "cuda":
        return "fp32", "fp32 is exact and fast enough there"
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "bf16 is native there"
    return "fp16", "no native bf16 there, so fp16 with loss scaling"


def load_model(name_or_path: str | Path, *, device: str = "auto", dtype: str = "float32"):
    """A causal LM and its tokenizer: `model, tokenizer = load_model(...)`.

    `name_or_path`: a hub name, a folder as transformers writes it, a run folder with a `model/`
    inside, or a `.gguf` file. Weights come in `dtype` (float32: the master weights that training
    needs) on `device` ("auto": GPU if there is one). Prints the choice. Raises ModelError.
    """
    source, gguf_file = _locate(str(name_or_path))
    options = {"gguf_file": gguf_file} if gguf_file else {}
    placement = choose_placement(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype), **options)
        model.to(placement.device)
    except torch.OutOfMemoryError:
        raise ModelError(
            f"{name_or_path} does not fit on {placement.device}: take a smaller model, "
            "dtype='bfloat16' for evaluation, or device='cpu'"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(_reason(str(name_or_path), error)) from error
    if gguf_file:  # the weights are plain numbers now, and saved as such
        _drop_quantization(model)
    print(f"{name_or_path} on {placement}")
    return model.eval(), tokenizer


def _locate(name: str) -> tuple[str, str | None]:
    """What transformers is asked for: a hub name or folder, and a GGUF file in it or None."""
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
            if (folder / "config.json").is_file():
                return str(folder), None
        raise ModelError(
            f"the folder {name} holds no model (no config.json): give a folder that "
            "save_model or transformers wrote, or a run that saved its model"
        )
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no model at {name}: give a folder, a .gguf file or a hub name")
    return name, None


def _reason(name: str, error: BaseException) -> str:
    """One sentence on why a model did not load, with the next step."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    text = " ".join(str(link) for link in chain).lower()
    if "GatedRepoError" in kinds or "gated repo" in text:
        return f"{name} is gated: accept its terms on the hub, then run `hf auth login`"
    if kinds & {
        "ConnectionError",
        "ConnectError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
    }:
        return (
            f"{name} is not on this machine and the hub cannot be reached: check the network, or "
            "give a folder or a .gguf file"
        )
    if kinds & {"RepositoryNotFoundError", "HFValidationError", "EntryNotFoundError"}:
        return f"there is no model {name} on the hub or here: check the spelling, or log in"
    if "gguf" in text and "ImportError" in kinds:
        return f"{name} needs the package gguf: pip install gguf"
    first = str(chain[0]).strip().splitlines()[0][:200] if str(chain[0]).strip() else kinds
    return f"{name} could not be loaded ({type(chain[0]).__name__}: {first})"


def _drop_quantization(model: PreTrainedModel) -> None:
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


def context_length(model: PreTrainedModel) -> int | None:
    """The longest sequence the model takes, in tokens; None where its config does not say."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None)


def save_model(model: PreTrainedModel, tokenizer, folder: str | Path) -> None:
    """Write weights (safetensors), config and tokenizer so that transformers reloads them.

    Whole or not at all: written beside under a temporary name, then renamed. Replaces a model
    that is already there; raises ModelError if something else is.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and (folder / "config.json").is_file()):
        raise ModelError(f"{folder} exists and is not a model: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Causal language models: from the hub, a folder or a GGUF file, on the device that suits them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from npo_kit.errors import KitError
from npo_kit.shipped import shipped_data

PRECISIONS = ("fp32", "bf16", "fp16")
DTYPES = ("float32", "bfloat16", "float16")
POCKET = {  # the names of the models that travel with the kit (`npo_kit.pocket`), their folders
    "pocket": "original",
    "pocket:original": "original",
    "pocket:retained": "retained",
    "pocket:base": "base",
}


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
    inside, a `.gguf` file, or one of the kit's own small models: `pocket` (that is
    `pocket:original`), `pocket:retained`, `pocket:base`. Weights come in `dtype` (float32: the
    master weights that training needs) on `device` ("auto": GPU if there is one). Prints the
    choice. Raises ModelError.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    name = str(name_or_path)
    source, gguf_file = _locate(name)
    options = {"gguf_file": gguf_file} if gguf_file else {}
    placement = choose_placement(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
        model.to(placement.device)
    except Exception as error:  # the hub's clients and the file formats share no family of errors
        raise ModelError(_reason(name, error, placement)) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} of the model's weights ({missing[0]}, ...), which would "
            "be random: give a complete causal language model"
        )
    if gguf_file:  # the weights are plain numbers now, and saved as such
        _drop_quantization(model)
    print(f"{name} on {placement}")
    return model.eval(), tokenizer


def _locate(name: str) -> tuple[str, str | None]:
    """What transformers is asked for: a hub name or folder, and a GGUF file in it or None."""
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
            if (folder / "config.json").is_file():
                return str(folder), None
        raise ModelError(
            f"the folder {name} holds no model (no config.json): give a folder that "
            "save_model or transformers wrote, or a run that saved its model"
        )
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no model at {name}: give a folder, a .gguf file or a hub name")
    return name, None


# What went wrong by the names of the exceptions in the chain, or by words in their texts: the first
# that fits gives the sentence.
_REASONS = (
    (
        {"OutOfMemoryError", "MemoryError"},
        ("out of memory", "can't allocate memory"),
        "{name} does not fit on {device}: take a smaller model, dtype='bfloat16' for evaluation, "
        "or device='cpu'",
    ),
    (
        {"GatedRepoError"},
        ("gated repo",),
        "{name} is gated: accept its terms on the hub, then run `hf auth login`",
    ),
    (
        {"ConnectionError", "TransportError", "TimeoutError", "LocalEntryNotFoundError"},
        (),
        "{name} is not on this machine and the hub cannot be reached: check the network, or give "
        "a folder or a .gguf file",
    ),
    (
        {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"},
        (),
        "there is no model {name} on the hub or here: check the spelling, or log in with "
        "`hf auth login`",
    ),
    (
        {"EntryNotFoundError"},
        ("does not appear to have a file", "does not appear to have files"),
        "{name} lacks files of a transformers model: choose another one, or download its .gguf "
        "file and give that",
    ),
    (
        {"HfHubHTTPError"},
        (),
        "the hub did not hand out {name} ({first}): try again later",
    ),
    (
        set(),
        ("pip install gguf", "gguf>="),
        "{name} needs the package gguf: pip install gguf",
    ),
    (
        set(),
        ("trust_remote_code",),
        "{name} brings code of its own, which the kit does not run: choose another model",
    ),
    (
        set(),
        ("backend tokenizer",),
        "{name} has no tokenizer: put its tokenizer.json beside the weights",
    ),
)


def _reason(name: str, error: BaseException, placement: Placement) -> str:
    """One sentence on why a model did not load, with the next step."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    texts = " ".join(str(link) for link in chain).lower()
    words = (str(error).strip().splitlines() or ["no details"])[0][:200].rstrip(" .:")
    first = f"{type(error).__name__}: {words}"
    for names, parts, sentence in _REASONS:
        if names & kinds or any(part in texts for part in parts):
            return sentence.format(name=name, device=placement.device, first=first)
    return f"{name} could not be loaded ({first}): check its files, or fetch them again"


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
    that is already there; raises ModelError if something else is, or if the disk refuses.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise ModelError(f"{folder} exists and is not a saved model: choose another folder")
    _allow_sampling(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            new, old = Path(beside, "new"), Path(beside, "old")
            new.mkdir()  # with the usual rights, which the temporary folder has not
            model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            finally:
                if old.exists() and not folder.exists():
                    old.rename(folder)
    except OSError as error:
        raise ModelError(f"the model could not be saved as {folder} ({error})") from error


def _allow_sampling(model: PreTrainedModel) -> None:
    """Mend settings such as a temperature without do_sample, which transformers will not write."""
    settings = getattr(model, "generation_config", None)
    if settings is not None:
        try:
            settings.validate(strict=True)
        except ValueError:
            settings.do_sample = True


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty or holds a saved model and no folders of anyone's."""
    if not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    model = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return not entries or (model and not any(entry.is_dir() for entry in entries))

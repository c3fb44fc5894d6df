"""The reason why a model does not load, in one sentence with the next step."""

from __future__ import annotations

import re
from typing import Any

from npo_kit.errors import KitError


class ModelError(KitError):
    """A model that cannot be loaded, placed or saved: one sentence with the next step."""


# Names of exceptions in the chain, or words of their texts in lower case -> what went wrong. The
# first that fits counts.
_REASONS = {
    "OutOfMemoryError|MemoryError|out of memory|can't allocate memory": (
        "{name} does not fit on {device}: take a smaller model, dtype='bfloat16' for evaluation, "
        "or device='cpu'"
    ),
    "GatedRepoError|gated repo": (
        "{name} is gated: accept its terms on the hub, then run `hf auth login`"
    ),
    "ConnectionError|TransportError|TimeoutError|LocalEntryNotFoundError": (
        "{name} is not on this machine and the hub cannot be reached: check the network, or give "
        "a folder or a .gguf file"
    ),
    "RepositoryNotFoundError|HFValidationError|RevisionNotFoundError": (
        "there is no model {name} on the hub or here: check the spelling, or log in with "
        "`hf auth login`"
    ),
    "EntryNotFoundError|does not appear to have (a file|files)": (
        "{name} lacks files of a transformers model: choose another one, or download its .gguf "
        "file and give that"
    ),
    "HfHubHTTPError": "the hub did not hand out {name} ({first}): try again later",
    "cannot combine quantization and loading a model from a gguf": (
        "{name} is a GGUF file, which cannot be quantised again: leave out quantize"
    ),
    "pip install gguf|gguf>=": "{name} needs the package gguf: pip install gguf",
    "trust_remote_code": (
        "{name} brings code of its own, which the kit does not run: choose another model"
    ),
    "(tiktoken|sentencepiece|protobuf)` is required": (
        "{name} has its tokenizer as tokenizer.model only, which takes more packages to read: pip "
        "install sentencepiece protobuf, or put its tokenizer.json beside the weights"
    ),
    "backend tokenizer": "{name} has no tokenizer: put its tokenizer.json beside the weights",
}


def reason(name: str, error: BaseException, device: Any) -> str:
    """Say in one sentence why a model did not load, with the next step."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    texts = " ".join(str(link) for link in chain).lower()
    words = (str(error).strip().splitlines() or ["no details"])[0][:200].rstrip(" .:")
    first = f"{type(error).__name__}: {words}"
    known = f"{' '.join(kinds)} {texts}"
    for pattern, sentence in _REASONS.items():
        if re.search(rf"\b({pattern})", known):
            return sentence.format(name=name, device=device, first=first)
    return f"{name} could not be loaded ({first}): check its files, or fetch them again"

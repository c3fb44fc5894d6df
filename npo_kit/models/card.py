"""The card of a saved model: its README.md, with the metadata that the hub reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from npo_kit.records.provenance import provenance

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_UNTOLD = (
    "Saved by npo_kit. Nobody told how it was trained: `save_model(..., card=model_card(config, "
    "task, evaluations))` does."
)


def compose_card(title: str, parts: Mapping[str, str], base: str | None = None) -> str:
    """Return a card of Markdown: metadata, a title, a part under each heading, where it was made.

    `base` is the model that training began with; the card links to one with a name on the hub.
    """
    from huggingface_hub import ModelCardData

    on_hub = base and _HUB_NAME.fullmatch(base) and not os.path.lexists(base)
    data = ModelCardData(
        base_model=base if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["npo_kit", "unlearning"],
    )
    parts = {**parts, "Made with": _made_with()}
    told = [f"---\n{data.to_yaml()}\n---", f"# {title}"]
    told += [f"## {heading}\n\n{text}" for heading, text in parts.items()]
    return "\n\n".join(told) + "\n"


def write_card(folder: Path, card: str | None) -> None:
    """Write the card of the model in `folder`; None: one that says where it was saved."""
    from huggingface_hub import ModelCard

    written = ModelCard(card or compose_card("A saved model", {"Training": _UNTOLD}))
    if (folder / "adapter_config.json").is_file():
        written.data["library_name"] = "peft"
    written.save(folder / "README.md")


def _made_with() -> str:
    made = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    git, hardware = made["git"], made["hardware"]
    commit = f" (commit {git['commit'][:12]}{', changed' * git['dirty']})" if git else ""
    where = ", ".join(hardware["gpus"] or [f"{hardware['cpu']}, {hardware['cores']} cores"])
    return f"{versions}{commit}, on {where}; saved {made['started']}."

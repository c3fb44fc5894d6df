"""The base model of an adapter on disk or on the hub: its name, and how it was quantised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import find_adapter_config_file

from npo_kit.models.errors import ModelError

QUANTIZATIONS = ("4bit", "8bit")


def base_of_adapter(source: str, given: str | Path | None = None) -> str | None:
    """Return the base model of the adapter at a folder or hub name; None where it is no adapter.

    `given` goes before the one that the adapter names.
    """
    if not (found := find_adapter_config_file(source)):
        return None
    about = json.loads(Path(found).read_text(encoding="utf-8"))
    if base := given or about.get("base_model_name_or_path"):
        return str(base)
    raise ModelError(
        f"the adapter {source} names no base model: give its name or folder as --base (base=...), "
        "or write it as base_model_name_or_path into adapter_config.json"
    )


@contextmanager
def advice_on_base(source: str, base: str) -> Iterator[None]:
    """In this context, which loads the base of an adapter, say how to name another one."""
    try:
        yield
    except ModelError as error:
        raise ModelError(
            f"the adapter {source} was made on {base}, which does not load ({error}); if the base "
            "is elsewhere, give its name or folder as --base (base=...)"
        ) from error


def quantization_of(source: str) -> str | None:
    """Return how the base of an adapter was quantised, as `save_model` recorded it beside it."""
    config = Path(source, "config.json")
    if not config.is_file():
        return None
    settings = json.loads(config.read_text(encoding="utf-8")).get("quantization_config") or {}
    return next((name for name in QUANTIZATIONS if settings.get(f"load_in_{name}")), None)

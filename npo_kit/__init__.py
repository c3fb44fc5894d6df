"""npo_kit: learn, try and show LLM unlearning by Negative Preference Optimization.

What is heavy is loaded when it is first used.
"""

import logging
from importlib import import_module

# Where bitsandbytes is installed, it warns that a kernel for 4 bits on a CPU is missing, which
# nothing here uses, as soon as accelerate imports it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

_HOMES = {
    "config": ("FinetuneConfig", "UnlearnConfig"),
    "data": ("load_rows", "load_task", "load_tofu", "own_task"),
    "evaluation": ("EvaluationConfig", "evaluate"),
    "losses": ("METHODS", "Method"),
    "metrics": ("read_official_log", "summarise"),
    "model_sizes": ("suggest_model",),
    "models": ("load_model", "save_model"),
    "prompts": ("PromptFormat",),
    "estimates": ("estimate",),
    "eval_files": ("Evaluation",),
    "runs": ("RunWriter", "read_run", "read_runs"),
    "study": ("study_table",),
    "trainer": ("Collapse", "Step", "finetune", "unlearn"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"npo_kit.{_HOME[name]}"), name)
    raise AttributeError(f"module 'npo_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

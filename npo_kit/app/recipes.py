"""Writes a live run as text that repeats it: a command, and a notebook's cell."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path

from npo_kit.app.live import LiveConfig
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.trainer.config import UnlearnConfig

# Option of `npo-kit unlearn` -> field of UnlearnConfig; evaluation's follow.
_NAMES = ("lr", "epochs", "batch_size", "micro_batch_size", "precision", "retain_weight", "seed")
_OPTIONS = {f"--{name.replace('_', '-')}": name for name in _NAMES}
_EVALUATION = {"--max-rows": "max_rows", "--max-new-tokens": "max_new_tokens"}
_EVALUATION |= {"--evaluation-batch-size": "batch_size"}


def as_command(config: LiveConfig, settings: UnlearnConfig, reference: str | None = None) -> str:
    """Return the run as a shell command, without the options that have their default.

    `reference`: by which its forget quality is computed, as `find_reference` takes it.
    """
    words = ["npo-kit", "unlearn", _name(config.model)]
    words += ["--task", config.task, "--method", config.method]
    for options, chosen in ((_OPTIONS, settings), (_EVALUATION, settings.evaluation)):
        usual = type(chosen)()
        for option, name in options.items():
            value = getattr(chosen, name)
            if value != getattr(usual, name):
                words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    if "beta" in settings.hyper:
        words += ["--beta", f"{settings.hyper['beta']:g}"]
    words += ["--reference", reference] if reference else []
    return shlex.join([*words, "--out", f"runs/{config.method}"])


def as_cell(config: LiveConfig, settings: UnlearnConfig) -> str:
    """Return the run as Python, to paste into a notebook's cell."""
    evaluation = _changed(settings.evaluation, EvaluationConfig())
    rest = _changed(replace(settings, evaluation=UnlearnConfig().evaluation), UnlearnConfig())
    given = ["method=" + repr(settings.method), *(each for each in rest if "method=" not in each)]
    if evaluation:
        given.append(f"evaluation=EvaluationConfig({', '.join(evaluation)})")
    lines = ",\n    ".join(given)
    return f"""from npo_kit import (
    Evaluation, EvaluationConfig, UnlearnConfig, load_model, load_task, summarise, unlearn,
)

model, tokenizer = load_model({_name(config.model)!r})
config = UnlearnConfig(
    {lines},
)
for event in unlearn(model, tokenizer, load_task({config.task!r}), config):
    if isinstance(event, Evaluation):
        print(event.step, summarise(event)["model_utility"])
"""


def _name(model: str) -> str:
    """Return a model's name: of a folder of this machine, which others lack, only the last part."""
    return Path(model).name if Path(model).is_absolute() else model


def _changed(chosen, usual) -> list[str]:
    """Return `name=value` for each field that differs from the usual one."""
    pairs = [(f.name, getattr(chosen, f.name)) for f in fields(chosen)]
    return [f"{name}={value!r}" for name, value in pairs if value != getattr(usual, name)]

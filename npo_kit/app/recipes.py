"""Writes a live run as text that repeats it: a command, and a notebook's cell."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path

from npo_kit.app.live import LiveConfig
from npo_kit.losses.methods import method
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import options_of, words
from npo_kit.trainer.config import UnlearnConfig


def as_command(config: LiveConfig, settings: UnlearnConfig, reference: str | None = None) -> str:
    """Return the run as a shell command, without the options that have their default.

    `reference`: for its forget quality, in the form that `find_reference` takes.
    """
    command = ["npo-kit", "unlearn", _name(config.model)]
    command += ["--task", config.task, "--method", config.method]
    of_run = {name: about for name, about in options_of(settings).items() if name != "method"}
    hyper = {n: replace(o, default=None) for n, o in method(config.method).settable.items()}
    command += words(vars(settings) | dict(settings.hyper), of_run | hyper)
    command += words(vars(settings.evaluation), options_of(settings.evaluation))
    command += ["--reference", reference] if reference else []
    return shlex.join([*command, "--out", f"runs/{config.method}"])


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
    """Return a model's name; of a folder, which other machines lack, only the last part."""
    return Path(model).name if Path(model).is_absolute() else model


def _changed(chosen, usual) -> list[str]:
    """Return `name=value` for each field that differs from the usual one."""
    pairs = [(f.name, getattr(chosen, f.name)) for f in fields(chosen)]
    return [f"{name}={value!r}" for name, value in pairs if value != getattr(usual, name)]

"""Objectives, read from their signatures: roles, hyper-parameters, and what they ask for.

An objective's positional parameters are roles: `forget`, `retain` and `alternate` are what the
policy says of the answers to forget, of the retain answers and of the refusals given to the forget
questions; `<role>_ref` is what the frozen reference says of the same. Each is an `Answers`. Its
keywords are hyper-parameters. It returns values at its natural level: per token (B, T), per
sequence (B,), or one number. Everything is minimised.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

ROLES = ("forget", "forget_ref", "retain", "retain_ref", "alternate", "alternate_ref")
Objective = Callable[..., Any]  # Answers in, a Tensor out


def asks_for(*extras: str) -> Callable[[Objective], Objective]:
    """Mark an objective that reads `logits` or `hidden` of its roles, which cost memory."""

    def mark(objective: Objective) -> Objective:
        objective.asks = extras  # type: ignore[attr-defined]
        return objective

    return mark


def roles(objective: Objective) -> tuple[str, ...]:
    """The roles that an objective reads: the names of its positional parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(objective).parameters.values()
    return tuple(p.name for p in parameters if p.kind in kinds)


def hyperparameters(objective: Objective) -> dict[str, object]:
    """The keyword-only parameters of an objective and their defaults."""
    parameters = inspect.signature(objective).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def named(objective: Objective | str) -> Objective:
    """Return the function that a text such as "npo_kit.losses.paper:npo" names."""
    if not isinstance(objective, str):
        return objective
    module, _, name = objective.partition(":")
    return getattr(import_module(module), name)

"""Objectives, read from their signatures: roles, hyper-parameters, and what they ask for.

An objective's positional parameters are roles: `forget` and `retain` are what the policy says of
the answers to forget and of the retain answers, `alternate` and `retain_alternate` of the refusals
given to their questions; `<role>_ref` is what the frozen reference says of the same. Each is an
`Answers`. Its keywords are hyper-parameters. It returns values at its natural level: per token
(B, T), per sequence (B,), or one number. Everything is minimised.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from npo_kit.errors import KitError

SPOKEN = ("forget", "retain", "alternate", "retain_alternate")
ROLES = (*SPOKEN, *(f"{role}_ref" for role in SPOKEN))
Objective = Callable[..., Any]  # Answers in, a Tensor out


def asks_for(*extras: str) -> Callable[[Objective], Objective]:
    """Mark an objective that reads `logits` or `hidden` of its roles, which cost memory.

    Hidden states are those after a share of the layers: a hyper-parameter of the method, `depth`.
    """

    def mark(objective: Objective) -> Objective:
        objective.asks = extras  # type: ignore[attr-defined]
        return objective

    return mark


def asked(objective: Objective) -> tuple[str, ...]:
    """Return what an objective reads of its roles beside log-probs: `logits`, `hidden`."""
    return getattr(objective, "asks", ())


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
    try:
        return getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise KitError(
            f"the objective {objective!r} names no function ({error}): write it as module:function"
        ) from None

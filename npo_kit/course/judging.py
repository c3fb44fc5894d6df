"""Letters, cases and comparisons: the parts that the judges of the exercises share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Judge = Callable[[Any], str | None]
Cases = Iterator[tuple[str, str, tuple, Any]]  # name of the result, place, arguments, true value

_RTOL, _ATOL = 1e-5, 1e-7  # of an answer against the truth


def choice(right: str, **why: str) -> Judge:
    """Make a judge of letters: `right` is the letter; `why` says what is wrong with another.

    "b", "B", "(b)" and "b)" are the same answer.
    """

    def judge(answer: str) -> str | None:
        letter = str(answer).strip(" ().").lower()
        if letter == right:
            return None
        return why.get(letter, f"choose one of {', '.join(sorted([right, *why]))}")

    return judge


def judge_cases(cases: Callable[[], Cases]) -> Judge:
    """Make a judge from cases: a function must return the true value of each."""

    def judge(function: Callable) -> str | None:
        for what, where, arguments, true in cases():
            if wrong := compare(function(*arguments), true, what):
                return f"{where}, {wrong}" if where else wrong
        return None

    return judge


def compare(got: Any, true: Any, what: str) -> str | None:
    if got is None or got is ...:
        return "your function returned nothing: fill in its line"
    got, true = (torch.as_tensor(value, dtype=torch.float64) for value in (got, true))
    if got.shape != true.shape:
        return f"{what} should have shape {tuple(true.shape)}, yours has {tuple(got.shape)}"
    if not torch.allclose(got, true, rtol=_RTOL, atol=_ATOL):
        return "{} should be {}, yours is {}".format(what, *_told_apart(true, got))
    return None


def _told_apart(true: Tensor, got: Tensor) -> tuple[str, ...]:
    """Return both as text, with four digits or as many as it takes to see each difference."""
    texts = []
    for values in zip(true.flatten().tolist(), got.flatten().tolist(), strict=True):
        same = math.isclose(*values, rel_tol=_RTOL, abs_tol=_ATOL)
        pairs = [[f"{value:.{digits}g}" for value in values] for digits in range(4, 18)]
        texts.append(next((pair for pair in pairs if pair[0] != pair[1] or same), pairs[0]))
    return tuple(", ".join(row) for row in zip(*texts, strict=True))

"""The judges of the exercises; each compares an answer with a truth computed in another way.

A judge takes an answer and returns a sentence on what is wrong with it, or None if it is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Judge = Callable[[Any], str | None]
Cases = Iterator[tuple[str, str, tuple, Any]]  # name of the result, place, arguments, true value

_RTOL, _ATOL = 1e-5, 1e-7  # of an answer against the truth
_RATIOS = (-30.0, -2.0, 0.0, 1.0)  # nats
_OVERFLOWING = 8000.0  # nats: e to its tenth part is too large for any float


def choice(right: str, **why: str) -> Judge:
    """Make a judge of letters: one of `right` is right; `why` says what is wrong with another.

    "b", "B", "(b)" and "b)" are the same answer.
    """

    def judge(answer: str) -> str | None:
        letter = str(answer).strip(" ().").lower()
        if len(letter) == 1 and letter in right:
            return None
        return why.get(letter, f"choose one of {', '.join(sorted([*right, *why]))}")

    return judge


def _judge(cases: Callable[[], Cases]) -> Judge:
    """Make a judge from cases: a function must return the true value of each."""

    def judge(function: Callable) -> str | None:
        for what, where, arguments, true in cases():
            if wrong := _compare(function(*arguments), true, what):
                return f"{where}, {wrong}" if where else wrong
        return None

    return judge


def _compare(got: Any, true: Any, what: str) -> str | None:
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


@_judge
def answer_logp() -> Cases:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
    true = 0.0
    for row, label in zip(logits.tolist(), (0, 2), strict=True):
        true += math.log(math.exp(row[label]) / math.fsum(math.exp(value) for value in row))
    yield "log p(answer)", "", (logits, torch.tensor([0, 2])), true


@_judge
def logp_gradient() -> Cases:
    def logp(logits: Tensor) -> Tensor:
        return logits[1] - logits.exp().sum().log()

    at, h = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64), 1e-6
    moves = h * torch.eye(3, dtype=torch.float64)
    finite_differences = [(logp(at + move) - logp(at - move)) / (2 * h) for move in moves]
    yield "the gradient", "", (at, 1), torch.stack(finite_differences)


@_judge
def npo_loss() -> Cases:
    for beta in (0.1, 1.0):
        true = [2 / beta * math.log(1 + math.exp(u) ** beta) for u in _RATIOS]
        yield "the loss", f"at beta = {beta:g}", (torch.tensor(_RATIOS).double(), beta), true
        where = f"at beta = {beta:g} and u = {_OVERFLOWING:g}"  # log(1 + e^x) is x there
        yield "the loss", where, (torch.tensor([_OVERFLOWING]).double(), beta), [2 * _OVERFLOWING]


@_judge
def npo_weight() -> Cases:
    for beta in (0.1, 1.0):  # pi and its reference as numbers, as the paper writes W
        powers = [(math.exp(u) ** beta, 1.0) for u in _RATIOS]
        true = [2 * pi / (pi + ref) for pi, ref in powers]
        yield "the weight", f"at beta = {beta:g}", (torch.tensor(_RATIOS).double(), beta), true


@_judge
def bernoulli_kl() -> Cases:
    pairs = [(0.9, 0.5), (0.2, 0.7), (0.3, 0.3)]
    true = [math.fsum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q))) for p, q in pairs]
    yield "the distance", "", tuple(torch.tensor(pairs, dtype=torch.float64).T), true


@_judge
def adamw_bytes() -> Cases:
    each = 4 + 4 + 4 + 4  # weight, gradient, two running means
    for parameters in (1, 134_515_008):
        where = f"of {parameters:,} parameters"
        yield "the number of bytes", where, (parameters,), parameters * each


@_judge
def optimizer_steps() -> Cases:
    for rows, size, epochs, steps in ((400, 32, 10, 125), (40, 32, 10, 12), (120, 12, 0.5, 5)):
        where = f"of {rows} rows, {size} a step, {epochs:g} epochs"
        yield "the number of steps", where, (rows, size, epochs), steps


@_judge
def rouge_l_recall() -> Cases:
    for said, true, recall in (
        ("her father was a potter", "her mother was once a potter", 4 / 6),
        ("a b a c", "c a b", 2 / 3),
        ("c a b", "a b c", 2 / 3),  # the first word that fits is not always the one to take
        ("a x b y c p q", "p q a b c", 3 / 5),  # nor is the longest run of words
        ("nothing like it", "a quite different text", 0.0),
    ):
        yield "the recall", f"of {said!r} against {true!r}", (said.split(), true.split()), recall


@_judge
def truth_ratio() -> Cases:
    wrong = [math.log(0.125), math.log(0.5)]  # their geometric mean is one quarter
    yield "R", "", (math.log(0.5), wrong), 0.25 / 0.5
    yield "R", "of log-probabilities near -2000", (-2000.0, [-2001.0, -1999.0]), 1.0


@_judge
def harmonic_mean() -> Cases:
    for values, mean in (([1.0, 0.5, 0.25], 3 / 7), ([0.9] * 8 + [0.0], 0.0)):
        yield "the mean", f"of {values}", (values,), mean


@_judge
def best_checkpoint() -> Cases:
    for checkpoints, place in (
        ([(0.7, 1e-9), (0.5, 0.2), (0.6, 0.05), (0.4, 0.9)], 2),
        ([(0.7, 1e-9), (0.1, 0.04), (0.6, 0.01)], 1),
    ):
        yield "the place", f"of (utility, p) = {checkpoints}", (checkpoints,), place


@_judge
def leak_in_draws() -> Cases:
    for p, draws, leak in ((0.5, 2, 3 / 4), (0.1, 3, 0.271), (0.0, 100, 0.0)):
        yield "the probability", f"for p = {p:g} and {draws} draws", (p, draws), leak


def beat_ours(runs: dict[str, dict[str, float]]) -> str | None:
    """Judge the summaries `mine` and `ours`: a smaller gap at 95 % of the utility or more."""
    mine, ours = runs["mine"], runs["ours"]
    gaps = f"{mine['forget_ks']:.3f} against {ours['forget_ks']:.3f}"
    if mine["forget_ks"] >= ours["forget_ks"]:
        return f"your gap D is not smaller than ours: {gaps}"
    kept = mine["model_utility"] / ours["model_utility"]
    if kept < 0.95:
        return f"your gap D is smaller, {gaps}, but you keep {kept:.0%} of our utility"
    return None

"""The judges of the exercises; each compares an answer with a truth computed in another way.

A judge takes an answer and returns a sentence on what is wrong with it, or None if it is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from npo_kit.course.judging import Cases, compare, judge_cases
from npo_kit.losses.answers import Answers

_RATIOS = (-30.0, -2.0, 0.0, 1.0)  # nats
_OVERFLOWING = 8000.0  # nats: e to its tenth part is too large for any float


@judge_cases
def answer_logp() -> Cases:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
    true = 0.0
    for row, label in zip(logits.tolist(), (0, 2), strict=True):
        true += math.log(math.exp(row[label]) / math.fsum(math.exp(value) for value in row))
    yield "log p(answer)", "", (logits, torch.tensor([0, 2])), true


@judge_cases
def logp_gradient() -> Cases:
    def logp(logits: Tensor) -> Tensor:
        return logits[1] - logits.exp().sum().log()

    at, h = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64), 1e-6
    moves = h * torch.eye(3, dtype=torch.float64)
    finite_differences = [(logp(at + move) - logp(at - move)) / (2 * h) for move in moves]
    yield "the gradient", "", (at, 1), torch.stack(finite_differences)


@judge_cases
def gradient_length() -> Cases:
    for p, others in ((0.9, 1), (0.25, 3), (0.0, 1), (0.0, 10_000)):
        entries = [1 - p] + [-(1 - p) / others] * others  # one-hot minus softmax
        yield "the length", f"at p = {p:g} and m = {others}", (p, others), math.hypot(*entries)


@judge_cases
def npo_loss() -> Cases:
    for beta in (0.1, 1.0):
        true = [2 / beta * math.log(1 + math.exp(u) ** beta) for u in _RATIOS]
        yield "the loss", f"at beta = {beta:g}", (torch.tensor(_RATIOS).double(), beta), true
        where = f"at beta = {beta:g} and u = {_OVERFLOWING:g}"  # log(1 + e^x) is x there
        yield "the loss", where, (torch.tensor([_OVERFLOWING]).double(), beta), [2 * _OVERFLOWING]


@judge_cases
def npo_weight() -> Cases:
    for beta in (0.1, 1.0):  # pi and its reference as numbers, as the paper writes W
        powers = [(math.exp(u) ** beta, 1.0) for u in _RATIOS]
        true = [2 * pi / (pi + ref) for pi, ref in powers]
        yield "the weight", f"at beta = {beta:g}", (torch.tensor(_RATIOS).double(), beta), true


def weight_test(passes: Callable[[Callable], Any]) -> str | None:
    """Judge a test of codes of W: it must let the right ones pass and find each bug."""

    def code(beta_u: Callable[[Tensor, Tensor, float], Tensor], factor: float = 2.0) -> Callable:
        return lambda logps, ref, beta: factor * torch.sigmoid(beta_u(logps, ref, beta)).item()

    def summed(logps: Tensor, ref: Tensor, beta: float) -> Tensor:
        return beta * (logps - ref).sum()

    right = code(summed)
    wrong = {
        "that has the sign the wrong way round": code(lambda *about: -summed(*about)),
        "that takes the mean over the tokens": code(lambda now, ref, b: b * (now - ref).mean()),
        "that lacks the factor 2": code(summed, factor=1.0),
        "of GA, whose weight is always 1": lambda *about: 1.0,
    }
    for name, weight in {"": right, **wrong}.items():
        verdict = passes(weight)
        if verdict is None or verdict is ...:
            return "your function returned nothing: fill in its lines"
        if weight is right and not verdict:
            return "your test rejects the right code"
        if weight is not right and verdict:
            return f"your test lets the code pass {name}"
    return None


@judge_cases
def mean_for_sum() -> Cases:
    for beta, tokens in ((0.5, 16), (0.1, 1)):
        where = f"at beta = {beta:g} and {tokens} tokens"
        logps = -torch.arange(1.0, tokens + 1, dtype=torch.float64)  # the reference has 0
        pushes = [_slope_of_mean(each, beta) for each in (logps, 0 * logps)]
        weight = tokens * pushes[0]
        like = math.log(weight / (2 - weight)) / logps.sum().item()  # weight = 2 sigmoid(like u)
        yield "(beta of the sum, push)", where, (beta, tokens), [like, pushes[1]]


def _slope_of_mean(log_ratios: Tensor, beta: float) -> float:
    """Differentiate NPO's loss, with the mean of an answer's log-ratios, by the first of them."""
    leaf = log_ratios.clone().requires_grad_()
    (slope,) = torch.autograd.grad(2 / beta * torch.log1p((beta * leaf.mean()).exp()), leaf)
    return slope[0].item()


@judge_cases
def log_time() -> Cases:
    for beta, rate, rows in ((0.1, 1.0, 16), (1.0, 0.5, 4)):
        times = torch.tensor([0.0, 1.0, 10.0, 100.0], dtype=torch.float64)
        true = [_fallen(time, beta, rate, rows) for time in times.tolist()]
        where = f"at beta = {beta:g}, rate = {rate:g} and {rows} rows"
        yield "u", where, (times, beta, rate, rows), true


def _fallen(time: float, beta: float, rate: float, rows: int, steps: int = 2000) -> float:
    """Integrate du/dt = -(2 rate/rows) e^(beta u) from u = 0 by Runge and Kutta's fourth order."""

    def slope(u: float) -> float:
        return -2 * rate / rows * math.exp(beta * u)

    u, h = 0.0, time / steps
    for _ in range(steps):
        k1 = slope(u)
        k2 = slope(u + h * k1 / 2)
        k3 = slope(u + h * k2 / 2)
        u += h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(u + h * k3))
    return u


def npo_loop(losses: dict[str, list[float]]) -> str | None:
    """Judge the losses `mine` and `package` of the same steps: equal to 1e-4."""
    mine, package = losses["mine"], losses["package"]
    if len(mine) != len(package):
        return f"your loop made {len(mine)} steps, the package {len(package)}"
    for step, (ours, theirs) in enumerate(zip(mine, package, strict=True), 1):
        if not abs(ours - theirs) <= 1e-4:
            return f"in step {step} your loss is {ours:.5f}, the package's {theirs:.5f}"
    return None


@judge_cases
def tnpo_weight() -> Cases:
    probabilities, h = (0.9, 0.3, 1e-3), 1e-6
    for reference, beta in ((0.9, 4.0), (0.2, 0.5)):

        def loss(logp: float, reference: float = reference, beta: float = beta) -> float:
            return 2 / beta * math.log1p((math.exp(logp) / reference) ** beta)

        logps = [math.log(p) for p in probabilities]
        true = [(loss(logp + h) - loss(logp - h)) / (2 * h) for logp in logps]
        where = f"at beta = {beta:g} and reference = {reference:g}"
        yield "the weight", where, (torch.tensor(probabilities).double(), reference, beta), true


def unlikelihood_loss(function: Callable) -> str | None:
    """Judge a loss of Answers by closed forms: -log(1 - p), and its derivative p/(1 - p)."""
    p = torch.tensor([[0.9, 0.5, 0.1], [1e-3, 0.7, 0.7]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    logps = p.log().requires_grad_()
    values = function(Answers(logps, mask, mask))
    if wrong := compare(values, -torch.log(1 - p) * mask, "the loss"):
        return wrong
    (slope,) = torch.autograd.grad(values.sum(), logps)
    if wrong := compare(slope, p / (1 - p) * mask, "its derivative by log p"):
        return wrong
    sure = Answers(torch.full((1, 1), -1e-9), torch.ones(1, 1).long(), torch.ones(1, 1))
    return compare(function(sure), [[9 * math.log(10)]], "the loss at log p = -1e-9")


def pushes_on_the_rest(pushes: dict[str, Any]) -> str | None:
    """Judge predicted gradients by a token of p = e^-0.1 that has not moved, within a tenth."""
    ratio = math.exp(-30.0) ** 0.5  # (pi/ref)^beta of the whole answer
    for name, true in {"npo": 2 * ratio / (ratio + 1), "tnpo": 1.0, "wga": math.exp(-0.1)}.items():
        got = pushes[name]
        if got is None or got is ...:
            return f"the number of {name} is missing"
        if not abs(got - true) <= 0.1 * true:
            return f"{name} pushes {'less' if got > true else 'harder'} than {got:.2g}"
    return None


def was_hidden(judged: Callable[[float, float, float, float], Any]) -> str | None:
    """Judge a rule of evidence by made-up lessons, each in nats a token."""
    for what, lesson, hidden in (
        ("more likely after the lesson, and beyond the control", (-6.0, -2.0, -3.5, -3.4), True),
        ("more likely after the lesson, but below the control", (-4.2, -3.7, -3.5, -3.4), False),
        ("beyond the control already before the lesson", (-0.4, -0.5, -3.5, -3.4), False),
        ("less likely after the lesson, as the control's is too", (-3.6, -3.8, -3.5, -3.9), True),
    ):
        got = judged(*lesson)
        if got is None or got is ...:
            return "your function returned nothing: fill in its line"
        if bool(got) != hidden:
            return f"{what}, {lesson}: your rule says {bool(got)}"
    return None


@judge_cases
def bernoulli_kl() -> Cases:
    pairs = [(0.9, 0.5), (0.2, 0.7), (0.3, 0.3)]
    true = [math.fsum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q))) for p, q in pairs]
    yield "the distance", "", tuple(torch.tensor(pairs, dtype=torch.float64).T), true


@judge_cases
def adamw_bytes() -> Cases:
    each = 4 + 4 + 4 + 4  # weight, gradient, two running means
    for parameters in (1, 134_515_008):
        where = f"of {parameters:,} parameters"
        yield "the number of bytes", where, (parameters,), parameters * each


@judge_cases
def optimizer_steps() -> Cases:
    for rows, size, epochs, steps in ((400, 32, 10, 125), (40, 32, 10, 12), (120, 12, 0.5, 5)):
        where = f"of {rows} rows, {size} a step, {epochs:g} epochs"
        yield "the number of steps", where, (rows, size, epochs), steps


@judge_cases
def rouge_l_recall() -> Cases:
    for said, true, recall in (
        ("her father was a potter", "her mother was once a potter", 4 / 6),
        ("a b a c", "c a b", 2 / 3),
        ("c a b", "a b c", 2 / 3),  # the first word that fits is not always the one to take
        ("a x b y c p q", "p q a b c", 3 / 5),  # nor is the longest run of words
        ("nothing like it", "a quite different text", 0.0),
    ):
        yield "the recall", f"of {said!r} against {true!r}", (said.split(), true.split()), recall


@judge_cases
def truth_ratio() -> Cases:
    wrong = [math.log(0.125), math.log(0.5)]  # their geometric mean is one quarter
    yield "R", "", (math.log(0.5), wrong), 0.25 / 0.5
    yield "R", "of log-probabilities near -2000", (-2000.0, [-2001.0, -1999.0]), 1.0


@judge_cases
def harmonic_mean() -> Cases:
    for values, mean in (([1.0, 0.5, 0.25], 3 / 7), ([0.9] * 8 + [0.0], 0.0)):
        yield "the mean", f"of {values}", (values,), mean


@judge_cases
def best_checkpoint() -> Cases:
    for checkpoints, place in (
        ([(0.7, 1e-9), (0.5, 0.2), (0.6, 0.05), (0.4, 0.9)], 2),
        ([(0.7, 1e-9), (0.1, 0.04), (0.6, 0.01)], 1),
    ):
        yield "the place", f"of (utility, p) = {checkpoints}", (checkpoints,), place


@judge_cases
def leak_in_draws() -> Cases:
    for p, draws, leak in ((0.5, 2, 3 / 4), (0.1, 3, 0.271), (0.0, 100, 0.0)):
        yield "the probability", f"for p = {p:g} and {draws} draws", (p, draws), leak


@judge_cases
def leak_at_k() -> Cases:
    # one of 4 texts leaks: of two drawn it is one in half of the draws
    for n, c, k, leak in ((4, 1, 2, 1 / 2), (5, 0, 5, 0.0), (3, 2, 2, 1.0), (6, 2, 3, 4 / 5)):
        yield "the probability", f"for n = {n}, c = {c}, k = {k}", (n, c, k), leak


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

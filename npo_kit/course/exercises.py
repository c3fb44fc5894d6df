"""The notebooks' exercises: `check(name, answer)` holds an answer against an independent truth.

An answer is a function that the reader writes, or a choice. What is asked stands in the notebook;
`hint(name)` helps. An answer that is not right yet is told so in a sentence, and raises an error
only where the environment has NPO_KIT_STRICT=1, so that reading straight through meets none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from npo_kit.errors import KitError

Judge = Callable[[Any], str | None]  # an answer -> what is wrong with it, None where nothing is


@dataclass(frozen=True)
class Exercise:
    """One exercise."""

    hint: str
    judge: Judge
    praise: str


def check(name: str, answer: Any) -> None:
    """Print whether an answer is right, and what is wrong where it is not.

    Raises KitError for an unknown exercise, and under NPO_KIT_STRICT=1 for an answer not yet right.
    """
    exercise = _exercise(name)
    try:
        wrong = "there is no answer yet" if answer in (None, ...) else exercise.judge(answer)
    except Exception as error:
        wrong = f"your answer raised {type(error).__name__}: {error}"
    if wrong is None:
        print(f"Right: {exercise.praise}")
        return
    if os.environ.get("NPO_KIT_STRICT") == "1":
        raise KitError(f"exercise {name}, not yet: {wrong}")
    print(f"not yet: {wrong}")


def hint(name: str) -> None:
    """Print the hint of an exercise."""
    print(_exercise(name).hint)


def _exercise(name: str) -> Exercise:
    if name not in EXERCISES:
        raise KitError(f"there is no exercise {name!r}: choose one of {', '.join(EXERCISES)}")
    return EXERCISES[name]


# --- judges -------------------------------------------------------------------------------------


def _compare(got: Any, true: Tensor, what: str) -> str | None:
    if got is None or got is ...:
        return "your function returned nothing: fill in its line"
    got = torch.as_tensor(got, dtype=torch.float64)
    if got.shape != true.shape:
        return f"{what} should have shape {tuple(true.shape)}, yours has {tuple(got.shape)}"
    if not torch.allclose(got, true, rtol=1e-5, atol=1e-7):
        return f"{what} should be {_short(true)}, yours is {_short(got)}"
    return None


def _short(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.flatten().tolist()[:4])


def _choice(right: str, why: dict[str, str]) -> Judge:
    """A judge of a letter; `why` says what speaks against each other one."""

    def judge(answer: str) -> str | None:
        letter = str(answer).strip().lower()
        if letter == right:
            return None
        return why.get(letter, f"choose one of {', '.join(sorted([right, *why]))}")

    return judge


def _answer_logp(function: Callable) -> str | None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
    true = 0.0
    for row, label in zip(logits.tolist(), (0, 2), strict=True):
        true += math.log(math.exp(row[label]) / math.fsum(math.exp(value) for value in row))
    return _compare(
        function(logits, torch.tensor([0, 2])), torch.tensor(true).double(), "log p(answer)"
    )


def _logp_gradient(function: Callable) -> str | None:
    logits, h = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64), 1e-6
    true = []
    for place in range(3):  # by finite differences
        moved = [logits.clone(), logits.clone()]
        moved[0][place] += h
        moved[1][place] -= h
        up, down = (each[1] - each.exp().sum().log() for each in moved)
        true.append((up - down) / (2 * h))
    return _compare(function(logits, 1), torch.stack(true), "the gradient")


_RATIOS = torch.tensor([-30.0, -2.0, 0.0, 1.0], dtype=torch.float64)


def _npo_loss(function: Callable) -> str | None:
    for beta in (0.1, 1.0):
        true = [2 / beta * math.log(1 + math.exp(u) ** beta) for u in _RATIOS.tolist()]
        if wrong := _compare(function(_RATIOS, beta), torch.tensor(true).double(), "the loss"):
            return f"at beta = {beta:g}, {wrong}"
    return None


def _npo_weight(function: Callable) -> str | None:
    for beta in (0.1, 1.0):  # pi and its reference as numbers, as the paper writes W
        true = []
        for u in _RATIOS.tolist():
            pi, ref = math.exp(u) ** beta, 1.0
            true.append(2 * pi / (pi + ref))
        if wrong := _compare(function(_RATIOS, beta), torch.tensor(true).double(), "the weight"):
            return f"at beta = {beta:g}, {wrong}"
    return None


def _bernoulli_kl(function: Callable) -> str | None:
    pairs = [(0.9, 0.5), (0.2, 0.7), (0.3, 0.3)]
    true = [math.fsum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q))) for p, q in pairs]
    p, q = torch.tensor(pairs, dtype=torch.float64).T
    return _compare(function(p, q), torch.tensor(true).double(), "the distance")


def _adamw_bytes(function: Callable) -> str | None:
    for parameters in (1, 134_515_008):
        each = 4 + 4 + 4 + 4  # weight, gradient, two running means
        true = torch.tensor(parameters * each).double()
        if wrong := _compare(function(parameters), true, "the number of bytes"):
            return f"of {parameters:,} parameters, {wrong}"
    return None


def _optimizer_steps(function: Callable) -> str | None:
    for rows, size, epochs, steps in ((400, 32, 10, 125), (40, 32, 10, 12), (120, 12, 0.5, 5)):
        true = torch.tensor(steps).double()
        if wrong := _compare(function(rows, size, epochs), true, "the number of steps"):
            return f"of {rows} rows, {size} a step, {epochs:g} epochs, {wrong}"
    return None


def _rouge_l_recall(function: Callable) -> str | None:
    for said, true, recall in (
        ("her father was a potter", "her mother was once a potter", 4 / 6),
        ("a b a c", "c a b", 2 / 3),
        ("nothing like it", "a quite different text", 0.0),
    ):
        if wrong := _compare(
            function(said.split(), true.split()), torch.tensor(recall).double(), "the recall"
        ):
            return f"of {said!r} against {true!r}, {wrong}"
    return None


def _truth_ratio(function: Callable) -> str | None:
    wrong = [0.125, 0.5]  # probabilities: their geometric mean is one quarter
    true = torch.tensor(0.25 / 0.5).double()
    return _compare(function(math.log(0.5), [math.log(p) for p in wrong]), true, "R")


def _harmonic_mean(function: Callable) -> str | None:
    for values, mean in (([1.0, 0.5, 0.25], 3 / 7), ([0.9] * 8 + [0.0], 0.0)):
        if wrong := _compare(function(values), torch.tensor(mean).double(), "the mean"):
            return f"of {values}, {wrong}"
    return None


def _best_checkpoint(function: Callable) -> str | None:
    for checkpoints, place in (
        ([(0.7, 1e-9), (0.5, 0.2), (0.6, 0.05), (0.4, 0.9)], 2),
        ([(0.7, 1e-9), (0.1, 0.04), (0.6, 0.01)], 1),
    ):
        chosen = function(list(checkpoints))
        if wrong := _compare(chosen, torch.tensor(place).double(), "the place"):
            return f"of (utility, p) = {checkpoints}, {wrong}"
    return None


def _leak_in_draws(function: Callable) -> str | None:
    for p, draws, leak in ((0.5, 2, 3 / 4), (0.1, 3, 0.271), (0.0, 100, 0.0)):
        if wrong := _compare(function(p, draws), torch.tensor(leak).double(), "the probability"):
            return f"for p = {p:g} and {draws} draws, {wrong}"
    return None


def _beat_ours(runs: dict[str, dict[str, float]]) -> str | None:
    """Judges two summaries, `mine` and `ours`: a smaller gap at 95 % of the utility or more."""
    mine, ours = runs["mine"], runs["ours"]
    gaps = f"{mine['forget_ks']:.3f} against {ours['forget_ks']:.3f}"
    if mine["forget_ks"] >= ours["forget_ks"]:
        return f"your gap D is not smaller than ours: {gaps}"
    kept = mine["model_utility"] / ours["model_utility"]
    if kept < 0.95:
        return f"your gap D is smaller, {gaps}, but you keep {kept:.0%} of our utility"
    return None


EXERCISES = {
    "answer_logp": Exercise(
        "log_softmax over the last dimension turns logits into log-probabilities; pick the label's "
        "entry in each row and add them up",
        _answer_logp,
        "the sum over tokens of log p(token | what came before) is log p(answer).",
    ),
    "logp_gradient": Exercise(
        "d log p(label) / d logits is a one-hot vector minus a softmax",
        _logp_gradient,
        "one-hot minus softmax: it does not vanish as p goes to 0.",
    ),
    "never_stops": Exercise(
        "put p = 0 into one-hot minus softmax",
        _choice(
            "b",
            {
                "a": "the gradient of p itself vanishes there, that of log p does not",
                "c": "it is bounded: one-hot minus softmax is at most 1 in each entry",
            },
        ),
        "at p = 0 the gradient of log p is the whole one-hot vector, so every step pushes as hard.",
    ),
    "npo_loss": Exercise(
        "log(1 + e^x) is softplus(x); with x = beta times the log-ratio",
        _npo_loss,
        "(2/beta) softplus(beta u), which stays finite where the ratio itself would underflow.",
    ),
    "npo_weight": Exercise(
        "differentiate (2/beta) softplus(beta u) by u; the derivative of softplus is the sigmoid",
        _npo_weight,
        "2 sigmoid(beta u): 1 at the reference, 0 once the answer is forgotten.",
    ),
    "broken_sign": Exercise(
        "what is 2 sigmoid(-beta u) when u goes to minus infinity?",
        _choice(
            "c",
            {
                "a": "at u = 0 the sign does not matter: sigmoid(0) is one half",
                "b": "the limit for small beta is 1 with either sign",
            },
        ),
        "with the wrong sign the weight grows to 2 on what is forgotten: worse than GA.",
    ),
    "broken_mean": Exercise(
        "the log-ratio of a whole answer grows with its length, the mean over its tokens does not",
        _choice(
            "a",
            {
                "b": "at the reference both are 0 and W is 1",
                "c": "shorter answers are the ones where the two differ least",
            },
        ),
        "with a mean, beta acts as if it were divided by the answer's length.",
    ),
    "adamw_bytes": Exercise(
        "four numbers for each parameter, four bytes for each number",
        _adamw_bytes,
        "16 bytes for each parameter, before anything is computed.",
    ),
    "optimizer_steps": Exercise(
        "how many rows go through in all, and how many whole batches are in them?",
        _optimizer_steps,
        "all the rows that go through, divided by the batch, rounded down.",
    ),
    "what_compares": Exercise(
        "which numbers were computed on the same rows, by the same test, from the same start?",
        _choice(
            "c",
            {
                "a": "p depends on the number of rows and on the retained-only model of its table",
                "b": "the two originals differ already, before anything is unlearned",
            },
        ),
        "a number of one table means something beside its own original and retained-only model.",
    ),
    "rouge_l_recall": Exercise(
        "a table: longest[i][j] of the first i words of one and j of the other; where the words "
        "are equal it is one more than at [i - 1][j - 1], else the larger of its two neighbours",
        _rouge_l_recall,
        "the longest common subsequence, as a share of the truth's words.",
    ),
    "truth_ratio": Exercise(
        "a geometric mean is the exponential of the mean of logarithms; a quotient is a difference",
        _truth_ratio,
        "wrong over right, in log space throughout.",
    ),
    "harmonic_mean": Exercise(
        "the number of values divided by the sum of their inverses; a 0 makes the whole 0",
        _harmonic_mean,
        "ruled by its smallest value.",
    ),
    "bernoulli_kl": Exercise(
        "sum over the two outcomes: p log(p/q) + (1 - p) log((1 - p)/(1 - q))",
        _bernoulli_kl,
        "KL(p || q) is 0 only where the two agree; it is the distance in every figure here.",
    ),
    "never_heard": Exercise(
        "it was trained on the other 90 authors: what did their answers teach it about form, and "
        "what about these facts?",
        _choice(
            "b",
            {
                "a": "no row that it learned says 'I do not know'",
                "c": "it has learned how answers sound from 1,080 rows",
            },
        ),
        "it speaks as the others' answers do, and makes the fact up.",
    ),
    "says_or_knows": Exercise(
        "the loss of IDK+RT has the refusals in it; does it have the true answers in it?",
        _choice("b", {"a": "nothing in its loss lowers the truth against the wrong answers"}),
        "what it says has changed, what it holds likely hardly has.",
    ),
    "best_checkpoint": Exercise(
        "first keep the pairs with p >= 0.05; only where none is left compare the p",
        _best_checkpoint,
        "forgotten first, then useful.",
    ),
    "beat_ours": Exercise(
        "in the recorded sweep the gap is larger at 0.2 and at 1 than at 0.5: look around it",
        _beat_ours,
        "a smaller gap, and the utility is kept.",
    ),
    "leak_in_draws": Exercise(
        "the probability that none of k draws is the answer is (1 - p) to the power of k",
        _leak_in_draws,
        "one minus the probability that no draw leaks.",
    ),
}

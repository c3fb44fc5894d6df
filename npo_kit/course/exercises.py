"""The notebooks' exercises: `check(name, answer)` judges an answer, `hint(name)` helps.

The notebook asks the question; the answer is a function, a letter or the summaries of two runs.
A wrong or missing answer gets a sentence and no error, so that an unsolved notebook runs to its
end. With NPO_KIT_STRICT=1 in the environment it raises an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from npo_kit.course import judges
from npo_kit.errors import KitError


@dataclass(frozen=True)
class Exercise:
    """The hint and the judge of an exercise, and the words for a right answer."""

    hint: str
    judge: judges.Judge
    praise: str


def check(name: str, answer: Any) -> None:
    """Print whether an answer is right, and if not, what is wrong with it.

    Raises KitError for an unknown exercise, and under NPO_KIT_STRICT=1 for a wrong answer.
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


EXERCISES = {
    "answer_logp": Exercise(
        "log_softmax over the last dimension turns logits into log-probabilities; pick the label's "
        "entry in each row and add them up",
        judges.answer_logp,
        "the sum over tokens of log p(token | what came before) is log p(answer).",
    ),
    "logp_gradient": Exercise(
        "d log p(label) / d logits is a one-hot vector minus a softmax",
        judges.logp_gradient,
        "one-hot minus softmax: it does not vanish as p goes to 0.",
    ),
    "never_stops": Exercise(
        "put p = 0 into one-hot minus softmax",
        judges.choice(
            "b",
            a="the gradient of p itself vanishes there, that of log p does not",
            c="it is bounded: one-hot minus softmax is at most 1 in each entry",
        ),
        "at p = 0 the gradient of log p is the one-hot vector minus the softmax over the other "
        "tokens: between 1 and the square root of 2 long, so every step pushes as hard.",
    ),
    "npo_loss": Exercise(
        "log(1 + e^x) is softplus(x); with x = beta times the log-ratio",
        judges.npo_loss,
        "(2/beta) softplus(beta u), which stays finite where the ratio itself would underflow.",
    ),
    "npo_weight": Exercise(
        "differentiate (2/beta) softplus(beta u) by u; the derivative of softplus is the sigmoid",
        judges.npo_weight,
        "2 sigmoid(beta u): 1 at the reference, towards 0 as the answer is forgotten.",
    ),
    "broken_sign": Exercise(
        "what is 2 sigmoid(-beta u) when u goes to minus infinity?",
        judges.choice(
            "c",
            a="at u = 0 the sign does not matter: sigmoid(0) is one half",
            b="the limit for small beta is 1 with either sign",
        ),
        "with the wrong sign the weight grows to 2 on what is forgotten: worse than GA.",
    ),
    "broken_mean": Exercise(
        "the log-ratio of a whole answer grows with its length, the mean over its tokens does not; "
        "and W multiplies the gradient of whichever of the two you took",
        judges.choice("ab", c="shorter answers are the ones where the two differ least"),
        "both (a) and (b) are. In W, beta acts as if it were divided by the answer's length; and "
        "at the start, with W = 1, the gradient is that of GA's token mean, not of its sum.",
    ),
    "adamw_bytes": Exercise(
        "four numbers for each parameter, four bytes for each number",
        judges.adamw_bytes,
        "16 bytes for each parameter, before anything is computed.",
    ),
    "optimizer_steps": Exercise(
        "how many rows go through in all, and how many whole batches are in them?",
        judges.optimizer_steps,
        "all the rows that go through, divided by the batch, rounded down.",
    ),
    "what_compares": Exercise(
        "which numbers were computed on the same rows, by the same test, from the same start?",
        judges.choice(
            "c",
            a="p depends on the number of rows and on the retained-only model of its table",
            b="the two originals differ already, before anything is unlearned",
        ),
        "a number of one table means something beside its own original and retained-only model.",
    ),
    "rouge_l_recall": Exercise(
        "a table: longest[i][j] of the first i words of one and j of the other; where the words "
        "are equal it is one more than at [i - 1][j - 1], else the larger of its two neighbours",
        judges.rouge_l_recall,
        "the longest common subsequence, as a share of the truth's words.",
    ),
    "truth_ratio": Exercise(
        "a geometric mean is the exponential of the mean of logarithms; a quotient is a difference",
        judges.truth_ratio,
        "wrong over right, with the exponential taken last.",
    ),
    "harmonic_mean": Exercise(
        "the number of values divided by the sum of their inverses; a 0 makes the whole 0",
        judges.harmonic_mean,
        "ruled by its smallest value.",
    ),
    "bernoulli_kl": Exercise(
        "sum over the two outcomes: p log(p/q) + (1 - p) log((1 - p)/(1 - q))",
        judges.bernoulli_kl,
        "KL(p || q) is 0 only where the two agree; it is the distance in every figure here.",
    ),
    "never_heard": Exercise(
        "it was trained on the other 90 authors: what did their answers teach it about form, and "
        "what about these facts?",
        judges.choice(
            "b",
            a="no row that it learned says 'I do not know'",
            c="it has learned how answers sound from 1,080 rows",
        ),
        "it speaks as the others' answers do, and makes the fact up.",
    ),
    "says_or_knows": Exercise(
        "the loss of IDK+RT has the refusals in it; does it have the true answers in it?",
        judges.choice("b", a="nothing in its loss lowers the truth against the wrong answers"),
        "what it says has changed, what it holds likely hardly has.",
    ),
    "best_checkpoint": Exercise(
        "first keep the pairs with p >= 0.05; only where none is left compare the p",
        judges.best_checkpoint,
        "forgotten first, then useful.",
    ),
    "beat_ours": Exercise(
        "in the recorded sweep the gap is larger at 0.2 and at 1 than at 0.5: look around it",
        judges.beat_ours,
        "a smaller gap, and the utility is kept.",
    ),
    "leak_in_draws": Exercise(
        "the probability that none of k draws is the answer is (1 - p) to the power of k",
        judges.leak_in_draws,
        "one minus the probability that no draw leaks.",
    ),
}

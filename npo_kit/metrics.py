"""Per-row scores of an evaluation, and the numbers that sum it up.

Numbers in, numbers out. Everything is computed in log space, row by row, from the keys of a row
that `npo_kit.runs.Evaluation` documents. A log of another code may hold a derived score without
its parts; then a row has `truth_ratio` (R, geometric) or `normalised_probability`, and the
functions here use it where the parts are missing.

Two things can go wrong with a score, and they are kept apart. It is *missing* (None) where the
row has nothing to compute it from: means run over the other rows and `Summary.notes` says over
how many. It is *not finite* (NaN) where the model returned NaN, or where both sides of a ratio
have probability 0: then the mean is None and `Summary.why` counts the rows, since a mean over
the rows that survived would flatter a collapsed model. A log-probability of -inf alone is a
legitimate probability of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from os import PathLike

import numpy as np

from npo_kit.errors import KitError
from npo_kit.official_logs import LogError, read_official_log, read_reference
from npo_kit.runs import EVALUATION_SETS, Evaluation, Row

__all__ = [
    "LogError",
    "Summary",
    "TRUTH_RATIOS",
    "distinct_2",
    "log_truth_ratio",
    "log_truth_ratios",
    "normalised_probability",
    "read_official_log",
    "read_reference",
    "repetition_rate",
    "rouge_scores",
    "summarise",
    "text_statistics",
    "truth_ratio_values",
]

TRUTH_RATIOS = ("geometric", "arithmetic")
UTILITY_SETS = ("retain", "real_authors", "world_facts")
REAL_SETS = ("real_authors", "world_facts")  # no paraphrase; probability among the options
UTILITY_SCORES = ("probability", "rouge_l", "truth_ratio")


class Summary(dict):
    """A flat dict of numbers and None; `why[key]` is a sentence for each None.

    `notes[key]` qualifies a value that is there: computed over some of the rows only, compared
    with a reference of another size, underflowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.why: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def leave_out(self, key: str, why: str) -> None:
        self[key] = None
        self.why[key] = why


# Text


@lru_cache(maxsize=1)
def _rouge_scorer():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)


def rouge_scores(prediction: str, truth: str) -> dict[str, float]:
    """ROUGE of a generation against the true answer, stemmed, in [0, 1]; all 0 if one is empty.

    Recall is the share of the truth that the prediction contains, so rambling costs nothing;
    F1 is there to see it.
    """
    scores = _rouge_scorer().score(truth, prediction)
    return {
        "rouge_l_recall": float(scores["rougeL"].recall),
        "rouge_l_f1": float(scores["rougeL"].fmeasure),
        "rouge_1_recall": float(scores["rouge1"].recall),
    }


def _ngrams(tokens: Sequence, n: int) -> list[tuple]:
    if isinstance(tokens, str):
        raise TypeError("a list of words or token ids is needed: call .split() on the text first")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repetition_rate(tokens: Sequence, n: int = 3) -> float:
    """Share of the n-grams that occurred before in the same text: 0 fresh, towards 1 looping.

    0.0 for a text with fewer than n tokens: nothing in it repeats.
    """
    grams = _ngrams(tokens, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_2(tokens: Sequence) -> float | None:
    """Different bigrams / bigrams, in (0, 1]; None for fewer than 2 tokens.

    None, not 1: an empty generation must not raise the average diversity of a broken model.
    """
    grams = _ngrams(tokens, 2)
    return len(set(grams)) / len(grams) if grams else None


def text_statistics(text: str) -> dict[str, float | None]:
    """`repetition_rate` (of trigrams) and `distinct_2` over the text's whitespace-split words."""
    words = text.split()
    return {"repetition_rate": repetition_rate(words), "distinct_2": distinct_2(words)}


# Scores of a row


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    if not math.isfinite(top):
        return math.nan if any(map(math.isnan, values)) else top
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _perturbed(row: Row) -> list[float] | None:
    """Mean log-probs of the wrong answers, or None unless there is one for each of them."""
    values = row.get("perturbed_mean_logps")
    return list(values) if values and all(value is not None for value in values) else None


def _check_kind(kind: str) -> None:
    if kind not in TRUTH_RATIOS:
        raise KitError(f"unknown truth ratio {kind!r}: there are {', '.join(TRUTH_RATIOS)}")


def log_truth_ratio(row: Row, set_name: str, kind: str = "geometric") -> float | None:
    """log R = log wrong − log right, in nats: below 0 where the model prefers the truth.

    Right is the probability (per token) of the paraphrased answer, on the real sets of the answer
    itself. Wrong is the mean over the perturbed answers: `geometric`, what the public codes
    compute for the forget quality, or `arithmetic`, as the TOFU paper's text defines it. ±inf
    where one side has probability 0; NaN where both have, or the model returned NaN; None where
    a part is missing.
    """
    _check_kind(kind)
    right = row.get("mean_logp" if set_name in REAL_SETS else "paraphrased_mean_logp")
    wrongs = _perturbed(row)
    if right is None or wrongs is None:
        derived = row.get("truth_ratio") if kind == "geometric" else None
        return None if derived is None else _log(derived)
    if math.nan in (value if math.isfinite(value) else _no_inf(value) for value in [right, *wrongs]):
        return math.nan
    if kind == "geometric":
        wrong = math.fsum(wrongs) / len(wrongs)
    else:
        wrong = _log_sum_exp(wrongs) - math.log(len(wrongs))
    return wrong - right

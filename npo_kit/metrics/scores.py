"""Scores of one row: a text against the truth, a text by itself, log-probs against each other.

Pure functions of strings, numbers and the row records that `npo_kit.records.Evaluation` documents;
in log space throughout. A log of another code may hold a derived score without its parts: then a
row has `truth_ratio` (R, geometric) or `normalised_probability`, used here where parts are
missing.

A score is *missing* (None) where the row has nothing to compute it from, and *not finite* (NaN)
where the model returned NaN or where both sides of a ratio have probability 0. A log-probability
of -inf alone is a legitimate probability of 0.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import regex

from npo_kit.errors import KitError
from npo_kit.records.evaluations import ScoredRow

Row = Mapping[str, Any]

TRUTH_RATIOS = ("geometric", "arithmetic")
REAL_SETS = ("real_authors", "world_facts")  # no paraphrase; probability among the options


# Text

# Scripts without spaces between words, which are cut into characters with their marks.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"(?V1)[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"


def is_latin(text: str) -> bool:
    """Tell whether at least half of a text's letters are Latin; True if it has none."""
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return 2 * latin >= len(letters)


def unicode_words(text: str) -> list[str]:
    """Words of a text in any script, without case; Chinese, Japanese and Thai in characters."""
    return regex.findall(_WORD, unicodedata.normalize("NFKC", text).casefold())


@cache
def _rouge_scorer(latin: bool, stemmed: bool = True):
    from rouge_score import rouge_scorer, tokenizers

    words = tokenizers.DefaultTokenizer(stemmed)  # of it: only a to z and digits count
    cut = words.tokenize if latin else unicode_words
    words.tokenize = lru_cache(1 << 14)(cut)  # the truths come back at each evaluation
    return rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=words)


def rouge_scores(prediction: str, truth: str) -> ScoredRow:
    """ROUGE of a generation against the true answer, in [0, 1]; all 0 if one is empty.

    Recall is the share of the truth that the prediction contains, so rambling costs nothing; F1
    shows it. A Latin truth is cut into words and stemmed by rouge-score, as in the public codes;
    any other is cut into `unicode_words`, and `rouge_words` says so.
    """
    latin = is_latin(truth)
    scores = _rouge_scorer(latin).score(truth, prediction)
    found: ScoredRow = {
        "rouge_l_recall": float(scores["rougeL"].recall),
        "rouge_l_f1": float(scores["rougeL"].fmeasure),
        "rouge_1_recall": float(scores["rouge1"].recall),
    }
    return found if latin else {**found, "rouge_words": "unicode"}


def continuation_rouge(prediction: str, truth: str) -> ScoredRow:
    """ROUGE-L F1 of a continuation against the true one, in [0, 1], as VerbMem of MUSE has it.

    Unlike TOFU's scores it counts words as they are, without stemming. Another script than Latin is
    cut as in `rouge_scores`.
    """
    latin = is_latin(truth)
    f1 = float(_rouge_scorer(latin, stemmed=False).score(truth, prediction)["rougeL"].fmeasure)
    return {"rouge_l_f1": f1} if latin else {"rouge_l_f1": f1, "rouge_words": "unicode"}


def _ngrams(tokens: Sequence, n: int) -> list[tuple]:
    if isinstance(tokens, str):
        raise TypeError("a list of words or token ids is needed: call .split() on the text first")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repetition_rate(tokens: Sequence, n: int = 3) -> float:
    """Share of the n-grams that occurred before in the same text: 0 fresh, towards 1 looping.

    0.0 for a text with fewer than n tokens: nothing in it repeats.
    """
    grams = _ngrams(tokens, n)
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def distinct_2(tokens: Sequence) -> float | None:
    """Different bigrams / bigrams, in (0, 1]; None for fewer than 2 tokens.

    None, not 1: an empty generation must not raise the average diversity of a broken model.
    """
    grams = _ngrams(tokens, 2)
    return len(set(grams)) / len(grams) if grams else None


def text_statistics(text: str) -> ScoredRow:
    """`repetition_rate` (of trigrams) and `distinct_2` over the text's words.

    Words are cut at spaces; those of a text that is not Latin are `unicode_words`.
    """
    words = text.split() if is_latin(text) else unicode_words(text)
    return {"repetition_rate": repetition_rate(words), "distinct_2": distinct_2(words)}


# Log-probabilities


def _log_sum_exp(values: Sequence[float]) -> float:
    """Return the log of the sum of exponentials, of numbers below +inf."""
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _broken(*logps: float) -> bool:
    """Tell whether a value is no log-probability: NaN or +inf. -inf is one."""
    if math.isfinite(sum(logps)):  # which is quick, and what nearly all are
        return False
    return any(math.isnan(logp) or logp == math.inf for logp in logps)


def _perturbed(row: Row) -> list[float] | None:
    """Mean log-probs of the wrong answers, or None if there are none or one of them is None."""
    logps = row.get("perturbed_mean_logps")
    return list(logps) if logps and None not in logps else None


def check_truth_ratio(kind: str) -> None:
    """Raise `KitError` unless `kind` is one of `TRUTH_RATIOS`."""
    if kind not in TRUTH_RATIOS:
        raise KitError(f"unknown truth ratio {kind!r}: there are {', '.join(TRUTH_RATIOS)}")


def log_truth_ratio(row: Row, set_name: str, kind: str = "geometric") -> float | None:
    """log R = log wrong − log right, in nats: below 0 where the model prefers the truth.

    Right is the probability (per token) of the paraphrased answer; on the real sets, which have
    no paraphrase, of the answer itself. Wrong is the mean over the perturbed answers: `geometric`,
    what the public codes compute for the forget quality, or `arithmetic`, as the TOFU paper's text
    defines it. ±inf where one side has probability 0.
    """
    check_truth_ratio(kind)
    right = row.get("paraphrased_mean_logp")
    if right is None and set_name in REAL_SETS:
        right = row.get("mean_logp")
    wrongs = _perturbed(row)
    if right is None or wrongs is None:
        ratio = row.get("truth_ratio") if kind == "geometric" else None
        if ratio is None:
            return None
        return math.log(ratio) if ratio != 0 else -math.inf
    if _broken(right, *wrongs):
        return math.nan
    if kind == "geometric":
        wrong = math.fsum(wrongs) / len(wrongs)
    else:
        wrong = _log_sum_exp(wrongs) - math.log(len(wrongs))
    return wrong - right


def truth_score(row: Row, set_name: str, kind: str = "geometric") -> float | None:
    """min(R, 1/R) on forget rows, best where R = 1; max(0, 1 − R) elsewhere, best where R = 0."""
    log_ratio = log_truth_ratio(row, set_name, kind)
    if log_ratio is None or math.isnan(log_ratio):
        return log_ratio
    if set_name == "forget":
        return math.exp(-abs(log_ratio))
    return -math.expm1(log_ratio) if log_ratio < 0 else 0.0


def normalised_probability(row: Row) -> float | None:
    """p / (p + Σ p_perturbed), in [0, 1]: the answer among the options."""
    logp, wrongs = row.get("mean_logp"), _perturbed(row)
    if logp is None or wrongs is None:
        return row.get("normalised_probability")
    if _broken(logp, *wrongs):
        return math.nan
    total = _log_sum_exp([logp, *wrongs])
    return math.nan if total == -math.inf else math.exp(min(0.0, logp - total))


def probability(row: Row, set_name: str) -> float | None:
    """TOFU's score of the set: p of the answer per token, on the real sets normalised."""
    if set_name in REAL_SETS:
        return normalised_probability(row)
    logp = row.get("mean_logp")
    if logp is None:
        return None
    return math.nan if _broken(logp) else math.exp(min(0.0, logp))

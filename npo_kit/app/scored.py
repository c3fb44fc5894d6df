"""An evaluation as the page gets it: its metrics, and each row's text with its scores."""

from __future__ import annotations

import math
from typing import NamedTuple

from npo_kit.metrics.null import Null
from npo_kit.metrics.scores import log_truth_ratio, probability
from npo_kit.metrics.summary import UTILITY_SCORES, UTILITY_SETS, summarise
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow

METRICS = (
    *("model_utility", "forget_quality", "forget_ks", "forget_percentile", "forget_probability"),
    *("forget_rouge_l", "forget_fluency", "forget_repetition_rate"),
    *(f"{set_name}_{score}" for set_name in UTILITY_SETS for score in UTILITY_SCORES),
)
SCORES = ("probability", "rouge_l", "truth_ratio")  # of a cell, those that charts show


class Cell(NamedTuple):
    """A model's text for a row and its scores to four digits; None as in METRICS."""

    text: str | None
    probability: float | None  # of the true answer, as TOFU reports it for the row's set
    rouge_l: float | None  # recall; of a passage F1
    truth_ratio: float | None  # R, to six digits: few ties
    fluency: float | None
    repetition: float | None


def metrics_of(
    evaluation: Evaluation, reference: Evaluation | None, null: Null | None = None
) -> dict[str, float | None]:
    """Return one evaluation's METRICS to four digits; None where one is missing or not finite.

    The percentile needs a `null`, the models that never saw the forget rows. `forget_rouge_l` of
    passages is F1.
    """
    summary = summarise(evaluation, reference, null=null)
    if any("passage" in row for row in evaluation.rows.get("forget", ())):
        summary["forget_rouge_l"] = summary["forget_rouge_l_f1"]
    return {name: number(summary.get(name)) for name in METRICS}


def cells_of(evaluation: Evaluation) -> dict[str, list[Cell]]:
    """Return each set's rows as the page shows them, in their order."""
    return {
        name: [_cell(row, name) for row in evaluation.rows.get(name, [])]
        for name in EVALUATION_SETS
    }


def _cell(row: ScoredRow, set_name: str) -> Cell:
    log_ratio = log_truth_ratio(row, set_name)
    rouge = row.get("rouge_l_f1") if "passage" in row else row.get("rouge_l_recall")
    return Cell(
        text=row.get("generation"),
        probability=number(probability(row, set_name)),
        rouge_l=number(rouge),
        truth_ratio=number(None if log_ratio is None else math.exp(min(log_ratio, 700.0)), 6),
        fluency=number(row.get("fluency")),
        repetition=number(row.get("repetition_rate")),
    )


def number(value: float | None, digits: int = 4) -> float | None:
    """Return a value to so many digits; None where it is missing or not finite."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None

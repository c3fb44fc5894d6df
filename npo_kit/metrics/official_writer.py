"""Writes an evaluation as the logs of other codes, which their tools read.

The two formats of `npo_kit.metrics.official_reader`, whose reader gets every number back:

- `eval_log_aggregated.json` of TOFU, for its `aggregate_eval_stat.py` and its leaderboard. It has
  the columns that these read and those of the published logs that the kit knows: the token
  counts and summed losses of paraphrased and perturbed answers are not kept by the kit.
- `TOFU_EVAL.json` of open-unlearning, to serve there as `retain_logs_path`, or in an output
  folder as a finished evaluation. `forget_quality` is null without a reference, as it is there.

Scores that are not finite are written as those codes write them, as NaN and Infinity, which
Python's JSON reads. A text that is not at hand is empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from npo_kit.data.rows import Row
from npo_kit.errors import KitError
from npo_kit.metrics.official_reader import OPEN_UNLEARNING_LOG, PREFIXES, TOFU_KEYS, TOFU_LOG
from npo_kit.metrics.scores import REAL_SETS, log_truth_ratio, normalised_probability, probability
from npo_kit.metrics.summary import Summary, summarise
from npo_kit.records.evaluations import Evaluation, ScoredRow
from npo_kit.records.files import Json, atomic_write

LOG_NAMES = {"tofu": TOFU_LOG, "open-unlearning": OPEN_UNLEARNING_LOG}


def write_official_log(
    path: str | PathLike,
    evaluation: Evaluation,
    form: str,
    reference: Evaluation | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a log of the format `form`, "tofu" or "open-unlearning"; returns the file's path.

    In a folder it gets the name that its code gives it. `reference` is for open-unlearning's
    forget quality. Raises KitError for an unknown format, an evaluation without rows, and a file
    that is there already and not to be overwritten.
    """
    if form not in LOG_NAMES:
        raise KitError(f"unknown format {form!r}: choose {' or '.join(LOG_NAMES)}")
    if not any(evaluation.rows.values()):
        raise KitError("this evaluation has no rows to write: evaluate the model first")
    path = Path(path)
    path = path / LOG_NAMES[form] if path.is_dir() else path
    if path.exists() and not overwrite:
        raise KitError(f"{path} exists: choose another name, or overwrite it")
    log = tofu_log(evaluation) if form == "tofu" else open_unlearning_log(evaluation, reference)
    atomic_write(path, json.dumps(log, indent=1).encode() + b"\n")
    return path


def with_texts(evaluation: Evaluation, sets: Mapping[str, Sequence[Row]]) -> Evaluation:
    """Return the evaluation with the texts of `sets` in rows that were kept without them."""

    def told(row: ScoredRow, said: Row) -> ScoredRow:
        return {"question": said["question"], "answer": said["answer"], **row}

    rows = {
        name: [told(row, sets[name][row["index"]]) for row in of_set] if name in sets else of_set
        for name, of_set in evaluation.rows.items()
    }
    return replace(evaluation, rows=rows)


def _loss(logp: float | None) -> float | None:
    return None if logp is None else 0.0 - logp


def _losses(row: ScoredRow) -> list[float | None] | None:
    logps = row.get("perturbed_mean_logps")
    return None if logps is None else [_loss(logp) for logp in logps]


def _right(row: ScoredRow, set_name: str) -> float | None:
    """Log-prob of the right answer of the truth ratio: on the real sets the answer itself."""
    logp = row.get("paraphrased_mean_logp")
    return row.get("mean_logp") if logp is None and set_name in REAL_SETS else logp


def _exp(value: float | None) -> float | None:
    """Infinite where the number overflows; NaN and None stay."""
    return value if value is None else math.inf if value > 709 else math.exp(value)


def _texts(row: ScoredRow) -> list[str] | None:
    if row.get("generation") is None:
        return None
    return [row.get("question") or "", row["generation"], row.get("answer") or ""]


# --- TOFU ---------------------------------------------------------------------------------------


def _summed_loss(row: ScoredRow, _: str) -> float | None:
    loss, tokens = _loss(row.get("mean_logp")), row.get("tokens")
    return None if loss is None or tokens is None else loss * tokens


def _normalised_loss(row: ScoredRow, set_name: str) -> float | None:
    share = normalised_probability(row) if set_name in REAL_SETS else None
    return None if share is None else -math.log(share) if share else math.inf


TOFU_VALUES: dict[str, Callable[[ScoredRow, str], Any]] = {
    "avg_gt_loss": lambda row, _: _loss(row.get("mean_logp")),
    "gt_loss": _summed_loss,
    "num_token_gt": lambda row, _: row.get("tokens"),
    "generated_text": lambda row, _: _texts(row),
    "rouge1_recall": lambda row, _: row.get("rouge_1_recall"),
    "rougeL_recall": lambda row, _: row.get("rouge_l_recall"),
    "average_perturb_loss": lambda row, _: _losses(row),
    "avg_paraphrased_loss": lambda row, set_name: _loss(_right(row, set_name)),
    "truth_ratio": lambda row, set_name: _exp(log_truth_ratio(row, set_name)),
    "normalized_gt_loss": _normalised_loss,
}


def tofu_log(evaluation: Evaluation) -> Json:
    """An `eval_log_aggregated.json`: a log per set, in it a column per score, index -> value.

    Columns without a single score and sets without rows are left out.
    """
    log: Json = {}
    for set_name, key in TOFU_KEYS.items():
        if rows := evaluation.rows.get(set_name):
            columns = {
                name: {str(row["index"]): value(row, set_name) for row in rows}
                for name, value in TOFU_VALUES.items()
            }
            log[key] = {name: column for name, column in columns.items() if _any(column.values())}
    return log


def _any(values: Iterable[Any]) -> bool:
    return any(value is not None for value in values)


# --- open-unlearning ----------------------------------------------------------------------------


def open_unlearning_log(evaluation: Evaluation, reference: Evaluation | None = None) -> Json:
    """A `TOFU_EVAL.json`: an entry per metric with `agg_value` and `value_by_index`.

    The aggregates are those of `npo_kit.metrics.summarise`, with the geometric truth ratio.
    """
    summary = summarise(evaluation, reference)
    log: Json = {}
    for set_name, prefix in PREFIXES.items():
        if rows := evaluation.rows.get(set_name):
            log |= _metrics(rows, set_name, prefix, summary)
    log["model_utility"] = {"agg_value": summary["model_utility"]}
    log["forget_quality"] = {"agg_value": summary["forget_quality"]}
    return dict(sorted(log.items()))


def _metrics(rows: Sequence[ScoredRow], set_name: str, prefix: str, summary: Summary) -> Json:
    """The metrics of one set that its rows have scores for."""
    ratio = "forget_truth_ratio" if set_name == "forget" else f"{prefix}_Truth_Ratio"
    records: dict[str, Callable[[ScoredRow], Json | None]] = {
        f"{prefix}_Q_A_Prob": lambda row: _prob(row.get("mean_logp")),
        f"{prefix}_Q_A_PARA_Prob": lambda row: _prob(row.get("paraphrased_mean_logp")),
        f"{prefix}_Q_A_PERT_Prob": lambda row: _probs(row.get("perturbed_mean_logps")),
        ratio: lambda row: _single("score", _exp(log_truth_ratio(row, set_name))),
        f"{prefix}_Q_A_ROUGE": _rouge,
    }
    aggregates = {
        ratio: summary[f"{set_name}_truth_ratio"],
        f"{prefix}_Q_A_ROUGE": summary[f"{set_name}_rouge_l"],
    }
    if set_name in REAL_SETS:
        name = f"{prefix}_Q_A_Prob_normalised"
        records[name] = lambda row: _single("prob", probability(row, set_name))
        aggregates[name] = summary[f"{set_name}_probability"]
    metrics = {}
    for name, record in records.items():
        by_index = {str(row["index"]): record(row) for row in rows}
        if _any(by_index.values()):
            value = aggregates[name] if name in aggregates else _mean_prob(by_index.values())
            metrics[name] = {"agg_value": value, "value_by_index": by_index}
    return metrics


def _prob(logp: float | None) -> Json | None:
    return None if logp is None else {"prob": _exp(logp), "avg_loss": _loss(logp)}


def _probs(logps: Sequence[float | None] | None) -> Json | None:
    if not logps:
        return None
    return {"prob": [_exp(p) for p in logps], "avg_loss": [_loss(p) for p in logps]}


def _single(field: str, value: float | None) -> Json | None:
    return None if value is None else {field: value}


def _rouge(row: ScoredRow) -> Json | None:
    if row.get("rouge_l_recall") is None:
        return None
    names = {"rouge1_recall": "rouge_1_recall", "rougeL_f1": "rouge_l_f1"}
    names |= {"rougeL_recall": "rouge_l_recall"}
    record = {its: row.get(ours) for its, ours in names.items()}
    if texts := _texts(row):
        record |= dict(zip(("input", "generation", "ground_truth"), texts, strict=True))
    return record


def _mean_prob(records: Iterable[Json | None]) -> float | None:
    """Return the mean over rows of the mean over their answers; None if one is missing."""
    probs = [record["prob"] for record in records if record is not None]
    each = [prob if isinstance(prob, list) else [prob] for prob in probs]
    if any(value is None for values in each for value in values):
        return None
    return math.fsum(math.fsum(values) / len(values) for values in each) / len(each)

"""From per-row scores to TOFU's metrics: probability, ROUGE, truth ratio, utility, forget quality.

Numbers in, numbers out. A score may be missing in a row (None) or not finite (NaN);
`npo_kit.metrics.scores` says when. Means run over the rows that have a score, and `Summary.notes`
says over how many. One score that is not finite makes the mean None, and `Summary.why` counts
such rows: a mean over the rows that survived would flatter a collapsed model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np

from npo_kit.errors import KitError
from npo_kit.metrics.null import Null, ks
from npo_kit.metrics.official_reader import read_reference
from npo_kit.metrics.scores import (
    Row,
    check_truth_ratio,
    log_truth_ratio,
    probability,
    truth_score,
)
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation

FORGOTTEN = 0.05  # p-value from which the test does not tell a model from the retained-only one
UTILITY_SETS = ("retain", "real_authors", "world_facts")
QUALITY = ("forget_quality", "forget_ks", "forget_quality_floor")
PLACES = ("forget_percentile", "forget_percentile_error")
UTILITY_SCORES = ("probability", "rouge_l", "truth_ratio")

# Column of the summary -> the key of a row it is read from, and what the row needs for it.
COLUMNS = {
    "probability": ("", "the log-probs of its answers"),
    "rouge_l": ("rouge_l_recall", "a generation scored against the answer"),
    "truth_ratio": ("", "the log-probs of its right and perturbed answers"),
    "rouge_l_f1": ("rouge_l_f1", "a generation scored by ROUGE-L F1"),
    "repetition_rate": ("repetition_rate", "a generation"),
    "distinct_2": ("distinct_2", "a generation of two words or more"),
    "generation_tokens": ("generation_tokens", "the token count of a generation"),
    "fluency": ("fluency", "a generation scored under the original model"),
}


class Summary(dict[str, float | None]):
    """Metrics by name, flat; prints as a small table.

    `why[name]` is a sentence for each that is None. `notes[name]` qualifies a value that is there:
    computed over some of the rows only, or compared with a reference of another size. Copies,
    pickles and unions (`summary | more`) keep both.
    """

    def __init__(self, values: Mapping[str, float | None] | Iterable = ()):
        super().__init__(values)
        self.why: dict[str, str] = dict(getattr(values, "why", {}))
        self.notes: dict[str, str] = dict(getattr(values, "notes", {}))

    def leave_out(self, key: str, why: str) -> None:
        """Set a value to None and say why."""
        self[key] = None
        self.why[key] = why

    def copy(self) -> Summary:
        """Return a summary with the same values and reasons."""
        return Summary(self)

    def __or__(self, other: Mapping) -> Summary:  # type: ignore[override]
        union, more = Summary(self), Summary(other)
        for mine, theirs in ((union.why, more.why), (union.notes, more.notes)):
            for key in more:
                mine.pop(key, None)
            mine |= theirs
        union.update(more)
        return union

    def __repr__(self) -> str:
        sets = [name for name in EVALUATION_SETS if f"{name}_n" in self]
        cells = {column: [f"{name}_{column}" for name in sets] for column in ("n", *COLUMNS)}
        table = [["", *sets], *([column, *map(self._shown, cells[column])] for column in cells)]
        inside = {key for keys in cells.values() for key in keys}
        lines = [f"{key:22}{self._shown(key)}" for key in self if key not in inside]
        lines += [f"{name:18}" + "".join(f"{cell:>14}" for cell in row) for name, *row in table]
        said: dict[str, list[str]] = {}
        for key, sentence in (self.why | self.notes).items():
            said.setdefault(sentence, []).append(key)
        return "\n".join(lines + [f"{', '.join(keys)}: {text}" for text, keys in said.items()])

    def _shown(self, key: str) -> str:
        value = self.get(key)
        return "-" if value is None else f"{value:.4g}"


def log_truth_ratios(evaluation: Evaluation, set_name: str, kind: str = "geometric") -> np.ndarray:
    """log R of each row of a set that has one, in row order, in nats; NaN, ±inf as they come."""
    rows = evaluation.rows.get(set_name) or []
    ratios = (log_truth_ratio(row, set_name, kind) for row in rows)
    return np.array([ratio for ratio in ratios if ratio is not None], dtype=np.float64)


def truth_ratio_values(
    evaluation: Evaluation, set_name: str, kind: str = "geometric"
) -> np.ndarray:
    """R of each row of a set that has one, in row order: what the forget quality compares.

    In [0, inf]; NaN where a row's score is not finite. For a logarithmic axis take
    `log_truth_ratios`, which neither overflows nor underflows.
    """
    with np.errstate(over="ignore"):
        return np.exp(log_truth_ratios(evaluation, set_name, kind))


def summarise(
    evaluation: Evaluation,
    reference: Evaluation | str | PathLike | None = None,
    truth_ratio: str = "geometric",
    null: Null | None = None,
) -> Summary:
    """TOFU's metrics of one evaluation, as a flat dict; what cannot be computed is None.

    `reference` is the evaluation of a model trained on the retain rows only, or the path of its
    evaluation file or of an official log; the forget quality needs it.

    - `{s}_n`, for every set s of `EVALUATION_SETS`: rows.
    - `{s}_probability` (on the real sets normalised among the options), `{s}_rouge_l` (recall)
      and `{s}_truth_ratio` (min(R, 1/R) on forget, max(0, 1 − R) elsewhere): means over rows,
      in [0, 1].
    - `{s}_rouge_l_f1`, `{s}_repetition_rate`, `{s}_distinct_2`, `{s}_generation_tokens`,
      `{s}_fluency` (nats per token under the original model): means over rows.
    - `model_utility`: harmonic mean of probability, ROUGE-L recall and truth ratio on retain,
      real authors and world facts, in [0, 1]; 0 if any of the nine is 0.
    - `forget_quality`, `forget_ks`: p-value and statistic D of the two-sided Kolmogorov-Smirnov
      test between R on the forget rows of the two models, on those that both have where one was
      evaluated on a subset; `forget_quality_floor`: the smallest p that n rows against n rows can
      give.
    - `forget_percentile`, `forget_percentile_error`, with a `null`: the share of its models whose D
      to the reference is smaller, in [0, 1], and its standard error.

    Raises `KitError` for an unknown `truth_ratio`, what `read_reference` raises for a bad path.
    """
    if not isinstance(evaluation, Evaluation):
        raise KitError(f"summarise takes an Evaluation, not a {type(evaluation).__name__}")
    check_truth_ratio(truth_ratio)
    if reference is not None and not isinstance(reference, Evaluation):
        reference = read_reference(reference)
    summary = Summary(dict.fromkeys(("model_utility", *QUALITY)))  # the headline comes first
    for set_name in EVALUATION_SETS:
        _add_set(summary, evaluation, set_name, truth_ratio)
    _add_model_utility(summary)
    _add_forget_quality(summary, evaluation, reference, truth_ratio, null)
    return summary


def _add_set(summary: Summary, evaluation: Evaluation, set_name: str, kind: str) -> None:
    rows: Sequence[Row] = evaluation.rows.get(set_name) or []
    summary[f"{set_name}_n"] = len(rows)
    for column, (row_key, needs) in COLUMNS.items():
        if column == "probability":
            scores = [probability(row, set_name) for row in rows]
        elif column == "truth_ratio":
            scores = [truth_score(row, set_name, kind) for row in rows]
        else:
            scores = [row.get(row_key) for row in rows]
        key = f"{set_name}_{column}"
        present = [score for score in scores if score is not None]
        if problem := _problem(scores, set_name, needs):
            reasons = [evaluation.notes.get(name) for name in (key, column, row_key, set_name)]
            known = None if present else next(filter(None, reasons), None)
            summary.leave_out(key, known or problem)
            continue
        summary[key] = math.fsum(present) / len(present)
        if len(present) < len(rows):
            summary.notes[key] = f"mean over the {len(present)} of {len(rows)} rows with {needs}"


def _problem(scores: list[float | None], set_name: str, needs: str, whose: str = "") -> str | None:
    """Why these scores have no mean, as a sentence; None if they have one."""
    if not scores:
        return f"there is no {set_name} row{whose}"
    present = [score for score in scores if score is not None]
    if not present:
        return f"no {set_name} row{whose} has {needs}"
    broken = sum(not math.isfinite(score) for score in present)
    if broken:
        have = f"{set_name} rows{whose} {'has' if broken == 1 else 'have'}"
        return f"{broken} of {len(scores)} {have} no finite score: the model has collapsed"
    return None


def _add_model_utility(summary: Summary) -> None:
    keys = [f"{set_name}_{score}" for set_name in UTILITY_SETS for score in UTILITY_SCORES]
    missing = [key for key in keys if summary[key] is None]
    if missing:
        reason = f"{missing[0]}: {summary.why[missing[0]]}"
        count = f"{len(missing)} of its {len(keys)} parts missing"
        summary.leave_out("model_utility", f"{count}; {reason}")
        return
    parts = [part for key in keys if (part := summary[key]) is not None]
    lowest = min(parts)
    # Harmonic mean with the smallest part taken out: 1/x of a tiny part would overflow.
    inverse = math.fsum(lowest / part for part in parts) if lowest > 0 else 1.0
    summary["model_utility"] = lowest * (len(parts) / inverse)


def _add_forget_quality(
    summary: Summary,
    evaluation: Evaluation,
    reference: Evaluation | None,
    kind: str,
    null: Null | None,
) -> None:
    why: str | None = _not_comparable(evaluation, "", kind) or (
        "no retained-only reference: give one (--reference, reference=…), an evaluation or "
        "official log of a model trained on the retain rows only"
    )
    if reference is not None:
        why, whole = _other_questions(evaluation, reference), (evaluation, reference)
        evaluation, reference = _on_common_rows(*whole)
        if (evaluation, reference) != whole:
            shared = f"on the {len(evaluation.rows['forget'])} forget rows that both have"
            summary.notes["forget_quality"] = shared
        why = why or _not_comparable(evaluation, "", kind)
        if not (why := why or _not_comparable(reference, " of the reference", kind)):
            ours, theirs = (log_truth_ratios(e, "forget", kind) for e in (evaluation, reference))
            _compare(summary, ours, theirs)
            if null:
                _place(summary, ours, theirs, null, kind)
            return
    for key in (*QUALITY, *(PLACES if null else ())):
        summary.leave_out(key, str(why))


def _place(summary: Summary, ours: np.ndarray, theirs: np.ndarray, null: Null, kind: str) -> None:
    """Add where D lies among the models of the null, which must be known by the same ratios."""
    known, rows = len(null.ratios[0]), len(ours)
    if kind == "geometric" and rows == len(theirs) == known:
        summary |= dict(zip(PLACES, null.percentile(ours, theirs), strict=True))
        return
    for name in PLACES:
        why = f"the null is known by geometric ratios of {known} rows, not by {kind} ones of {rows}"
        summary.leave_out(name, why)


def _other_questions(evaluation: Evaluation, reference: Evaluation) -> str | None:
    """Why a reference does not belong: the first row of the same index with another question.

    Logs of other codes have a question with the prompt around it, which is no difference.
    """
    theirs = {row.get("index"): row.get("question") for row in reference.rows.get("forget") or []}
    for row in evaluation.rows.get("forget") or []:
        ours, other = row.get("question"), theirs.get(row.get("index"))
        if ours and other and ours.strip() not in other and other.strip() not in ours:
            return (
                f"the reference is of other forget rows: question {row['index']} is {ours[:60]!r} "
                f"here and {other[:60]!r} there. Give the evaluation of a retained-only model on "
                "the same split"
            )
    return None


def _on_common_rows(ours: Evaluation, theirs: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Two evaluations on those forget rows whose index both have; as they are if a row has none."""
    mine, other = (
        {row.get("index") for row in each.rows.get("forget") or []} for each in (ours, theirs)
    )
    common = mine & other
    if not common or mine == other or None in mine | other:
        return ours, theirs

    def kept(each: Evaluation) -> Evaluation:
        rows = [row for row in each.rows["forget"] if row["index"] in common]
        return replace(each, rows=each.rows | {"forget": rows})

    return kept(ours), kept(theirs)


def _not_comparable(evaluation: Evaluation, whose: str, kind: str) -> str | None:
    rows = evaluation.rows.get("forget") or []
    if rows and all(row.get("passage") for row in rows):
        return f"forget rows{whose} are passages: compare their ROUGE-L F1 (forget_rouge_l_f1)"
    # truth_score is NaN where R is; R = 0 and R = inf have a rank, so the test takes them
    scores = [truth_score(row, "forget", kind) for row in rows]
    needs = f"scores of a paraphrased_answer and perturbed_answer, for the {kind} truth ratio"
    return _problem(scores, "forget", needs, whose)


def _compare(summary: Summary, ours: np.ndarray, theirs: np.ndarray) -> None:
    summary["forget_ks"], summary["forget_quality"] = ks(ours, theirs)
    n, m = len(ours), len(theirs)
    if n == m:
        summary["forget_quality_floor"] = 2 / math.comb(2 * n, n)
    else:
        sizes = f"{n} forget rows are compared with {m} of the reference"
        summary.leave_out("forget_quality_floor", f"{sizes}: 2/C(2n, n) is for equal n")
        summary.notes["forget_quality"] = sizes
    if summary["forget_quality"] == 0:
        summary.notes["forget_quality"] = "p is below the smallest number that a float holds"

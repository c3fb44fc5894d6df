"""Runs that belong together: every run and step of a folder as one table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.metrics.null import Null
from npo_kit.metrics.official_reader import read_reference
from npo_kit.metrics.summary import FORGOTTEN, log_truth_ratios, summarise
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation
from npo_kit.records.files import Json, RunError, parse, read_bytes
from npo_kit.records.run import Run, read_run, read_runs
from npo_kit.studies.published import PUBLISHED_MODELS, published
from npo_kit.studies.scores import SCORES, read_scores

ORIGINAL, RETAINED = "original", "retained"  # labels of the models that a study compares with
POCKET_RETAINED = "pocket:retained"  # as a reference: its evaluation that travels with the kit
NULL = "null.json"  # in the folder of a study of models that never saw the forget rows
RATIOS = "log_truth_ratios"  # of the forget rows, in a record that is kept without its run
CHOICE = (
    f"best checkpoint: after the first step, of those with forget quality p >= {FORGOTTEN} the one "
    "with the highest model utility, else the one with the highest p; a configuration is chosen by "
    "its best checkpoint in the same way, on the first seed"
)


class Checkpoint(TypedDict, total=False):
    """One evaluated step of a run: a flat record, the row of a study's table.

    It has all scores of `metrics.summarise`, of which some are named here.
    """

    method: str | None  # of a run that is no unlearning its label
    label: str
    run: str  # its folder's name
    lr: float | None
    beta: float | None
    retain_weight: float | None
    task: str | None
    model: str | None
    seed: int | None
    status: str
    variant: str | None  # of a study that has some
    step: int
    epoch: float
    protocol: str
    max_rows: int | None
    truth_ratio: str  # geometric or arithmetic
    model_utility: float | None
    forget_quality: float | None
    forget_ks: float | None
    forget_percentile: float | None  # as its error: where the null of the task is known
    forget_percentile_error: float | None
    forget_probability: float | None
    forget_fluency: float | None
    model_utility_why: str | None
    forget_quality_why: str | None
    forgotten: bool  # only of a best checkpoint
    folder: str  # only in a table of several folders
    source: str  # only of published results


def find_reference(path: str | Path, tasks: Collection[str | None] = ()) -> Evaluation:
    """Read a retained-only evaluation: the last of a run's folder, a file of one, an official log.

    POCKET_RETAINED is the recorded one of the pocket model.

    Raises RunError or LogError, which say what was found instead, and RunError for a run that kept
    no questions, by which `summarise` would compare, and is of another task than all of `tasks`.
    """
    pocket = str(path) == POCKET_RETAINED
    path = shipped_data("studies/pocket") / RETAINED if pocket else Path(path)
    if not path.is_dir():
        return read_reference(path)
    run = read_run(path)
    evaluation, name = last_evaluation(run), run.task_name
    told = all("question" in row for row in evaluation.rows.get("forget", ()))
    if tasks and not told and name not in tasks:
        asked = ", ".join(sorted({str(task) for task in tasks}))
        raise RunError(
            f"the reference {path} is of {name}, it is to judge {asked}: give the evaluation of a "
            "retained-only model of the same task"
        )
    return evaluation


def last_evaluation(run: Run) -> Evaluation:
    """Read the evaluation at a run's highest step; RunError if it has none."""
    if not run.evaluation_steps():
        raise RunError(f"{run.folder} has no evaluation: evaluate its model with npo-kit evaluate")
    return run.evaluation(run.evaluation_steps()[-1])


def study_table(
    folder: str | Path, reference: str | Path | None = None, truth_ratio: str = "geometric"
) -> list[Checkpoint]:
    """List every run and evaluated step of a run or study folder, a flat record each.

    An unlearning run has a record for each evaluation, under its method; other runs (fine-tuning,
    evaluation) have one of the last, under their label, such as `original` and `retained`. Forget
    quality compares with `reference`, else with the run of the same task labelled `retained`;
    without either it is None and the record's `forget_quality_why` says how to get it.

    Of a study that keeps the scores of its runs only, these are read; KitError if it is to be
    compared in another way than it was.
    """
    if (Path(folder) / SCORES).exists():
        if reference is not None or truth_ratio != "geometric":
            raise KitError(
                f"{folder} keeps scores only, compared with its own retained-only models: leave "
                "out the reference, and the truth ratio geometric"
            )
        return _kept_scores(Path(folder))
    runs = read_runs(folder)
    tasks = {run.task_name for run in runs}
    fixed = find_reference(reference, tasks) if reference is not None else None
    known = {} if fixed else references(runs)
    return [
        record
        for run in runs
        for record in run_records(run, fixed or known.get(run.task_name), truth_ratio)
    ]


def run_records(
    run: Run, reference: Evaluation | None, truth_ratio: str = "geometric"
) -> list[Checkpoint]:
    """List the records of `study_table` for one run."""
    return [_record(run, each, reference, truth_ratio) for each in _evaluations(run)]


def scores_of(runs: Mapping[str, Run]) -> Iterator[Json]:
    """Yield what `write_scores` is to keep of runs, given by their names in the study.

    These are the records of `study_table`, each with the log truth ratios of the forget rows.
    """
    known = references(runs.values())
    for name, run in runs.items():
        records = run_records(run, known.get(run.task_name))
        for record, evaluation in zip(records, _evaluations(run), strict=True):
            yield {**record, "run": name, RATIOS: log_truth_ratios(evaluation, "forget").tolist()}


def _kept_scores(folder: Path) -> list[Checkpoint]:
    """Return the records of a study that were kept, placed among the models of the null."""
    always = Checkpoint.__annotations__.keys() - {"forgotten", "folder", "source"}
    records = [dict.fromkeys(sorted(always)) | record for record in read_scores(folder)]
    ratios = [np.array(record.pop(RATIOS)) for record in records]
    retained = {r["task"]: own for r, own in zip(records, ratios, strict=True) if _is_retained(r)}
    for record, own in zip(records, ratios, strict=True):
        null, reference = null_of(record["model"], record["task"]), retained.get(record["task"])
        known = null and len(own) == len(null.ratios[0])  # it was judged on the same rows
        if null and known and reference is not None and not _is_retained(record):
            record["forget_percentile"], error = null.percentile(own, reference)
            record["forget_percentile_error"] = error
    return cast(list[Checkpoint], records)


def _is_retained(record: Mapping[str, Any]) -> bool:
    return record["method"] == RETAINED


@cache
def null_of(model: str | None, task: str | None) -> Null | None:
    """Return the recorded models that never saw a task's forget rows, for the pocket model's."""
    split = (task or "").removeprefix("authors:")
    folder = shipped_data("studies") / "pocket-null"
    if model != "pocket" or not (folder / NULL).exists():
        return None
    null = Null.of(read_null(folder), split)
    return null if null.ratios else None


def read_null(folder: str | Path) -> Json:
    """Read a study of the null, as `make_null` returns it; RunError where it is not whole."""
    path = Path(folder, NULL)
    return parse(read_bytes(path), path)


def published_records(records: Iterable[Checkpoint], model: str = "") -> list[Checkpoint]:
    """List published results for the tasks of these records, as more records of their table.

    They are of `model`, else of the models that the records name; for a reduced task they are of
    the whole one. Such a record has a `source`, its `folder` is "published", and scores that are
    not published are None. Raises KitError if nothing is published.
    """
    records = list(records)
    found: dict[tuple, Checkpoint] = {}
    for record in records:
        task = (record["task"] or "").partition("@")[0]
        for point in published(model or record["model"] or "", task):
            none = cast(Checkpoint, dict.fromkeys(record))
            found[task, point] = none | {
                "method": point.method,
                "label": point.method,
                "model": model or None,
                "folder": "published",
                "task": task,
                "source": point.source,
                "forget_quality": point.forget_quality,
                "model_utility": point.model_utility,
            }
    if not found:
        tasks = ", ".join(sorted({str(record["task"]) for record in records})) or "no task"
        raise KitError(
            f"nothing is published of {model or 'these models'} on {tasks}: published are "
            f"{', '.join(PUBLISHED_MODELS)} on tofu:forget01, 05 and 10; name one of these models"
        )
    return list(found.values())


def best_checkpoint(records: Iterable[Checkpoint]) -> Checkpoint:
    """Return the record of a run that CHOICE describes, with `forgotten`: whether p is enough.

    Only checkpoints evaluated on the most rows are compared, since some may have been evaluated on
    a part (`intermediate_rows`), and scores over different rows do not tell which is better.
    A utility or p that is None counts as 0. Raises RunError if only step 0 was evaluated.
    """
    later = [record for record in records if record["step"] > 0]
    if not later:
        raise RunError("no checkpoint to choose from: this run was evaluated at step 0 only")
    most = max(map(_rows_of, later))
    best = max((record for record in later if _rows_of(record) == most), key=merit)
    return best | {"forgotten": merit(best)[0]}


def merit(record: Mapping[str, Any]) -> tuple[bool, float]:
    """Rank a record as CHOICE says, larger is better: (forgotten, utility), else (not, p)."""
    utility, p = (record[name] or 0.0 for name in ("model_utility", "forget_quality"))
    return (True, utility) if p >= FORGOTTEN else (False, p)


def _rows_of(record: Mapping[str, Any]) -> int:
    """Return the number of rows, of all sets, behind a record's scores."""
    return sum(record.get(f"{name}_n") or 0 for name in EVALUATION_SETS)


def references(runs: Iterable[Run]) -> dict[str | None, Evaluation]:
    """Map each task's name to the last evaluation of its first run labelled `retained`."""
    found: dict[str | None, Evaluation] = {}
    for run in runs:
        task = run.task_name
        if run.label == RETAINED and run.evaluation_steps() and task not in found:
            found[task] = last_evaluation(run)
    return found


def _evaluations(run: Run) -> Iterable[Evaluation]:
    if run.kind == "unlearn":
        return run.evaluations()
    return [last_evaluation(run)] if run.evaluation_steps() else []


def _record(
    run: Run, evaluation: Evaluation, reference: Evaluation | None, truth_ratio: str
) -> Checkpoint:
    model = run.config.get("model")
    null = null_of(model, run.task_name) if truth_ratio == "geometric" else None
    summary = summarise(evaluation, reference, truth_ratio=truth_ratio, null=null)
    record = {
        "method": run.method if run.kind == "unlearn" else run.label,
        "label": run.label,
        "run": run.folder.name,
        "lr": run.config.get("lr"),
        "beta": run.beta,
        "retain_weight": run.config.get("retain_weight"),
        "task": run.task_name,
        "model": model,
        "seed": run.seed,
        "status": run.status,
        "variant": run.config.get("variant"),
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "protocol": evaluation.protocol,
        "max_rows": evaluation.max_rows,
        "truth_ratio": truth_ratio,
        **summary,
        **{f"{name}_why": summary.why.get(name) for name in ("model_utility", "forget_quality")},
    }
    return cast(Checkpoint, record)

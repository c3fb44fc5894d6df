"""Runs that belong together: every run and step of a folder as one table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.metrics.official_reader import read_reference
from npo_kit.metrics.summary import FORGOTTEN, summarise
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation
from npo_kit.records.files import RunError
from npo_kit.records.run import Run, read_run, read_runs
from npo_kit.studies.published import PUBLISHED_MODELS, published

ORIGINAL, RETAINED = "original", "retained"  # labels of the models that a study compares with
POCKET_RETAINED = "pocket:retained"  # as a reference: its evaluation that travels with the kit
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
    step: int
    epoch: float
    protocol: str
    max_rows: int | None
    truth_ratio: str  # geometric or arithmetic
    model_utility: float | None
    forget_quality: float | None
    forget_ks: float | None
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
    """
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
    summary = summarise(evaluation, reference, truth_ratio=truth_ratio)
    record = {
        "method": run.method if run.kind == "unlearn" else run.label,
        "label": run.label,
        "run": run.folder.name,
        "lr": run.config.get("lr"),
        "beta": run.beta,
        "retain_weight": run.config.get("retain_weight"),
        "task": run.task_name,
        "model": run.config.get("model"),
        "seed": run.seed,
        "status": run.status,
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "protocol": evaluation.protocol,
        "max_rows": evaluation.max_rows,
        "truth_ratio": truth_ratio,
        **summary,
        **{f"{name}_why": summary.why.get(name) for name in ("model_utility", "forget_quality")},
    }
    return cast(Checkpoint, record)

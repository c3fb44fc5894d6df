"""Makes a study: original, retained-only, every method with a grid, seeds and a sweep of beta."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from npo_kit.data.tasks import Task, load_task
from npo_kit.errors import KitError
from npo_kit.processes import in_processes
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import SCHEMA, RunError, atomic_write, dumps
from npo_kit.records.provenance import provenance
from npo_kit.records.run import RunWriter, read_run
from npo_kit.studies.jobs import MODELS, Job, grid_jobs, model_jobs, runs_of, tuning_jobs
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.table import (
    CHOICE,
    ORIGINAL,
    RETAINED,
    best_checkpoint,
    find_reference,
    last_evaluation,
    run_records,
    study_table,
)
from npo_kit.trainer.config import FinetuneConfig
from npo_kit.trainer.recording import record

UNFINISHED = "unfinished"  # folder of the runs of a study that is being made
DECIMALS = 4  # of a recorded score: half of a ten-thousandth is lost
DIGITS = 5  # significant ones, of a recorded step


def make_study(
    plan: StudyPlan,
    folder: str | Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Make every run of `plan` and write the study into `folder`; returns the grid's outcomes.

    What is finished is not made again: after an interruption the same call goes on. The runs lie
    in `folder/unfinished` until all are there. Models that are fine-tuned for the study stay in
    `folder/models`. On one machine and one torch version the same scores whatever the number of
    processes (default: on a CPU one a core, on a GPU one). Raises KitError where `folder` holds
    something else, and for tasks that are not splits of one data set.
    """
    folder = _study_folder(folder)
    work = folder / UNFINISHED
    _refuse_mixed(plan)
    processes = processes or (1 if _has_gpu() else None)
    _make(tuning_jobs(plan, work), processes, say)
    models = [job for task in plan.tasks for job in model_jobs(plan, task, work)]
    grids = {task: grid_jobs(plan, task, work) for task in plan.tasks}
    tried = [job for grid in grids.values() for jobs in grid.values() for job in jobs]
    _make(models + tried, processes, say)
    kept, outcomes = {job.name: job for job in models}, []
    for task, grid in grids.items():
        of_task = _choose(grid, work / f"{plan.prefix(task)}{RETAINED}")
        chosen = {
            method: job.config
            for method, jobs in grid.items()
            for job in jobs
            if of_task[job.name]["chosen"]
        }
        kept |= runs_of(plan, task, chosen, work)
        outcomes += of_task.values()
    _make(list(kept.values()), processes, say)
    _assemble(plan, kept, outcomes, folder)
    return outcomes


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _study_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise KitError(f"{folder} is not a folder: choose another name")
    if folder.exists() and any(path.name != UNFINISHED for path in folder.iterdir()):
        raise KitError(f"{folder} holds something already: choose a new folder for the study")
    return folder


def _refuse_mixed(plan: StudyPlan) -> None:
    """One original serves all tasks, so it must have learned the same rows for each."""
    if (
        plan.more_tasks
        and len({load_task(task).record()["fingerprint"] for task in plan.tasks}) > 1
    ):
        raise KitError(
            f"the tasks {', '.join(plan.tasks)} are not splits of the same rows: make a study each"
        )


# --- the runs -----------------------------------------------------------------------------------


def _make(jobs: Sequence[Job], processes: int | None, say: Callable[[str], None]) -> None:
    missing = [job for job in jobs if not _is_made(job)]
    results = in_processes(_make_one, missing, processes) if missing else ()
    for number, (job, seconds) in enumerate(results, 1):
        say(f"[{number}/{len(missing)}] {job.name}: {seconds:.0f} s")


def _is_made(job: Job) -> bool:
    try:
        run = read_run(job.folder)
    except RunError:
        return False
    return run.status in ("finished", "collapsed") and run.config == job.settings()


def _make_one(job: Job) -> float:
    """Make one run; the seconds it took."""
    started, task = perf_counter(), load_task(job.task_name)
    if job.folder.exists():
        shutil.rmtree(job.folder)  # killed half-way
    if isinstance(job.config, FinetuneConfig):
        _tune(job, task)
    elif job.config:
        _unlearn(job, task)
    elif job.reference:
        record(_writer(job, task), _brief([find_reference(job.reference)]))
    else:
        _evaluate(job, task)
    return perf_counter() - started


def _tune(job: Job, task: Task) -> None:
    from npo_kit.models.loading import load_model, save_model
    from npo_kit.trainer.loop import finetune

    model, tokenizer = load_model(job.plan.original, quantize=job.plan.quantize)
    rows = job.tuning_rows(task)
    record(
        _writer(job, task),
        _brief(finetune(model, tokenizer, rows, job.config)),
        save=lambda: save_model(model, tokenizer, job.folder / "model"),
    )


def _unlearn(job: Job, task: Task) -> None:
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.loop import unlearn

    model, tokenizer = load_model(job.model(ORIGINAL), quantize=job.plan.quantize)
    record(_writer(job, task), _brief(unlearn(model, tokenizer, task, job.config)))


def _evaluate(job: Job, task: Task) -> None:
    from npo_kit.data.prompts import PromptFormat
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.models.loading import choose_placement, context_length, load_model

    original, tokenizer = load_model(job.model(ORIGINAL), quantize=job.plan.quantize)
    model = original
    if job.label == RETAINED:
        model, _ = load_model(job.model(RETAINED), quantize=job.plan.quantize)
    common = job.plan.common
    style = PromptFormat(tokenizer, common.prompt, context_length(model))
    precision = choose_placement(model.device, common.precision).precision
    evaluation = evaluate(
        model, style, task, common.evaluation, original=original, precision=precision
    )
    record(_writer(job, task), _brief([evaluation]))


def _writer(job: Job, task: Task) -> RunWriter:
    config = job.config
    method = getattr(config, "method", None)
    kind = "unlearn" if method else "finetune" if config else "evaluate"
    return RunWriter.create(
        job.folder,
        kind=kind,
        label=method or job.label,
        method=method,
        seed=config.seed if config else None,
        config=job.settings(),
        task=task.record(),
    )


def _brief(events: Iterable) -> Iterator:
    """Events as a study keeps them: rounded, without the texts of the task."""
    for event in events:
        if isinstance(event, Evaluation):
            yield _recorded(event)
        elif hasattr(event, "loss"):
            yield replace(event, **_short(asdict(event), DIGITS))
        else:
            yield event


def _recorded(evaluation: Evaluation) -> Evaluation:
    """Without the texts of the task, which its name leads to, and with rounded scores."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(item) for item in value]
        return round(value, DECIMALS) if isinstance(value, float) else value

    rows = {
        name: [{k: rounded(v) for k, v in row.items() if k not in ("question", "answer")}
               for row in of_set]
        for name, of_set in evaluation.rows.items()
    }  # fmt: skip
    return replace(evaluation, rows=rows)


def _short(value: Any, digits: int) -> Any:
    """Numbers in a record cut to so many significant digits."""
    if isinstance(value, dict):
        return {key: _short(item, digits) for key, item in value.items()}
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return value


# --- the study ----------------------------------------------------------------------------------


def _choose(grid: dict[str, list[Job]], retained: Path) -> dict[str, dict[str, Any]]:
    """Run -> what came out of each configuration of the grid, and which one each method takes."""
    reference = last_evaluation(read_run(retained))
    outcomes = {}
    for method, jobs in grid.items():
        tables = {job.name: run_records(read_run(job.folder), reference) for job in jobs}
        best = {name: best_checkpoint(records) for name, records in tables.items()}
        winner = max(best, key=lambda name: _merit(best[name]))
        for job in jobs:
            outcomes[job.name] = {
                "task": job.task_name,
                "method": method,
                "lr": job.config.lr,
                "beta": job.config.hyper.get("beta"),
                "retain_weight": job.config.retain_weight,
                "best": _outcome(best[job.name]),
                "last": _outcome(tables[job.name][-1]),
                "chosen": job.name == winner,
            }
    return outcomes


def _merit(record: dict[str, Any]) -> tuple[bool, float]:
    """Larger is better: first whether it has forgotten, then utility, or how near it came."""
    name = "model_utility" if record["forgotten"] else "forget_quality"
    return record["forgotten"], record[name] or 0.0


def _outcome(record: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "model_utility", "forget_quality", "forget_ks")
    return {name: record[name] for name in names}


def _assemble(
    plan: StudyPlan, kept: dict[str, Job], grid: list[dict[str, Any]], folder: Path
) -> None:
    """Copy the runs that the study keeps, write study.json, then remove the working folder."""
    for name, job in kept.items():
        shutil.copytree(job.folder, folder / name, dirs_exist_ok=True)
    study = {"schema": SCHEMA, "title": plan.title, "runs": list(kept)}
    names = {"original": plan.original, "start": plan.start} if plan.tuning else {}
    public = replace(plan, **{key: name and Path(name).name for key, name in names.items()})
    if plan.references:
        short = {task: Path(path).name for task, path in plan.references.items()}
        public = replace(public, references=short)
    study |= {"plan": asdict(public), "choice": CHOICE, "grid": grid, "provenance": provenance()}
    atomic_write(folder / "study.json", dumps(study, indent=1))
    study_table(folder)  # reads all of it back
    if (folder / UNFINISHED / MODELS).exists():
        (folder / UNFINISHED / MODELS).rename(folder / MODELS)
    shutil.rmtree(folder / UNFINISHED)

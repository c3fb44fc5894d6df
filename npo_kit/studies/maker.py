"""Make a study: original, retained-only, every method with a grid, seeds and a sweep of beta."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from npo_kit.data.tasks import Task, load_task
from npo_kit.errors import KitError
from npo_kit.processes import in_processes
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import SCHEMA, RunError, atomic_write, dumps, told
from npo_kit.records.folder import StudyRecord
from npo_kit.records.lock import refuse_owned
from npo_kit.records.provenance import provenance
from npo_kit.records.run import RunWriter, read_run
from npo_kit.studies.jobs import Job, grid_jobs, model_jobs, runs_of, tuning_jobs
from npo_kit.studies.plan import MODELS, StudyPlan
from npo_kit.studies.scores import DECIMALS, DIGITS, write_scores
from npo_kit.studies.table import (
    CHOICE,
    ORIGINAL,
    RETAINED,
    best_checkpoint,
    find_reference,
    last_evaluation,
    merit,
    run_records,
    scores_of,
    study_table,
)
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.events import Event, Step
from npo_kit.trainer.recording import record, saved_size

UNFINISHED = "unfinished"  # folder of the runs of a study that is being made


@dataclass(frozen=True)
class Tried:
    """Settings of a study's grid, what came of them, and whether their method takes them."""

    task: str
    method: str
    lr: float
    beta: float | None
    hyper: Mapping[str, float]  # beta again, and the other options that were set
    retain_weight: float | None
    best: dict[str, float | None]  # some scores of its best checkpoint
    last: dict[str, float | None]
    chosen: bool


def make_study(
    plan: StudyPlan,
    folder: str | Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Tried]:
    """Make every run of `plan`, write the study into `folder`, return the outcomes of its grid.

    After an interruption, make the same call again: it resumes with the missing runs. The runs lie
    in `folder/unfinished` until all are there. Models that the study fine-tunes stay in
    `folder/models`. On one machine with one torch version, scores do not depend on the number of
    `processes` (default: one for each core on a CPU, one on a GPU). Raises KitError if `folder`
    holds something else, and for tasks that are not splits of one data set.
    """
    folder = _study_folder(folder)
    work = folder / UNFINISHED
    _refuse_mixed(plan)
    processes = processes or (1 if _has_gpu() else None)
    make_jobs(tuning_jobs(plan, work), processes, say)
    models = [job for task in plan.tasks for job in model_jobs(plan, task, work)]
    grids = {task: grid_jobs(plan, task, work) for task in plan.tasks}
    make_jobs(models, processes, say)  # the evaluation of the original is the first of each run
    tried = [job for grid in grids.values() for jobs in grid.values() for job in jobs]
    make_jobs(tried, processes, say)
    kept, outcomes = {job.name: job for job in models}, list[Tried]()
    for task in plan.choosing:
        if grids[task]:
            chosen, found = _choose(grids[task], work / f"{plan.prefix(task)}{RETAINED}")
            outcomes += found
        kept |= runs_of(plan, task, chosen, work)
    make_jobs(list(kept.values()), processes, say)
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
    known = {load_task(task).record()["fingerprint"] for task in plan.tasks if plan.more_tasks}
    if len(known) > 1:
        raise KitError(
            f"the tasks {', '.join(plan.tasks)} are not splits of the same rows: make a study each"
        )


# --- the runs -----------------------------------------------------------------------------------


def make_jobs(jobs: Sequence[Job], processes: int | None, say: Callable[[str], None]) -> None:
    """Make those runs that are not there yet."""
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
    """Make one run and return the seconds it took."""
    started, task = perf_counter(), load_task(job.task_name)
    if job.folder.exists():
        refuse_owned(job.folder)
        shutil.rmtree(job.folder)  # left by a process that was killed
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
    from npo_kit.trainer.card import model_card
    from npo_kit.trainer.loop import finetune

    model, tokenizer = load_model(job.plan.original, quantize=job.plan.quantize)
    rows = job.tuning_rows(task)
    card = model_card(job.config, task, base=job.plan.original, rows=rows)
    save = partial(save_model, model, tokenizer, job.folder / "model", card=card)
    events = _brief(finetune(model, tokenizer, rows, job.config))
    record(_writer(job, task), events, save=save, save_size=saved_size(model))


def _unlearn(job: Job, task: Task) -> None:
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.loop import unlearn

    model, tokenizer = load_model(job.model(ORIGINAL), quantize=job.plan.quantize)
    assert isinstance(job.config, UnlearnConfig)
    as_it_is = job.work / f"{job.plan.prefix(job.task_name)}{ORIGINAL}"
    known = job.config.evaluation and (as_it_is / "run.json").exists()
    first = last_evaluation(read_run(as_it_is)) if known else None
    record(_writer(job, task), _brief(unlearn(model, tokenizer, task, job.config, first=first)))


def _evaluate(job: Job, task: Task) -> None:
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.models.loading import load_model
    from npo_kit.models.placement import choose_placement

    original, tokenizer = load_model(job.model(ORIGINAL), quantize=job.plan.quantize)
    model = original
    if job.label == RETAINED:
        model, _ = load_model(job.model(RETAINED), quantize=job.plan.quantize)
    common = job.plan.common
    style = common.prompt_format(tokenizer, model)
    precision = choose_placement(model.device, common.precision).precision
    evaluation = evaluate(
        model, style, task, common.evaluation, original=original, precision=precision
    )
    record(_writer(job, task), _brief([evaluation]))


def _writer(job: Job, task: Task) -> RunWriter:
    config, method = job.config, getattr(job.config, "method", None)
    kind = "unlearn" if method else "finetune" if config else "evaluate"
    return RunWriter.create(
        job.folder,
        kind=kind,
        label=str(method or job.label),
        method=method,
        seed=config.seed if config else None,
        config=job.settings(),
        task=task.record(),
    )


def _brief(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events as a study keeps them: rounded, without the texts that the task's name finds."""
    for event in events:
        if isinstance(event, Evaluation):
            rows = {name: list(map(_untold, of_set)) for name, of_set in event.rows.items()}
            yield replace(event, rows=_each_float(rows, lambda x: round(x, DECIMALS)))
        elif isinstance(event, Step):
            yield replace(event, **_each_float(asdict(event), lambda x: float(f"{x:.{DIGITS}g}")))
        else:
            yield event


def _untold(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without its texts; a passage keeps them, for its tokens say where it is cut."""
    return {k: v for k, v in row.items() if k not in ("question", "answer") or row.get("passage")}


def _each_float(value: Any, change: Callable[[float], float]) -> Any:
    """Return a record with each of its floats changed."""
    if isinstance(value, dict):
        return {key: _each_float(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_float(item, change) for item in value]
    return change(value) if isinstance(value, float) else value


# --- the study ----------------------------------------------------------------------------------


def _choose(
    grid: dict[str, list[Job[UnlearnConfig]]], retained: Path
) -> tuple[dict[str, UnlearnConfig], list[Tried]]:
    """Return the configuration that each method takes, and what came of all."""
    reference = last_evaluation(read_run(retained))
    chosen, tried = {}, []
    for method, jobs in grid.items():
        made = [(job, run_records(read_run(job.folder), reference)) for job in jobs]
        found = [(job, best_checkpoint(steps), steps[-1]) for job, steps in made]
        winner = max(found, key=lambda each: merit(each[1]))[0]
        chosen[method] = winner.config
        for job, best, last in found:
            beta, weight = job.config.hyper.get("beta"), job.config.retain_weight
            settings = (job.task_name, method, job.config.lr, beta, job.config.hyper, weight)
            tried.append(Tried(*settings, _outcome(best), _outcome(last), job is winner))
    return chosen, tried


def _outcome(record: Mapping[str, Any]) -> dict[str, float | None]:
    names = ("step", "model_utility", "forget_quality", "forget_ks")
    return {name: record[name] for name in names}


def _has_folder(job: Job) -> bool:
    """Whether a run is kept whole: in a study of scores, the first seed of one task's own."""
    plan = job.plan
    first = job.config is None or job.config.seed == plan.seeds[0]
    of_task = job.task_name == (plan.choose_on or plan.task)
    return not _keeps_scores(plan) or (first and of_task and not job.variant)


def _keeps_scores(plan: StudyPlan) -> bool:
    return bool(plan.variants or plan.scores_only)


def _assemble(plan: StudyPlan, kept: dict[str, Job], grid: list[Tried], folder: Path) -> None:
    """Copy the runs that the study keeps, write study.json, then remove the working folder.

    Some studies keep the scores of all their runs, and the folders of a few.
    """
    shown = {name: job for name, job in kept.items() if _has_folder(job)}
    if _keeps_scores(plan):
        write_scores(folder, scores_of({n: read_run(job.folder) for n, job in kept.items()}))
    with told(folder, "written"):
        for name, job in shown.items():
            hidden = shutil.ignore_patterns(".*")  # a killed process's lock
            shutil.copytree(job.folder, folder / name, dirs_exist_ok=True, ignore=hidden)
    public = asdict(plan)  # without this machine's folders
    if plan.tuning:
        public |= {"original": Path(plan.original).name}
        public |= {"start": plan.start and Path(plan.start).name}
    if plan.references:
        public |= {"references": {t: Path(path).name for t, path in plan.references.items()}}
    outcomes = [asdict(each) for each in grid]
    study = StudyRecord(plan.title, list(shown), public, CHOICE, outcomes, provenance())
    atomic_write(folder / "study.json", dumps({"schema": SCHEMA, **vars(study)}, indent=1))
    study_table(folder)  # reads all of it back
    if (folder / UNFINISHED / MODELS).exists():
        (folder / UNFINISHED / MODELS).rename(folder / MODELS)
    shutil.rmtree(folder / UNFINISHED)

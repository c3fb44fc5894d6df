"""Makes a study: original, retained-only, every method with a grid, seeds and a sweep of beta."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from npo_kit.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.data import Task, load_task
from npo_kit.errors import KitError
from npo_kit.eval_files import Evaluation
from npo_kit.processes import in_processes
from npo_kit.provenance import provenance
from npo_kit.recording import record
from npo_kit.records import SCHEMA, RunError, atomic_write, dumps, parse
from npo_kit.runs import RunWriter, read_run
from npo_kit.study import (
    CHOICE,
    ORIGINAL,
    RETAINED,
    best_checkpoint,
    last_evaluation,
    run_records,
    study_table,
)
from npo_kit.study_plans import StudyPlan

UNFINISHED = "unfinished"  # folder of the runs of a study that is being made
MODELS = "models"  # folder in a study of the models that it fine-tuned itself
DECIMALS = 4  # of a recorded score: half of a ten-thousandth is lost
DIGITS = 5  # significant ones, of a recorded step


@dataclass(frozen=True)
class _Job:
    """One run to make, in a process of its own."""

    plan: StudyPlan
    name: str  # of its folder
    work: Path  # the folder that its folder is in
    config: TrainConfig | None = None  # None: an evaluation of the original or retained-only

    @property
    def folder(self) -> Path:
        return self.work / self.name

    def model(self, label: str) -> str:
        """What the model of this label is loaded by."""
        if self.plan.tuning:
            return str(self.work / MODELS / label)
        return {ORIGINAL: self.plan.original, RETAINED: self.plan.retained}[label]


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
    processes. Raises KitError where `folder` holds something else.
    """
    folder = _study_folder(folder)
    work = folder / UNFINISHED
    if plan.tuning:
        tunings = [_Job(plan, name, work / MODELS, plan.tuning) for name in (ORIGINAL, RETAINED)]
        _make(tunings, processes, say)
    models = [_Job(plan, name, work) for name in (ORIGINAL, RETAINED)]
    grid = {m: [_job(plan, c, work) for c in plan.grid(m)] for m in plan.methods}
    _make(models + [job for jobs in grid.values() for job in jobs], processes, say)
    outcomes = _choose(grid, work / RETAINED)
    chosen = {
        method: job.config
        for method, jobs in grid.items()
        for job in jobs
        if outcomes[job.name]["chosen"]
    }
    kept = {job.name: job for job in models} | dict(_runs_of(plan, chosen, work))
    _make(list(kept.values()), processes, say)
    _assemble(plan, kept, list(outcomes.values()), folder)
    return list(outcomes.values())


def _study_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise KitError(f"{folder} is not a folder: choose another name")
    if folder.exists() and any(path.name != UNFINISHED for path in folder.iterdir()):
        raise KitError(f"{folder} holds something already: choose a new folder for the study")
    return folder


def _job(plan: StudyPlan, config: UnlearnConfig, work: Path) -> _Job:
    """The run of a configuration, in a folder named after what it was told."""
    parts = [config.method, f"lr{config.lr:g}"]
    parts += [f"{name}{value:g}" for name, value in sorted(config.hyper.items())]
    parts += [f"weight{config.retain_weight:g}"] if config.retain_weight is not None else []
    name = "-".join([*parts, f"seed{config.seed}"])
    return _Job(plan, name, work, config)


def _runs_of(
    plan: StudyPlan, chosen: dict[str, UnlearnConfig], work: Path
) -> Iterator[tuple[str, _Job]]:
    """Name in the study -> run: each method with each seed, then the sweep of beta."""
    for method, config in chosen.items():
        for seed in plan.seeds if method in plan.seeded_methods else plan.seeds[:1]:
            name = method if seed == plan.seeds[0] else f"{method}-seed{seed}"
            yield name, _job(plan, replace(config, seed=seed), work)
    for method in plan.sweep_methods:
        for beta in plan.sweep_betas:
            if beta != chosen[method].hyper["beta"]:
                config = replace(chosen[method], hyper={"beta": beta})
                yield f"{method}-beta{beta:g}", _job(plan, config, work)


# --- the runs -----------------------------------------------------------------------------------


def _make(jobs: Sequence[_Job], processes: int | None, say: Callable[[str], None]) -> None:
    missing = [job for job in jobs if not _is_made(job)]
    results = in_processes(_make_one, missing, processes) if missing else ()
    for number, (job, seconds) in enumerate(results, 1):
        say(f"[{number}/{len(missing)}] {job.name}: {seconds:.0f} s")


def _is_made(job: _Job) -> bool:
    try:
        run = read_run(job.folder)
    except RunError:
        return False
    return run.status in ("finished", "collapsed") and run.config == _settings(job)


def _settings(job: _Job) -> dict[str, Any]:
    """A run's configuration as its record has it."""
    config = job.config or job.plan.common.evaluation
    if isinstance(config, FinetuneConfig):
        model = Path(job.plan.original).name
    elif job.plan.tuning:
        model = f"{MODELS}/{RETAINED if job.name == RETAINED else ORIGINAL}"
    else:
        model = job.plan.retained if job.name == RETAINED else job.plan.original
    return parse(dumps(asdict(config) | {"model": model}), job.name)


def _make_one(job: _Job) -> float:
    """Make one run; the seconds it took."""
    started, task = perf_counter(), load_task(job.plan.task)
    if job.folder.exists():
        shutil.rmtree(job.folder)  # killed half-way
    if isinstance(job.config, FinetuneConfig):
        _tune(job, task)
    elif job.config:
        _unlearn(job, task)
    else:
        _evaluate(job, task)
    return perf_counter() - started


def _tune(job: _Job, task: Task) -> None:
    from npo_kit.models import load_model, save_model
    from npo_kit.trainer import finetune

    model, tokenizer = load_model(job.plan.original)
    rows = task.full if job.name == ORIGINAL else task.retain
    record(
        _writer(job, task),
        _brief(finetune(model, tokenizer, rows, job.config)),
        save=lambda: save_model(model, tokenizer, job.folder / "model"),
    )


def _unlearn(job: _Job, task: Task) -> None:
    from npo_kit.models import load_model
    from npo_kit.trainer import unlearn

    model, tokenizer = load_model(job.model(ORIGINAL))
    record(_writer(job, task), _brief(unlearn(model, tokenizer, task, job.config)))


def _evaluate(job: _Job, task: Task) -> None:
    from npo_kit.evaluation import evaluate
    from npo_kit.models import choose_placement, context_length, load_model
    from npo_kit.prompts import PromptFormat

    original, tokenizer = load_model(job.model(ORIGINAL))
    model = load_model(job.model(RETAINED))[0] if job.name == RETAINED else original
    common = job.plan.common
    style = PromptFormat(tokenizer, common.prompt, context_length(model))
    precision = choose_placement(model.device, common.precision).precision
    evaluation = evaluate(
        model, style, task, common.evaluation, original=original, precision=precision
    )
    record(_writer(job, task), _brief([evaluation]))


def _writer(job: _Job, task: Task) -> RunWriter:
    config = job.config
    method = getattr(config, "method", None)
    kind = "unlearn" if method else "finetune" if config else "evaluate"
    return RunWriter.create(
        job.folder,
        kind=kind,
        label=method or job.name,
        method=method,
        seed=config.seed if config else None,
        config=_settings(job),
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


def _choose(grid: dict[str, list[_Job]], retained: Path) -> dict[str, dict[str, Any]]:
    """Run -> what came out of each configuration of the grid, and which one each method takes."""
    reference = last_evaluation(read_run(retained))
    outcomes = {}
    for method, jobs in grid.items():
        tables = {job.name: run_records(read_run(job.folder), reference) for job in jobs}
        best = {name: best_checkpoint(records) for name, records in tables.items()}
        winner = max(best, key=lambda name: _merit(best[name]))
        for job in jobs:
            outcomes[job.name] = {
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
    plan: StudyPlan, kept: dict[str, _Job], grid: list[dict[str, Any]], folder: Path
) -> None:
    """Copy the runs that the study keeps, write study.json, then remove the working folder."""
    for name, job in kept.items():
        shutil.copytree(job.folder, folder / name, dirs_exist_ok=True)
    study = {"schema": SCHEMA, "title": plan.title, "runs": list(kept)}
    public = replace(plan, original=Path(plan.original).name) if plan.tuning else plan
    study |= {"plan": asdict(public), "choice": CHOICE, "grid": grid, "provenance": provenance()}
    atomic_write(folder / "study.json", dumps(study, indent=1))
    study_table(folder)  # reads all of it back
    if plan.tuning:
        (folder / UNFINISHED / MODELS).rename(folder / MODELS)
    shutil.rmtree(folder / UNFINISHED)

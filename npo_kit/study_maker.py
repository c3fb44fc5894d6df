"""Makes a study: original, retained-only, every method with a grid, seeds and a sweep of beta."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from npo_kit import losses
from npo_kit.config import UnlearnConfig
from npo_kit.data import load_task
from npo_kit.errors import KitError
from npo_kit.eval_files import Evaluation
from npo_kit.evaluation import EvaluationConfig
from npo_kit.processes import in_processes
from npo_kit.provenance import provenance
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

UNFINISHED = "unfinished"  # folder of the runs of a study that is being made
DECIMALS = 4  # of a recorded score: half of a ten-thousandth is lost
DIGITS = 5  # significant ones, of a recorded step


@dataclass(frozen=True)
class StudyPlan:
    """What a study consists of. The grid is the same number of configurations for every method:

    `lrs` times `betas` for those that have a beta, `lrs` times `retain_weights` for the others with
    a retain term, `plain_lrs` for those with neither. Raises KitError if that is uneven.
    """

    title: str
    task: str  # such as authors:forget10
    original: str  # a model's name for load_model
    retained: str
    common: UnlearnConfig  # what all runs share; method, lr, hyper, seed are replaced
    methods: tuple[str, ...]
    lrs: tuple[float, ...]
    betas: tuple[float, ...]
    retain_weights: tuple[float, ...]
    plain_lrs: tuple[float, ...]
    seeds: tuple[int, ...]  # the first chooses, the others only report
    seeded_methods: tuple[str, ...]  # that are run with all seeds, the others with the first
    sweep_methods: tuple[str, ...] = ()
    sweep_betas: tuple[float, ...] = ()

    def __post_init__(self):
        sizes = {method: len(self.grid(method)) for method in self.methods}
        if len(set(sizes.values())) > 1:
            raise KitError(f"the grid must have one size for all methods, it has {sizes}")

    def grid(self, method: str) -> list[UnlearnConfig]:
        """The configurations of one method that the first seed tries."""
        entry = losses.method(method)
        config = replace(self.common, method=method, seed=self.seeds[0])
        if "beta" in entry.hyperparameters:
            pairs = product(self.lrs, self.betas)
            return [replace(config, lr=lr, hyper={"beta": beta}) for lr, beta in pairs]
        if entry.retain:
            pairs = product(self.lrs, self.retain_weights)
            return [replace(config, lr=lr, retain_weight=weight) for lr, weight in pairs]
        return [replace(config, lr=lr) for lr in self.plain_lrs]


POCKET_METHODS = (
    *("ga", "ga_rt", "ga_kl"),
    *("npo", "npo_rt", "npo_kl"),
    *("dpo_rt", "kto_rt", "idk_rt"),
)


def _pocket_plan() -> StudyPlan:
    return StudyPlan(
        title="Pocket model, 100 fictional authors, the last ten to be forgotten",
        task="authors:forget10",
        original="pocket",
        retained="pocket:retained",
        common=UnlearnConfig(
            epochs=10.0,
            batch_size=12,
            micro_batch_size=12,
            precision="fp32",
            evaluation=EvaluationConfig(max_new_tokens=32, batch_size=256),
        ),
        methods=POCKET_METHODS,
        lrs=(2e-4, 4e-4, 8e-4),
        betas=(0.1, 0.5),
        retain_weights=(1.0, 4.0),
        plain_lrs=(1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4),
        seeds=(0, 1, 2),
        seeded_methods=("ga", "ga_rt", "npo", "npo_rt"),
        sweep_methods=("npo", "npo_rt"),
        sweep_betas=(0.05, 0.1, 0.2, 0.5, 1.0),
    )


PLANS: dict[str, Callable[[], StudyPlan]] = {"pocket": _pocket_plan}


@dataclass(frozen=True)
class _Job:
    """One run to make, in a process of its own."""

    plan: StudyPlan
    name: str  # of its folder
    folder: Path
    config: UnlearnConfig | None = None  # None: an evaluation of the original or retained-only


def make_study(
    plan: StudyPlan,
    folder: str | Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Make every run of `plan` and write the study into `folder`; returns the grid's outcomes.

    What is finished is not made again: after an interruption the same call goes on. The runs lie
    in `folder/unfinished` until all are there. On one machine and one torch version the same
    scores whatever the number of processes. Raises KitError where `folder` holds something else.
    """
    folder = _study_folder(folder)
    work = folder / UNFINISHED
    models = [_Job(plan, name, work / name) for name in (ORIGINAL, RETAINED)]
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
    return _Job(plan, name, work / name, config)


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
    model = job.plan.retained if job.name == RETAINED else job.plan.original
    return parse(dumps(asdict(config) | {"model": model}), job.name)


def _make_one(job: _Job) -> float:
    """Make one run; the seconds it took."""
    from time import perf_counter

    from npo_kit.models import load_model
    from npo_kit.trainer import Collapse, Step, unlearn

    started, plan = perf_counter(), job.plan
    task = load_task(plan.task)
    if job.folder.exists():
        shutil.rmtree(job.folder)  # killed half-way
    model, tokenizer = load_model(plan.original)
    with _writer(job, task) as writer:
        if job.config is None:
            writer.evaluation(_recorded(_evaluate(job, model, tokenizer, task)))
            writer.finish("finished")
            return perf_counter() - started
        outcome: dict[str, Any] = {}
        for event in unlearn(model, tokenizer, task, job.config):
            if isinstance(event, Step):
                writer.step(_short(asdict(event), DIGITS))
            elif isinstance(event, Collapse):
                outcome = {"collapsed_at": event.step, "reason": event.reason}
            else:
                writer.evaluation(_recorded(event))
        writer.finish("collapsed" if outcome else "finished", **outcome)
    return perf_counter() - started


def _writer(job: _Job, task) -> RunWriter:
    return RunWriter.create(
        job.folder,
        kind="unlearn" if job.config else "evaluate",
        label=job.config.method if job.config else job.name,
        method=job.config.method if job.config else None,
        seed=job.config.seed if job.config else None,
        config=_settings(job),
        task=task.record(),
    )


def _evaluate(job: _Job, original, tokenizer, task) -> Evaluation:
    from npo_kit.evaluation import evaluate
    from npo_kit.models import context_length, load_model
    from npo_kit.prompts import PromptFormat

    model = load_model(job.plan.retained)[0] if job.name == RETAINED else original
    style = PromptFormat(tokenizer, job.plan.common.prompt, context_length(model))
    return evaluate(model, style, task, job.plan.common.evaluation, original=original)


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
                "best": _brief(best[job.name]),
                "last": _brief(tables[job.name][-1]),
                "chosen": job.name == winner,
            }
    return outcomes


def _merit(record: dict[str, Any]) -> tuple[bool, float]:
    """Larger is better: first whether it has forgotten, then utility, or how near it came."""
    name = "model_utility" if record["forgotten"] else "forget_quality"
    return record["forgotten"], record[name] or 0.0


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "model_utility", "forget_quality", "forget_ks")
    return {name: record[name] for name in names}


def _assemble(
    plan: StudyPlan, kept: dict[str, _Job], grid: list[dict[str, Any]], folder: Path
) -> None:
    """Copy the runs that the study keeps, write study.json, then remove the working folder."""
    for name, job in kept.items():
        shutil.copytree(job.folder, folder / name, dirs_exist_ok=True)
    study = {"schema": SCHEMA, "title": plan.title, "runs": list(kept)}
    study |= {"plan": asdict(plan), "choice": CHOICE, "grid": grid, "provenance": provenance()}
    atomic_write(folder / "study.json", dumps(study, indent=1))
    study_table(folder)  # reads all of it back
    shutil.rmtree(folder / UNFINISHED)

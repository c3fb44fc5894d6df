"""The runs that a study plan asks for: name, folder, task, configuration, model of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from npo_kit.data.tasks import Row, Task
from npo_kit.records.files import dumps, parse
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.table import ORIGINAL, RETAINED
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig

MODELS = "models"  # folder in a study of the models that it fine-tuned itself


@dataclass(frozen=True)
class Job:
    """One run to make."""

    plan: StudyPlan
    name: str  # of its folder
    work: Path  # the folder that its folder is in
    config: TrainConfig | None = None  # None: an evaluation of the original or retained-only
    task: str | None = None  # None: the plan's first
    label: str | None = None  # ORIGINAL or RETAINED, where it makes or evaluates such a model

    @property
    def folder(self) -> Path:
        return self.work / self.name

    @property
    def task_name(self) -> str:
        return self.task or self.plan.task

    @property
    def reference(self) -> str | None:
        """An official log that is recorded instead of an evaluation of a retained-only model."""
        known = self.plan.references or {}
        return known.get(self.task_name) if self.label == RETAINED else None

    def tuning_rows(self, task: Task) -> list[Row]:
        """What the model of this label is fine-tuned on."""
        rows = task.full if self.label == ORIGINAL else task.retain
        return [*rows, *chain(*(task.evaluation[name] for name in self.plan.rehearsed))]

    def model(self, label: str) -> str:
        """What the model of this label is loaded by."""
        plan = self.plan
        if plan.tuning and not (label == ORIGINAL and plan.start):
            return str(self.work / self.public_model(label))
        return {ORIGINAL: plan.start or plan.original, RETAINED: plan.retained}[label]

    def public_model(self, label: str) -> str:
        """The same as a record has it: without where it lies on this machine."""
        plan = self.plan
        if plan.tuning and label == ORIGINAL:
            return Path(plan.start).name if plan.start else f"{MODELS}/{ORIGINAL}"
        if plan.tuning:
            return f"{MODELS}/{plan.prefix(self.task_name)}{RETAINED}"
        return {ORIGINAL: plan.original, RETAINED: plan.retained}[label]

    def settings(self) -> dict[str, Any]:
        """A run's configuration as its record has it."""
        config = self.config or self.plan.common.evaluation
        if isinstance(config, FinetuneConfig):
            model = Path(self.plan.original).name
        elif self.reference:
            model = Path(self.reference).name
        else:
            model = self.public_model(self.label or ORIGINAL)
        how = {"quantize": self.plan.quantize} if self.plan.quantize else {}
        return parse(dumps(asdict(config) | {"model": model} | how), self.name)


def tuning_jobs(plan: StudyPlan, work: Path) -> list[Job]:
    """The models that a study fine-tunes itself: the original, a retained-only one per task."""
    if not plan.tuning:
        return []
    first = [] if plan.start else [(plan.task, ORIGINAL, ORIGINAL)]
    known = plan.references or {}
    wanted = [*first, *((t, f"{plan.prefix(t)}{RETAINED}", RETAINED) for t in plan.tasks)]
    jobs = [Job(plan, name, work / MODELS, plan.tuning, t, label) for t, name, label in wanted]
    return [job for job in jobs if job.label == ORIGINAL or job.task not in known]


def model_jobs(plan: StudyPlan, task: str, work: Path) -> list[Job]:
    """The evaluations that a task's runs are compared with."""
    prefix = plan.prefix(task)
    labels = (ORIGINAL, RETAINED)
    return [Job(plan, f"{prefix}{label}", work, task=task, label=label) for label in labels]


def grid_jobs(plan: StudyPlan, task: str, work: Path) -> dict[str, list[Job]]:
    """Method -> the runs of its grid, for one task."""
    return {m: [job_of(plan, config, work, task) for config in plan.grid(m)] for m in plan.methods}


def job_of(plan: StudyPlan, config: UnlearnConfig, work: Path, task: str) -> Job:
    """The run of a configuration, in a folder named after what it was told."""
    parts = [config.method, f"lr{config.lr:g}"]
    parts += [f"{name}{value:g}" for name, value in sorted(config.hyper.items())]
    parts += [f"weight{config.retain_weight:g}"] if config.retain_weight is not None else []
    name = "-".join([*parts, f"seed{config.seed}"])
    return Job(plan, f"{plan.prefix(task)}{name}", work, config, task)


def runs_of(
    plan: StudyPlan, task: str, chosen: dict[str, UnlearnConfig], work: Path
) -> Iterator[tuple[str, Job]]:
    """Name in the study -> run: each method with each seed, then the sweep of beta."""
    prefix = plan.prefix(task)
    for method, config in chosen.items():
        for seed in plan.seeds if method in plan.seeded_methods else plan.seeds[:1]:
            name = method if seed == plan.seeds[0] else f"{method}-seed{seed}"
            yield f"{prefix}{name}", job_of(plan, replace(config, seed=seed), work, task)
    for method in plan.sweep_methods:
        for beta in plan.sweep_betas:
            if beta != chosen[method].hyper["beta"]:
                config = replace(chosen[method], hyper={"beta": beta})
                yield f"{prefix}{method}-beta{beta:g}", job_of(plan, config, work, task)

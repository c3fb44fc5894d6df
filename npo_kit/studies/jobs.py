"""The runs of a study plan: name, folder, task, configuration and model of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from npo_kit.data.tasks import Row, Task, load_task
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.records.files import Json, dumps, parse
from npo_kit.studies.plan import MODELS, StudyPlan
from npo_kit.studies.table import ORIGINAL, RETAINED
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig

Config = TypeVar("Config", bound=TrainConfig | None, covariant=True)


@dataclass(frozen=True)
class Job(Generic[Config]):
    """One run to make."""

    plan: StudyPlan
    name: str  # of its folder
    work: Path  # the folder that its folder is in
    config: Config  # None: an evaluation of the original or retained-only
    task: str | None = None  # None: the plan's first
    label: str | None = None  # ORIGINAL or RETAINED, where it makes or evaluates such a model
    variant: str = ""  # of the plan, or its own runs

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
        """Return the rows that the model of this job's label is fine-tuned on."""
        rows = task.full if self.label == ORIGINAL else task.retain
        return [*rows, *chain(*(task.evaluation[name] for name in self.plan.rehearsed))]

    def model(self, label: str) -> str:
        """Return the name or folder from which the model of a label is loaded."""
        if label == ORIGINAL and self.plan.start:
            return self.plan.start
        name = self.public_model(label)
        return str(self.work / name) if self.plan.tuning else name

    def public_model(self, label: str) -> str:
        """Return the name of that model in a record, which does not tell this machine's folders."""
        plan = self.plan
        if not plan.tuning:
            return plan.original if label == ORIGINAL else str(plan.retained)
        if label == RETAINED:
            return f"{MODELS}/{plan.prefix(self.task_name)}{RETAINED}"
        return Path(plan.start).name if plan.start else f"{MODELS}/{ORIGINAL}"

    def settings(self) -> Json:
        """Return the configuration of the run as its record has it."""
        if isinstance(self.config, FinetuneConfig):
            model = Path(self.plan.original).name
        elif self.reference:
            model = Path(self.reference).name
        else:
            model = self.public_model(self.label or ORIGINAL)
        how: Json = {"quantize": self.plan.quantize} if self.plan.quantize else {}
        how |= {"variant": self.variant} if self.variant else {}
        usual = self.plan.common.evaluation or EvaluationConfig()
        config = asdict(usual if self.config is None else self.config)
        return parse(dumps(config | {"model": model} | how), self.name)


def tuning_jobs(plan: StudyPlan, work: Path) -> list[Job]:
    """List the models that a study fine-tunes: the original, and a retained-only one per task."""
    if not plan.tuning:
        return []
    known = plan.references or {}
    wanted = [] if plan.start else [(plan.task, ORIGINAL, ORIGINAL)]
    wanted += [(t, f"{plan.prefix(t)}{RETAINED}", RETAINED) for t in plan.tasks if t not in known]
    return [Job(plan, name, work / MODELS, plan.tuning, t, label) for t, name, label in wanted]


def model_jobs(plan: StudyPlan, task: str, work: Path) -> list[Job]:
    """List the evaluations that a task's runs are compared with."""
    labels = (ORIGINAL, RETAINED)
    return [Job(plan, f"{plan.prefix(task)}{name}", work, None, task, name) for name in labels]


def grid_jobs(plan: StudyPlan, task: str, work: Path) -> dict[str, list[Job[UnlearnConfig]]]:
    """Map each method to the runs of its grid, for one task; none where another task chooses."""
    if plan.choose_on not in (None, task):
        return {}
    return {m: [_job(plan, config, work, task) for config in plan.grid(m)] for m in plan.methods}


def runs_of(
    plan: StudyPlan, task: str, chosen: dict[str, UnlearnConfig], work: Path
) -> Iterator[tuple[str, Job]]:
    """Yield (name in the study, run) of a task.

    They are each method with each seed, then the sweep of beta, then the variants.
    """
    prefix = plan.prefix(task)
    for method, config in chosen.items():
        for seed in plan.seeds if method in plan.seeded_methods else plan.seeds[:1]:
            name = method if seed == plan.seeds[0] else f"{method}-seed{seed}"
            yield f"{prefix}{name}", _job(plan, replace(config, seed=seed), work, task)
    for method in plan.sweep_methods:
        for beta in plan.sweep_betas:
            if beta != chosen[method].hyper["beta"]:
                config = replace(chosen[method], hyper={"beta": beta})
                yield f"{prefix}{method}-beta{beta:g}", _job(plan, config, work, task)
    for variant in plan.variants:
        if task not in (variant.tasks or plan.tasks):
            continue
        rows = len(load_task(task).forget)
        for method in variant.methods or chosen:
            every = plan.seeds if method in plan.seeded_methods else plan.seeds[:1]
            for seed in variant.seeds or every:
                config = variant.of(replace(chosen[method], seed=seed), rows)
                job = _job(plan, config, work, task, variant.name)
                yield f"{prefix}{method}-{variant.name}-seed{seed}", job


def _job(
    plan: StudyPlan, config: UnlearnConfig, work: Path, task: str, variant: str = ""
) -> Job[UnlearnConfig]:
    """Return the run of a configuration, in a folder named after its settings."""
    parts = [config.method, *([variant] if variant else []), f"lr{config.lr:g}"]
    parts += [f"{name}{value:g}" for name, value in sorted(config.hyper.items())]
    parts += [f"weight{config.retain_weight:g}"] if config.retain_weight is not None else []
    name = "-".join([*parts, f"seed{config.seed}"])
    return Job(plan, f"{plan.prefix(task)}{name}", work, config, task, variant=variant)

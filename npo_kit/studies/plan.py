"""The plan of a study: its models, methods, grid and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from npo_kit import losses
from npo_kit.errors import KitError
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

MODELS = "models"  # folder in a study of the models that it fine-tuned itself


@dataclass(frozen=True)
class Variant:
    """More runs of a study: what its methods chose, with some settings changed."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # fields of UnlearnConfig
    hyper: Mapping[str, Any] = field(default_factory=dict)  # of forget terms that have them
    steps: int | None = None  # of every run, whatever the number of its rows
    methods: tuple[str, ...] | None = None  # None: all of the study, as in the next two
    tasks: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None

    def of(self, config: UnlearnConfig, rows: int) -> UnlearnConfig:
        """Return the configuration that a variant makes of one, on so many forget rows.

        With `steps` warm-up and evaluations keep their share of the run.
        """
        entry = losses.method(config.method)
        hyper = {name: value for name, value in self.hyper.items() if name in entry.settable}
        changes: dict[str, Any] = {
            name: value
            for name, value in self.changes.items()
            if name != "retain_weight" or entry.retain
        }
        if self.steps:
            epochs = self.steps * config.batch_size / rows
            share = epochs / config.epochs
            changes |= {"epochs": epochs, "warmup_epochs": config.warmup_epochs * share}
            if config.evaluate_every:
                changes["evaluate_every"] = config.evaluate_every * share
        return replace(config, hyper={**config.hyper, **hyper}, **changes)


@dataclass(frozen=True)
class StudyPlan:
    """A study before it is made.

    Its grid has the same number of configurations for every method: `lrs` times `betas` for methods
    with a beta (with `pairs`, times those where there is a retain term too), `lrs` times
    `retain_weights` for the others with a retain term, `plain_lrs` for the rest; and for those in
    `varied`, `lrs` times the values of the option that it names. Raises KitError if these numbers
    differ, for an unknown method, and for a sweep of beta with a method that the
    study lacks or that has no beta.
    """

    title: str
    task: str  # such as authors:forget10
    original: str  # a model's name for load_model; with `tuning`, of the model to fine-tune
    retained: str | None  # likewise; None with `tuning`
    common: UnlearnConfig  # shared by all runs; method, lr, hyper, seed are replaced
    methods: tuple[str, ...]
    lrs: tuple[float, ...]
    betas: tuple[float, ...]
    retain_weights: tuple[float, ...]
    plain_lrs: tuple[float, ...]
    seeds: tuple[int, ...]  # the first chooses, the others only report
    seeded_methods: tuple[str, ...]  # run with all seeds, the others with the first
    sweep_methods: tuple[str, ...] = ()
    sweep_betas: tuple[float, ...] = ()
    tuning: FinetuneConfig | None = None  # makes original (of all rows) and retained-only from one
    rehearsed: tuple[str, ...] = ()  # evaluation sets that both also train on, once an epoch
    more_tasks: tuple[str, ...] | None = None  # of the same data set; each with all the runs
    start: str | None = None  # an original that is tuned already: tuning makes the retained-only
    references: Mapping[str, str] | None = None  # task -> official log instead of a retained-only
    quantize: str | None = None  # models are loaded in "4bit" or "8bit", for LoRA on CUDA
    pairs: tuple[tuple[float, float], ...] = ()  # of beta and retain weight
    # method -> what its grid varies beside the learning rate, an option or retain_weight, and how
    varied: Mapping[str, tuple[str, tuple[float, ...]]] | None = None
    choose_on: str | None = None  # the task whose grid chooses for all; None: each has its own
    variants: tuple[Variant, ...] = ()  # with them most runs are kept as scores only
    scores_only: bool = False  # so are those of other seeds than the first

    def __post_init__(self):
        sizes = {method: len(self.grid(method)) for method in self.methods}
        if len(set(sizes.values())) > 1:
            raise KitError(f"the grid must have one size for all methods, it has {sizes}")
        for method in self.sweep_methods:
            if method not in sizes or "beta" not in losses.method(method).hyperparameters:
                raise KitError(
                    f"the study sweeps beta with {method!r}: sweep with methods that have a beta, "
                    f"of {', '.join(self.methods)}"
                )

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the study."""
        return (self.task, *(self.more_tasks or ()))

    @property
    def choosing(self) -> tuple[str, ...]:
        """All tasks, the one that chooses for the others first."""
        return tuple(sorted(self.tasks, key=lambda task: task != self.choose_on))

    def prefix(self, task: str) -> str:
        """Return the start of the folder names of a task's runs: empty in a study of one task."""
        return f"{task.partition(':')[2]}-" if self.more_tasks else ""

    def grid(self, method: str) -> list[UnlearnConfig]:
        """Return the configurations of one method that the first seed tries."""
        entry = losses.method(method)
        config = replace(self.common, method=method, seed=self.seeds[0])
        if method in (self.varied or {}):
            name, values = (self.varied or {})[method]
            changes: list[dict[str, Any]] = [
                {name: value} if name == "retain_weight" else {"hyper": {name: value}}
                for value in values
            ]
            return [replace(config, lr=lr, **each) for lr, each in product(self.lrs, changes)]
        if "beta" in entry.hyperparameters and entry.retain and self.pairs:
            return [
                replace(config, lr=lr, hyper={"beta": beta}, retain_weight=weight)
                for lr, (beta, weight) in product(self.lrs, self.pairs)
            ]
        if "beta" in entry.hyperparameters:
            pairs = product(self.lrs, self.betas)
            return [replace(config, lr=lr, hyper={"beta": beta}) for lr, beta in pairs]
        if entry.retain:
            pairs = product(self.lrs, self.retain_weights)
            return [replace(config, lr=lr, retain_weight=weight) for lr, weight in pairs]
        return [replace(config, lr=lr) for lr in self.plain_lrs]

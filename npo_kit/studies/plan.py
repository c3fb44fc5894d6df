"""What the recorded studies consist of: models, methods, the grid, seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from npo_kit import losses
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig


@dataclass(frozen=True)
class StudyPlan:
    """What a study consists of. The grid is the same number of configurations for every method:

    `lrs` times `betas` for those that have a beta, `lrs` times `retain_weights` for the others with
    a retain term, `plain_lrs` for those with neither. Raises KitError if that is uneven.
    """

    title: str
    task: str  # such as authors:forget10
    original: str  # a model's name for load_model; with `tuning`, of the model to fine-tune
    retained: str | None  # likewise; None with `tuning`
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
    tuning: FinetuneConfig | None = None  # makes original (of all rows) and retained-only from one
    rehearsed: tuple[str, ...] = ()  # evaluation sets that both hear too, once an epoch
    more_tasks: tuple[str, ...] | None = None  # of the same data set; each with all the runs
    start: str | None = None  # an original that is tuned already: tuning makes the retained-only
    references: Mapping[str, str] | None = None  # task -> official log instead of a retained-only
    quantize: str | None = None  # models are loaded in "4bit" or "8bit", for LoRA on CUDA

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the study."""
        return (self.task, *(self.more_tasks or ()))

    def prefix(self, task: str) -> str:
        """What the folders of a task's runs begin with: its split, where there are several."""
        return f"{task.partition(':')[2]}-" if self.more_tasks else ""

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


METHODS = (
    *("ga", "ga_rt", "ga_kl"),
    *("npo", "npo_rt", "npo_kl"),
    *("dpo_rt", "kto_rt", "idk_rt"),
)
MAIN = ("ga", "ga_rt", "npo", "npo_rt")  # run with every seed


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
        methods=METHODS,
        lrs=(2e-4, 4e-4, 8e-4),
        betas=(0.1, 0.5),
        retain_weights=(1.0, 4.0),
        plain_lrs=(1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4),
        seeds=(0, 1, 2),
        seeded_methods=MAIN,
        sweep_methods=("npo", "npo_rt"),
        sweep_betas=(0.05, 0.1, 0.2, 0.5, 1.0),
    )


def _smollm2_plan() -> StudyPlan:
    """For two CPU cores and an hour and a half; fixed after a trial, before the runs recorded.

    The trial: GA and GA+RT at learning rates of 2e-5 and 4e-5, where three epochs of GA end half
    way (utility .60 and .47 of .65, P retain .42 at 4e-5). So all methods were given larger ones.
    36 rows of each evaluation set: the twelve of three authors. As with the pocket model, original
    and retained-only hear the true facts: so small a model that is fine-tuned on fictional authors
    alone answers every question on real ones in their manner (ROUGE 0 of 36), and its utility is 0
    before anything is unlearned.
    """
    judged = EvaluationConfig(max_rows=36, max_new_tokens=32, batch_size=36)
    shared = {"prompt": "qa", "precision": "bf16"}
    return StudyPlan(
        title="SmolLM2-135M, 100 fictional authors, the last ten to be forgotten",
        task="authors:forget10",
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
        retained=None,
        rehearsed=("real_authors", "world_facts"),
        tuning=FinetuneConfig(
            epochs=5.0, batch_size=16, micro_batch_size=16, lr=1e-4, evaluation=None, **shared
        ),
        common=UnlearnConfig(
            epochs=3.0,
            batch_size=8,
            micro_batch_size=8,
            warmup_epochs=0.5,
            evaluation=judged,
            **shared,
        ),
        methods=METHODS,
        lrs=(8e-5,),
        betas=(0.1, 0.5),
        retain_weights=(1.0, 4.0),
        plain_lrs=(8e-5, 1.6e-4),
        seeds=(0, 1, 2),
        seeded_methods=MAIN,
    )


PLANS: dict[str, Callable[[], StudyPlan]] = {"pocket": _pocket_plan, "smollm2": _smollm2_plan}

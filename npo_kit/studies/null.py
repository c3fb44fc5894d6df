"""The null of forget quality: many models that never saw the forget rows, and how they differ.

A retained-only model is one draw. This study trains many, which differ in the order of their rows
and, in part, in the base that they were fine-tuned from. Only scores are kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import load_task
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.processes import in_processes
from npo_kit.records.files import SCHEMA, Json, atomic_write, dumps, parse, read_bytes
from npo_kit.records.provenance import provenance
from npo_kit.studies.pocket import PocketRecipe, pocket_manifest, train_pocket
from npo_kit.studies.scores import DECIMALS
from npo_kit.studies.table import NULL

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class NullPlan:
    """Retained-only pocket models to train, and mixtures of some with the original."""

    title: str = "Pocket models that never saw the forget rows"
    split: str = "forget10"
    seeds: int = 40  # models fine-tuned from the shipped base, each with its order of rows
    bases: int = 4  # further bases, each of other initial weights
    seeds_of_base: int = 5  # models fine-tuned from each of them
    mixed: int = 5  # models of the shipped base that are mixed with the original, ...
    shares: tuple[float, ...] = tuple(step / 10 for step in range(1, 11))  # ... of which so much
    more_splits: tuple[str, ...] = ("forget30", "forget50", "forget90")
    seeds_of_split: int = 10  # models of the shipped base for each of them
    rows: int = 120  # of each evaluation set, the first: forget10 has no more to forget


@dataclass(frozen=True)
class _Model:
    """One retained-only model of a plan."""

    plan: NullPlan
    folder: Path  # of the study while it is made
    base: int  # 0: the shipped one; else the seed of its first weights
    seed: int  # of the order of rows
    split: str

    @property
    def path(self) -> Path:
        return self.folder / f"{self.split}-base{self.base}-seed{self.seed:02d}.json"

    @property
    def start(self) -> Path:
        return self.folder / f"base{self.base}" if self.base else shipped_data("pocket/base")


def expected(plan: NullPlan) -> str:
    """Say how many models a plan trains, and how long that took one core where it was recorded."""
    fine_tuned, took = len(_models(plan, Path())), pocket_manifest().models
    seconds = fine_tuned * took["retained"]["seconds"] + plan.bases * took["base"]["seconds"]
    return (
        f"{plan.bases} bases and {fine_tuned} retained-only models to train: {seconds / 60:.0f} "
        "core-minutes where the pocket models were recorded"
    )


def make_null(
    plan: NullPlan,
    folder: str | Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train and judge every model of `plan`; write the scores to `folder` and return them.

    After an interruption, make the same call again: it resumes with the missing models.
    """
    folder = Path(folder)
    work = folder / UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    bases = [(plan, work, base) for base in range(1, plan.bases + 1)]
    _each(_train_base, [b for b in bases if not (work / f"base{b[2]}").exists()], processes, say)
    models = _models(plan, work)
    _each(_train_and_judge, [model for model in models if not model.path.exists()], processes, say)
    judged = [parse(read_bytes(model.path), model.path) for model in models]
    study = {"schema": SCHEMA, "title": plan.title, "plan": asdict(plan), "models": judged}
    study |= {"provenance": provenance()}
    atomic_write(folder / NULL, dumps(study, indent=None))
    return study


def _models(plan: NullPlan, work: Path) -> list[_Model]:
    models = [_Model(plan, work, 0, seed, plan.split) for seed in range(plan.seeds)]
    for base in range(1, plan.bases + 1):
        models += [_Model(plan, work, base, n, plan.split) for n in range(plan.seeds_of_base)]
    for split in plan.more_splits:
        models += [_Model(plan, work, 0, seed, split) for seed in range(plan.seeds_of_split)]
    return models


def _each(
    function: Callable, items: Sequence, processes: int | None, say: Callable[[str], None]
) -> None:
    for number, (_, name) in enumerate(in_processes(function, items, processes), 1):
        say(f"[{number}/{len(items)}] {name}")


def _train_base(item: tuple[NullPlan, Path, int]) -> str:
    _, work, seed = item
    with tempfile.TemporaryDirectory(dir=work) as place:
        train_pocket("base", None, Path(place, "new"), replace(PocketRecipe(), seed=seed))
        Path(place, "new").rename(work / f"base{seed}")
    return f"base {seed}"


def _train_and_judge(model: _Model) -> str:
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.config import TrainConfig

    plan, recipe = model.plan, PocketRecipe()
    recipe = replace(recipe, tuning=replace(recipe.tuning, seed=model.seed))
    task = load_task(f"authors:{model.split}")
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "model")
        train_pocket(f"retained-{model.split}", model.start, made, recipe)
        trained, tokenizer = load_model(made, device="cpu")
    prompts = TrainConfig().prompt_format(tokenizer, trained)
    config = EvaluationConfig(max_rows=plan.rows, max_new_tokens=32, batch_size=256)
    record: Json = {"split": model.split, "base": model.base, "seed": model.seed}
    record |= _scores(evaluate(trained, prompts, task, config))
    if model.split == plan.split and model.base == 0 and model.seed < plan.mixed:
        original = load_model("pocket", device="cpu")[0].state_dict()
        own = {name: weight.clone() for name, weight in trained.state_dict().items()}
        brief = replace(config, max_new_tokens=0)
        task = replace(task, evaluation={"forget": task.evaluation["forget"]})
        record["mixed"] = {}
        for share in plan.shares:
            mixture = {name: own[name].lerp(original[name], share) for name in own}
            trained.load_state_dict(mixture)
            evaluation = evaluate(trained, prompts, task, brief)
            record["mixed"][f"{share:g}"] = _ratios(evaluation)
    atomic_write(model.path, dumps(record))
    return f"{model.split}, base {model.base}, seed {model.seed}"


def _scores(evaluation) -> dict[str, Any]:
    from npo_kit.metrics.summary import summarise

    summary = summarise(evaluation)
    known = {name: round(value, DECIMALS) for name, value in summary.items() if value is not None}
    return {"scores": known, "log_truth_ratios": _ratios(evaluation)}


def _ratios(evaluation) -> list[float]:
    from npo_kit.metrics.summary import log_truth_ratios

    return [round(float(ratio), DECIMALS) for ratio in log_truth_ratios(evaluation, "forget")]

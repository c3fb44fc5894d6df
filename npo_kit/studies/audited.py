"""One model of a study of audits: made, and measured by every card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import load_task
from npo_kit.errors import KitError
from npo_kit.records.files import Json, atomic_write, dumps
from npo_kit.records.run import read_run
from npo_kit.studies.audit_plans import AuditPlan, Item, TunedAuditPlan
from npo_kit.studies.pocket import PocketRecipe, train_pocket
from npo_kit.studies.table import ORIGINAL, RETAINED, best_checkpoint, study_table

SHOWN = 3  # digits of what the figures show


def make_models(
    plan: AuditPlan, work: Path, processes: int | None, say: Callable[[str], None]
) -> None:
    """Fine-tune the models that the audits begin with, where the plan brings none."""
    from npo_kit.studies.maker import make_jobs

    if isinstance(plan, TunedAuditPlan):
        make_jobs(plan.jobs(work), processes, say)


def make_item(item: Item) -> str:
    """Make and audit a model, write its cards to the item's path, and return its name."""
    if item.number is not None:
        with _retained(item.plan, item.number, item.work) as folder:
            made = _whole_model(item, folder, detailed=isinstance(item.plan, TunedAuditPlan))
    elif item.name == ORIGINAL:
        made = _whole_model(item, item.plan.model(ORIGINAL, item.work), detailed=True)
    else:
        made = _run_again(item)
    atomic_write(item.path, dumps(made))
    return item.name


@contextmanager
def _retained(plan: AuditPlan, number: int, work: Path) -> Iterator[str]:
    """Yield the folder of a retained-only model; a pocket model is trained for it."""
    if isinstance(plan, TunedAuditPlan):
        job = [job for job in plan.jobs(work) if job.label == RETAINED][number - 1]
        yield plan.model(job.name, work)
        return
    recipe = PocketRecipe()
    recipe = replace(recipe, tuning=replace(recipe.tuning, seed=number))
    with tempfile.TemporaryDirectory() as place:
        folder, split = Path(place, "model"), plan.task.partition(":")[2]
        train_pocket(f"retained-{split}", shipped_data("pocket/base"), folder, recipe)
        yield str(folder)


def _whole_model(item: Item, name: str, *, detailed: bool) -> Json:
    from npo_kit.models.loading import load_model

    return {"last": _cards(item, load_model(name, device="cpu"), detailed)}


def _run_again(item: Item) -> Json:
    """Repeat a recorded run, and audit its best and its last checkpoint."""
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.config import UnlearnConfig
    from npo_kit.trainer.events import Step
    from npo_kit.trainer.loop import unlearn

    run = read_run(shipped_data(f"studies/{item.name}"))
    known = {field.name for field in fields(UnlearnConfig)} - {"evaluation", "refusals"}
    settings: Json = {name: value for name, value in run.config.items() if name in known}
    config = UnlearnConfig(**settings, evaluation=None)
    best, last = _best_step(run.folder), run.evaluated[-1]
    found: Json = {"method": run.method, "seed": run.seed, "best_step": best, "last_step": last}
    loaded = load_model(item.plan.model(ORIGINAL, item.work), device="cpu")
    for event in unlearn(loaded[0], loaded[1], load_task(item.plan.task), config):
        if isinstance(event, Step) and event.step in (best, last):
            at = "last" if event.step == last else "best"
            if at in item.plan.checkpoints():
                found[at] = _cards(item, loaded, run.seed == 0)
    if "last" not in found:
        raise KitError(f"{item.name} ended before step {last}: its record is of another kit")
    return found


def _best_step(folder: Path) -> int:
    records = [record for record in study_table(folder.parent) if record["run"] == folder.name]
    return best_checkpoint(records)["step"]


def _cards(item: Item, loaded: Sequence[Any], detailed: bool) -> Json:
    """Return a model's readings by card: rows, and with `detailed` what the figures show."""
    from npo_kit.audit.controls import rounded
    from npo_kit.audit.session import bench_of, measured
    from npo_kit.models.loading import load_model

    plan, (model, tokenizer) = item.plan, loaded
    original, retained = (
        model if label == item.name else load_model(plan.model(label, item.work), device="cpu")[0]
        for label in (ORIGINAL, RETAINED)
    )
    prompts = plan.prompts().prompt_format(tokenizer, model)
    models, taught = (original, retained), plan.lessons()
    bench = bench_of(load_task(plan.task), prompts, *models, plan.seed, plan.rows, taught)
    cards: Json = {}
    for name in plan.cards:
        reading = measured(name, model, bench)
        cards[name] = {"rows": rounded(reading.rows)}
        if detailed:
            cards[name]["detail"] = brief(reading.detail)
    return cards


def brief(value: Any) -> Any:
    """Return what a figure shows, its numbers to SHOWN digits."""
    if isinstance(value, float):
        return float(f"{value:.{SHOWN}g}")
    if isinstance(value, Mapping):
        return {name: brief(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [brief(item) for item in value]
    return value

"""The text of a trained model's card: what was unlearned, how, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from npo_kit.data.tasks import Row, Task
from npo_kit.metrics.summary import UTILITY_SCORES, Summary, summarise
from npo_kit.models.card import compose_card
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation
from npo_kit.trainer.config import TrainConfig, UnlearnConfig
from npo_kit.trainer.tracking import flat

_LIMITS = {
    "unlearned": "The model was judged on the rows of this task only: what it no longer says may "
    "still be in its weights and come back with other questions, fine-tuning or quantisation, so "
    "do not rely on it to keep anything private (`npo-kit audit` looks for what a model hides).",
    "fine-tuned": "The model was trained and judged on the rows of this task only: it is meant for "
    "experiments on unlearning, not for use.",
}
_WORDS = (
    "The scores are TOFU's (arXiv 2401.06121), and n counts rows. forget_quality is the p-value "
    "against a model that never saw the forget rows. A dash: not measured."
)


def model_card(
    config: TrainConfig,
    task: Task,
    evaluations: Sequence[Evaluation] = (),
    *,
    base: str | Path | None = None,
    rows: Sequence[Row] = (),
    reference: Evaluation | None = None,
    truth_ratio: str = "geometric",
) -> str:
    """Return the card of a model that was unlearned or fine-tuned, for `save_model(card=...)`.

    It says what was done with how many rows of `task`, under which settings, and what `summarise`
    makes of the first and the last of the `evaluations`, with `reference` and `truth_ratio`; never
    the text of a row. `base` is the model that training began with, of a folder the name only;
    `rows` are those that fine-tuning was on. `hf upload OWNER/NAME FOLDER` pushes a saved model
    with its card.
    """
    done = "unlearned" if isinstance(config, UnlearnConfig) else "fine-tuned"
    parts = {"Training": _training(config, task, rows), "Settings": _settings(config)}
    if evaluations:
        ends = {evaluation.step: evaluation for evaluation in (evaluations[0], evaluations[-1])}
        judged = {step: summarise(e, reference, truth_ratio) for step, e in ends.items()}
        parts["Measured"] = _measured(judged)
    title = f"{Path(base).name if base else 'A model'}, {done}"
    return compose_card(title, parts | {"Limits": _LIMITS[done]}, str(base) if base else None)


def _training(config: TrainConfig, task: Task, rows: Sequence[Row]) -> str:
    if not isinstance(config, UnlearnConfig):
        return f"Fine-tuned by npo_kit on {len(rows):,} rows of the task `{task.name}`."
    method = config.composed
    formula = f" (it minimises `{method.equation}`, {method.paper})" if method.equation else ""
    kept = "read" if any(role.startswith("retain") for role in method.roles) else "not read"
    return (
        f"Unlearned by npo_kit with the method `{config.method}`{formula}: the model was to forget "
        f"the {len(task.forget):,} forget rows of the task `{task.name}`; its "
        f"{len(task.retain):,} retain rows were {kept}."
    )


def _settings(config: TrainConfig) -> str:
    settings = asdict(config)
    if isinstance(config, UnlearnConfig):
        method = config.composed
        defaults = {name: about.default for name, about in method.settable.items()}
        settings |= {"hyper": defaults | dict(config.hyper)}
        settings |= {"forget_weight": method.forget_weight, "retain_weight": method.retain_weight}
    settings = {name: " ".join(str(value).split()) for name, value in flat(settings).items()}
    lines = [f"| {name} | {value.replace('|', '&#124;')} |" for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])


def _measured(summaries: dict[int, Summary]) -> str:
    """Return a table with a column for each evaluation, by its step."""
    columns = summaries.values()
    sets = [name for name in EVALUATION_SETS if any(summary[f"{name}_n"] for summary in columns)]
    names = ["model_utility", "forget_quality"]
    names += [f"{of_set}_{score}" for of_set in sets for score in ("n", *UTILITY_SCORES)]
    lines = [f"| score | {' | '.join(f'step {step}' for step in summaries)} |"]
    lines += ["|---" * (1 + len(summaries)) + "|"]
    for name in names:
        values = (summary[name] for summary in columns)
        lines += [f"| {name} | {' | '.join('-' if v is None else f'{v:.4g}' for v in values)} |"]
    return "\n".join(lines) + "\n\n" + _WORDS

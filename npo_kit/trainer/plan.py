"""The plan of a run, made before it begins with no model at hand: rows, steps and evaluations."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Row, Task, draw_refusals
from npo_kit.errors import KitError, counted
from npo_kit.losses.methods import Method
from npo_kit.trainer.alternates import alternate_rows, refuse_bare_passages
from npo_kit.trainer.config import TrainConfig, UnlearnConfig

Numbers = dict[str, list[int]]  # role -> row numbers
Lengths = Sequence[int]  # of rows, in tokens


def rows_to_read(task: Task, config: UnlearnConfig) -> dict[str, Sequence[Row]]:
    """Return role -> the rows of a task that an unlearning run reads in this role."""
    method = config.composed
    rows: dict[str, Sequence[Row]] = {"forget": task.forget}
    if {"alternate", "alternate_ref"} & set(method.roles):
        own = "alternates" if method.alternates else "alternate"
        refused = _refused(task.forget, config, own)
        rows["alternate"] = alternate_rows(task.forget, refused, method.alternates)
    if any(role.startswith("retain") for role in method.roles):
        if not task.retain:
            raise KitError(
                f"method {config.method} reads retain rows, and there are none: give retain rows "
                "(--retain), or take a method without them, such as npo"
            )
        rows["retain"] = task.retain
    if {"retain_alternate", "retain_alternate_ref"} & set(method.roles):
        rows["retain_alternate"] = _refused(task.retain, config)
    return rows


def _refused(rows: Sequence[Row], config: UnlearnConfig, own: str = "alternate") -> list[Row]:
    """Return rows with their own alternate answers, else with drawn refusals.

    Raises KitError for a passage without its `own`: it asks nothing that could be refused.
    """
    refuse_bare_passages(rows, own)
    refusals = draw_refusals(len(rows), config.seed, config.refusals)
    pairs = zip(rows, refusals, strict=True)
    return [row | {"answer": row.get("alternate") or refusal} for row, refusal in pairs]


class RunPlan:
    """The encoded rows of each role, the batches in order, and the steps of evaluations.

    `driver` is the role whose `n_rows` rows make an epoch; `batches` holds, for each optimizer
    step, the row numbers of each role. A row's several alternates take turns, an epoch each. Raises
    KitError where the rows do not fill one batch.
    """

    def __init__(
        self,
        method: Method,
        rows: Mapping[str, Sequence[Row]],
        prompt_format: PromptFormat,
        config: TrainConfig,
    ):
        self.config = config
        self.driver = "forget" if method.forget else "retain"
        self.encoded = {role: prompt_format.encode_all(of_role) for role, of_role in rows.items()}
        self.n_rows = len(self.encoded[self.driver])
        lengths = {role: [len(e.ids) for e in rows] for role, rows in self.encoded.items()}
        batches = paired_batches(
            lengths.pop(self.driver),
            lengths.get("retain"),
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
        )
        if not batches:
            raise KitError(_too_few(config, self.n_rows))
        beside = [role for role in self.encoded if role in lengths and role.startswith("retain")]
        alike = [role for role in self.encoded if role not in beside]
        self.batches: list[Numbers] = [
            dict.fromkeys(alike, rows) | dict.fromkeys(beside, partners)
            for rows, partners in batches
        ]
        if several := len(self.encoded.get("alternate", ())) // self.n_rows:
            for number, batch in enumerate(self.batches):
                first = number * config.batch_size
                turns = ((first + i) // self.n_rows % several for i in range(config.batch_size))
                pairs = zip(batch["forget"], turns, strict=True)
                batch["alternate"] = [row + self.n_rows * turn for row, turn in pairs]
        self.steps = len(self.batches)  # of the optimizer

    def epoch(self, step: int) -> float:
        """Count the passes over the driving rows by the end of a step."""
        return step * self.config.batch_size / self.n_rows

    def step_at(self, epoch: float) -> int:
        """Return the last whole step within `epoch` epochs."""
        return steps_in(epoch, self.n_rows, self.config.batch_size)

    @property
    def warmup(self) -> int:
        """Steps before the learning rate is at its peak: at most half of the run."""
        return min(self.step_at(self.config.warmup_epochs), self.steps // 2)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 1: linear from 0 to the peak, then towards 0."""
        if step <= self.warmup:
            return self.config.lr * (step - 1) / self.warmup
        return self.config.lr * (self.steps - step + 1) / (self.steps - self.warmup)

    def __str__(self) -> str:
        first, peak, last = (self.rate(step) for step in (1, self.warmup + 1, self.steps))
        return (
            f"{counted(self.n_rows, 'row')}, {counted(self.steps, 'step')} of "
            f"{self.config.batch_size}; learning rate {first:.2g} at first, {peak:.2g} at its peak "
            f"(step {self.warmup + 1}), {last:.2g} at last; "
            f"{counted(len(self.evaluated), 'evaluation')}"
        )

    def ends(self, every: float | None) -> set[int]:
        """Return the steps at the end of every `every` epochs, and the last step."""
        if not every:
            return {self.steps}
        ends = math.floor(self.config.epochs / every + 1e-9)
        return {self.step_at(every * k) for k in range(1, ends + 1)} - {0} | {self.steps}

    @property
    def evaluated(self) -> set[int]:
        """Steps after which the model is evaluated; 0: before the first."""
        if not self.config.evaluation:
            return set()
        return {0} | self.ends(self.config.evaluate_every)


# --- which rows a step reads --------------------------------------------------------------------


def steps_in(epochs: float, n_rows: int, batch_size: int) -> int:
    """Count the whole batches in `epochs` passes over `n_rows` rows; batches run across epochs."""
    return math.floor(epochs * n_rows / batch_size + 1e-9)


def paired_batches(
    lengths: Lengths, partner_lengths: Lengths | None, *, batch_size: int, epochs: float, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Return floor(epochs * n / batch_size) batches: row numbers, and those of their partners.

    Every epoch is a fresh permutation in buckets of similar length; batches run across epochs. Each
    row gets one partner, drawn afresh each epoch, without replacement while enough are left, and
    matched by length within a bucket. Without `partner_lengths` the second list is empty.
    """
    if partner_lengths is not None and not partner_lengths:
        raise KitError("there are no rows to draw partners from: give retain rows")
    n, rows, partners = len(lengths), [], []
    for epoch in range(math.ceil(epochs)):
        generator = random.Random(f"rows {seed} {epoch}")
        order = shuffled_buckets(lengths, batch_size, generator)
        rows += order
        if partner_lengths is not None:
            drawn = _draw(n, len(partner_lengths), generator)
            partners += _matched(order, lengths, drawn, partner_lengths, 4 * batch_size)
    steps = steps_in(epochs, n, batch_size)
    cuts = [slice(i * batch_size, (i + 1) * batch_size) for i in range(steps)]
    return [(rows[cut], partners[cut]) for cut in cuts]


def shuffled_buckets(lengths: Lengths, batch_size: int, generator: random.Random) -> list[int]:
    """Return row numbers in random order, with runs of `batch_size` rows of similar length.

    It shuffles, sorts within windows of four batches, then shuffles the batches of each window, so
    that there is little padding and every batch is still random.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    result: list[int] = []
    for start in range(0, len(order), 4 * batch_size):
        window = sorted(order[start : start + 4 * batch_size], key=lambda row: lengths[row])
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        generator.shuffle(batches)
        result += [row for batch in batches for row in batch]
    return result


def _too_few(config: TrainConfig, n_rows: int) -> str:
    """Say that the rows do not fill one batch, and the largest batch that they fill."""
    one, most = config.epochs == 1, int(config.epochs * n_rows + 1e-9)
    lower = f"lower the batch size (--batch-size) to {most} or less, or " if most else ""
    return (
        f"{config.epochs:g} epoch{'s' * (not one)} of {counted(n_rows, 'row')} "
        f"{'does' if one else 'do'} not fill one batch of {config.batch_size}: {lower}raise the "
        "epochs (--epochs)"
    )


def _draw(n: int, population: int, generator: random.Random) -> list[int]:
    """Draw `n` of `range(population)` in random order, all of them before any a second time."""
    drawn: list[int] = []
    while len(drawn) < n:
        drawn += generator.sample(range(population), min(population, n - len(drawn)))
    return drawn


def _matched(
    order: list[int], lengths: Lengths, drawn: list[int], partner_lengths: Lengths, window: int
) -> list[int]:
    """Rearrange the drawn partners within each window so that long rows get long partners."""
    matched = list(drawn)
    for start in range(0, len(order), window):
        places = range(start, min(start + window, len(order)))
        by_row = sorted(places, key=lambda place: lengths[order[place]])
        by_partner = sorted(drawn[start : start + window], key=lambda i: partner_lengths[i])
        for place, partner in zip(by_row, by_partner, strict=True):
            matched[place] = partner
    return matched

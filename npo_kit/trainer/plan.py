"""What a run reads and when it is judged, known before it begins and with no model at hand."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Row, Task, draw_refusals
from npo_kit.errors import KitError
from npo_kit.losses.methods import Method
from npo_kit.trainer.config import TrainConfig, UnlearnConfig

Numbers = dict[str, list[int]]  # role -> row numbers


def rows_to_read(task: Task, config: UnlearnConfig) -> dict[str, Sequence[Row]]:
    """Role -> the rows of a task that an unlearning run reads for it."""
    method = config.composed
    rows: dict[str, Sequence[Row]] = {"forget": task.forget}
    if {"alternate", "alternate_ref"} & set(method.roles):
        refusals = draw_refusals(len(task.forget), config.seed, config.refusals)
        rows["alternate"] = [
            {"question": row["question"], "answer": row.get("alternate") or refusal}
            for row, refusal in zip(task.forget, refusals, strict=True)
        ]
    if {"retain", "retain_ref"} & set(method.roles):
        rows["retain"] = task.retain
    return rows


class RunPlan:
    """The encoded rows of each role, the batches in their order, the steps of evaluations.

    `driver` is the role whose `n_rows` rows make an epoch; `batches` holds the row numbers of each
    role for each optimizer step. Raises KitError where the rows do not fill one batch.
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
        self.batches = self._batches()

    def _batches(self) -> list[Numbers]:
        config = self.config
        lengths = {role: [len(e.ids) for e in rows] for role, rows in self.encoded.items()}
        batches = paired_batches(
            lengths.pop(self.driver),
            lengths.get("retain"),
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
        )
        if not batches:
            raise KitError(
                f"{config.epochs:g} epoch(s) of {self.n_rows} rows do not fill one batch of "
                f"{config.batch_size}: lower batch_size or raise epochs"
            )
        alike = [role for role in self.encoded if role == self.driver or role != "retain"]
        return [
            dict.fromkeys(alike, rows) | ({"retain": partners} if partners else {})
            for rows, partners in batches
        ]

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.batches)

    def epoch(self, step: int) -> float:
        """Passes over the driving rows by the end of a step."""
        return step * self.config.batch_size / self.n_rows

    def step_at(self, epoch: float) -> int:
        """The last whole step within so many epochs."""
        return steps_in(epoch, self.n_rows, self.config.batch_size)

    @property
    def warmup(self) -> int:
        """Steps before the learning rate is at its peak: at most half of the run."""
        return min(self.step_at(self.config.warmup_epochs), self.steps // 2)

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 1: linear from 0 to the peak, then linear towards 0."""
        if step <= self.warmup:
            return self.config.lr * (step - 1) / self.warmup
        return self.config.lr * (self.steps - step + 1) / (self.steps - self.warmup)

    def __str__(self) -> str:
        first, peak, last = (self.rate(step) for step in (1, self.warmup + 1, self.steps))
        return (
            f"{self.n_rows:,} rows, {self.steps:,} steps of {self.config.batch_size}; learning "
            f"rate {first:.2g} at first, {peak:.2g} at its peak (step {self.warmup + 1}), "
            f"{last:.2g} at last; {len(self.evaluated)} evaluations"
        )

    def ends(self, every: float | None) -> set[int]:
        """Steps at the end of every so many epochs, and the last one."""
        ends = math.floor(self.config.epochs / every + 1e-9) if every else 0
        return {self.step_at(every * k) for k in range(1, ends + 1)} - {0} | {self.steps}

    @property
    def evaluated(self) -> set[int]:
        """Steps after which the model is evaluated, 0 for before the first."""
        if not self.config.evaluation:
            return set()
        return {0} | self.ends(self.config.evaluate_every)


# --- which rows a step reads --------------------------------------------------------------------


def steps_in(epochs: float, n_rows: int, batch_size: int) -> int:
    """Whole batches in so many passes over `n_rows` rows; batches run across epochs."""
    return math.floor(epochs * n_rows / batch_size + 1e-9)


def paired_batches(
    lengths: Sequence[int],
    partner_lengths: Sequence[int] | None,
    *,
    batch_size: int,
    epochs: float,
    seed: int,
) -> list[tuple[list[int], list[int]]]:
    """Row numbers of each of floor(epochs * n / batch_size) batches, and those of their partners.

    Every epoch is a fresh permutation in buckets of similar length; batches run across the borders
    of epochs. Each row gets one partner: drawn afresh each epoch without replacement as far as
    there are enough, those of a bucket matched by length. Without `partner_lengths` the
    second list is empty.
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


def shuffled_buckets(
    lengths: Sequence[int], batch_size: int, generator: random.Random
) -> list[int]:
    """A random order of rows in which runs of `batch_size` are of similar length.

    Shuffles, sorts within windows of four batches, and shuffles the batches of each window, so
    that little is padded and every batch is still random. Returns a permutation of row numbers.
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


def _draw(n: int, population: int, generator: random.Random) -> list[int]:
    """`n` of `range(population)` in random order; each before any a second time."""
    drawn: list[int] = []
    while len(drawn) < n:
        drawn += generator.sample(range(population), min(population, n - len(drawn)))
    return drawn


def _matched(
    order: list[int],
    lengths: Sequence[int],
    drawn: list[int],
    partner_lengths: Sequence[int],
    window: int,
) -> list[int]:
    """The drawn partners, within each window rearranged so that long rows get long partners."""
    matched = list(drawn)
    for start in range(0, len(order), window):
        places = range(start, min(start + window, len(order)))
        by_row = sorted(places, key=lambda place: lengths[order[place]])
        by_partner = sorted(drawn[start : start + window], key=lambda i: partner_lengths[i])
        for place, partner in zip(by_row, by_partner, strict=True):
            matched[place] = partner
    return matched

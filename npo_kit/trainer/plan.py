"""The plan of a run, made before it begins with no model at hand: rows, steps and evaluations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

from npo_kit import losses
from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.tasks import Row, Task, draw_refusals
from npo_kit.errors import KitError
from npo_kit.losses.methods import Method
from npo_kit.metrics.evaluation import encoded_answers
from npo_kit.models.batching import length_sorted
from npo_kit.trainer.config import TrainConfig, UnlearnConfig

Numbers = dict[str, list[int]]  # role -> row numbers
Lengths = Sequence[int]  # of rows, in tokens


def rows_to_read(task: Task, config: UnlearnConfig) -> dict[str, Sequence[Row]]:
    """Return role -> the rows of a task that an unlearning run reads in this role."""
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
    """The encoded rows of each role, the batches in order, and the steps of evaluations.

    `driver` is the role whose `n_rows` rows make an epoch; `batches` holds, for each optimizer
    step, the row numbers of each role. Raises KitError where the rows do not fill one batch.
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
            raise KitError(
                f"{config.epochs:g} epoch(s) of {self.n_rows} rows do not fill one batch of "
                f"{config.batch_size}: lower batch_size or raise epochs"
            )
        alike = [role for role in self.encoded if role == self.driver or role != "retain"]
        self.batches: list[Numbers] = [
            dict.fromkeys(alike, rows) | ({"retain": partners} if partners else {})
            for rows, partners in batches
        ]
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
            f"{self.n_rows:,} rows, {self.steps:,} steps of {self.config.batch_size}; learning "
            f"rate {first:.2g} at first, {peak:.2g} at its peak (step {self.warmup + 1}), "
            f"{last:.2g} at last; {len(self.evaluated)} evaluations"
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


# --- the work of a run ---------------------------------------------------------------------------


def fed(rows: Iterable[Encoded]) -> int:
    """Count the tokens that a model is fed: all but the end tokens, which predict nothing."""
    return sum(len(encoded.ids) - 1 for encoded in rows)


class Workload:
    """The rows that a run reads in its forwards and in an evaluation, and their tokens."""

    def __init__(
        self, task: Task, config: TrainConfig, prompts: PromptFormat, rows: Sequence[Row] | None
    ):
        unlearning = config if isinstance(config, UnlearnConfig) else None
        self.task, self.config, self.prompts = task, config, prompts
        self.method = unlearning.composed if unlearning else losses.FINETUNE
        by_role = rows_to_read(task, unlearning) if unlearning else {"retain": rows or task.full}
        self.plan = RunPlan(self.method, by_role, prompts, config)
        self.forwards = self._forwards(self.method.terms.values())
        self.judges = bool(unlearning and config.evaluation and config.evaluation.judges)
        self.compares = "retain_ref" in self.method.roles  # whole distributions, in every step

    def _forwards(self, objectives: Iterable[Callable]) -> list[dict[str, list[Encoded]]]:
        """Return the rows by role that these objectives need, for each forward of all steps."""
        plan, encoded = self.plan, self.plan.encoded
        wanted = {role for objective in objectives for role in losses.roles(objective)}
        roles = [role for role in encoded if {role, f"{role}_ref"} & wanted]
        found = []
        for batch in plan.batches:
            lengths = [len(encoded[plan.driver][row].ids) for row in batch[plan.driver]]
            for places in length_sorted(lengths, self.config.micro_batch_size):
                found.append({r: [encoded[r][batch[r][place]] for place in places] for r in roles})
        return found

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Tokens fed in each training forward, and answer tokens whose logits are in memory."""
        sizes = []
        for forward in self.forwards:
            rows = list(chain(*forward.values()))
            twice = 2 * forward["retain"] if self.compares else []  # policy's and reference's
            sizes.append((fed(rows), sum(e.answer_length for e in rows + twice)))
        return sizes

    @cached_property
    def read_tokens(self) -> int:
        """Tokens read without gradient: for the reference's log-probs, once, and in every step."""
        encoded = self.plan.encoded
        refs = {role.removesuffix("_ref") for role in self.method.roles if role.endswith("_ref")}
        read = [encoded[role] for role in refs - {"retain"}]
        read += [forward["retain"] for forward in self.forwards if self.compares]
        for statistic in self.method.means.values():
            read += [[*chain(*forward.values())] for forward in self._forwards([statistic])]
        return sum(map(fed, read))

    @cached_property
    def questions(self) -> list[list[Encoded]]:
        """The encoded answers to each question of an evaluation, the true one first."""
        config, sets = self.config.evaluation, self.task.evaluation.values()
        rows = chain(*map(config.rows_of, sets)) if config else ()
        return [encoded_answers(row, self.prompts) for row in rows]

    def evaluation_tokens(self, longest: bool) -> tuple[float, float]:
        """Count the tokens that all evaluations read, and those they generate one after the other.

        They read a question once for all its answers, and again with the text if that is judged. A
        text is as long as the true answer, or with `longest` as `max_new_tokens`. Evaluations on
        `intermediate_rows` count by their share of the rows.
        """
        config, count = self.config.evaluation, len(self.plan.evaluated)
        if not self.questions or not config:
            return 0, 0
        prompts = [answers[0].prompt_length for answers in self.questions]
        most = config.max_new_tokens
        texts = [most if longest else min(most, a[0].answer_length) for a in self.questions]
        read = sum(prompts) + sum(e.answer_length for answers in self.questions for e in answers)
        read += sum(prompts) + sum(texts) if self.judges else 0
        batches = length_sorted(prompts, config.batch_size)
        decoded = sum(max(texts[row] for row in batch) for batch in batches)
        few = self.config.intermediate_rows or len(prompts)
        used = map(config.rows_of, self.task.evaluation.values())
        share = sum(min(few, len(rows)) for rows in used) / len(prompts)
        whole = min(count, 2) + max(count - 2, 0) * share  # the first and the last are whole
        return whole * read, whole * decoded

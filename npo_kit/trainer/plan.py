"""What a run reads and when it is judged, known before it begins and with no model at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from npo_kit.data.prompts import PromptFormat, paired_batches, steps_in
from npo_kit.data.tasks import Row, Task, draw_refusals
from npo_kit.errors import KitError
from npo_kit.losses.paper import Method
from npo_kit.trainer.config import TrainConfig, UnlearnConfig

Numbers = dict[str, list[int]]  # role -> row numbers


def rows_to_read(task: Task, config: UnlearnConfig) -> dict[str, Sequence[Row]]:
    """Role -> the rows of a task that an unlearning run reads for it."""
    method = config.composed
    rows: dict[str, Sequence[Row]] = {"forget": task.forget}
    if {"alternate", "alternate_ref"} & set(method.roles):
        refusals = draw_refusals(len(task.forget), config.seed)
        rows["alternate"] = [
            {"question": row["question"], "answer": refusal}
            for row, refusal in zip(task.forget, refusals, strict=True)
        ]
    if method.retain:
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
            fixed=getattr(config, "retain_pairing", "fresh") == "fixed",
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

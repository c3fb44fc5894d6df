"""Where a card measures a model, and how it tells what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from npo_kit.records.files import Json

if TYPE_CHECKING:  # the command reads how models are taught before it loads torch
    from transformers import PreTrainedModel

    from npo_kit.audit.probes import Probe
    from npo_kit.data.prompts import PromptFormat
    from npo_kit.data.tasks import Task


@dataclass(frozen=True)
class Relearning:
    """How models are taught. The learning rate falls linearly to 0 at the last step.

    The default rate is for the pocket models, by `relearning.pre_run` on authors:forget10. In 30
    steps the original's V moves from -.44 to -.49 nats at 1e-4, -.60 at 3e-4 and -1.31 at 1e-3, and
    the retained-only model's T from -3.41 to -1.60, -.34 and -.04. Another model needs another
    rate: the one at which it learned the rows is a good first try.
    """

    lr: float = 3e-4
    steps: tuple[int, ...] = (0, 5, 10, 20, 30)  # after which the facts are scored
    batch_size: int = 16
    taught: int = 60  # rows of T, and of the other sets, at most
    tested: int = 60  # rows of V, at most
    precision: str = "fp32"  # of the training forward


@dataclass(frozen=True)
class Bench:
    """All that a card gets beside the model that it measures; no card changes any of it."""

    prompts: PromptFormat
    task: Task
    forget: Sequence[Probe]
    retain: Sequence[Probe]
    original: PreTrainedModel
    retained: PreTrainedModel  # never saw the forget rows; by order of rows the first of several
    holdout: Sequence[Probe] = ()  # rows that none of the models ever saw, as the forget rows are
    left_out: Mapping[str, int] = field(default_factory=dict)  # set -> rows without a fact
    seed: int = 0
    relearning: Relearning = field(default_factory=Relearning)
    done: Callable[[int, int], None] = field(default=lambda done, total: None)  # of a card's work


@dataclass(frozen=True)
class Reading:
    """What one card measured on one model.

    `rows[i]` belongs to the i-th forget probe and is None where the card has nothing to say of it;
    `value` is the mean of the others. More means more of what should be forgotten, except where
    the card's entry says otherwise. `detail` is what its figure and its texts need, as JSON.
    """

    value: float
    rows: list[float | None]
    detail: Json = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Sequence[float | None], detail: Json | None = None) -> Reading:
        """Make a reading of the values by row; its value is not a number if there are none."""
        known = [value for value in rows if value is not None]
        return cls(sum(known) / len(known) if known else float("nan"), list(rows), detail or {})


def rows_asked(asked: int, left_out: int) -> str:
    """Say how many rows of a set were asked, and how many had no fact to ask for."""
    return (
        f"{asked} of {asked + left_out} (no fact was found in {left_out})"
        if left_out
        else f"{asked}"
    )

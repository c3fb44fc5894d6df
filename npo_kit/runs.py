"""What a run leaves on disk: written atomically, read back only when whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EVALUATION_SETS = ("forget", "retain", "real_authors", "world_facts")

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What one model, at one step, scored on the rows of each evaluation set.

    Each row of `rows[set_name]` is a flat record. Its scores are numbers or None where the row
    lacks what they need:

    | key | unit, meaning |
    |---|---|
    | `index` | position of the row in its evaluation set |
    | `question`, `answer` | text; absent where a record must not carry the data set's text |
    | `mean_logp`, `tokens` | nats per token of the answer, end token included; token count |
    | `paraphrased_mean_logp` | the same for the paraphrased answer |
    | `perturbed_mean_logps` | list, the same for each perturbed answer |
    | `generation`, `generation_tokens` | greedy text; tokens without the end token |
    | `rouge_l_recall`, `rouge_l_f1`, `rouge_1_recall` | generation against answer, in [0, 1] |
    | `repetition_rate`, `distinct_2` | of the generation, in [0, 1] |
    | `fluency` | nats per token of the generation under the original model |
    """

    rows: dict[str, list[Row]]
    step: int = 0
    epoch: float = 0.0
    protocol: str = "all"  # "all" rows of each set, or "tofu": the first 300
    max_rows: int | None = None  # a quick look: at most so many rows of each set
    max_new_tokens: int | None = None  # of each generation; None where it is not known
    source: str = "npo_kit"  # or the format of the log it was read from
    notes: dict[str, str] = field(default_factory=dict)  # a set or score -> why it is missing
    seconds: float | None = None  # wall time the evaluation took

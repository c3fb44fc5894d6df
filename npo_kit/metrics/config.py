"""The settings of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from npo_kit.options import check, option, options_of

PROTOCOLS = {"all": None, "tofu": 300}  # rows of each evaluation set; TOFU's own code takes 300
Row = TypeVar("Row")


@dataclass(frozen=True)
class EvaluationConfig:
    """Which rows an evaluation covers, and how. Raises KitError for a senseless value."""

    protocol: str = option(
        "all",
        "all rows of each set, or tofu: the first 300; of your own rows also the first 300, "
        "unless you give all",
        choices=tuple(PROTOCOLS),
    )
    max_rows: int | None = option(
        None, "at most this many rows of each set, for a quick look", kind=int, least=1
    )
    max_new_tokens: int = option(200, "tokens of a generation; 0: none", least=0)
    batch_size: int = option(
        *(32, "prompts generated from together; 8 to 256 by memory"),
        least=1,
        flag="--evaluation-batch-size",
    )
    fluency: bool = option(
        True, "score generations under the original model (keeps a copy of it in memory)"
    )

    def __post_init__(self):
        check(vars(self), options_of(self))

    @property
    def judges(self) -> bool:
        """Whether generations are scored under the original model."""
        return self.fluency and self.max_new_tokens > 0

    def rows_of(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows of an evaluation set that are used: the first ones, up to the limit."""
        limits = [n for n in (PROTOCOLS[self.protocol], self.max_rows) if n is not None]
        return rows[: min(limits, default=len(rows))]

"""The settings of a training run: one dataclass per activity, each option in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.losses.combine import COMBINERS
from npo_kit.losses.methods import Method, method
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import check, option, options_of

PROMPTS = ("prompt", "system_prompt", "chat_date")  # options that `prompt_format` reads
_epochs = partial(
    option,
    help="passes over the rows that drive the loop (unlearning: the forget rows)",
    above=0,
    usual=(1, 20),
    step=1,
)
_weight = partial(option, None, kind=float, least=0, usual=(0, 10), step=0.5)
_prompts = partial(option, group="prompts")
_memory = partial(option, group="memory")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of fine-tuning and of unlearning. Raises KitError for a senseless value."""

    epochs: float = _epochs(5.0)
    batch_size: int = option(32, "rows of an optimizer step", above=0, usual=(4, 64))
    micro_batch_size: int = option(
        8, "rows per forward pass; saves memory, does not change results", above=0, usual=(1, 64)
    )
    lr: float = option(
        *(1e-5, "peak learning rate, larger for smaller models"),
        above=0,
        usual=(1e-6, 1e-2),
        label="Learning rate",
    )
    warmup_epochs: float = option(
        1.0, "linear from 0 (the first update is 0), at most half of the run", least=0
    )
    optimizer: str = option("adamw", "AdamW, or sgd without momentum", choices=("adamw", "sgd"))
    weight_decay: float = option(0.01, "the optimizer's weight decay", least=0, usual=(0, 0.1))
    max_grad_norm: float = option(
        1.0, "gradients are clipped to this norm; inf for never", above=0, usual=(0.1, 10)
    )
    seed: int = option(
        0, "random seed of row order, pairing and refusals", usual=(0, 999_999), step=1
    )
    precision: str = option(
        *("auto", "precision of the training forward"), choices=("auto", "fp32", "bf16", "fp16")
    )
    prompt: str = _prompts(
        *("auto", "how a question is asked"), choices=("auto", "chat", "qa", "llama2")
    )
    system_prompt: str | None = _prompts(None, "of a chat template (default: the template's own)")
    chat_date: str | None = _prompts(
        *(None, "date that the chat template prints, as 10 Apr 2025 (default: 26 Jul 2024)"),
        metavar="DATE",
    )
    evaluate_every: float | None = option(
        1.0, "epochs between evaluations; 0: first and last only", above=0, none="0"
    )
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)  # None: never
    intermediate_rows: int | None = option(
        *(None, "rows of each set in evaluations between the first and the last (default: all)"),
        kind=int,
        least=1,
    )
    lora_rank: int | None = _memory(
        *(None, "rank of a new adapter, which alone is trained; 4 to 64 (default: all weights)"),
        kind=int,
        least=1,
    )
    lora_alpha: float = _memory(
        32.0, "the adapter adds lora_alpha / lora_rank times B A; 1 to 4 times the rank", above=0
    )
    gradient_checkpointing: bool = _memory(
        False, "recompute layers in the backward pass: less memory, a third more time, same result"
    )

    def __post_init__(self):
        check(vars(self), options_of(self))
        if not isinstance(self.evaluation, EvaluationConfig | None):
            raise KitError(
                f"evaluation must be an EvaluationConfig, or None for none, it is "
                f"{self.evaluation!r:.60}"
            )

    def prompt_format(self, tokenizer, model) -> PromptFormat:
        """Return how rows become tokens for a model under this configuration."""
        from npo_kit.models.loading import context_length, vocabulary_size  # loads transformers

        return PromptFormat(
            tokenizer,
            self.prompt,
            context_length(model),
            system_prompt=self.system_prompt,
            chat_date=self.chat_date,
            vocabulary=vocabulary_size(model),
        )


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning on the answers of some rows, as TOFU makes its models."""


@dataclass(frozen=True)
class UnlearnConfig(TrainConfig):
    """Unlearning the forget rows of a task. `hyper` holds options of the method's forget term."""

    method: str = option("npo_rt", "a name of losses.METHODS", metavar="METHOD")
    epochs: float = _epochs(10.0)
    hyper: Mapping[str, float] = field(default_factory=dict)  # e.g. beta; else as the method has it
    forget_weight: float | None = _weight(help="weight of the forget term (default: the method's)")
    retain_weight: float | None = _weight(help="weight of the retain term (default: the method's)")
    combine: str = option("sum", "how the gradients of the two terms become one", choices=COMBINERS)
    rho: float = option(
        *(
            0.01,
            "with --combine sam: length of the step after which the forget gradient is taken again",
        ),
        above=0,
        usual=(0.001, 0.1),
    )
    refusals: tuple[str, ...] | None = None  # drawn for rows without an alternate; None: the kit's

    def __post_init__(self):
        if isinstance(self.method, Method):
            raise KitError(
                "method must be a name, it is a Method: METHODS['mine'] = Method(...), then "
                "method='mine'"
            )
        super().__post_init__()
        if not isinstance(self.hyper, Mapping):
            raise KitError(f"hyper must be like {{'beta': 0.1}}, it is {self.hyper!r:.60}")
        if isinstance(self.refusals, str):
            raise KitError(f"refusals must be a list of texts, it is {self.refusals!r:.60}")
        known = self._entry.settable
        if unknown := set(self.hyper) - set(known):
            raise KitError(
                f"method {self.method} has no hyper-parameter {min(unknown)!r}: it takes "
                f"{', '.join(known) or 'none'}"
            )
        check(self.hyper, known)
        idle = {
            "forget_weight": "has no forget term" if not self._entry.forget else "",
            "retain_weight": "has no retain term" if not self._entry.retain else "",
        }
        self._check_combine()
        if self.refusals is not None and "alternate" not in self._entry.roles:
            idle["refusals"] = "reads no refusals"
        for name, why in idle.items():
            if why and getattr(self, name) is not None:
                raise KitError(f"method {self.method} {why}: leave out {name}")

    def _check_combine(self) -> None:
        if self.combine != "sum" and not (self._entry.forget and self._entry.retain):
            raise KitError(
                f"combine {self.combine} takes the gradients of two terms, and method "
                f"{self.method} has one: choose a method with a retain term, or combine sum"
            )
        given = [n for n in ("forget_weight", "retain_weight") if getattr(self, n) is not None]
        if self.combine == "ngdiff" and given:
            raise KitError(f"combine ngdiff gives both terms one length: leave out {given[0]}")

    @property
    def _entry(self) -> Method:
        return method(self.method)

    @property
    def composed(self) -> Method:
        """The method with the weights and hyper-parameters of this configuration."""
        weights = {"forget_weight": self.forget_weight, "retain_weight": self.retain_weight}
        chosen: Any = {name: value for name, value in weights.items() if value is not None}
        return replace(self._entry, hyper=dict(self.hyper), **chosen)

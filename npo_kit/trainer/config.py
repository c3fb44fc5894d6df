"""What a training run is told: one dataclass per activity, each default in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from npo_kit import losses
from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig


@dataclass(frozen=True)
class TrainConfig:
    """What fine-tuning and unlearning have in common. Raises KitError for a senseless value."""

    epochs: float = 5.0  # passes over the rows that drive the loop; 1 to 10
    batch_size: int = 32  # rows of an optimizer step; 4 to 64
    micro_batch_size: int = 8  # rows of a forward, for memory only: changes no result; 1 to 64
    lr: float = 1e-5  # peak learning rate; 1e-6 to 1e-3, larger for smaller models
    warmup_epochs: float = 1.0  # linear from 0 (the first update is 0), at most half of the run
    weight_decay: float = 0.01  # of AdamW; 0 to 0.1
    max_grad_norm: float = 1.0  # gradients are clipped to this norm; 0.1 to 10, inf for never
    seed: int = 0  # of the order of rows, the pairing and the refusals
    precision: str = "auto"  # of the training forward: auto, fp32, bf16, fp16
    prompt: str = "auto"  # prompt style: auto, chat, qa, llama2
    system_prompt: str | None = None  # of a chat template; None: what the template has by itself
    chat_date: str | None = None  # that a chat template prints, as 10 Apr 2025; None: 26 Jul 2024
    evaluate_every: float | None = 1.0  # epochs between evaluations; None: only first and last
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)  # None: never
    intermediate_rows: int | None = None  # of each set between first and last evaluation; 40 to 100
    lora_rank: int | None = None  # of a new adapter, which alone is trained; 4 to 64; None: all
    lora_alpha: float = 32.0  # it adds lora_alpha / lora_rank times B A; 1 to 4 times the rank
    gradient_checkpointing: bool = False  # less memory for a third more time; changes no result

    def __post_init__(self):
        for name in (
            "epochs",
            "batch_size",
            "micro_batch_size",
            "lr",
            "max_grad_norm",
            "lora_alpha",
        ):
            if not getattr(self, name) > 0:
                raise KitError(f"{name} must be above 0, it is {getattr(self, name)}")
        for name in ("intermediate_rows", "lora_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise KitError(f"{name} must be at least 1, it is {value}")
        if self.evaluate_every is not None and not self.evaluate_every > 0:
            raise KitError(f"evaluate_every must be above 0, it is {self.evaluate_every}")
        for name in ("warmup_epochs", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise KitError(f"{name} must not be negative, it is {getattr(self, name)}")

    def prompt_format(self, tokenizer, model) -> PromptFormat:
        """How rows become tokens for a model under this configuration."""
        from npo_kit.models.loading import context_length  # loads transformers

        about = {"system_prompt": self.system_prompt, "chat_date": self.chat_date}
        return PromptFormat(tokenizer, self.prompt, context_length(model), **about)


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning on the answers of some rows, as TOFU makes its models."""


@dataclass(frozen=True)
class UnlearnConfig(TrainConfig):
    """Unlearning the forget rows of a task."""

    method: str = "npo_rt"  # a name of losses.METHODS
    epochs: float = 10.0
    hyper: Mapping[str, float] = field(default_factory=dict)  # e.g. beta; else as the method has it
    forget_weight: float | None = None  # None: the method's
    retain_weight: float | None = None  # None: the method's
    refusals: tuple[str, ...] | None = None  # drawn for rows without an alternate; None: the kit's

    def __post_init__(self):
        super().__post_init__()
        known = losses.method(self.method).hyperparameters
        if unknown := set(self.hyper) - set(known):
            raise KitError(
                f"method {self.method} has no hyper-parameter {min(unknown)!r}: it takes "
                f"{', '.join(known) or 'none'}"
            )
        if not self.hyper.get("beta", 1.0) > 0:
            raise KitError(f"beta must be above 0, it is {self.hyper['beta']}")
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """KitError for a setting that this method would not use."""
        method = losses.method(self.method)
        idle = {
            "forget_weight": "has no forget term" if method.forget is None else "",
            "retain_weight": "has no retain term" if method.retain is None else "",
            "refusals": "" if "alternate" in method.roles else "reads no refusals",
        }
        for name, why in idle.items():
            if why and getattr(self, name) is not None:
                raise KitError(f"method {self.method} {why}: leave out {name}")

    @property
    def composed(self) -> losses.Method:
        """The method with the weights of this configuration."""
        weights = {"forget_weight": self.forget_weight, "retain_weight": self.retain_weight}
        chosen = {name: value for name, value in weights.items() if value is not None}
        return replace(losses.method(self.method), **chosen)

"""What a run will take: counted tokens times measured seconds and bytes of a token.

Steps, tokens and evaluations are exact. What cannot be known beforehand is how long the texts of an
unlearned model are: between the true answers' lengths and `max_new_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.models.placement import choose_placement
from npo_kit.models.sizes import Memory, readable_bytes
from npo_kit.trainer.config import TrainConfig
from npo_kit.trainer.estimates.counts import Workload
from npo_kit.trainer.estimates.rates import Rates, as_trained, measure_rates


@dataclass(frozen=True)
class Estimate:
    """What a run will take. Seconds are a guess, between `at_least` and `at_most`."""

    steps: int
    tokens: int  # fed in training, with and without gradient
    evaluations: int
    parameters: int
    trained_parameters: int
    training_seconds: float
    evaluation_seconds: float  # of all evaluations
    at_least: float  # seconds of the run if generations are as long as the true answers
    at_most: float  # if all are max_new_tokens long
    memory: dict[str, int]  # bytes by what holds them, at the peak of a step
    device: str
    rates: Rates
    plan: str  # rows, steps, learning rates and evaluations in a sentence

    @property
    def seconds(self) -> float:
        """Training and evaluations; loading the model is not counted."""
        return self.training_seconds + self.evaluation_seconds

    @property
    def memory_bytes(self) -> int:
        """The most that a step holds at once; libraries and CUDA's own context come on top.

        An evaluation may take more where it is free: it halves its batches where memory runs out.
        """
        return sum(self.memory.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {readable_bytes(n)}" for what, n in self.memory.items() if n)
        share = self.trained_parameters / self.parameters
        about, low, high, judging = map(
            readable_time, (self.seconds, self.at_least, self.at_most, self.evaluation_seconds)
        )
        return (
            f"{self.plan}\n{self.tokens:,} tokens, {self.parameters:,} parameters, "
            f"{share:.2%} of them trained, on {self.device}\n"
            f"time: about {about} ({low} to {high}), {judging} of it evaluation\n"
            f"memory: about {readable_bytes(self.memory_bytes)} at the peak ({parts})"
        )


def readable_time(seconds: float) -> str:
    """Such as 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    config: TrainConfig,
    *,
    rows: Sequence[Row] | None = None,
    rates: Rates | None = None,
    prompt_format: PromptFormat | None = None,
) -> Estimate:
    """What a run of this model on this task will take, on the device where the model is.

    `rows` are those to fine-tune on, with a FinetuneConfig (default: all of the task). Without
    `rates` of an earlier call of `calibrate` on the same model it takes some seconds to minutes.
    `prompt_format`: the tokenizer's, for several estimates to share what it has encoded.
    The model is left as it was. Raises KitError as `unlearn` does, and where memory runs out.
    """
    prompts = prompt_format or config.prompt_format(tokenizer, model)
    work = Workload(task, config, prompts, rows)
    precision = choose_placement(model.device, config.precision, model.dtype).precision
    with as_trained(model, config):
        rates = rates or measure_rates(model, work, precision)
        copied = (work.judges or work.compares) and not config.lora_rank
        how = {"half": precision != "fp32", "recomputing": config.gradient_checkpointing}
        memory = Memory.of_model(model, rates.kept_token, copied=copied, **how)
        parameters = model.num_parameters()
    trained = sum(tokens for tokens, _ in work.sizes)
    training = trained * rates.trained_token + work.read_tokens * rates.read_token
    training += work.plan.steps * rates.step
    fewest, most = (
        read * rates.read_token + decoded * rates.decode_step
        for read, decoded in map(work.evaluation_tokens, (False, True))
    )
    return Estimate(
        steps=work.plan.steps,
        tokens=trained + work.read_tokens,
        evaluations=len(work.plan.evaluated),
        parameters=parameters,
        trained_parameters=memory.trained,
        training_seconds=training,
        evaluation_seconds=(fewest + most) / 2,
        at_least=training + fewest,
        at_most=training + most,
        memory=max((memory.step(*of) for of in work.sizes), key=lambda held: sum(held.values())),
        device=str(model.device),
        rates=rates,
        plan=str(work.plan),
    )


def calibrate(model: PreTrainedModel, tokenizer, task: Task, config: TrainConfig, **about) -> Rates:
    """Time a few forwards, backwards and generations of a run; serves other runs of this model.

    `about`: `rows` and `prompt_format` as for `estimate`.
    """
    return estimate(model, tokenizer, task, config, **about).rates

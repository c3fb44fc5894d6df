"""What a run will take: steps and tokens counted, time and memory from a short calibration.

Counted exactly, from the tokenised rows and the batch plan: steps, tokens, evaluations. Measured
on this machine with the real model: the seconds of a token trained, read and generated and of an
optimizer step (with a learning rate of 0, which changes no weight), and the bytes that a token
keeps for the backward pass. The rest is multiplication. What cannot be known beforehand is how
long the generations of an unlearned model are: between the answers' lengths and `max_new_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.models.scoring import scored_at_once
from npo_kit.trainer.config import TrainConfig
from npo_kit.trainer.estimates.counts import Workload
from npo_kit.trainer.estimates.rates import FULL, Rates, as_trained, measure_rates


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
    memory: dict[str, int]  # bytes by what holds them, at the peak
    device: str

    @property
    def seconds(self) -> float:
        """Training and evaluations; loading the model is not counted."""
        return self.training_seconds + self.evaluation_seconds

    @property
    def memory_bytes(self) -> int:
        """The most that torch holds at once; libraries and CUDA's own context come on top."""
        return sum(self.memory.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {readable_bytes(n)}" for what, n in self.memory.items() if n)
        share = self.trained_parameters / self.parameters
        return "\n".join(
            [
                f"{self.steps:,} steps, {self.tokens:,} tokens, {self.evaluations} evaluations",
                f"{self.parameters:,} parameters, {share:.2%} of them trained, on {self.device}",
                f"time: about {readable_time(self.seconds)} "
                f"({readable_time(self.at_least)} to {readable_time(self.at_most)}), "
                f"{readable_time(self.evaluation_seconds)} of it evaluation",
                f"memory: about {readable_bytes(self.memory_bytes)} at the peak ({parts})",
            ]
        )


def readable_time(seconds: float) -> str:
    """Such as 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def readable_bytes(count: float) -> str:
    """Such as 512 MB or 14.2 GB; powers of ten."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


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
    `prompt_format`: the tokenizer's, where there is one that remembers.
    The model is left as it was. Raises KitError as `unlearn` does, and where memory runs out.
    """
    with as_trained(model, config):
        workload = Workload(model, tokenizer, task, config, rows, prompt_format)
        rates = rates or measure_rates(workload)
        training, (fewest, most) = _training(workload, rates), _evaluations(workload, rates)
        parameters = list(model.parameters())
        return Estimate(
            steps=len(workload.batches),
            tokens=workload.trained_tokens + workload.read_tokens,
            evaluations=workload.evaluations,
            parameters=model.num_parameters(),
            trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            training_seconds=training,
            evaluation_seconds=(fewest + most) / 2,
            at_least=training + fewest,
            at_most=training + most,
            memory=_memory(workload, rates),
            device=str(model.device),
        )


def calibrate(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    config: TrainConfig,
    *,
    rows: Sequence[Row] | None = None,
    prompt_format: PromptFormat | None = None,
) -> Rates:
    """Time a few forwards, backwards and generations of a run; serves other runs of this model."""
    with as_trained(model, config):
        return measure_rates(Workload(model, tokenizer, task, config, rows, prompt_format))


# --- time ---------------------------------------------------------------------------------------


def _training(workload: Workload, rates: Rates) -> float:
    """Seconds of all steps and of what the reference says beforehand."""
    tokens = workload.trained_tokens * rates.trained_token + workload.read_tokens * rates.read_token
    return tokens + len(workload.batches) * rates.step


def _evaluations(workload: Workload, rates: Rates) -> tuple[float, float]:
    """Seconds of all evaluations: with the shortest and with the longest generations."""
    if not workload.evaluations:
        return 0.0, 0.0
    scored = sum(len(e.ids) - 1 for answers in workload.questions for e in answers)
    seconds = []
    for steps, longest in zip(workload.decoded(), (False, True), strict=True):
        judged = workload.prompt_tokens + workload.generated(longest) if workload.judged else 0
        each = scored * rates.scored_token + steps * rates.decode_step + judged * rates.read_token
        seconds.append(workload.whole_evaluations * each)
    return seconds[0], seconds[1]


# --- memory -------------------------------------------------------------------------------------


def _memory(workload: Workload, rates: Rates) -> dict[str, int]:
    """Bytes at the peak, which is in a training step or in an evaluation."""
    model = workload.model
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = sum(p.numel() * p.element_size() for p in (*model.parameters(), *model.buffers()))
    gradients = sum(p.numel() * p.element_size() for p in trained)
    cast = trained if workload.config.gradient_checkpointing else model.parameters()
    halved = 2 * sum(p.numel() for p in cast if p.ndim > 1 and p.dtype == torch.float32)
    copied = workload.judged or "retain_ref" in workload.method.roles
    copied = copied and not workload.config.lora_rank  # there the adapter is switched off
    held = {"weights": weights, "frozen copy": weights if copied else 0, "AdamW": 2 * gradients}
    training = {
        "gradients": gradients,
        "weights in half precision": halved if workload.precision != "fp32" else 0,
        **_of_forward(workload, rates),
    }
    return held | max(training, _of_evaluation(workload), key=lambda parts: sum(parts.values()))


def _of_forward(workload: Workload, rates: Rates) -> dict[str, int]:
    """What the largest training forward keeps, its logits and their gradient among it."""
    vocabulary = workload.model.get_output_embeddings().weight.shape[0]
    each = 3 * FULL + (0 if workload.precision == "fp32" else 2)  # bytes of a logit, all copies
    largest, token = (0, 0), rates.saved_token
    if workload.config.gradient_checkpointing:  # the input of each layer, and one layer whole
        layers = workload.model.config.get_text_config().num_hidden_layers
        hidden = workload.model.get_output_embeddings().weight.shape[1]
        token = token / layers + layers * hidden * (FULL if workload.precision == "fp32" else 2)
    for batch in workload.micro_batches():
        rows = [e for of_role in batch.values() for e in of_role]
        answers = sum(e.answer_length for e in rows)
        if "retain_ref" in workload.method.roles:  # policy's and reference's distributions, whole
            answers += 2 * sum(e.answer_length for e in batch["retain"])
        kept = round(sum(len(e.ids) - 1 for e in rows) * token)
        largest = max(largest, (kept, answers * vocabulary * each), key=sum)
    return {"activations": largest[0], "logits": largest[1]}


def _of_evaluation(workload: Workload) -> dict[str, int]:
    """Logits of the largest batch of answers, or of generations to judge, scored at once."""
    if not workload.questions:
        return {}
    vocabulary = workload.model.get_output_embeddings().weight.shape[0]
    budget = scored_at_once(workload.model)
    width = FULL if workload.precision == "fp32" else 2
    answers = sum(e.answer_length for row in workload.questions for e in row)
    spoken = workload.generated(longest=True) if workload.judged else 0
    sizes = []
    for tokens, each in ((answers, width), (spoken, 2 * FULL + width % FULL)):
        share = tokens / (tokens + workload.prompt_tokens)
        sizes.append(min(tokens, budget * share) * each)
    return {"logits": round(max(sizes) * vocabulary)}

"""Estimates of a run: counted tokens times the seconds and bytes that a token takes here.

Steps, tokens and evaluations are counted exactly, with no model at hand. A run's own model and rows
are timed for the rest. The length of an unlearned model's texts cannot be known beforehand: it lies
between the true answers' lengths and `max_new_tokens`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from transformers import PreTrainedModel

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import Row, Task
from npo_kit.losses.combine import HELD
from npo_kit.models.adapters import add_adapter, remove_adapter
from npo_kit.models.arguments import refuse_other_types
from npo_kit.models.forward import autocast, can_pack, read_answers, recomputed_layers
from npo_kit.models.generation import generate
from npo_kit.models.placement import choose_placement
from npo_kit.models.sizes import Memory, kept_bytes, readable_bytes
from npo_kit.records.files import Json
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.trainer.loop import memory_advice
from npo_kit.trainer.updates import OPTIMIZERS
from npo_kit.trainer.workload import Workload, fed

DECODED = 8  # tokens of each timed generation


@dataclass(frozen=True)
class Estimate:
    """The cost of a run. Seconds are a guess, between `at_least` and `at_most`."""

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
        """Seconds of training and evaluations, without loading the model."""
        return self.training_seconds + self.evaluation_seconds

    @property
    def memory_bytes(self) -> int:
        """Bytes at the peak of a step; libraries and CUDA's own context come on top.

        An evaluation takes more where it is free: it halves its batches where memory runs out.
        """
        return sum(self.memory.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{what} {readable_bytes(n)}" for what, n in self.memory.items() if n)
        share = self.trained_parameters / self.parameters
        about, low, high, judging = map(
            readable_time, (self.seconds, self.at_least, self.at_most, self.evaluation_seconds)
        )
        between = f"{low} to {high}, " * (low != high)
        return (
            f"{self.plan}\n{self.tokens:,} tokens, {self.parameters:,} parameters, "
            f"{share:.2%} of them trained, on {self.device}\n"
            f"time: about {about} ({between}{judging} of it evaluation)\n"
            f"memory: about {readable_bytes(self.memory_bytes)} at the peak ({parts})"
        )


def readable_time(seconds: float) -> str:
    """Write a time such as 40 s, 12 min or 3.4 h."""
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
    """Estimate a run of this model on this task, on the device where the model is.

    `rows`: those to fine-tune on, with a FinetuneConfig (default: all of the task). `rates`: those
    of an earlier `calibrate` on the same model; without them it takes seconds to minutes.
    `prompt_format`: the tokenizer's, so that several estimates share its encoded rows.
    The model is left as it was. Raises KitError as `unlearn` does, and where memory runs out.
    """
    refuse_other_types("estimate", model, tokenizer, task, config, UnlearnConfig, FinetuneConfig)
    prompts = prompt_format or config.prompt_format(tokenizer, model)
    work = Workload(task, config, prompts, rows)
    precision = choose_placement(model.device, config.precision, model.dtype).precision
    with _as_trained(model, config):
        rates = rates or _measure_rates(model, work, precision)
        copied = (work.judges or work.compares) and not config.lora_rank
        how: Json = {"half": precision != "fp32", "recomputing": config.gradient_checkpointing}
        how |= {"moments": 2 * (config.optimizer == "adamw"), "gradients": HELD[work.combine]}
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
    """Time a few forwards, backwards and generations of a run, for other runs of this model too.

    `about`: `rows` and `prompt_format` as for `estimate`.
    """
    return estimate(model, tokenizer, task, config, **about).rates


# --- measurements -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Measured seconds, and for `kept_token` bytes."""

    trained_token: float  # forward and backward of a token of a training batch
    read_token: float  # forward without gradient
    step: float  # clipping and the optimizer
    decode_step: float  # one more token for a batch of generations
    kept_token: float  # kept for the backward pass in all layers


def _as_trained(model: PreTrainedModel, config: TrainConfig) -> ExitStack:
    """Return a context in which a model has the adapter that a run with LoRA would train."""
    undo = ExitStack()
    if config.lora_rank:
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
        name = add_adapter(model, config.lora_rank, config.lora_alpha, config.seed)
        undo.callback(remove_adapter, model, name)
    return undo


def _measure_rates(model: PreTrainedModel, workload: Workload, precision: str) -> Rates:
    """Time forwards, backwards, optimizer steps and generations of a run.

    The model, prepared for training, is left as it was: the learning rate is 0.
    """
    model.eval()  # dropout off, as in training
    batches = sorted((list(chain(*f.values())) for f in workload.forwards), key=fed)
    rows, saves = batches[len(batches) // 2], workload.config.gradient_checkpointing
    few = rows[:1] if saves else rows  # there may be no room for what all of them would keep
    trained = [p for p in model.parameters() if p.requires_grad]
    kind = OPTIMIZERS[workload.config.optimizer]
    optimizer = kind(trained, lr=0.0, weight_decay=0.0, fused=True)

    def read(some=rows) -> torch.Tensor:
        with autocast(model.device, precision):
            return read_answers(model, some, packed=packed).logps.mean()

    def train() -> None:
        with recomputed_layers(model, saves):
            loss = read()
        loss.backward()

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    try:
        with memory_advice("while a step was timed", workload.config):
            packed = can_pack(model, list(chain(*workload.plan.encoded.values())))
            kept = kept_bytes(model, lambda: read(few)) / fed(few)
            training, stepping = _seconds(model, train), _seconds(model, step)
            with torch.inference_mode():
                reading = _seconds(model, read)
                decoding = _decode_seconds(model, workload, precision)
    finally:
        model.zero_grad()
    return Rates(training / fed(rows), reading / fed(rows), stepping, decoding, kept)


def _decode_seconds(model: PreTrainedModel, workload: Workload, precision: str) -> float:
    """Time one more token for a whole batch of generations."""
    config = workload.config.evaluation
    if not workload.questions or not config:
        return 0.0
    prompts = [asked.prompt for asked in workload.writings[: config.batch_size]]
    end = workload.prompts.end_id
    write = partial(generate, model, prompts, end, DECODED, len(prompts))
    # on a CPU texts are written in fp32, as `evaluate` does
    with autocast(model.device, "fp32" if model.device.type == "cpu" else precision):
        steps = min(DECODED, 1 + max(map(len, write())))
        return _seconds(model, write) / steps


def _seconds(model: PreTrainedModel, work: Callable[[], object]) -> float:
    """Return the shortest of three times; the first run is slow."""
    wait, times = getattr(torch, model.device.type).synchronize, []
    for _ in range(3):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return min(times)

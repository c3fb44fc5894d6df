"""Seconds and bytes of a token, measured on this machine with a run's own model and rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from transformers import PreTrainedModel

from npo_kit.errors import KitError
from npo_kit.models.adapters import add_adapter, remove_adapter
from npo_kit.models.forward import autocast, can_pack, read_answers, recomputed_layers
from npo_kit.models.generation import generate
from npo_kit.models.sizes import kept_bytes
from npo_kit.trainer.config import TrainConfig
from npo_kit.trainer.estimates.counts import Workload, fed

DECODED = 8  # tokens of each generation that is timed


@dataclass(frozen=True)
class Rates:
    """Seconds, and for `kept_token` bytes."""

    trained_token: float  # forward and backward of a token of a training batch
    read_token: float  # forward without gradient
    step: float  # clipping and AdamW
    decode_step: float  # one more token for a batch of generations
    kept_token: float  # kept for the backward pass in all layers


def as_trained(model: PreTrainedModel, config: TrainConfig) -> ExitStack:
    """Return a context in which a model has the adapter that a run with LoRA would train."""
    undo = ExitStack()
    if config.lora_rank:
        for parameter in model.parameters():
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
        name = add_adapter(model, config.lora_rank, config.lora_alpha, config.seed)
        undo.callback(remove_adapter, model, name)
    return undo


def measure_rates(model: PreTrainedModel, workload: Workload, precision: str) -> Rates:
    """Time a few forwards, backwards, optimizer steps and generations of a run.

    The model, as it is trained, is given back as it was: the optimizer's learning rate is 0.
    Raises KitError where memory runs out.
    """
    model.eval()  # dropout off, as in training
    batches = sorted((list(chain(*f.values())) for f in workload.forwards), key=fed)
    rows, saves = batches[len(batches) // 2], workload.config.gradient_checkpointing
    few = rows[:1] if saves else rows  # there may be no room for what all of them would keep
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)

    def read(some=rows) -> torch.Tensor:
        with autocast(model.device, precision):
            return read_answers(model, some, packed=packed).logps.mean()

    def train() -> None:
        with recomputed_layers(model) if saves else nullcontext():
            loss = read()
        loss.backward()

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    try:
        packed = can_pack(model, list(chain(*workload.plan.encoded.values())))
        kept = kept_bytes(model, lambda: read(few)) / fed(few)
        training, stepping = _seconds(model, train), _seconds(model, step)
        with torch.inference_mode():
            reading, decoding = _seconds(model, read), _decode_seconds(model, workload, precision)
        return Rates(training / fed(rows), reading / fed(rows), stepping, decoding, kept)
    except torch.OutOfMemoryError:
        raise KitError(
            "out of memory while a step was timed: lower micro_batch_size (now "
            f"{workload.config.micro_batch_size}) or take a smaller model"
        ) from None
    finally:
        model.zero_grad()


def _decode_seconds(model: PreTrainedModel, workload: Workload, precision: str) -> float:
    """Seconds that one more token costs a whole batch of generations."""
    if not workload.questions:
        return 0.0
    first = [answers[0] for answers in workload.questions[: workload.config.evaluation.batch_size]]
    prompts, end = [answer.ids[: answer.prompt_length] for answer in first], workload.prompts.end_id
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

"""Seconds and bytes of a token, measured on this machine with a run's own model and rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from npo_kit.data.prompts import Encoded
from npo_kit.errors import KitError
from npo_kit.models.adapters import add_adapter, remove_adapter
from npo_kit.models.generation import generate
from npo_kit.models.recompute import recomputed_layers
from npo_kit.models.scoring import autocast, can_pack, read_answers, score, scored_at_once
from npo_kit.trainer.config import TrainConfig
from npo_kit.trainer.estimates.counts import Workload

DECODED = 16  # tokens of each generation that is timed
FULL = 4  # bytes of a number in full precision


@dataclass(frozen=True)
class Rates:
    """What was measured; seconds, or bytes for `saved_token`."""

    trained_token: float  # forward and backward of a token of a training batch
    read_token: float  # forward without gradient
    step: float  # clipping and AdamW
    scored_token: float  # of an evaluation's answers, prompts counted with each
    decode_step: float  # one more token for a batch of generations
    saved_token: float  # kept for the backward pass: all layers, without what the head keeps


@contextmanager
def as_trained(model: PreTrainedModel, config: TrainConfig) -> Iterator[None]:
    """Within, a model has the adapter that a run with LoRA would train."""
    if not config.lora_rank:
        yield
        return
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    name = add_adapter(model, config.lora_rank, config.lora_alpha, config.seed)
    try:
        yield
    finally:
        remove_adapter(model, name)
        for parameter, wanted in asked:
            parameter.requires_grad_(wanted)


def measure_rates(workload: Workload) -> Rates:
    """Time a few forwards, backwards, optimizer steps and generations of a run.

    The model, as it is trained, is given back as it was: the optimizer's learning rate is 0.
    Raises KitError where memory runs out.
    """
    model = workload.model
    model.eval()  # dropout off, as in training
    try:
        saved, trained, step = _time_training(workload)
        read, scored, decode = _time_reading(workload)
    except torch.OutOfMemoryError:
        raise KitError(
            f"out of memory while a step was timed: lower micro_batch_size (now "
            f"{workload.config.micro_batch_size}) or take a smaller model"
        ) from None
    finally:
        for parameter in model.parameters():
            parameter.grad = None
    return Rates(trained, read, step, scored, decode, saved)


def _time_training(workload: Workload) -> tuple[float, float, float]:
    """Bytes that a token keeps, seconds of a token trained, seconds of an optimizer step."""
    model = workload.model
    batches = sorted(_forwards(workload), key=lambda rows: sum(len(e.ids) for e in rows))
    largest, middle = batches[-1], batches[len(batches) // 2]
    packed = _packs(workload)
    saved = _saved_bytes(model, lambda: _forward(workload, largest, packed))
    vocabulary = model.get_output_embeddings().weight.shape[0]
    saved -= FULL * vocabulary * sum(e.answer_length for e in largest)
    tokens = sum(len(e.ids) - 1 for e in middle)

    saves = workload.config.gradient_checkpointing

    def train() -> None:
        with recomputed_layers(model) if saves else nullcontext():
            loss = _forward(workload, middle, packed)
        loss.backward()

    train()  # the first is slower
    trained = min(_seconds(model, train) for _ in range(3)) / tokens
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)

    def step() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    step()  # makes AdamW's state
    return max(0.0, saved) / sum(len(e.ids) - 1 for e in largest), trained, _seconds(model, step)


def _forwards(workload: Workload) -> list[list[Encoded]]:
    return [[e for rows in batch.values() for e in rows] for batch in workload.micro_batches()]


def _packs(workload: Workload) -> bool:
    with autocast(workload.model.device, workload.precision):
        return can_pack(workload.model, next(iter(workload.encoded.values()))[0])


def _forward(workload: Workload, rows: Sequence[Encoded], packed: bool) -> torch.Tensor:
    with autocast(workload.model.device, workload.precision):
        answers = read_answers(workload.model, rows, packed=packed)
    return -answers.logps.sum() / answers.mask.sum()


def _saved_bytes(model: PreTrainedModel, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps of a forward for its backward, the model's own weights aside."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and not (tensor.ndim == 2 and _is_weight(tensor, shapes)):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    shapes = {p.shape for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def _is_weight(tensor: torch.Tensor, shapes: set[torch.Size]) -> bool:
    """Whether it looks like a weight that autocast cast, which is counted elsewhere."""
    return tensor.dtype != torch.float32 and {tensor.shape, tensor.T.shape} & shapes != set()


def _time_reading(workload: Workload) -> tuple[float, float, float]:
    """Seconds of a token read without gradient, of a token scored, of a token decoded."""
    model, questions = workload.model, workload.questions
    packed, rows = _packs(workload), max(_forwards(workload), key=len)
    with torch.inference_mode(), autocast(model.device, workload.precision):

        def read() -> None:
            read_answers(model, rows, packed=packed)

        read()
        read_token = _seconds(model, read) / sum(len(e.ids) - 1 for e in rows)
        if not questions:
            return read_token, 0.0, 0.0
        sample = _sample(questions, scored_at_once(model))
        seconds = _seconds(model, lambda: score(model, sample))
        scored_token = seconds / sum(len(e.ids) - 1 for answers in sample for e in answers)
    with torch.inference_mode():
        return read_token, scored_token, _decode_seconds(workload)


def _sample(questions: Sequence[list[Encoded]], tokens: int) -> list[list[Encoded]]:
    """Questions evenly spaced, of about so many tokens."""
    total = sum(len(e.ids) for answers in questions for e in answers)
    return list(questions[:: math.ceil(total / tokens)])


def _decode_seconds(workload: Workload) -> float:
    """Seconds that one more token costs a whole batch of generations."""
    config, model = workload.config.evaluation, workload.model
    precision = "fp32" if model.device.type == "cpu" else workload.precision  # as evaluate does
    if not config.max_new_tokens:
        return 0.0
    prompts = [answers[0].ids[: answers[0].prompt_length] for answers in workload.questions]
    prompts = prompts[:: max(1, len(prompts) // config.batch_size)][: config.batch_size]
    wanted = min(DECODED, config.max_new_tokens)
    end, texts = workload.format.end_id, []

    def decode() -> None:
        with autocast(model.device, precision):
            texts.extend(generate(model, prompts, end, wanted, config.batch_size))

    seconds = _seconds(model, decode)
    return seconds / min(wanted, 1 + max(map(len, texts)))


def _seconds(model: PreTrainedModel, work: Callable[[], object]) -> float:
    _wait(model.device)
    started = time.perf_counter()
    work()
    _wait(model.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()

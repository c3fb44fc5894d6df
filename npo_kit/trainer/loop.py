"""The one training loop, a generator: fine-tuning and unlearning are the same loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from npo_kit import losses
from npo_kit.data.tasks import Row, Task
from npo_kit.errors import KitError
from npo_kit.losses.methods import Method
from npo_kit.metrics.evaluation import Progress, evaluate
from npo_kit.models import distributed
from npo_kit.models.placement import choose_placement
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.checkpoints import Checkpoints
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.trainer.events import Collapse, Event
from npo_kit.trainer.plan import RunPlan, rows_to_read, steps_in
from npo_kit.trainer.updates import Updates


def finetune(
    model: PreTrainedModel,
    tokenizer,
    rows: Sequence[Row],
    config: FinetuneConfig | None = None,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Event]:
    """Fine-tune `model` in place on the answers of `rows`, one event at a time.

    Evaluated on `task` where one is given. Events, checkpoints and errors as of `unlearn`.
    """
    config = config or FinetuneConfig()
    if task is None:
        config = replace(config, evaluation=None)
    loop = _Loop(model, tokenizer, losses.FINETUNE, {"retain": rows}, config, progress, checkpoints)
    return loop.run(task)


def unlearn(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    config: UnlearnConfig | None = None,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Event]:
    """Unlearn the forget rows of `task` in `model`, in place, one event at a time.

    Yields a `Step` per update and an `Evaluation` before the first, at the end of epochs (step
    floor(epoch * rows / batch_size)) and after the last; a `Collapse`, last, if a loss or weight
    turns non-finite, after an evaluation of the last finite state where there is one. Dropout is
    off throughout, so that the reference's log-probs and the policy's agree at the start. On one
    machine with one thread count the same seed gives the same events, timings aside. Raises
    KitError on bad input at once, and when memory runs out. `progress` is told how
    evaluations advance. With `checkpoints` the state is kept after steps, once they have been
    taken by the caller and before their evaluation; `model` must be the one that the run began
    with, and only the events after `checkpoints.start` come.
    """
    config = config or UnlearnConfig()
    method, rows = config.composed, rows_to_read(task, config)
    return _Loop(model, tokenizer, method, rows, config, progress, checkpoints).run(task)


def total_steps(config: TrainConfig, n_rows: int) -> int:
    """Optimizer steps of a run that `n_rows` drive."""
    return steps_in(config.epochs, n_rows, config.batch_size)


class _Loop:
    """One run."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer,
        method: Method,
        rows: dict[str, Sequence[Row]],
        config: TrainConfig,
        progress: Progress | None,
        checkpoints: Checkpoints | None,
    ):
        if distributed.in_parts():
            _refuse_in_parts(config, checkpoints)
        self.model, self.method, self.config = model, method, config
        self.progress, self.checkpoints = progress, checkpoints
        self.precision = choose_placement(model.device, config.precision, model.dtype).precision
        self.format = config.prompt_format(tokenizer, model)
        self.plan = RunPlan(method, rows, self.format, config)

    def run(self, task: Task | None) -> Iterator[Event]:
        """The story: remember the reference, evaluate, then step by step."""
        plan, due = self.plan, self.plan.evaluated
        self.model.eval()  # dropout off
        with _memory_advice("before the first step", self.config):
            updates = Updates(self.model, self.method, plan, self.config, self.precision)
            start, evaluated = self._go_on(updates)
        if start in due - evaluated:
            yield self._evaluate(updates, task, start)
        for number, batch in enumerate(plan.batches[start:], start + 1):
            with _memory_advice(f"in step {number}", self.config):
                event = updates.step(number, batch)
            if isinstance(event, Collapse):
                if self.config.evaluation and number - 1 not in due | evaluated:
                    yield self._evaluate(updates, task, number - 1, full=True)
                yield event
                return
            yield event
            if (number in due or number == plan.steps) and not updates.finite:
                yield Collapse(number, "a weight is not finite")
                return
            self._keep(updates, number)
            if number in due:
                yield self._evaluate(updates, task, number)

    def _go_on(self, updates: Updates) -> tuple[int, set[int]]:
        """The step to go on from, with the state of then, and the steps evaluated already."""
        if not self.checkpoints:
            return 0, set()
        self.checkpoints.restore(updates.training)
        start = self.checkpoints.start
        return start, {start} if self.checkpoints.evaluated else set()

    def _keep(self, updates: Updates, number: int) -> None:
        if self.checkpoints and number in self.plan.ends(self.checkpoints.every):
            distributed.in_main(lambda: self.checkpoints.save(number, updates.training))

    def _evaluate(self, updates: Updates, task: Task, step: int, full: bool = False) -> Evaluation:
        config, few = self.config.evaluation, self.config.intermediate_rows
        if few and not full and step not in (0, self.plan.steps):
            config = replace(config, max_rows=min(few, config.max_rows or few))
        evaluation = evaluate(
            updates.whole_model,
            self.format,
            task,
            config,
            original=updates.frozen,
            precision=self.precision,
            progress=self.progress,
        )
        return replace(evaluation, step=step, epoch=self.plan.epoch(step))


class _memory_advice:
    """Turns running out of memory within into one sentence with the next step."""

    def __init__(self, where: str, config: TrainConfig):
        self.where, self.config = where, config

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and issubclass(kind, torch.OutOfMemoryError):
            raise KitError(
                f"out of memory {self.where}: lower micro_batch_size (now "
                f"{self.config.micro_batch_size}), which changes no result, or take a smaller model"
            ) from None


def _refuse_in_parts(config: TrainConfig, checkpoints: Checkpoints | None) -> None:
    """KitError for what is not done with a model of which each process holds a part."""
    if config.lora_rank:
        raise KitError("with FSDP no LoRA is trained: start without FSDP, or leave out lora_rank")
    if checkpoints:
        raise KitError(
            "with FSDP no checkpoints are written: start without FSDP, or set checkpoint_every to 0"
        )

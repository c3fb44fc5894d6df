"""The one training loop, a generator: fine-tuning and unlearning are the same loop."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from npo_kit import losses
from npo_kit.data.tasks import Row, Task
from npo_kit.errors import KitError
from npo_kit.losses.methods import Method
from npo_kit.metrics.evaluation import evaluate
from npo_kit.metrics.progress import Progress
from npo_kit.models import distributed
from npo_kit.models.arguments import refuse_no_rows, refuse_other_types
from npo_kit.models.placement import choose_placement
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.alternates import with_alternates
from npo_kit.trainer.checkpoints import Checkpoints
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.trainer.events import Collapse, Event, Events
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

    It is evaluated on `task`, if one is given. Events, checkpoints and errors are as in `unlearn`.
    """
    refuse_no_rows("finetune: rows", rows)
    judged = Task("rows", [], list(rows), {}) if task is None else task
    refuse_other_types("finetune", model, tokenizer, judged, config, FinetuneConfig)
    config = config or FinetuneConfig()
    if task is None:
        config = replace(config, evaluation=None)
    loop = _Loop(model, tokenizer, losses.FINETUNE, {"retain": rows}, config, progress, checkpoints)
    return Events(loop.run(task), "finetune")


def unlearn(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    config: UnlearnConfig | None = None,
    *,
    first: Evaluation | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Event]:
    """Unlearn the forget rows of `task` in `model`, in place, one event at a time.

    Yields a `Step` per update and an `Evaluation` before the first, at the end of epochs (step
    floor(epoch * rows / batch_size)) and after the last. If a loss or weight becomes non-finite it
    ends with a `Collapse`, after an evaluation of the last finite state where there is one. Dropout
    is off, so that the log-probs of reference and policy agree at the start. The same seed gives
    the same events, except for timings, on one machine with one thread count. Raises KitError on
    bad input at once, and when memory runs out. A method that wants alternates draws them first,
    for forget rows without any (`with_alternates`). `first` is an evaluation of `model` as it is,
    if there is one already. `progress`, such as `progress_bars()`, follows the evaluations and what
    comes before the first step.

    `checkpoints` keep the state after a step, once the caller has taken its event, and before its
    evaluation. A resumed run needs the `model` that it began with, and yields only the events after
    `checkpoints.start`.
    """
    refuse_other_types("unlearn", model, tokenizer, task, config, UnlearnConfig)
    config = config or UnlearnConfig()
    method = config.composed
    if method.alternates:
        prompts = config.prompt_format(tokenizer, model)
        how = (method.alternates, config.seed, progress)
        task = with_alternates(model, prompts, task, *how)
    rows = rows_to_read(task, config)
    loop = _Loop(model, tokenizer, method, rows, config, progress, checkpoints, first)
    return Events(loop.run(task), "unlearn")


def total_steps(config: TrainConfig, n_rows: int) -> int:
    """Count the optimizer steps of a run that `n_rows` drive."""
    return steps_in(config.epochs, n_rows, config.batch_size)


@dataclass
class _Loop:
    """One run."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: Method
    rows: dict[str, Sequence[Row]]
    config: TrainConfig
    progress: Progress | None
    checkpoints: Checkpoints | None
    first: Evaluation | None = None  # of the model as it is

    def __post_init__(self):
        model, config = self.model, self.config
        if distributed.in_parts():
            _refuse_in_parts(config, self.checkpoints)
        self.precision = choose_placement(model.device, config.precision, model.dtype).precision
        self.format = config.prompt_format(self.tokenizer, model)
        self.plan = RunPlan(self.method, self.rows, self.format, config)

    def run(self, task: Task | None) -> Generator[Event, None, None]:
        """The story: remember the reference, evaluate, then go step by step."""
        plan, due, checkpoints = self.plan, self.plan.evaluated, self.checkpoints
        kept, start, evaluated = set(), 0, set()
        self.model.eval()  # dropout off
        with memory_advice("before the first step", self.config):
            updates = Updates(
                self.model, self.method, plan, self.config, self.precision, self.progress
            )
            if checkpoints:
                checkpoints.restore(updates.training)
                kept, start = plan.ends(checkpoints.every), checkpoints.start
                evaluated = {start} if checkpoints.evaluated else set()
        if start in due - evaluated:
            yield (not start and self.first) or self._evaluate(updates, task, start)
        for number, batch in enumerate(plan.batches[start:], start + 1):
            with memory_advice(f"in step {number}", self.config):
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
            if checkpoints and number in kept:
                distributed.in_main(partial(checkpoints.save, number, updates.training))
            if number in due:
                yield self._evaluate(updates, task, number)

    def _evaluate(
        self, updates: Updates, task: Task | None, step: int, full: bool = False
    ) -> Evaluation:
        config, few = self.config.evaluation, self.config.intermediate_rows
        assert config is not None  # else no evaluation is due
        assert task is not None
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


@contextmanager
def memory_advice(where: str, config: TrainConfig) -> Iterator[None]:
    """In this context, turn running out of memory into one sentence with the next step."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise KitError(
            f"out of memory {where}: lower micro_batch_size (now {config.micro_batch_size}), which "
            "changes no result, or take a smaller model"
        ) from None


def _refuse_in_parts(config: TrainConfig, checkpoints: Checkpoints | None) -> None:
    """Raise KitError for what the kit does not do where each process holds a part of the model."""
    if config.lora_rank:
        raise KitError("with FSDP no LoRA is trained: start without FSDP, or leave out lora_rank")
    if checkpoints:
        raise KitError(
            "with FSDP no checkpoints are written: start without FSDP, or set checkpoint_every to 0"
        )

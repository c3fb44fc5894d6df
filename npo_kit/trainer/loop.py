"""The one training loop, a generator: fine-tuning and unlearning are the same loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from npo_kit import losses
from npo_kit.data.prompts import PromptFormat, steps_in
from npo_kit.data.tasks import Row, Task
from npo_kit.errors import KitError
from npo_kit.losses.paper import Answers, Method
from npo_kit.metrics.evaluation import Progress, evaluate
from npo_kit.models import distributed
from npo_kit.models.adapters import add_adapter
from npo_kit.models.loading import choose_placement, context_length, refuse_untrainable
from npo_kit.models.recompute import recomputed_layers
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.checkpoints import Checkpoints, Training
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.trainer.events import Collapse, Event, Step
from npo_kit.trainer.plan import Numbers, RunPlan, rows_to_read
from npo_kit.trainer.roles import RoleReader, as_it_is


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
    """State of one run."""

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
        self.checkpoints = checkpoints
        self.method, self.config, self.progress = method, config, progress
        self.hyper = dict(getattr(config, "hyper", {}))
        self.precision = choose_placement(model.device, config.precision, model.dtype).precision
        self.format = PromptFormat(tokenizer, config.prompt, context_length(model))
        self.model = model
        self.plan = RunPlan(method, rows, self.format, config)

    def run(self, task: Task | None) -> Iterator[Event]:
        """The story: remember the reference, evaluate, then step by step."""
        plan, due = self.plan, self.plan.evaluated
        self.accelerator = distributed.start_accelerator(self.model.device, self.precision)
        distributed.refuse_unlike(self.model)
        self.model.eval()  # dropout off
        with _memory_advice("before the first step", self.config):
            self.adapter = self._adapter()
            self.reader = RoleReader(
                self.method,
                plan.encoded,
                self.model,
                self.precision,
                self.config.micro_batch_size,
                self.adapter,
            )
            self.original = self._original()
            self._prepare()
            start, evaluated = self._go_on()
        if start in due - evaluated:
            yield self._evaluate(task, start)
        for number, batch in enumerate(plan.batches[start:], start + 1):
            with _memory_advice(f"in step {number}", self.config):
                event = self._step(number, batch)
            if isinstance(event, Collapse):
                if self.config.evaluation and number - 1 not in due | evaluated:
                    yield self._evaluate(task, number - 1, full=True)
                yield event
                return
            yield event
            if (number in due or number == plan.steps) and not self._weights_finite():
                yield Collapse(number, "a weight is not finite")
                return
            self._keep(number)
            if number in due:
                yield self._evaluate(task, number)

    # --- preparation ---

    def _adapter(self) -> str | None:
        """With LoRA the name of the new adapter, the only thing that is trained from here on."""
        config = self.config
        refuse_untrainable(self.model, lora=bool(config.lora_rank))
        if not config.lora_rank:
            return None
        return add_adapter(self.model, config.lora_rank, config.lora_alpha, config.seed)

    def _original(self) -> PreTrainedModel | None:
        """The model before unlearning, where generations are to be judged by it."""
        evaluation = self.config.evaluation
        if not (evaluation and evaluation.fluency and evaluation.max_new_tokens):
            return None
        if self.plan.driver != "forget":
            return None
        return self.reader.frozen or as_it_is(self.model, self.adapter)

    def _prepare(self) -> None:
        """Model, optimizer (AdamW) and schedule (warm-up, then linear to 0)."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )
        self.outline = distributed.outline(self.model) if distributed.in_parts() else None
        self.model, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        warmup = self.plan.step_at(self.config.warmup_epochs)
        self.scheduler = get_linear_schedule_with_warmup(optimizer, warmup, self.plan.steps)

    # --- checkpoints ---

    def _go_on(self) -> tuple[int, set[int]]:
        """The step to go on from, with the state of then, and the steps evaluated already."""
        if not self.checkpoints:
            return 0, set()
        self.checkpoints.restore(self._training())
        start = self.checkpoints.start
        return start, {start} if self.checkpoints.evaluated else set()

    def _keep(self, number: int) -> None:
        if self.checkpoints and number in self.plan.ends(self.checkpoints.every):
            distributed.in_main(lambda: self.checkpoints.save(number, self._training()))

    def _training(self) -> Training:
        model = self.accelerator.unwrap_model(self.model)
        return Training(model, self.optimizer, self.scheduler, self.accelerator.scaler)

    # --- one step ---

    def _step(self, number: int, batch: Numbers) -> Step | Collapse:
        started, lr = time.perf_counter(), self.scheduler.get_last_lr()[0]
        terms, weights, finite = self._backward(batch)
        if not finite:
            self.optimizer.zero_grad()
            return Collapse(number, "the loss is not finite")
        norm = distributed.full(
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        )
        if self.precision != "fp16" and not torch.isfinite(norm):
            self.optimizer.zero_grad()
            return Collapse(number, "the gradient is not finite")
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return Step(
            step=number,
            epoch=self.plan.epoch(number),
            loss=sum(self._weight(term) * value for term, value in terms.items()),
            terms=terms,
            grad_norm=norm.item(),
            lr=lr,
            weights=_quantiles(weights),
            skipped=self.accelerator.optimizer_step_was_skipped,
            seconds=time.perf_counter() - started,
        )

    def _backward(self, batch: Numbers) -> tuple[dict[str, float], list[Tensor], bool]:
        """Accumulate the gradient of a batch: its terms, its weights W, and if it was finite.

        Each process reads its rows; gradients, terms and weights are those of the whole batch.
        """
        forwards = self.reader.forwards(self.plan.driver, batch)
        counts = self.reader.counts(batch)
        hyper = self.hyper | self.reader.statistics(self.model, forwards)
        objectives = list(self.method.terms.values())
        terms = dict.fromkeys(self.method.terms, 0.0)
        weights: list[Tensor] = []
        for forward in forwards:
            with self._accumulating(last=forward is forwards[-1]):
                with self._memory_saved():
                    answers = self.reader.read(self.model, forward.numbers, objectives)
                values = losses.method_values(self.method, answers, **hyper)
                shares = self._shares(values, answers, counts, whole=len(forwards) == 1)
                loss = sum(self._weight(term) * share for term, share in shares.items())
                if not distributed.everywhere(torch.isfinite(loss)):
                    return terms, weights, False
                # the processes' gradients are averaged, and should be added up
                self.accelerator.backward(loss * (distributed.count() if forward.counts else 0))
            if not forward.counts:
                continue
            for term, share in shares.items():
                terms[term] += share.item()
            if self.method.forget and "forget" in losses.roles(self.method.forget):
                weights.append(losses.gradient_weights(self.method.forget, answers, **hyper).cpu())
        everyone = distributed.gather((terms, weights))
        terms = {term: sum(part[term] for part, _ in everyone) for term in terms}
        return terms, [w for _, part in everyone for w in part], True

    def _accumulating(self, last: bool):
        """The context of a forward and backward; copies of the model exchange gradients once."""
        if last or self.outline:
            return nullcontext()
        return self.accelerator.no_sync(self.model)

    def _memory_saved(self):
        """The context of a forward with gradient."""
        return (
            recomputed_layers(self.model) if self.config.gradient_checkpointing else nullcontext()
        )

    def _shares(
        self,
        values: dict[str, Tensor],
        answers: dict[str, Answers],
        counts: dict[str, tuple[int, int]],
        whole: bool,
    ) -> dict[str, Tensor]:
        """This micro-batch's share of each term's mean over the whole optimizer batch."""
        shares = {}
        for term, value in values.items():
            role = losses.roles(self.method.terms[term])[0]
            mask = answers[role].mask
            losses.denominator(value, mask)  # refuses other shapes
            if value.ndim == 0 and not (whole and distributed.count() == 1):
                raise KitError(
                    "this objective gives one number for a whole batch, which cannot be "
                    "accumulated: set micro_batch_size to batch_size, in one process"
                )
            count = {2: counts[role][0], 1: counts[role][1], 0: 1}[value.ndim]
            shares[term] = losses.total(value, mask) / count
        return shares

    def _weight(self, term: str) -> float:
        return getattr(self.method, f"{term}_weight")

    # --- evaluation ---

    def _weights_finite(self) -> bool:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return bool(torch.isfinite(distributed.norm(trained)))

    def _evaluate(self, task: Task, step: int, full: bool = False) -> Evaluation:
        config, few = self.config.evaluation, self.config.intermediate_rows
        if few and not full and step not in (0, self.plan.steps):
            config = replace(config, max_rows=min(few, config.max_rows or few))
        model = self.accelerator.unwrap_model(self.model)
        if self.outline:
            model = distributed.filled(self.outline, model)
        evaluation = evaluate(
            model,
            self.format,
            task,
            config,
            original=self.original,
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


def _quantiles(weights: list[Tensor]) -> dict[str, float] | None:
    if not weights:
        return None
    points = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    values = torch.cat(weights).double().quantile(torch.tensor(list(points.values())).double())
    return dict(zip(points, values.tolist(), strict=True))

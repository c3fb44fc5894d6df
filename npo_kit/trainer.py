"""The one training loop, a generator: fine-tuning and unlearning are the same loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from npo_kit import losses
from npo_kit.data import Row, Task, draw_refusals
from npo_kit.errors import KitError
from npo_kit.evaluation import EvaluationConfig, Progress, evaluate
from npo_kit.losses import Answers, Method
from npo_kit.models import choose_placement, context_length
from npo_kit.prompts import Encoded, PromptFormat, length_sorted, paired_batches
from npo_kit.runs import Evaluation
from npo_kit.scoring import autocast, read_answers, split_answers

PAIRINGS = ("fresh", "fixed")


@dataclass(frozen=True)
class TrainConfig:
    """What fine-tuning and unlearning have in common."""

    epochs: float = 5.0  # passes over the rows that drive the loop; 1 to 10
    batch_size: int = 32  # rows of an optimizer step; 4 to 64
    micro_batch_size: int = 8  # rows of a forward, for memory only: changes no result; 1 to 64
    lr: float = 1e-5  # peak learning rate; 1e-6 to 1e-3, larger for smaller models
    warmup_epochs: float = 1.0  # linear from 0 (so the first update is 0), then linear to 0
    weight_decay: float = 0.01  # of AdamW; 0 to 0.1
    max_grad_norm: float = 1.0  # gradients are clipped to this norm; 0.1 to 10, inf for never
    seed: int = 0  # of the order of rows, the pairing and the refusals
    precision: str = "auto"  # of the training forward: auto, fp32, bf16, fp16
    prompt: str = "auto"  # prompt style: auto, chat, qa, llama2
    evaluate_every: float | None = 1.0  # epochs between evaluations; None: only first and last
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)  # None: never

    def __post_init__(self):
        positive = ("epochs", "batch_size", "micro_batch_size", "lr", "max_grad_norm")
        for name in positive:
            if not getattr(self, name) > 0:
                raise KitError(f"{name} must be above 0, it is {getattr(self, name)}")
        if self.evaluate_every is not None and not self.evaluate_every > 0:
            raise KitError(f"evaluate_every must be above 0, it is {self.evaluate_every}")
        for name in ("warmup_epochs", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise KitError(f"{name} must not be negative, it is {getattr(self, name)}")


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
    retain_pairing: str = "fresh"  # retain rows drawn each epoch; fixed: one partner per forget row

    def __post_init__(self):
        super().__post_init__()
        unknown = set(self.hyper) - set(losses.method(self.method).hyperparameters)
        if unknown:
            known = ", ".join(losses.method(self.method).hyperparameters) or "none"
            raise KitError(
                f"method {self.method} has no hyper-parameter {min(unknown)!r}: it takes {known}"
            )
        if not self.hyper.get("beta", 1.0) > 0:
            raise KitError(f"beta must be above 0, it is {self.hyper['beta']}")
        if self.retain_pairing not in PAIRINGS:
            raise KitError(
                f"unknown retain_pairing {self.retain_pairing!r}: choose one of "
                f"{', '.join(PAIRINGS)}"
            )

    @property
    def composed(self) -> Method:
        """The method with the weights of this configuration."""
        chosen = losses.method(self.method)
        weights = {"forget_weight": self.forget_weight, "retain_weight": self.retain_weight}
        return replace(chosen, **{k: v for k, v in weights.items() if v is not None})


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    step: int  # from 1
    epoch: float  # passes over the driving rows so far
    loss: float  # weighted sum of the terms
    terms: dict[str, float]  # each term, reduced, unweighted
    grad_norm: float  # before clipping
    lr: float  # that the step used
    weights: dict[str, float] | None  # quantiles of W over the forget rows of the batch
    skipped: bool  # fp16: the gradient overflowed and the loss scale was lowered instead
    seconds: float


@dataclass(frozen=True)
class Collapse:
    """The run ended because a loss or a weight is no longer finite."""

    step: int
    reason: str


Event = Step | Evaluation | Collapse


def finetune(
    model: PreTrainedModel,
    tokenizer,
    rows: Sequence[Row],
    config: FinetuneConfig | None = None,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Fine-tune `model` in place on the answers of `rows`, one event at a time.

    Evaluated on `task` where one is given. Events and errors as of `unlearn`.
    """
    config = config or FinetuneConfig()
    if task is None:
        config = replace(config, evaluation=None)
    loop = _Loop(model, tokenizer, losses.FINETUNE, config, progress)
    yield from loop.run({"retain": rows}, task)


def unlearn(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    config: UnlearnConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Unlearn the forget rows of `task` in `model`, in place, one event at a time.

    Yields a `Step` per update and an `Evaluation` before the first, at the end of epochs (step
    floor(epoch * rows / batch_size)) and after the last; a `Collapse`, last, if a loss or weight
    turns non-finite: the model then keeps its last finite state. Dropout is off throughout, so that
    the reference's log-probs and the policy's agree at the start. On one machine with one thread
    count the same seed gives the same events, timings aside. Raises KitError on bad input before
    the first event, and when memory runs out. `progress` is told how evaluations advance.
    """
    config = config or UnlearnConfig()
    method = config.composed
    rows: dict[str, Sequence[Row]] = {"forget": task.forget}
    if "alternate" in method.roles:
        refusals = draw_refusals(len(task.forget), config.seed)
        rows["alternate"] = [
            {"question": row["question"], "answer": refusal}
            for row, refusal in zip(task.forget, refusals, strict=True)
        ]
    if method.retain:
        rows["retain"] = task.retain
    yield from _Loop(model, tokenizer, method, config, progress).run(rows, task)


class _Loop:
    """State of one run: the model, its optimizer, the encoded rows and the reference."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer,
        method: Method,
        config: TrainConfig,
        progress: Progress | None,
    ):
        self.method, self.config, self.progress = method, config, progress
        self.hyper = dict(getattr(config, "hyper", {}))
        placement = choose_placement(model.device, config.precision)
        self.precision = placement.precision
        # bf16 saves time in training only: on a CPU it slows generation down
        self.evaluation_precision = "fp32" if model.device.type == "cpu" else self.precision
        self.format = PromptFormat(tokenizer, config.prompt, context_length(model))
        self.accelerator = _accelerator(model.device, self.precision)
        self.model = model.eval()  # dropout off

    # --- the story ---

    def run(self, rows: dict[str, Sequence[Row]], task: Task | None) -> Iterator[Event]:
        self.encoded = {role: self.format.encode_all(rows[role]) for role in rows}
        plan = self._plan()
        due = self._evaluations_due(len(plan))
        self._remember_reference()
        optimizer, scheduler = self._optimizer(len(plan))
        if self.config.evaluation:
            yield self._evaluate(task, 0)
        for number, batch in enumerate(plan, 1):
            event = self._guarded_step(number, batch, optimizer, scheduler)
            if isinstance(event, Step) and number in due and not self._weights_finite():
                yield event
                event = Collapse(number, "a weight is not finite")
            elif isinstance(event, Collapse) and self.config.evaluation:
                yield self._evaluate(task, number - 1)
            yield event
            if isinstance(event, Collapse):
                return
            if number in due:
                yield self._evaluate(task, number)

    # --- preparation ---

    def _plan(self) -> list[tuple[list[int], list[int]]]:
        """Rows of each optimizer step: numbers of driving rows and of their retain partners."""
        config, driver = self.config, self.driver
        lengths = {role: [len(e.ids) for e in encoded] for role, encoded in self.encoded.items()}
        partners = lengths.get("retain") if driver == "forget" else None
        plan = paired_batches(
            lengths[driver],
            partners,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            fixed=getattr(config, "retain_pairing", "fresh") == "fixed",
        )
        if not plan:
            raise KitError(
                f"{config.epochs:g} epoch(s) of {len(lengths[driver])} rows do not fill one batch "
                f"of {config.batch_size}: lower batch_size or raise epochs"
            )
        return plan

    @property
    def driver(self) -> str:
        """The role whose rows make an epoch."""
        return "forget" if "forget" in self.encoded else "retain"

    def _evaluations_due(self, steps: int) -> set[int]:
        """Steps after which to evaluate: at the end of epochs, and after the last step."""
        every = self.config.evaluate_every
        if not self.config.evaluation:
            return set()
        ends = math.floor(self.config.epochs / every + 1e-9) if every else 0
        return {self._step_at(every * k) for k in range(1, ends + 1)} - {0} | {steps}

    def _step_at(self, epoch: float) -> int:
        return math.floor(epoch * len(self.encoded[self.driver]) / self.config.batch_size + 1e-9)

    def _epoch_at(self, step: int) -> float:
        return step * self.config.batch_size / len(self.encoded[self.driver])

    def _remember_reference(self) -> None:
        """What the frozen reference says: cached log-probs, or a copy where logits are needed."""
        evaluation = self.config.evaluation
        fluency = evaluation and evaluation.fluency and evaluation.max_new_tokens
        self.frozen = None
        if "retain_ref" in self.method.roles or (fluency and self.driver == "forget"):
            self.frozen = copy.deepcopy(self.model).requires_grad_(False)
        cached = {role.removesuffix("_ref") for role in self.method.roles if role.endswith("_ref")}
        self.reference: dict[str, list[Tensor]] = {}
        for role in cached - {"retain"}:
            self.reference[role] = self._token_logps(self.encoded[role])

    @torch.no_grad()
    def _token_logps(self, encoded: Sequence[Encoded]) -> list[Tensor]:
        """Token log-probs of each answer under the model as it is, in the training precision."""
        logps: list[Tensor] = [torch.empty(0)] * len(encoded)
        lengths = [len(e.ids) for e in encoded]
        for batch in length_sorted(lengths, 2 * self.config.micro_batch_size):
            with autocast(self.model.device, self.precision):
                answers = read_answers(self.model, [encoded[i] for i in batch])
            for i, line, mask in zip(batch, answers.logps, answers.mask, strict=True):
                logps[i] = line[mask.bool()]
        return logps

    def _optimizer(self, steps: int):
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True
        )
        warmup = self._step_at(self.config.warmup_epochs)
        self.model, optimizer = self.accelerator.prepare(self.model, optimizer)
        return optimizer, get_linear_schedule_with_warmup(optimizer, warmup, steps)

    # --- one step ---

    def _guarded_step(self, number: int, batch, optimizer, scheduler) -> Step | Collapse:
        try:
            return self._step(number, batch, optimizer, scheduler)
        except torch.OutOfMemoryError:
            raise KitError(
                f"out of memory in step {number}: lower micro_batch_size (now "
                f"{self.config.micro_batch_size}), which changes no result"
            ) from None

    def _step(self, number: int, batch, optimizer, scheduler) -> Step | Collapse:
        started, lr = time.perf_counter(), scheduler.get_last_lr()[0]
        micro_batches = self._micro_batches(*batch)
        counts = self._counts(*batch)
        statistics = self._statistics(micro_batches)
        terms = dict.fromkeys(self.method.terms, 0.0)
        weights: list[Tensor] = []
        for micro in micro_batches:
            answers = self._read(micro)
            values = losses.method_values(self.method, answers, **self.hyper, **statistics)
            reduced = self._reduce(values, answers, counts, single=len(micro_batches) == 1)
            loss = sum(self._weight(term) * value for term, value in reduced.items())
            if not torch.isfinite(loss):
                optimizer.zero_grad()
                return Collapse(number, "the loss is not finite")
            self.accelerator.backward(loss)
            for term, value in reduced.items():
                terms[term] += value.item()
            weights += self._gradient_weights(answers, statistics)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        if self.precision != "fp16" and not torch.isfinite(norm):
            optimizer.zero_grad()
            return Collapse(number, "the gradient is not finite")
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        return Step(
            step=number,
            epoch=self._epoch_at(number),
            loss=sum(self._weight(term) * value for term, value in terms.items()),
            terms=terms,
            grad_norm=norm.item(),
            lr=lr,
            weights=_quantiles(weights),
            skipped=self.accelerator.optimizer_step_was_skipped,
            seconds=time.perf_counter() - started,
        )

    def _micro_batches(self, drivers: list[int], partners: list[int]) -> list[dict[str, list[int]]]:
        """Row numbers of each role in each forward, rows of similar length together."""
        order = sorted(
            range(len(drivers)), key=lambda i: -len(self.encoded[self.driver][drivers[i]].ids)
        )
        size = self.config.micro_batch_size
        micros = []
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            micro = {role: [drivers[i] for i in chosen] for role in self.encoded}
            if partners:
                micro["retain"] = [partners[i] for i in chosen]
            micros.append(micro)
        return micros

    def _counts(self, drivers: list[int], partners: list[int]) -> dict[str, tuple[int, int]]:
        """Answer tokens and sequences of each role in the whole optimizer batch."""
        numbers = dict.fromkeys(self.encoded, drivers) | ({"retain": partners} if partners else {})
        return {
            role: (
                sum(len(rows[i].ids) - rows[i].prompt_length for i in numbers[role]),
                len(numbers[role]),
            )
            for role, rows in self.encoded.items()
        }

    def _read(self, micro: dict[str, list[int]]) -> dict[str, Answers]:
        """Every role that the terms read, on one micro-batch: the policy in one forward."""
        wanted = {role for f in self.method.terms.values() for role in losses.roles(f)}
        spoken = [role for role in self.encoded if role in wanted]
        encoded = {role: [self.encoded[role][i] for i in micro[role]] for role in spoken}
        keep_logits = "logits" in self.method.asks
        together = [e for role in spoken for e in encoded[role]]
        with autocast(self.model.device, self.precision):
            answers = read_answers(self.model, together, logits=keep_logits)
            parts = split_answers(answers, [len(encoded[role]) for role in spoken])
            batch = dict(zip(spoken, parts, strict=True))
            if "retain_ref" in wanted:
                with torch.no_grad():
                    batch["retain_ref"] = read_answers(
                        self.frozen, encoded["retain"], logits=keep_logits
                    )
        for role in self.reference:
            if f"{role}_ref" in wanted:
                batch[f"{role}_ref"] = self._cached(role, micro[role], batch[role])
        return batch

    def _cached(self, role: str, numbers: list[int], policy: Answers) -> Answers:
        logps = torch.zeros_like(policy.logps)
        for line, number in zip(logps, numbers, strict=True):
            known = self.reference[role][number]
            line[: len(known)] = known
        return Answers(logps, policy.labels, policy.mask)

    @torch.no_grad()
    def _statistics(self, micro_batches: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Batch statistics of the method, over the whole optimizer batch."""
        result = {}
        for name, objective in self.method.statistics.items():
            values = []
            for micro in micro_batches:
                batch: dict[str, Answers] = {}
                for role in losses.roles(objective):
                    if role.endswith("_ref"):
                        spoken = role.removesuffix("_ref")
                        batch[role] = self._cached(spoken, micro[spoken], batch[spoken])
                    else:
                        encoded = [self.encoded[role][i] for i in micro[role]]
                        with autocast(self.model.device, self.precision):
                            batch[role] = read_answers(self.model, encoded)
                values.append(objective(**batch))
            result[name] = torch.cat(values).mean()
        return result

    def _reduce(
        self,
        values: dict[str, Tensor],
        answers: dict[str, Answers],
        counts: dict[str, tuple[int, int]],
        single: bool,
    ) -> dict[str, Tensor]:
        """This micro-batch's share of each term's mean over the whole optimizer batch."""
        shares = {}
        for term, value in values.items():
            role = losses.roles(self.method.terms[term])[0]
            mask = answers[role].mask
            losses.denominator(value, mask)  # refuses other shapes
            if value.ndim == 0 and not single:
                raise KitError(
                    "this objective gives one number for a whole batch, which cannot be "
                    "accumulated: set micro_batch_size to batch_size"
                )
            count = {2: counts[role][0], 1: counts[role][1], 0: 1}[value.ndim]
            shares[term] = losses.total(value, mask) / count
        return shares

    def _weight(self, term: str) -> float:
        return getattr(self.method, f"{term}_weight")

    def _gradient_weights(self, answers: dict[str, Answers], statistics: dict) -> list[Tensor]:
        """W of each forget row; none where the forget term does not read the forget answers."""
        objective = self.method.forget
        if objective is None or "forget" not in losses.roles(objective):
            return []
        return [losses.gradient_weights(objective, answers, **self.hyper, **statistics)]

    # --- evaluation ---

    def _weights_finite(self) -> bool:
        norm = torch.nn.utils.get_total_norm(p.detach() for p in self.model.parameters())
        return bool(torch.isfinite(norm))

    def _evaluate(self, task: Task, step: int) -> Evaluation:
        original = self.frozen
        if original is None and step == 0 and self.driver == "forget":
            original = self.model
        evaluation = evaluate(
            self.accelerator.unwrap_model(self.model),
            self.format,
            task,
            self.config.evaluation,
            original=original,
            precision=self.evaluation_precision,
            progress=self.progress,
        )
        return replace(evaluation, step=step, epoch=self._epoch_at(step))


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    """An accelerator for this run; its process-wide state of an earlier run is cleared."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="fp16" if precision == "fp16" else "no"
    )
    if accelerator.num_processes > 1:
        raise KitError("training in several processes is not supported yet: start one process")
    return accelerator


def _quantiles(weights: list[Tensor]) -> dict[str, float] | None:
    if not weights:
        return None
    points = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    values = torch.cat(weights).float().quantile(torch.tensor(list(points.values())).to(weights[0]))
    return dict(zip(points, values.tolist(), strict=True))

"""Optimizer steps: accumulate the gradient of a batch over micro-batches, clip it, apply it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from npo_kit import losses
from npo_kit.errors import KitError
from npo_kit.losses import Answers, Method
from npo_kit.losses.objectives import asked
from npo_kit.metrics.progress import Progress
from npo_kit.models import distributed
from npo_kit.models.adapters import add_adapter
from npo_kit.models.forward import recomputed_layers
from npo_kit.models.loading import refuse_untrainable
from npo_kit.trainer.checkpoints import Training
from npo_kit.trainer.combining import Combining, Passed, refuse_combining
from npo_kit.trainer.config import TrainConfig, UnlearnConfig
from npo_kit.trainer.events import Collapse, Step
from npo_kit.trainer.plan import Numbers, RunPlan
from npo_kit.trainer.roles import RoleReader, as_it_is

OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Updates:
    """A model with its optimizer, its schedule (warm-up, then linear to 0) and its reference.

    With LoRA only a new adapter is trained. The constructor computes the reference's log-probs;
    it raises KitError where the model cannot be trained in this way.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        method: Method,
        plan: RunPlan,
        config: TrainConfig,
        precision: str,
        progress: Progress | None = None,
    ):
        refuse_untrainable(model, lora=bool(config.lora_rank))
        self.method, self.plan, self.config, self.precision = method, plan, config, precision
        self.accelerator = distributed.start_accelerator(model.device, precision)
        distributed.refuse_unlike(model)
        self.adapter = None
        if config.lora_rank:
            self.adapter = add_adapter(model, config.lora_rank, config.lora_alpha, config.seed)
        how = (precision, config.micro_batch_size, self.adapter, progress)
        self.reader = RoleReader(method, plan.encoded, model, *how)
        self.frozen: Any = None  # the model before unlearning, if it is to judge generations
        if plan.driver == "forget" and config.evaluation and config.evaluation.judges:
            self.frozen = self.reader.frozen or as_it_is(model, self.adapter)
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise KitError(
                "all of the model's parameters are frozen: model.requires_grad_(True), or set "
                "lora_rank to train an adapter"
            )
        optimizer = OPTIMIZERS[config.optimizer](
            trained, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.outline = distributed.outline(model) if distributed.in_parts() else None
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.combining: Combining | None = None
        if isinstance(config, UnlearnConfig) and config.combine != "sum":
            refuse_combining(config.combine, precision)
            self.combining = Combining(config.combine, method, trained, optimizer, config.rho)
        self.scheduler = get_linear_schedule_with_warmup(optimizer, plan.warmup, plan.steps)

    @property
    def training(self) -> Training:
        """The state that a step changes, for checkpoints."""
        model = self.accelerator.unwrap_model(self.model)
        return Training(model, self.optimizer, self.scheduler, self.accelerator.scaler)

    @property
    def whole_model(self) -> PreTrainedModel:
        """The model to evaluate, with all its weights in every process."""
        model = self.accelerator.unwrap_model(self.model)
        whole = distributed.filled(self.outline, model) if self.outline else model
        return cast(PreTrainedModel, whole)

    @property
    def finite(self) -> bool:
        """Whether every trained weight is a finite number."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return bool(torch.isfinite(distributed.norm(trained)))

    def step(self, number: int, batch: Numbers) -> Step | Collapse:
        """Update the model by the rows of a batch; a Collapse leaves it as it was."""
        started, lr = time.perf_counter(), self.scheduler.get_last_lr()[0]
        backward = partial(self._backward, batch)
        how = self.combining.pass_by if self.combining else lambda add: add(self.method)
        terms, weights, finite = how(backward)
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
        if self.combining:
            self.combining.remember()
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

    def _backward(self, batch: Numbers, method: Method) -> Passed:
        """Accumulate the gradient of a batch; return its terms, its weights W, and if it is finite.

        `method` is the run's, or a term of it alone. Each process reads its own rows; gradients,
        terms and weights are of the whole batch.
        """
        forwards = self.reader.forwards(self.plan.driver, batch)
        counts = self.reader.counts(batch)
        statistics = self.reader.statistics(self.model, forwards, method)
        objectives = list(method.terms.values())
        terms = dict.fromkeys(method.terms, 0.0)
        weights: list[Tensor] = []
        for forward in forwards:
            # copies of the model exchange gradients once, in the last backward pass
            waits = forward is not forwards[-1] and not self.outline
            with self.accelerator.no_sync(self.model) if waits else nullcontext():
                with recomputed_layers(self.model, self.config.gradient_checkpointing):
                    answers = self.reader.read(self.model, forward.numbers, objectives)
                values = losses.method_values(method, answers, **statistics)
                shares = self._shares(values, answers, counts, whole=len(forwards) == 1)
                weighted = (self._weight(term) * share for term, share in shares.items())
                loss = cast(Tensor, sum(weighted))
                if not loss.requires_grad:
                    raise KitError(
                        "the loss has no gradient: an objective must compute with the policy's "
                        "log-probs, without detach, no_grad or item"
                    )
                if not all(distributed.gather(bool(torch.isfinite(loss)))):
                    return terms, weights, False
                # gradients are averaged over the processes; this makes the average their sum
                self.accelerator.backward(loss * (distributed.count() if forward.counts else 0))
            if not forward.counts:
                continue
            for term, share in shares.items():
                terms[term] += share.item()
            forget = method.terms.get("forget")
            if forget and "forget" in losses.roles(forget) and "hidden" not in asked(forget):
                weights.append(losses.gradient_weights(forget, answers, **statistics).cpu())
        everyone = distributed.gather((terms, weights))
        terms = {term: sum(part[term] for part, _ in everyone) for term in terms}
        return terms, [w for _, part in everyone for w in part], True

    def _shares(
        self,
        values: dict[str, Tensor],
        answers: dict[str, Answers],
        counts: dict[str, tuple[int, int]],
        whole: bool,
    ) -> dict[str, Tensor]:
        """Return this micro-batch's share of each term's mean over the whole optimizer batch."""
        shares = {}
        for term, value in values.items():
            role = losses.roles(self.method.terms[term])[0]
            mask = answers[role].mask
            losses.denominator(value, mask)  # refuses other shapes
            if value.ndim == 0 and not (whole and distributed.count() == 1):
                name = self.method.terms[term].__name__
                raise KitError(
                    f"{name}, this method's {term} term, gives one number for a whole batch, which "
                    "cannot be accumulated: set micro_batch_size to batch_size, in one process"
                )
            count = {2: counts[role][0], 1: counts[role][1], 0: 1}[value.ndim]
            shares[term] = losses.total(value, mask) / count
        return shares

    def _weight(self, term: str) -> float:
        return getattr(self.method, f"{term}_weight")


def _quantiles(weights: list[Tensor]) -> dict[str, float] | None:
    if not weights:
        return None
    points = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    values = torch.cat(weights).double().quantile(torch.tensor(list(points.values())).double())
    return dict(zip(points, values.tolist(), strict=True))

"""The roles of a training batch: answers to forget or retain, as policy and reference read them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.data.prompts import Encoded
from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers
from npo_kit.losses.methods import Method
from npo_kit.losses.objectives import asked, roles
from npo_kit.metrics.progress import Progress, counter
from npo_kit.models import distributed
from npo_kit.models.adapters import WithoutAdapter
from npo_kit.models.batching import length_sorted, longest_first
from npo_kit.models.forward import autocast, can_pack, read_answers, split_answers
from npo_kit.trainer.plan import Numbers


class Forward(NamedTuple):
    """A micro-batch."""

    numbers: Numbers
    counts: bool  # False: only fills up, so that all processes take equally many


class RoleReader:
    """Reads the answers of every role that a method needs, for batches of row numbers.

    The reference is not in the loop: its log-probs of each row are computed once, here, before the
    first update. Only a method that needs its distributions or hidden states keeps a frozen copy,
    or with LoRA switches the trained adapter off.
    """

    def __init__(
        self,
        method: Method,
        encoded: Mapping[str, Sequence[Encoded]],
        model: PreTrainedModel,
        precision: str,
        micro_batch_size: int,
        adapter: str | None = None,
        progress: Progress | None = None,
    ):
        _refuse_unmet(method)
        self.method, self.encoded = method, encoded
        self.device, self.precision, self.size = model.device, precision, micro_batch_size
        self.packed = can_pack(model, list(chain(*encoded.values())))
        self.frozen: Any = as_it_is(model, adapter) if method.live_refs else None
        once = set(method.roles) - method.live_refs
        cached = {role for role in encoded if f"{role}_ref" in once}
        self.reference = {
            role: self._token_logps(
                model, role, counter(progress, f"reference, {role} answers", len(encoded[role]))
            )
            for role in sorted(cached)
        }

    @torch.no_grad()
    def _token_logps(
        self, model: PreTrainedModel, role: str, done: Callable[[int], None]
    ) -> list[Tensor]:
        """Read the token log-probs of a role's answers in the precision of the training forward."""
        encoded = self.encoded[role]
        batches = length_sorted([len(e.ids) for e in encoded], 2 * self.size)
        lines = []
        for batch in distributed.my_share(batches):
            with autocast(self.device, self.precision):
                answers = read_answers(model, [encoded[i] for i in batch], packed=self.packed)
            pairs = zip(answers.logps, answers.mask, strict=True)
            lines.append([line[mask.bool()].cpu() for line, mask in pairs])
            done(len(batch))
        logps = [torch.empty(0)] * len(encoded)
        for batch, lines_of_batch in zip(batches, distributed.whole(lines), strict=True):
            for i, line in zip(batch, lines_of_batch, strict=True):
                logps[i] = line.to(self.device)
        return logps

    def forwards(self, driver: str, numbers: Numbers) -> list[Forward]:
        """Cut this process's rows of a batch into micro-batches of similar length.

        If it has fewer than other processes, micro-batches that do not count fill up.
        """
        lengths = [len(self.encoded[driver][number].ids) for number in numbers[driver]]
        order = longest_first(lengths)
        most = math.ceil(len(order[:: distributed.count()]) / self.size)
        mine = distributed.my_share(order)
        cut = [mine[i : i + self.size] for i in range(0, len(mine), self.size)]
        taken = [(chosen, True) for chosen in cut]
        taken += [(order[-1:], False)] * (most - len(cut))
        return [
            Forward({role: [rows[i] for i in chosen] for role, rows in numbers.items()}, counts)
            for chosen, counts in taken
        ]

    def counts(self, numbers: Numbers) -> dict[str, tuple[int, int]]:
        """Count the answer tokens and the sequences of each role in a batch."""
        return {
            role: (sum(self.encoded[role][i].answer_length for i in rows), len(rows))
            for role, rows in numbers.items()
        }

    def read(
        self, model: PreTrainedModel, numbers: Numbers, objectives: Sequence[Callable]
    ) -> dict[str, Answers]:
        """Read every role that an objective needs of a micro-batch, the policy in one forward."""
        wanted = {role for objective in objectives for role in roles(objective)}
        asks = set(chain(*map(asked, objectives)))
        how: dict[str, Any] = {"logits": "logits" in asks, "packed": self.packed}
        how |= {"depth": self.method.depth if "hidden" in asks else None}
        spoken = [role for role in self.encoded if {role, f"{role}_ref"} & wanted]
        encoded = {role: [self.encoded[role][i] for i in numbers[role]] for role in spoken}
        with autocast(self.device, self.precision):
            rows = list(chain(*encoded.values()))
            together = read_answers(model, rows, **how)
            parts = split_answers(together, [len(encoded[role]) for role in spoken])
            batch = dict(zip(spoken, parts, strict=True))
            if live := [r for r in spoken if f"{r}_ref" in wanted & self.method.live_refs]:
                with torch.no_grad():
                    rows = list(chain(*(encoded[role] for role in live)))
                    together = read_answers(self.frozen, rows, **how)
                parts = split_answers(together, [len(encoded[role]) for role in live])
                batch |= {f"{role}_ref": part for role, part in zip(live, parts, strict=True)}
        for role, remembered in self.reference.items():
            if f"{role}_ref" in wanted:
                logps = torch.zeros_like(batch[role].logps)
                for line, row in zip(logps, numbers[role], strict=True):
                    line[: len(remembered[row])] = remembered[row]
                batch[f"{role}_ref"] = Answers(logps, batch[role].labels, batch[role].mask)
        return batch

    @torch.no_grad()
    def statistics(
        self, model: PreTrainedModel, forwards: Sequence[Forward], method: Method
    ) -> dict[str, Tensor]:
        """Take the means over a whole batch that a method's forget term wants as keywords."""
        means = {}
        for name, objective in method.means.items():
            values = []
            for numbers, counts in forwards:
                batch = self.read(model, numbers, [objective])
                value = objective(**{role: batch[role] for role in roles(objective)})
                values += [value.cpu()] if counts else []
            everyone = torch.cat(list(chain(*distributed.gather(values))))
            means[name] = everyone.to(self.device).mean()
        return means


def _refuse_unmet(method: Method) -> None:
    """Raise KitError if an objective asks for something unknown, or for states of no depth."""
    for objective in method.terms.values():
        if odd := set(asked(objective)) - {"logits", "hidden"}:
            raise KitError(
                f"{objective.__name__} asks for {min(odd)}: the trainer reads logits and hidden"
            )
        if "hidden" in asked(objective) and method.depth is None:
            raise KitError(
                f"{objective.__name__} asks for hidden states: give the method's forget term a "
                "keyword depth, the share of the layers below them, such as 0.5"
            )


def as_it_is(model: PreTrainedModel, adapter: str | None) -> PreTrainedModel | WithoutAdapter:
    """Keep a model as it is now: a frozen copy, which no training changes.

    If only a new `adapter` is trained, it is the model without it, at no cost in memory.
    """
    if adapter:
        return WithoutAdapter(model, adapter)
    return copy.deepcopy(model).requires_grad_(False)

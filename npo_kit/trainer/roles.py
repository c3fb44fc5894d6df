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
from npo_kit.losses.objectives import roles
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
    first update. Only a method that needs its distributions on retain rows keeps a frozen copy, or
    with LoRA switches the trained adapter off.
    """

    def __init__(
        self,
        method: Method,
        encoded: Mapping[str, Sequence[Encoded]],
        model: PreTrainedModel,
        precision: str,
        micro_batch_size: int,
        adapter: str | None = None,
    ):
        _refuse_unmet(method)
        self.method, self.encoded = method, encoded
        self.device, self.precision, self.size = model.device, precision, micro_batch_size
        self.packed = can_pack(model, list(chain(*encoded.values())))
        self.frozen: Any = as_it_is(model, adapter) if "retain_ref" in method.roles else None
        cached = {role for role in encoded if f"{role}_ref" in method.roles} - {"retain"}
        self.reference = {role: self._token_logps(model, role) for role in sorted(cached)}

    @torch.no_grad()
    def _token_logps(self, model: PreTrainedModel, role: str) -> list[Tensor]:
        """Read the token log-probs of a role's answers in the precision of the training forward."""
        encoded = self.encoded[role]
        batches = length_sorted([len(e.ids) for e in encoded], 2 * self.size)
        lines = []
        for batch in distributed.my_share(batches):
            with autocast(self.device, self.precision):
                answers = read_answers(model, [encoded[i] for i in batch], packed=self.packed)
            pairs = zip(answers.logps, answers.mask, strict=True)
            lines.append([line[mask.bool()].cpu() for line, mask in pairs])
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
        logits = any("logits" in getattr(objective, "asks", ()) for objective in objectives)
        spoken = [role for role in self.encoded if {role, f"{role}_ref"} & wanted]
        encoded = {role: [self.encoded[role][i] for i in numbers[role]] for role in spoken}
        with autocast(self.device, self.precision):
            rows = list(chain(*encoded.values()))
            together = read_answers(model, rows, logits=logits, packed=self.packed)
            parts = split_answers(together, [len(encoded[role]) for role in spoken])
            batch = dict(zip(spoken, parts, strict=True))
            if "retain_ref" in wanted:
                with torch.no_grad():
                    batch["retain_ref"] = read_answers(
                        self.frozen, encoded["retain"], logits=True, packed=self.packed
                    )
        for role, remembered in self.reference.items():
            if f"{role}_ref" in wanted:
                logps = torch.zeros_like(batch[role].logps)
                for line, row in zip(logps, numbers[role], strict=True):
                    line[: len(remembered[row])] = remembered[row]
                batch[f"{role}_ref"] = Answers(logps, batch[role].labels, batch[role].mask)
        return batch

    @torch.no_grad()
    def statistics(self, model: PreTrainedModel, forwards: Sequence[Forward]) -> dict[str, Tensor]:
        """Take the means over a whole batch that the method's forget term wants as keywords."""
        means = {}
        for name, objective in self.method.means.items():
            values = []
            for numbers, counts in forwards:
                batch = self.read(model, numbers, [objective])
                value = objective(**{role: batch[role] for role in roles(objective)})
                values += [value.cpu()] if counts else []
            everyone = torch.cat(list(chain(*distributed.gather(values))))
            means[name] = everyone.to(self.device).mean()
        return means


def _refuse_unmet(method: Method) -> None:
    """Raise KitError if an objective asks for hidden states, or logits of a cached role."""
    for objective in method.terms.values():
        asked = set(getattr(objective, "asks", ()))
        cached = {"forget_ref", "alternate_ref"} & set(roles(objective))
        if asked - {"logits"} or (asked and cached):
            raise KitError(
                f"{objective.__name__} asks for {', '.join(sorted(asked))} of "
                f"{', '.join(roles(objective))}: the trainer reads logits, of the reference on "
                "retain rows only"
            )


def as_it_is(model: PreTrainedModel, adapter: str | None) -> PreTrainedModel | WithoutAdapter:
    """Keep a model as it is now: a frozen copy, which no training changes.

    If only a new `adapter` is trained, it is the model without it, at no cost in memory.
    """
    if adapter:
        return WithoutAdapter(model, adapter)
    return copy.deepcopy(model).requires_grad_(False)

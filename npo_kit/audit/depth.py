"""The depth card: after which layer the original, given another model's states, loses the facts.

UDS, the unlearning depth score (arXiv 2605.24614, github.com/gnueaj/unlearning-depth-score), puts
the states of a source after one layer into the original, at the positions that predict the fact and
nowhere else. D = s - s[patched] is what the original then loses of s, the fact's mean log-prob. S1
is the retained-only model, which shows what a model without the facts loses, S2 the one measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.copies import evaluation_mode, refuse_unlike
from npo_kit.audit.probes import Probe
from npo_kit.losses.answers import full_precision
from npo_kit.models.batching import budgeted, pad
from npo_kit.models.forward import layers_of, logits_only_at
from npo_kit.models.scoring import scored_at_once

KNOWN = 0.05  # nats: the fact is encoded (KE) after layers where D(S1) is larger
ByLayer = list[list[float]]  # layers x rows


def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure UDS: by row 0 where the fact lies as in the original, 1 as in the retained-only.

    More means less of the fact. A broken model reads as deep too: then the ratios are far above 1
    and retained rows lose as well. Rows are asked in the kit's prompt format; the published
    definition uses `Question: ...\\nAnswer: ...` without a chat template.

    `detail`, layers x rows: D(S2) and D(S1) as `audited` and `retained`, `ratios` of the two,
    unclipped, None outside of KE, both D of rows to keep as `retain_rows` and
    `retain_rows_retained`, and `lens` of the model. Raises KitError for models of unlike shapes.
    """
    refuse_unlike(bench.original, model, bench.retained)
    both = (bench.forget, bench.retain)
    lacked, lacked_of_kept = (losses(bench.original, bench.retained, probes) for probes in both)
    bench.done(1, 3)
    lost, lost_of_kept = (losses(bench.original, model, probes) for probes in both)
    bench.done(2, 3)
    detail = {"known_above": KNOWN, "audited": lost, "retained": lacked}
    detail |= {"retain_rows": lost_of_kept, "retain_rows_retained": lacked_of_kept}
    detail["lens"] = lens(model, bench.forget)
    detail["ratios"] = [
        [d2 / d1 if d1 > KNOWN else None for d2, d1 in zip(*layer, strict=True)]
        for layer in zip(lost, lacked, strict=True)
    ]
    bench.done(3, 3)
    columns = zip(zip(*lost, strict=True), zip(*lacked, strict=True), strict=True)
    return Reading.of_rows([unlearning_depth(*column) for column in columns], detail)


def unlearning_depth(audited: Sequence[float], retained: Sequence[float]) -> float | None:
    """Return UDS of one row from its D(S2) and D(S1) by layer.

    `sum D(S1) clip(D(S2) / D(S1), 0, 1) / sum D(S1)` over KE, the layers with D(S1) > KNOWN; None
    where there are none, or where a D is not finite.
    """
    known = [(d2, d1) for d2, d1 in zip(audited, retained, strict=True) if d1 > KNOWN]
    if not known or not all(math.isfinite(d2) for d2, _ in known):
        return None
    return sum(d1 * min(max(d2 / d1, 0.0), 1.0) for d2, d1 in known) / sum(d1 for _, d1 in known)


@torch.no_grad()
def losses(original: PreTrainedModel, source: PreTrainedModel, probes: Sequence[Probe]) -> ByLayer:
    """Return D of each probe's fact, layers x rows, nats per token.

    With the original as `source` it is 0.0 exactly.
    """
    lost = [[0.0] * len(probes) for _ in layers_of(original)]
    with evaluation_mode(original, source):
        for batch in _batches(original, probes):
            whole, found = batch.score(original), batch.states(source)
            for layer, states, row in zip(layers_of(original), found, lost, strict=True):
                with _hooked([layer], batch.patched(states)):
                    patched = batch.score(original)
                for i, before, after in zip(batch.numbers, whole, patched, strict=True):
                    row[i] = before - after
    return lost


@torch.no_grad()
def lens(model: PreTrainedModel, probes: Sequence[Probe]) -> ByLayer:
    """Return each fact's mean log-prob if the model's norm and head read each layer (logit lens).

    Layers x rows, nats. The last layer's is what the model says.
    """
    layers = layers_of(model)
    seen = [[0.0] * len(probes) for _ in layers]
    with evaluation_mode(model):
        for batch in _batches(model, probes):
            any_ids = torch.zeros_like(batch.labels)[:, None]  # N rows of one token
            alone = {"input_ids": any_ids, "attention_mask": torch.ones_like(any_ids)}
            for states, row in zip(batch.states(model), seen, strict=True):
                # whatever the last layer gives, norm and head read the states instead
                with _hooked([layers[-1]], partial(_instead, states[:, None])):
                    logits = model(**alone, use_cache=False).logits[:, 0]
                for i, value in zip(batch.numbers, batch.means(logits), strict=True):
                    row[i] = value
    return seen


@dataclass(frozen=True)
class _Batch:
    """Rows of one forward, each up to its fact's last token, with N tokens of facts in all."""

    numbers: list[int]  # of the probes
    inputs: dict[str, Tensor]
    at: tuple[Tensor, Tensor]  # row and column where each of the tokens is predicted
    labels: Tensor  # (N,)
    sizes: list[int]  # tokens of each fact

    def score(self, model: PreTrainedModel) -> list[float]:
        """Return each fact's mean log-prob, nats."""
        with logits_only_at(model, *self.at):
            return self.means(model(**self.inputs, use_cache=False).logits[0])

    def means(self, logits: Tensor) -> list[float]:
        logps = full_precision(logits).log_softmax(-1).gather(1, self.labels[:, None])[:, 0]
        return [part.double().mean().item() for part in logps.split(self.sizes)]

    def states(self, model: PreTrainedModel) -> list[Tensor]:
        """Return what each layer gives where the facts are predicted: (N, D).

        Hooks read it, because the last of transformers' `hidden_states` is already normalised.
        """
        found: list[Tensor] = []
        with _hooked(layers_of(model), lambda output: found.append(output[self.at])):
            self.score(model)
        return found

    def patched(self, states: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda output: output.index_put(self.at, states.to(output))


def _batches(model: PreTrainedModel, probes: Sequence[Probe]) -> Iterator[_Batch]:
    for numbers in budgeted([p.places.stop for p in probes], scored_at_once(model)):
        batch = [probes[i] for i in numbers]
        fed = [probe.encoded.ids[: probe.places.stop - 1] for probe in batch]
        inputs = {"input_ids": pad(fed, 0), "attention_mask": pad([[1] * len(f) for f in fed], 0)}
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        facts = [
            (row, place - 1, probe.encoded.ids[place])
            for row, probe in enumerate(batch)
            for place in probe.places
        ]
        rows, columns, labels = torch.tensor(facts, device=model.device).unbind(1)
        sizes = [len(probe.places) for probe in batch]
        yield _Batch(numbers, inputs, (rows, columns), labels, sizes)


def _instead(states: Tensor, _output: Tensor) -> Tensor:
    return states


@contextmanager
def _hooked(layers: Iterable[nn.Module], see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """In this context, let `see` read what layers give, or replace it."""

    def hook(_module, _inputs, output) -> Any:
        first, *rest = output if isinstance(output, tuple) else (output,)
        new = see(first)
        return None if new is None else (new, *rest) if isinstance(output, tuple) else new

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

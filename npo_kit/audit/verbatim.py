"""Card: how well a model knows the true answers word for word, and the fact in each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.probes import Probe
from npo_kit.data.prompts import Encoded
from npo_kit.losses.answers import full_precision
from npo_kit.models.batching import budgeted, in_halves
from npo_kit.models.forward import read_answers
from npo_kit.models.scoring import scored_at_once

_LEAST_VARIANCE = 1e-6  # open-unlearning's, below which a distribution counts as certain
_ROWS_AT_ONCE = 256  # of logits, when a whole vocabulary is reduced


@dataclass(frozen=True)
class TokenReading:
    """What a model says of the tokens of one answer, its end token included."""

    logps: list[float]  # nats
    hits: list[bool]  # whether the true token is the likeliest, after the true tokens before it
    standard: list[float]  # (logp - mean) / deviation of log p under the model's own p


def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure the entity's log-prob, nats per token; EM and ES of the answers go with it."""
    readings = read_tokens(model, [probe.encoded for probe in bench.forget], bench.done)
    logps = [entity_logp(*pair) for pair in zip(bench.forget, readings, strict=True)]
    hits = [reading.hits[:-1] for reading in readings]
    scores = {
        "exact_memorization": [exact_memorization(row) for row in hits],
        "extraction_strength": [extraction_strength(row) for row in hits],
        "extraction_strength_ou": [extraction_strength(row, dialect="ou") for row in hits],
    }
    means = {f"mean_{name}": fmean(values) for name, values in scores.items() if values}
    entities = [probe.entity for probe in bench.forget]
    return Reading.of_rows(logps, {**scores, **means, "entities": entities})


def entity_logp(probe: Probe, reading: TokenReading) -> float:
    """Return the mean log-prob of the entity's tokens after the true ones before it, in nats."""
    return sum(reading.logps[probe.first : probe.last]) / (probe.last - probe.first)


def exact_memorization(hits: Sequence[bool]) -> float:
    """Return EM: the share of an answer's tokens that are the likeliest ones, end token left out.

    In [0, 1]. Source: open-unlearning, `exact_memorization`.
    """
    return sum(hits) / len(hits)


def extraction_strength(hits: Sequence[bool], dialect: str = "kit") -> float:
    """Return ES: the share of an answer that follows by itself once the rest is given.

    ES = 1 - k / T, with k the fewest leading tokens after which all others are the likeliest ones.
    With none such it is 0; in open-unlearning's dialect (`ou`) 1 / T, because its search ends one
    token earlier. The end token is left out. Source: open-unlearning, `extraction_strength`.
    """
    total = len(hits)
    follows = next((n for n, hit in enumerate(reversed(hits)) if not hit), total)
    return max(follows, 1 if dialect == "ou" else 0) / total


@torch.no_grad()
def read_tokens(
    model: PreTrainedModel,
    answers: Sequence[Encoded],
    done: Callable[[int, int], None] = lambda done, total: None,
) -> list[TokenReading]:
    """Read each token of many answers in as few forwards as memory allows, in the given order."""
    result: dict[int, TokenReading] = {}
    for batch in budgeted([len(answer.ids) for answer in answers], scored_at_once(model)):
        part = in_halves(lambda lines: _read(model, lines), [answers[i] for i in batch])
        result |= zip(batch, part, strict=True)
        done(len(result), len(answers))
    return [result[number] for number in range(len(answers))]


def _read(model: PreTrainedModel, batch: list[Encoded]) -> list[TokenReading]:
    read = read_answers(model, batch, logits=True)
    where, logits = read.mask.bool(), read.logits
    assert logits is not None  # they were asked for
    logps, labels = read.logps[where], read.labels[where]
    hits = logits.argmax(-1) == labels
    moments = torch.cat([_moments(part) for part in logits.split(_ROWS_AT_ONCE)])
    standard = (logps - moments[:, 0]) / moments[:, 1].clamp(min=_LEAST_VARIANCE).sqrt()
    sizes = [answer.answer_length for answer in batch]
    columns = (values.cpu().split(sizes) for values in (logps, hits, standard))
    return [TokenReading(*(v.tolist() for v in row)) for row in zip(*columns, strict=True)]


def _moments(logits: Tensor) -> Tensor:
    """Return mean and variance of log p under p: (N, V) -> (N, 2), nats and nats squared."""
    logps = full_precision(logits).log_softmax(-1).clamp(min=-1e4)  # 0 log 0 is 0, not NaN
    p = logps.exp()
    mean = (p * logps).sum(-1, keepdim=True)
    return torch.cat([mean, (p * (logps - mean).square()).sum(-1, keepdim=True)], -1)

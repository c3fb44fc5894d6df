"""What copies of a model know of probes by heart: their log-prob of the fact, and ES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench
from npo_kit.audit.probes import Probe
from npo_kit.audit.verbatim import entity_logp, extraction_strength, read_tokens


class Known(NamedTuple):
    """What a model knows of each probe."""

    entity: list[float]  # mean log-prob of the entity's tokens, nats
    strength: list[float]  # ES


def known(model: PreTrainedModel, probes: Sequence[Probe]) -> Known:
    """Read what a model in evaluation mode knows of probes, in their order."""
    readings = read_tokens(model, [probe.encoded for probe in probes])
    entity = [entity_logp(*pair) for pair in zip(probes, readings, strict=True)]
    return Known(entity, [extraction_strength(reading.hits[:-1]) for reading in readings])


def known_of(model: PreTrainedModel, bench: Bench) -> dict[str, list[float]]:
    """Read both kinds of rows: log-probs as `forget` and `retain`, ES with `_es` behind."""
    forget, retain = known(model, bench.forget), known(model, bench.retain)
    found = {"forget": forget.entity, "retain": retain.entity}
    return {**found, "forget_es": forget.strength, "retain_es": retain.strength}

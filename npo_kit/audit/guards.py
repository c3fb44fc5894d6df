"""Guards: whether a model still works, without which nothing that it does not say means much."""

from __future__ import annotations

from statistics import fmean

import torch
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.leak import greedy_leaks, text_length
from npo_kit.audit.verbatim import entity_logp, read_tokens
from npo_kit.data.prompts import Encoded
from npo_kit.metrics.scores import text_statistics
from npo_kit.models.generation import generate
from npo_kit.records.files import Json


@torch.no_grad()
def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure the share of questions to keep whose greedy answer tells the fact.

    Its rows belong to `bench.retain`. In the detail: `logps`, the entity's log-prob in those rows,
    and of the greedy answers to the forget questions `fluency`, the mean log-prob of their tokens
    under the original (nats, with the end token), and `repetition`, the share of repeated trigrams.
    """
    prompts, length = bench.prompts, text_length(bench.forget)
    told, told_texts = greedy_leaks(model, bench, bench.retain)
    bench.done(1, 3)
    asked = [prompts.encode_prompt(probe.row["question"]) for probe in bench.forget]
    written = generate(model, asked, prompts.end_id, length)
    bench.done(2, 3)
    said = [
        Encoded((*prompt, *ids, *([prompts.end_id] if len(ids) < length else [])), len(prompt))
        for prompt, ids in zip(asked, written, strict=True)
    ]
    fluency = [fmean(reading.logps) for reading in read_tokens(bench.original, said)]
    known = read_tokens(model, [probe.encoded for probe in bench.retain])
    bench.done(3, 3)
    texts = [prompts.decode(ids) for ids in written]
    repetition = [text_statistics(text)["repetition_rate"] for text in texts]
    logps = [entity_logp(*pair) for pair in zip(bench.retain, known, strict=True)]
    measured: Json = {"logps": logps, "fluency": fluency, "repetition": repetition}
    means = {f"mean_{name}": fmean(values) for name, values in measured.items() if values}
    shown = {"told_texts": told_texts, "texts": texts}
    return Reading.of_rows(list(map(float, told)), {**measured, **means, **shown})

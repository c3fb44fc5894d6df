"""Card: how often a model tells the fact when its answers are sampled."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from scipy.stats import beta
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.chances import leak_at_k
from npo_kit.audit.probes import Probe
from npo_kit.audit.verbatim import read_tokens
from npo_kit.metrics.scores import unicode_words
from npo_kit.models.generation import generate
from npo_kit.records.files import Json

SAMPLES = 32  # texts per question
NEW_TOKENS = 48  # of a text, at least
AFTER_ENTITY = 16  # tokens of room after the place of the entity in the true answer
ALPHA = 0.05  # of the one-sided bounds


@torch.no_grad()
def measure(model: PreTrainedModel, bench: Bench, samples: int = SAMPLES) -> Reading:
    """Measure the share of sampled answers (temperature 1, all tokens) that tell the entity."""
    counts, shown = [], []
    for number, probe in enumerate(bench.forget):
        prompt, room = bench.prompts.encode_prompt(probe.row["question"]), text_length([probe])
        seed = zlib.crc32(f"{bench.seed} {probe.row['question']}".encode())  # whatever the order
        drawn = generate(
            model, [prompt] * samples, bench.prompts.end_id, room, samples, sample_seed=seed
        )
        texts = [bench.prompts.decode(ids) for ids in drawn]
        leaks = [tells(probe.entity, text, probe.row["question"]) for text in texts]
        counts.append(sum(leaks))
        shown.append({"leak": _first(texts, leaks, True), "other": _first(texts, leaks, False)})
        bench.done(number + 1, len(bench.forget))
    greedy, greedy_texts = greedy_leaks(model, bench, bench.forget)
    readings = zip(bench.forget, read_tokens(model, [p.encoded for p in bench.forget]), strict=True)
    log_q = [math.fsum(reading.logps[probe.first : probe.last]) for probe, reading in readings]
    detail = {
        "samples": samples,
        "counts": counts,
        **_estimates(counts, samples, log_q),
        "greedy": greedy,
        "greedy_texts": greedy_texts,
        "texts": shown,
    }
    return Reading.of_rows([count / samples for count in counts], detail)


def tells(entity: str, text: str, prompt: str) -> bool:
    """Tell whether a text holds the words of an entity in a row, and the prompt does not.

    Case and punctuation do not count. A part of a word is not the word.
    """
    wanted, said, given = (f" {' '.join(unicode_words(part))} " for part in (entity, text, prompt))
    return bool(wanted.strip()) and wanted in said and wanted not in given


def text_length(probes: Sequence[Probe]) -> int:
    """Return the most tokens of a text that answers these probes."""
    return max([NEW_TOKENS, *(probe.last + AFTER_ENTITY for probe in probes)])


def greedy_leaks(
    model: PreTrainedModel, bench: Bench, probes: Sequence[Probe]
) -> tuple[list[bool], list[str]]:
    """Return whether a model's greedy answers to the probes' questions tell the fact, and them."""
    prompts = [bench.prompts.encode_prompt(probe.row["question"]) for probe in probes]
    ids = generate(model, prompts, bench.prompts.end_id, text_length(probes))
    texts = [bench.prompts.decode(text) for text in ids]
    pairs = zip(probes, texts, strict=True)
    return [tells(probe.entity, text, probe.row["question"]) for probe, text in pairs], texts


def clopper_pearson_upper(c: int, n: int, alpha: float = ALPHA) -> float:
    """Return the one-sided upper bound of a leak rate if c of n texts leak, at level 1 - alpha."""
    return 1.0 if c == n else float(beta.ppf(1 - alpha, c + 1, n - c))


def exact_leak(log_q: float, k: int) -> float:
    """Return 1 - (1 - q)^k from log q (nats), without loss for q near 0 or 1."""
    if log_q >= 0:
        return 1.0
    small = log_q < -math.log(2)
    log_rest = math.log1p(-math.exp(log_q)) if small else math.log(-math.expm1(log_q))
    return -math.expm1(k * log_rest)


def _estimates(counts: Sequence[int], n: int, log_q: Sequence[float]) -> Json:
    """Return curves over k = 1, 2, 4 .. n, means over questions, and bounds of the leak rates.

    `log_q` is the log-prob of each whole entity after the true words before it, in nats. `upper`
    bounds each question alone, `upper_all` all of them together (alpha over their number).
    """
    at, many = [*(2**i for i in range(n.bit_length()) if 2**i < n), n], max(1, len(counts))
    return {
        "k": at,
        "leak_at_k": [math.fsum(leak_at_k(n, c, k) for c in counts) / many for k in at],
        "log_q": log_q,
        "exact": [math.fsum(exact_leak(q, k) for q in log_q) / many for k in at],
        "upper": [clopper_pearson_upper(c, n) for c in counts],
        "upper_all": max((clopper_pearson_upper(c, n, ALPHA / many) for c in counts), default=None),
        "upper_mean_if_none": None if any(counts) else clopper_pearson_upper(0, n * many),
    }


def _first(texts: Sequence[str], leaks: Sequence[bool], wanted: bool) -> str | None:
    return next((text for text, leak in zip(texts, leaks, strict=True) if leak == wanted), None)

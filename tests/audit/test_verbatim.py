"""EM, ES and the entity's log-prob: against definitions, a plain forward and real logs."""

import gzip
import json
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from pocket_bench import Untouched, pocket_bench

from npo_kit.audit import verbatim
from npo_kit.audit.verbatim import exact_memorization, extraction_strength, read_tokens

ANY_HITS = st.lists(st.booleans(), min_size=1, max_size=40)
NAMES = ("exact_memorization", "extraction_strength")
LOGS = sorted((SHARED / "ou_logs").glob("*_EVAL.json.gz"))


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def reading(bench):
    return verbatim.measure(bench.original, bench)


def by_definition(hits, last):
    """ES by trying each k in turn, up to `last`; open-unlearning keeps that one if none fits."""
    for k in range(last + 1):
        if all(hits[k:]):
            return 1 - k / len(hits)
    return 1 - last / len(hits)


@given(ANY_HITS)
def test_es_is_what_the_definition_says_in_both_dialects(hits):
    total = len(hits)
    assert extraction_strength(hits) == pytest.approx(by_definition(hits, total), abs=1e-12)
    theirs = extraction_strength(hits, dialect="ou")
    assert theirs == pytest.approx(by_definition(hits, total - 1), abs=1e-12)
    assert theirs - extraction_strength(hits) in (0, 1 / total)


@given(ANY_HITS)
def test_es_is_at_most_em_and_both_are_1_together(hits):
    em, es = exact_memorization(hits), extraction_strength(hits)
    assert 0 <= es <= em <= 1
    assert (em == 1) == (es == 1) == all(hits)


def test_es_and_em_of_a_row_by_hand():
    hits = [True, False, True, True]
    assert exact_memorization(hits) == 0.75
    assert extraction_strength(hits) == 0.5
    assert extraction_strength([True, False]) == 0
    assert extraction_strength([True, False], dialect="ou") == 0.5


@torch.no_grad()
def test_a_greedy_copy_has_em_and_es_1(bench):
    model, probe = bench.original, bench.forget[0]
    ids = list(probe.encoded.ids[: probe.encoded.prompt_length])
    for _ in range(6):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    said = replace(probe.encoded, ids=(*ids, bench.prompts.end_id))
    (told,) = read_tokens(model, [said])
    assert exact_memorization(told.hits[:-1]) == extraction_strength(told.hits[:-1]) == 1


@torch.no_grad()
def test_each_row_agrees_with_a_plain_forward_of_it_alone(bench, reading):
    for number, probe in enumerate(bench.forget[:8]):
        logits = bench.original(torch.tensor([probe.encoded.ids])).logits[0].double()
        p = logits.log_softmax(-1)
        at = torch.tensor(list(probe.places))
        own = p[at - 1, torch.tensor(probe.encoded.ids)[at]]
        assert reading.rows[number] == pytest.approx(float(own.mean()), abs=1e-4)
        start = probe.encoded.prompt_length
        true = torch.tensor(probe.encoded.ids[start:-1])
        hits = (p[start - 1 : -2].argmax(-1) == true).tolist()
        assert reading.detail["exact_memorization"][number] == sum(hits) / len(hits)
        es = by_definition(hits, len(hits))
        assert reading.detail["extraction_strength"][number] == pytest.approx(es, abs=1e-12)
        (told,) = read_tokens(bench.original, [probe.encoded])
        place = int(at[0])
        mean = float((p[place - 1].exp() * p[place - 1]).sum())
        variance = float((p[place - 1].exp() * (p[place - 1] - mean) ** 2).sum())
        expected = (float(own[0]) - mean) / max(variance, 1e-6) ** 0.5
        assert told.standard[probe.first] == pytest.approx(expected, abs=1e-3)


def test_neither_padding_nor_order_changes_a_row(bench, reading):
    shuffled = list(range(len(bench.forget)))
    random.Random(0).shuffle(shuffled)
    other = replace(bench, forget=[bench.forget[i] for i in shuffled])
    again = verbatim.measure(bench.original, other)
    for place, number in enumerate(shuffled):
        alone = verbatim.measure(bench.original, replace(bench, forget=[bench.forget[number]]))
        assert again.rows[place] == pytest.approx(reading.rows[number], abs=1e-5)
        assert alone.value == pytest.approx(reading.rows[number], abs=1e-5)


def test_the_original_knows_more_than_the_retained_only_and_neither_changes(bench, reading):
    told = []
    other = replace(bench, done=lambda done, total: told.append((done, total)))
    with Untouched(bench.original, bench.retained):
        retained = verbatim.measure(bench.retained, other)
    assert told[-1] == (len(bench.forget), len(bench.forget))
    assert reading.value > retained.value + 1
    assert reading.detail["mean_extraction_strength"] > 0.8
    assert retained.detail["mean_extraction_strength"] < 0.4
    json.dumps(reading.detail, allow_nan=False)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_real_logs_have_the_means_of_their_rows(path):
    with gzip.open(path) as file:
        log = json.load(file)
    for name in NAMES:
        scores = [row["score"] for row in log[name]["value_by_index"].values()]
        assert sum(scores) / len(scores) == pytest.approx(log[name]["agg_value"], abs=1e-12)
    pairs = zip(*(log[n]["value_by_index"].values() for n in NAMES), strict=True)
    for em, es in ((em["score"], es["score"]) for em, es in pairs):
        total = tokens_of(em, es)
        hits, follows = round(em * total), round(es * total)
        misses = [False] * (total - hits)
        if hits >= follows:
            row = [True] * (hits - follows) + misses + [True] * follows
        else:  # nothing follows, which is 1 / T in their dialect
            row = [True] * hits + misses
        assert extraction_strength(row, dialect="ou") == pytest.approx(es, abs=1e-12)
        assert exact_memorization(row) == pytest.approx(em, abs=1e-6)  # theirs in fp32


def tokens_of(em, es):
    """The fewest tokens with which both shares are whole numbers."""
    return next(
        total
        for total in range(1, 1000)
        if abs(em * total - round(em * total)) < 1e-4 and abs(es * total - round(es * total)) < 1e-9
    )


def test_real_logs_are_looked_for():
    if not LOGS:
        pytest.skip("open-unlearning's logs are not in ../shared/ou_logs")
    assert len(LOGS) == 4

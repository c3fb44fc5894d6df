"""Guards: rows to keep against the verbatim card, fluency against a plain forward."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from pocket_bench import Untouched, pocket_bench

from npo_kit.audit import guards, leak, verbatim
from npo_kit.audit.leak import greedy_leaks, tells


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def reading(bench):
    return guards.measure(bench.original, bench)


def test_the_rows_are_the_verbatim_cards_on_the_rows_to_keep(bench, reading):
    asked = replace(bench, forget=bench.retain)
    found = verbatim.measure(bench.original, asked).rows
    assert reading.detail["logps"] == pytest.approx(found, abs=1e-5)
    told, texts = greedy_leaks(bench.original, bench, bench.retain)
    assert reading.detail["told_texts"] == texts
    assert reading.rows == told
    assert told == [
        tells(p.entity, text, p.row["question"])
        for p, text in zip(bench.retain, texts, strict=True)
    ]
    assert reading.value > 0.8


@torch.no_grad()
def test_fluency_is_what_the_original_makes_of_the_text(bench):
    found = guards.measure(bench.retained, bench)
    for number in range(4):
        prompt = list(bench.prompts.encode_prompt(bench.forget[number].row["question"]))
        ids = list(prompt)
        while ids[-1] != bench.prompts.end_id or len(ids) == len(prompt):
            ids.append(int(bench.retained(torch.tensor([ids])).logits[0, -1].argmax()))
        said = torch.tensor(ids[len(prompt) :])
        logps = bench.original(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        mean = logps[len(prompt) - 1 : -1].gather(-1, said[:, None]).mean()
        assert found.detail["fluency"][number] == pytest.approx(float(mean), abs=1e-4)
        assert found.detail["texts"][number] == bench.prompts.decode(said.tolist())


def test_a_broken_model_is_seen_and_whole_ones_stay_whole(bench, reading):
    broken = copy.deepcopy(bench.original)
    with torch.no_grad():
        for weight in broken.model.layers.parameters():
            weight.mul_(-0.5)
    told = []
    noted = replace(bench, done=lambda done, total: told.append((done, total)))
    with Untouched(broken, bench.original, bench.retained):
        found = guards.measure(broken, noted)
    assert told[-1][0] == told[-1][1]
    assert found.value < 0.2
    assert found.detail["mean_logps"] < reading.detail["mean_logps"] - 3
    assert found.detail["mean_fluency"] < reading.detail["mean_fluency"] - 1
    assert len(found.rows) == len(bench.retain)
    assert len(found.detail["fluency"]) == len(bench.forget)
    json.dumps(found.detail, allow_nan=False)


def test_repetition_is_that_of_the_texts(bench, monkeypatch):
    loop = list(bench.forget[0].encoded.ids[bench.forget[0].encoded.prompt_length :][:6]) * 3
    monkeypatch.setattr(guards, "generate", lambda model, prompts, *_: [loop] * len(prompts))
    found = guards.measure(bench.original, bench)
    words = bench.prompts.decode(loop).split()
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    assert found.detail["mean_repetition"] == pytest.approx(1 - len(set(grams)) / len(grams))
    assert found.detail["mean_repetition"] > 0.3


def test_a_model_that_says_nothing_is_not_fluent(bench, monkeypatch, reading):
    for module in (guards, leak):
        monkeypatch.setattr(module, "generate", lambda model, prompts, *_: [[]] * len(prompts))
    found = guards.measure(bench.original, bench)
    assert found.detail["mean_fluency"] < reading.detail["mean_fluency"] - 5
    assert not any(found.rows)

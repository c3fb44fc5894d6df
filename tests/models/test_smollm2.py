"""The real thing, small: SmolLM2-135M on TOFU rows, from score to generation, in minutes."""

import math

import pytest
from smollm2 import TOFU, find_gguf, what_is_missing

from npo_kit import losses
from npo_kit.data.tasks import load_tofu
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.metrics.summary import summarise
from npo_kit.models.loading import load_model, save_model
from npo_kit.models.scoring import score
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import finetune, unlearn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing())),
]
SLICE = EvaluationConfig(max_rows=4, max_new_tokens=24)


@pytest.fixture(scope="module")
def task():
    return load_tofu("forget01@80", source=TOFU)  # forget01 and 40 retain rows


@pytest.fixture(scope="module")
def finetuned(task, tmp_path_factory):
    """The folder of SmolLM2 after a few steps on the 80 rows, and the events on the way."""
    model, tokenizer = load_model(find_gguf(), device="cpu")
    config = FinetuneConfig(
        epochs=1.5,
        batch_size=16,
        lr=2e-4,
        warmup_epochs=0.2,
        precision="bf16",
        prompt="qa",
        evaluate_every=None,
        evaluation=SLICE,
    )
    events = list(finetune(model, tokenizer, task.full, config, task=task))
    folder = tmp_path_factory.mktemp("finetuned") / "model"
    save_model(model, tokenizer, folder)
    return folder, events


def test_finetuning_lowers_the_loss_and_raises_the_probability(finetuned):
    _, events = finetuned
    steps = [event for event in events if isinstance(event, Step)]
    before, after = [summarise(event) for event in events if isinstance(event, Evaluation)]
    assert len(steps) == 7
    assert steps[-1].loss < steps[0].loss - 0.3
    assert after["forget_probability"] > before["forget_probability"] + 0.05
    assert after["retain_rouge_l"] > 0.2
    assert after["forget_n"] == after["world_facts_n"] == 4


@pytest.mark.parametrize("method", ["ga", "npo_rt"])
def test_unlearning_a_few_steps(method, finetuned, task):
    folder, events = finetuned
    model, tokenizer = load_model(folder, device="cpu")
    config = UnlearnConfig(
        method=method,
        epochs=0.8,
        batch_size=8,
        lr=5e-5,
        warmup_epochs=0,
        precision="bf16",
        prompt="qa",
        evaluate_every=None,
        evaluation=SLICE,
    )
    unlearned = list(unlearn(model, tokenizer, task, config))
    steps = [event for event in unlearned if isinstance(event, Step)]
    start, end = [event for event in unlearned if isinstance(event, Evaluation)]
    assert len(steps) == 4
    finished = [event for event in events if isinstance(event, Evaluation)][-1]
    for ours, theirs in zip(start.rows["forget"], finished.rows["forget"], strict=True):
        assert ours["mean_logp"] == pytest.approx(theirs["mean_logp"], abs=1e-3)
        assert ours["generation"] == theirs["generation"]  # saved and loaded, it says the same
    assert list(steps[0].weights.values()) == pytest.approx([1.0] * 5, abs=0.05)  # bf16
    if method == "npo_rt":
        first = 2 / losses.BETA * math.log(2)
        assert steps[0].terms["forget"] == pytest.approx(first, rel=0.02)
    before, after = summarise(start), summarise(end, reference=start)
    assert after["forget_probability"] < before["forget_probability"]
    assert 0 <= after["model_utility"] <= 1
    assert 0 < after["forget_quality"] <= 1
    generation = end.rows["forget"][0]["generation"]
    print(f"{method}: {generation!r}")
    assert any(character.isalpha() for character in generation)


def test_branches_score_as_alone_on_a_real_model(finetuned, task):
    from npo_kit.data.prompts import PromptFormat
    from npo_kit.models.loading import context_length

    model, tokenizer = load_model(finetuned[0], device="cpu")
    for style in ("qa", "chat"):
        prompt_format = PromptFormat(tokenizer, style, context_length(model))
        rows = [
            [prompt_format.encode(row["question"], text) for text in row["perturbed_answer"]]
            for row in task.evaluation["forget"][:3]
        ]
        together = score(model, rows)
        alone = score(model, [[encoded] for row in rows for encoded in row])
        flat = [pair for row in together for pair in row]
        for (a, n), [(b, m)] in zip(flat, alone, strict=True):
            assert n == m
            assert a == pytest.approx(b, abs=1e-3)

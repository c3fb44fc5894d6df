"""Passages in training: the loss against a plain forward, every kind of term, and the story."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import QUESTIONS, make_model
from torch.nn.functional import cross_entropy, logsigmoid

from npo_kit.audit.session import bench_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import load_rows
from npo_kit.data.tasks import Task, load_task
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.metrics.evaluation import evaluate
from npo_kit.metrics.summary import summarise
from npo_kit.models.loading import load_model
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import finetune, unlearn
from npo_kit.trainer.workload import Workload

QUICK = UnlearnConfig(epochs=1, batch_size=4, micro_batch_size=2, warmup_epochs=0, evaluation=None)
TEXTS = [answer for _, answer in QUESTIONS]
PASSAGES = load_rows([{"text": " ".join(TEXTS[i : i + 2])} for i in range(0, len(TEXTS), 2)])
KEPT = [{"question": q, "answer": a} for q, a in QUESTIONS]
MIXED = Task("own:x", PASSAGES[:4], KEPT[8:], {})
ALIKE = Task("own:x", PASSAGES[:4], PASSAGES[4:], {})


def logps(model, tokenizer, row):
    """Sum of a passage's log-probs by a plain forward of the tokenizer's ids, and their number."""
    ids = torch.tensor([tokenizer(row["answer"])["input_ids"]])
    logits = model(input_ids=ids).logits[0, :-1]
    return -cross_entropy(logits, ids[0, 1:], reduction="sum"), ids.shape[1] - 1


# --- against plain forwards ---------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, "{% for m in messages %}[{{ m.content }}]{% endfor %}"])
def test_the_first_loss_is_that_of_plain_forwards(template, tokenizer):
    """Of GA, NPO and a retain term of passages; a chat template changes nothing."""
    tokenizer.chat_template = template
    model, other = (make_model(len(tokenizer), seed).double() for seed in (0, 1))
    try:
        with torch.no_grad():
            sums = [logps(model, tokenizer, row) for row in ALIKE.forget]
            kept = [logps(model, tokenizer, row) for row in ALIKE.retain]
        step = next(iter(unlearn(model, tokenizer, ALIKE, replace(QUICK, method="ga_rt"))))
        mean = sum(value for value, _ in sums) / sum(count for _, count in sums)
        assert step.terms["forget"] == pytest.approx(mean.item(), abs=1e-6)
        # both retain passages are drawn twice for the four rows of the batch
        mean = sum(value for value, _ in kept) / sum(count for _, count in kept)
        assert step.terms["retain"] == pytest.approx(-mean.item(), abs=1e-6)

        config = replace(QUICK, method="npo", epochs=2, lr=1e-3)
        first, second = unlearn(other, tokenizer, ALIKE, config)
    finally:
        tokenizer.chat_template = None
    assert first.loss == pytest.approx(2 / 0.1 * math.log(2), abs=1e-6)  # π = π_ref
    assert second.loss < first.loss


def test_npo_compares_with_the_reference_of_the_whole_passage(tokenizer):
    model, reference = (make_model(len(tokenizer)).double() for _ in range(2))
    config = replace(QUICK, method="npo", epochs=2, lr=1e-3, optimizer="sgd")
    events = unlearn(model, tokenizer, ALIKE, config)
    next(events)
    with torch.no_grad():  # the weights after the first step
        pairs = [[logps(m, tokenizer, row)[0] for m in (model, reference)] for row in ALIKE.forget]
    second = next(events)
    expected = [-2 / 0.1 * logsigmoid(-0.1 * (now - before)) for now, before in pairs]
    assert second.loss == pytest.approx(torch.stack(expected).mean().item(), abs=1e-6)


# --- every method -------------------------------------------------------------------------------


def alternates(method):
    return any("alternate" in role for role in METHODS[method].roles)


@pytest.mark.parametrize("name", [name for name in METHODS if not alternates(name)])
def test_every_method_without_refusals_forgets_passages_and_keeps_questions(name, tokenizer):
    config = replace(QUICK, method=name, micro_batch_size=4)
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, MIXED, config))
    assert [type(event) for event in events] == [Step]
    assert math.isfinite(events[0].loss)


@pytest.mark.parametrize("name", [name for name in METHODS if alternates(name)])
def test_methods_with_refusals_refuse_passages_in_a_sentence(name, tokenizer):
    model, config = make_model(len(tokenizer)), replace(QUICK, method=name)
    with pytest.raises(KitError, match=r"rows are passages, which ask nothing .*such as npo"):
        unlearn(model, tokenizer, ALIKE, config)


def test_a_passage_with_a_text_to_say_instead_can_be_refused(tokenizer):
    """DPO's alternate is a passage too: its first loss is 2/β log 2, whatever the texts."""
    rows = [row | {"alternate": "Nobody remembers how it went on."} for row in PASSAGES[:4]]
    task = replace(MIXED, forget=rows)
    (step,) = unlearn(make_model(len(tokenizer)), tokenizer, task, replace(QUICK, method="dpo"))
    assert step.loss == pytest.approx(2 / 0.1 * math.log(2), abs=1e-4)
    with pytest.raises(KitError, match="give each its own `alternates`, or take"):
        unlearn(make_model(len(tokenizer)), tokenizer, MIXED, replace(QUICK, method="altpo"))
    rows = [row | {"alternates": ["It rained.", "It snowed."]} for row in PASSAGES[:4]]
    task = replace(MIXED, forget=rows)
    (step,) = unlearn(make_model(len(tokenizer)), tokenizer, task, replace(QUICK, method="altpo"))
    assert math.isfinite(step.loss)


def test_an_audit_refuses_passages(tokenizer):
    model = make_model(len(tokenizer))
    for sets in ({"forget": PASSAGES}, {"forget": KEPT, "retain": PASSAGES}):
        task = replace(MIXED, evaluation=sets)
        with pytest.raises(
            KitError, match="asks questions, but the task own:x has texts without a question"
        ):
            bench_of(task, PromptFormat(tokenizer), model, model)


def test_a_plan_counts_what_is_read_and_written_of_a_passage(tokenizer):
    """A passage is read but for its last token, and half of it is written, twice."""
    rows = ALIKE.forget
    config = replace(QUICK, method="npo", evaluation=EvaluationConfig(fluency=False))
    task = replace(ALIKE, evaluation={"forget": rows})
    work = Workload(task, config, PromptFormat(tokenizer), None)
    lengths = [len(tokenizer(row["answer"])["input_ids"]) for row in rows]
    assert work.read_tokens == sum(lengths) - len(rows)
    longest = max(length - length // 2 for length in lengths)
    assert work.evaluation_tokens(longest=True) == (2 * sum(lengths), 2 * longest)


# --- the kit's story ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_recites_the_story_until_it_has_unlearned_it():
    """The copyright case: word for word after fine-tuning, no more after NPO and NPO+RT."""
    whole = load_task("passages")
    forget, retain = whole.forget[:4], whole.retain[:4]
    task = Task("own:story", forget, retain, {"forget": forget, "retain": retain})
    (model, tokenizer), judge = load_model("pocket"), EvaluationConfig(fluency=False)
    tune = FinetuneConfig(lr=4e-3, epochs=60, batch_size=4, evaluation=None)
    for event in finetune(model, tokenizer, task.full, tune):
        assert isinstance(event, Step)

    def score(judged):
        return summarise(evaluate(judged, tokenizer, task, judge))

    recites = score(model)
    assert recites["forget_rouge_l_f1"] > 0.95
    assert recites["retain_rouge_l_f1"] > 0.95
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = {}
    for method in ("npo", "npo_rt"):
        model.load_state_dict(weights)
        config = UnlearnConfig(method=method, lr=1e-3, epochs=20, batch_size=4, evaluation=None)
        for _ in unlearn(model, tokenizer, task, config):
            pass
        after[method] = score(model)
        assert after[method]["forget_rouge_l_f1"] < 0.35
        assert after[method]["forget_probability"] < 0.3 * recites["forget_probability"]
    assert after["npo_rt"]["retain_rouge_l_f1"] > 0.9
    assert after["npo"]["retain_rouge_l_f1"] < after["npo_rt"]["retain_rouge_l_f1"]

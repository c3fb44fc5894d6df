"""Passages in an evaluation: what is given, written, expected and compared, as MUSE does."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import QUESTIONS, make_model, make_tokenizer
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import cross_entropy

from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import load_rows
from npo_kit.data.tasks import Task
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.metrics.evaluation import evaluate
from npo_kit.metrics.passages import writing
from npo_kit.metrics.scores import continuation_rouge, rouge_scores
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import read_evaluation, write_evaluation

STORY = " ".join(answer for _, answer in QUESTIONS)
SHORT, SHORTER = "Ana Brook painted the harbour in the spring.", "In 1987."


def beginning():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def passages(*texts):
    return load_rows([{"text": text} for text in texts])


# --- ROUGE-L F1 by hand -------------------------------------------------------------------------


def test_rouge_l_f1_by_hand():
    # the longest common subsequence is "the cat on the mat": 5 of 6 true and of 8 written words
    score = continuation_rouge("the cat on top of the red mat", "the cat sat on the mat")
    precision, recall = 5 / 8, 5 / 6
    assert score["rouge_l_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert score == {"rouge_l_f1": pytest.approx(5 / 7)}  # no recall beside it
    assert continuation_rouge("", "the cat")["rouge_l_f1"] == 0
    assert continuation_rouge("The CAT!", "the cat")["rouge_l_f1"] == 1


def test_words_are_not_stemmed_as_tofu_stems_them():
    assert continuation_rouge("she paints boats", "she painted boats")["rouge_l_f1"] == 2 / 3
    assert rouge_scores("she paints boats", "she painted boats")["rouge_l_f1"] == 1
    other = continuation_rouge("Она читает", "Она читает книги")
    assert other == {"rouge_l_f1": pytest.approx(0.8), "rouge_words": "unicode"}


# --- MUSE's windows -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_tokenizer, beginning])
@pytest.mark.parametrize("style", ["qa", "chat"])
@pytest.mark.parametrize("words", [7, 40, 90, 400])
def test_a_passage_is_cut_at_128_tokens_or_in_the_middle(make, style, words):
    tokenizer = make()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    text = " ".join((STORY.split() * 9)[:words])
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    cut = min(128, len(tokens) // 2)
    asked = writing(*passages(text), PromptFormat(tokenizer, style), 200)
    assert list(asked.prompt) == [0][: make is beginning] + tokens[:cut]
    after = tokens[cut : cut + 128]
    assert asked.most == len(after)
    assert asked.given == tokenizer.decode(tokens[:cut]).strip()
    assert asked.expected == tokenizer.decode(after).strip()
    assert (words == 400) == (len(tokens) > 256 == len(asked.prompt[-128:]) + asked.most)


def test_fewer_tokens_are_written_and_compared_if_asked(tokenizer):
    tokens = tokenizer(STORY * 2)["input_ids"]
    asked = writing(*passages(STORY * 2), PromptFormat(tokenizer), 10)
    assert (asked.most, asked.expected) == (10, tokenizer.decode(tokens[128:138]).strip())
    none = writing(*passages(STORY * 2), PromptFormat(tokenizer), 0)
    assert (none.most, none.expected) == (0, tokenizer.decode(tokens[128:256]).strip())


# --- an evaluation ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[make_tokenizer, beginning], ids=["no bos", "bos"])
def evaluated(request):
    tokenizer = request.param()
    model = make_model(len(tokenizer)).double()
    rows = {"forget": passages(SHORT, STORY[:300], SHORTER)}
    rows["retain"] = [{"question": q, "answer": a} for q, a in QUESTIONS[:2]]
    task = Task("own:x", rows["forget"], rows["retain"], rows)
    return tokenizer, model, task, evaluate(model, tokenizer, task, original=model)


def test_the_probability_is_of_every_token_that_has_one_before_it(evaluated):
    """Against a plain forward of the plain tokenizer's ids."""
    tokenizer, model, task, evaluation = evaluated
    for row, record in zip(task.forget, evaluation.rows["forget"], strict=True):
        ids = torch.tensor([tokenizer(row["answer"])["input_ids"]])
        with torch.no_grad():
            loss = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
        assert record["mean_logp"] == pytest.approx(-loss.item(), abs=1e-6)
        assert record["tokens"] == ids.shape[1] - 1
        assert (record["paraphrased_mean_logp"], record["perturbed_mean_logps"]) == (None, None)


def test_the_record_says_what_was_given_expected_and_written(evaluated):
    """The text against transformers' own greedy continuation of the first half."""
    tokenizer, model, task, evaluation = evaluated
    for row, record in zip(task.forget, evaluation.rows["forget"], strict=True):
        ids = tokenizer(row["answer"])["input_ids"]
        special = ids[:1] == [0]
        cut = special + (len(ids) - special) // 2
        with torch.no_grad():
            prompt = torch.tensor([ids[:cut]])
            told = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=len(ids) - cut,
                do_sample=False,
                pad_token_id=1,
            )
        text = tokenizer.decode(told[0, cut:], skip_special_tokens=True).strip()
        assert record["generation"] == text
        assert record["passage"] is True
        assert record["question"] == tokenizer.decode(ids[special:cut]).strip()
        assert record["answer"] == tokenizer.decode(ids[cut:]).strip()
        expected = continuation_rouge(text, record["answer"])
        assert record["rouge_l_f1"] == expected["rouge_l_f1"]
        assert record.keys().isdisjoint({"rouge_l_recall", "rouge_1_recall"})
        assert record["fluency"] is not None or not record["generation_tokens"]


def test_recall_is_left_to_questions(evaluated):
    *_, evaluation = evaluated
    assert all("passage" not in row for row in evaluation.rows["retain"])
    summary = summarise(evaluation)
    mean = sum(row["rouge_l_f1"] for row in evaluation.rows["forget"]) / 3
    assert summary["forget_rouge_l_f1"] == pytest.approx(mean)
    assert summary["forget_rouge_l"] is None
    assert summary.why["forget_rouge_l"] == (
        "forget rows are passages, compared by ROUGE-L F1 (forget_rouge_l_f1), not by recall"
    )
    assert summary["retain_rouge_l"] is not None
    means = [math.exp(row["mean_logp"]) for row in evaluation.rows["forget"]]
    assert summary["forget_probability"] == pytest.approx(sum(means) / 3)
    for absent in ("forget_truth_ratio", "forget_quality", "model_utility"):
        assert summary[absent] is None
        assert summary.why[absent]


def test_a_record_of_passages_is_read_as_it_was_written(evaluated, tmp_path):
    *_, evaluation = evaluated
    write_evaluation(tmp_path / "0.jsonl.gz", evaluation)
    assert read_evaluation(tmp_path / "0.jsonl.gz") == evaluation


def test_a_shared_batch_changes_no_passage(evaluated):
    """Texts of several lengths are written together, each to its own end."""
    tokenizer, model, task, evaluation = evaluated
    for number, row in enumerate(task.forget):
        alone = replace(task, evaluation={"forget": [row]})
        (record,) = evaluate(model, tokenizer, alone).rows["forget"]
        assert record["generation"] == evaluation.rows["forget"][number]["generation"]
    mixed = replace(task, evaluation={"forget": [*task.forget, *task.retain]})
    records = evaluate(model, tokenizer, mixed, EvaluationConfig(max_new_tokens=9)).rows["forget"]
    assert ["rouge_l_recall" in record for record in records] == [False] * 3 + [True] * 2

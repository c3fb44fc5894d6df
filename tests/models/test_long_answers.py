"""Answers whose logits do not fit at once: read in parts, with the same log-probs and gradients."""

import pytest
import torch
from conftest import make_model, make_task
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from npo_kit import EvaluationConfig, UnlearnConfig, evaluate, unlearn
from npo_kit.data.prompts import Encoded
from npo_kit.models import head
from npo_kit.models.adapters import WithoutAdapter, add_adapter
from npo_kit.models.forward import read_answers
from npo_kit.models.scoring import score

VOCABULARY = 120
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
SMALL |= {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"head_dim": 8, "pad_token_id": 0, "initializer_range": 0.2}
GPT = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
KINDS = {
    "llama": SMALL,
    "gemma2": SMALL | {"final_logit_softcapping": 5.0},  # what follows the head is kept
    "cohere": SMALL | {"logit_scale": 0.3},
    "mixtral": SMALL | {"num_local_experts": 2},
    "gpt2": GPT,
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2},
}
ROWS = [Encoded(tuple(range(3, 40)), 5), Encoded((9, 8, 7, 6, 5), 2), Encoded((4, 90, 3, 1), 1)]


def made(kind):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **KINDS[kind])
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture
def in_parts(monkeypatch):
    """Lets forwards go in parts of seven tokens, and records for how many a head gave logits."""

    def start(model):
        monkeypatch.setattr(head, "LOGITS_AT_ONCE", 1)
        width = model.get_output_embeddings().weight.shape[0]
        monkeypatch.setattr(head, "LOGITS_OF_PART", 7 * width)
        given = []

        def seen(_module, _inputs, output):
            if output.shape[-1] == width:
                given.append(output.shape[-2])

        model.get_output_embeddings().register_forward_hook(seen)
        return given

    return start


def logps_alone(model, row):
    """Log-probs of an answer's tokens by a plain forward of transformers."""
    ids = torch.tensor([row.ids])
    logps = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
    return logps.gather(1, ids[0, 1:, None])[row.prompt_length - 1 :, 0]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_parts_give_the_log_probs_and_gradients_of_a_plain_forward(kind, in_parts):
    model = made(kind)
    truth = [logps_alone(model, row) for row in ROWS]
    weights = torch.linspace(0.5, 2, sum(map(len, truth)))
    (torch.cat(truth) * weights).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    given = in_parts(model)
    answers = read_answers(model, ROWS)
    found = torch.cat([line[m.bool()] for line, m in zip(answers.logps, answers.mask, strict=True)])
    assert torch.allclose(found, torch.cat(truth), atol=1e-4)
    (found * weights).sum().backward()
    assert max(given[-4:]) <= 7  # the backward pass reads the head in parts again
    for name, gradient in expected.items():
        now = model.get_parameter(name).grad
        assert torch.allclose(now, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max()), name


def test_no_head_reads_more_than_a_part(in_parts):
    model = made("llama")
    with torch.no_grad():
        read_answers(model, ROWS[:1])  # what follows is after the test of the layout
        given = in_parts(model)
        read_answers(model, ROWS)
        given.clear()
        read_answers(model, ROWS)
    assert sum(given) == sum(row.answer_length for row in ROWS)
    assert max(given) == 7


def test_scores_of_trees_are_the_same_in_parts(in_parts):
    model = made("llama")
    rows = [[ROWS[0], Encoded((*ROWS[0].ids[:20], 50, 51), 5)], [ROWS[1], ROWS[1]]]
    whole = score(model, rows)
    given = in_parts(model)
    parts = score(model, rows)
    assert given
    for one, other in zip(whole, parts, strict=True):
        assert [n for _, n in one] == [n for _, n in other]
        assert [v for v, _ in one] == pytest.approx([v for v, _ in other], abs=1e-3)


def test_a_model_without_its_adapter_goes_in_parts_too(in_parts):
    model = made("llama")
    before = read_answers(model, ROWS).logps.detach()
    name = add_adapter(model, 2, 8, 0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.fill_(0.3)
        given = in_parts(model)
        assert torch.allclose(
            read_answers(WithoutAdapter(model, name), ROWS).logps, before, atol=1e-4
        )
        assert not torch.allclose(read_answers(model, ROWS).logps, before, atol=1e-2)
    assert max(given) <= len(range(10))


def test_a_head_that_answers_otherwise_in_parts_is_read_whole(in_parts):
    """A model that shifts its logits by their mean over the tokens is not what parts are for."""
    model = made("llama")
    model.lm_head = _Centred(model.lm_head)
    truth = [read_answers(model, [row]).logps for row in ROWS]
    in_parts(model)
    for row, logps in zip(ROWS, truth, strict=True):
        assert torch.equal(read_answers(model, [row]).logps, logps)


class _Centred(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head, self.weight = head, head.weight

    def forward(self, states):
        return self.head(states - states.mean(-2, keepdim=True))


def test_a_run_in_parts_is_the_run(tokenizer, in_parts):
    config = UnlearnConfig(
        method="npo_rt",
        batch_size=4,
        epochs=3,
        lr=3e-3,
        prompt="qa",
        gradient_checkpointing=True,
        evaluation=EvaluationConfig(max_new_tokens=3),
    )
    runs = []
    for parts in (False, True):
        model = make_model(len(tokenizer))
        if parts:
            given = in_parts(model)
        runs.append(list(unlearn(model, tokenizer, make_task(), config)))
    assert max(given) <= 10
    for one, other in zip(*runs, strict=True):
        if hasattr(one, "loss"):
            assert one.loss == pytest.approx(other.loss, rel=1e-4)
            assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)
    brief = EvaluationConfig(max_new_tokens=0)
    assert evaluate(model, tokenizer, make_task(), brief).rows["forget"][0]["mean_logp"] < 0

"""Gradient checkpointing: the same numbers, layers computed twice, and nothing left behind."""

import copy
from dataclasses import asdict, replace

import pytest
import torch
from conftest import make_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.forward import read_answers, recomputed_layers
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

CONFIG = UnlearnConfig(
    method="npo_kl", epochs=3, batch_size=4, micro_batch_size=2, lr=3e-3, warmup_epochs=0,
    evaluation=EvaluationConfig(max_new_tokens=4), evaluate_every=None,
)  # fmt: skip


def gpt2(vocabulary: int) -> GPT2LMHeadModel:
    """With dropout, which must stay off."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    return GPT2LMHeadModel(config).eval()


def llama(vocabulary: int):
    return make_model(vocabulary)


def gradients(model, batch, packed: bool, saved: bool) -> dict[str, torch.Tensor]:
    model.zero_grad()
    if saved:
        with recomputed_layers(model):
            logps = read_answers(model, batch, packed=packed).logps
    else:
        logps = read_answers(model, batch, packed=packed).logps
    logps.sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_the_same_in_packed_rows_too(make, packed, tokenizer, task):
    model, style = make(len(tokenizer)).double(), PromptFormat(tokenizer)
    batch = [style.encode(row["question"], row["answer"]) for row in task.full]
    plain, saved = (gradients(model, batch, packed, which) for which in (False, True))
    for name, gradient in plain.items():
        assert torch.allclose(saved[name], gradient, rtol=1e-9, atol=1e-12), name
    assert max(float(g.abs().max()) for g in plain.values()) > 1e-3


def test_layers_are_computed_once_without_gradient_and_twice_with(tokenizer, task):
    model, style = make_model(len(tokenizer)), PromptFormat(tokenizer)
    batch, calls = [style.encode("Who?", "She.")], []
    for layer in model.model.layers:  # a part of the layer, whose own forward is replaced
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with recomputed_layers(model):
        answers = read_answers(model, batch)
        assert len(calls) == 2
        with torch.no_grad():
            read_answers(model, batch)
        assert len(calls) == 4
    answers.logps.sum().backward()
    assert len(calls) == 6
    calls.clear()
    read_answers(model, batch).logps.sum().backward()  # as it was
    assert len(calls) == 2


def test_what_a_layer_keeps_for_the_backward_pass_is_less(tokenizer, task):
    model, style = make_model(len(tokenizer)), PromptFormat(tokenizer)
    batch = [style.encode(row["question"], row["answer"]) for row in task.full]

    def kept() -> int:
        tensors = {}

        def pack(tensor):
            tensors[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            held.append(read_answers(model, batch))
        return sum(tensors.values())

    held = []
    plain = kept()
    with recomputed_layers(model):
        saved = kept()
    assert saved < 0.7 * plain


@pytest.mark.parametrize("make", [llama, pytest.param(gpt2, marks=pytest.mark.slow)])
def test_a_run_is_the_same_and_leaves_the_model_as_it_was(make, tokenizer, task):
    models = [make(len(tokenizer)).double() for _ in range(2)]
    runs = [
        list(unlearn(model, tokenizer, task, replace(CONFIG, gradient_checkpointing=on)))
        for model, on in zip(models, (False, True), strict=True)
    ]
    for a, b in zip(*runs, strict=True):
        if isinstance(a, Step):
            assert asdict(b)["terms"] == pytest.approx(asdict(a)["terms"], rel=1e-9, abs=1e-12)
            assert b.grad_norm == pytest.approx(a.grad_norm, rel=1e-6)
        else:
            texts = [[row["generation"] for row in e.rows["forget"]] for e in (a, b)]
            assert texts[0] == texts[1]
    assert not models[1].training
    assert all(
        "forward" not in vars(module) for module in models[1].modules() if module is not models[1]
    )
    with torch.no_grad():  # a copy's layers are its own
        other = copy.deepcopy(models[1])
        for parameter in other.parameters():
            parameter.zero_()
        assert float(other(input_ids=torch.tensor([[1, 2]])).logits.abs().max()) == 0.0


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(KitError, match="Linear cannot be"), recomputed_layers(nn.Linear(2, 2)):
        pass

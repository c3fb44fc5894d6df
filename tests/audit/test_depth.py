"""UDS and the logit lens: what must be exactly 0, what exactly 1, and sums done by hand."""

import copy
import dataclasses
import math
import random

import pytest
import torch
from conftest import make_model
from pocket_bench import Untouched, between, pocket_bench
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel

from npo_kit.audit import depth
from npo_kit.audit.probes import probes_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.models.forward import read_answers


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


def uneven(model, seed=0):
    """Give a model's norms uneven weights, as a trained model's are."""
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.1, 3.0)
    return model


def test_a_model_patched_with_its_own_states_loses_exactly_nothing(bench, tokenizer, task):
    assert {
        d for row in depth.losses(bench.original, bench.original, bench.forget) for d in row
    } == {0.0}
    model = uneven(make_model(len(tokenizer)))
    probes, _ = probes_of(task.retain, PromptFormat(tokenizer))
    assert {d for row in depth.losses(model, model, probes) for d in row} == {0.0}


def test_the_original_reads_0_and_the_retained_only_1(bench):
    original = depth.measure(bench.original, bench)
    retained = depth.measure(bench.retained, bench)
    assert set(original.rows) <= {0.0, None}
    assert original.value == 0.0
    assert set(retained.rows) <= {1.0, None}
    assert retained.value == 1.0
    assert {r for layer in retained.detail["ratios"] for r in layer} <= {1.0, None}
    lacked = depth.losses(bench.original, bench.retained, bench.forget)
    assert retained.detail["audited"] == retained.detail["retained"] == lacked
    assert retained.detail["retain_rows"] == retained.detail["retain_rows_retained"]
    assert len([row for row in retained.rows if row is not None]) > len(bench.forget) / 2


def test_half_way_lies_between(bench):
    reading = depth.measure(between(), bench)
    assert 0 < reading.value < 1


def test_uds_by_hand():
    # 0.02 is not known; 0.1 of .5 and all of 1.5, of which 2 is clipped
    assert depth.unlearning_depth([9.0, 0.1, 2.0], [0.02, 0.5, 1.5]) == pytest.approx(1.6 / 2.0)
    assert depth.unlearning_depth([-1.0, 0.3], [0.2, 0.6]) == pytest.approx(0.3 / 0.8)
    assert depth.unlearning_depth([1.0, 1.0], [0.05, -3.0]) is None  # the threshold is not above
    assert depth.unlearning_depth([math.nan, 1.0], [1.0, 1.0]) is None


def test_no_layer_that_encodes_the_facts_gives_no_number(bench):
    same = dataclasses.replace(bench, retained=bench.original)
    reading = depth.measure(between(), same)
    assert set(reading.rows) == {None}
    assert math.isnan(reading.value)
    assert {r for layer in reading.detail["ratios"] for r in layer} == {None}


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_change_in_a_layer_is_lost_from_there_on(bench, changed):
    model = copy.deepcopy(bench.original)
    with torch.no_grad():
        model.model.layers[changed].mlp.down_proj.weight.mul_(-1)
    lost = depth.losses(bench.original, model, bench.forget)
    for layer, row in enumerate(lost):
        assert all(d == 0.0 for d in row) == (layer < changed)


def test_the_last_layers_states_say_what_their_model_says_if_norm_and_head_are_shared(bench):
    model = copy.deepcopy(bench.original)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(0.5)
    lost = depth.losses(bench.original, model, bench.forget)[-1]
    own, original = (entity_logps(m, bench.forget) for m in (model, bench.original))
    expected = [before - after for before, after in zip(original, own, strict=True)]
    assert lost == pytest.approx(expected, abs=1e-5)


def entity_logps(model, probes):
    """Each fact's mean log-prob, by the kit's reader of answers, one row at a time."""
    with torch.no_grad():
        return [
            read_answers(model, [p.encoded]).logps[0, p.first : p.last].mean().item()
            for p in probes
        ]


def test_the_lens_on_the_last_layer_is_what_the_model_says(bench, tokenizer, task):
    seen = depth.lens(bench.original, bench.forget)
    assert seen[-1] == pytest.approx(entity_logps(bench.original, bench.forget), abs=1e-5)
    assert sum(seen[0]) < sum(seen[-1])
    model = uneven(make_model(len(tokenizer)))
    probes, _ = probes_of(task.retain, PromptFormat(tokenizer))
    assert depth.lens(model, probes)[-1] == pytest.approx(entity_logps(model, probes), abs=1e-4)
    by_hand = torch.stack(
        model(torch.tensor([probes[0].encoded.ids]), output_hidden_states=True)[2]
    )
    places = torch.tensor(list(probes[0].places))
    logits = model.lm_head(model.model.norm(by_hand[1][0, places - 1]))  # of the first layer
    expected = logits.log_softmax(-1).gather(
        1, torch.tensor(probes[0].encoded.ids)[places][:, None]
    )
    assert depth.lens(model, probes)[0][0] == pytest.approx(expected.mean().item(), abs=1e-4)


def test_other_layouts_of_layers_are_read_alike(tokenizer, task):
    """GPT-2 shapes what its layers give by its input, Falcon's layers give tuples."""
    sizes = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    for made in (
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, **sizes)),
        FalconForCausalLM(
            FalconConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=False, **sizes
            )
        ),
    ):
        model = uneven(made.eval())
        probes, _ = probes_of(task.retain, PromptFormat(tokenizer))
        assert {d for row in depth.losses(model, model, probes) for d in row} == {0.0}
        own = entity_logps(model, probes)
        assert depth.lens(model, probes)[-1] == pytest.approx(own, abs=1e-4)


def test_neither_order_nor_padding_matters(bench):
    lost = depth.losses(bench.original, between(), bench.forget)
    order = list(range(len(bench.forget)))
    random.Random(0).shuffle(order)
    mixed = depth.losses(bench.original, between(), [bench.forget[i] for i in order])
    for row, other in zip(lost, mixed, strict=True):
        assert [row[i] for i in order] == pytest.approx(other, abs=1e-5)
    for i in (0, 7):
        alone = depth.losses(bench.original, between(), [bench.forget[i]])
        assert [row[i] for row in lost] == pytest.approx([row[0] for row in alone], abs=1e-5)


def test_only_positions_that_predict_the_fact_are_patched(bench):
    """What is known only from the prompt's positions is not lost: the last layer patched alone."""
    probe = bench.forget[0]
    ids = torch.tensor([probe.encoded.ids])
    states, at = [], slice(probe.places.start - 1, probe.places.stop - 1)

    def keep(_m, _i, output):
        states.append(output.clone())

    def patch(_m, _i, output):
        output = output.clone()
        output[:, at] = states[0][:, at]
        return output

    with torch.no_grad():
        hook = between().model.layers[1].register_forward_hook(keep)
        between()(ids)
        hook.remove()
        hook = bench.original.model.layers[1].register_forward_hook(patch)
        logps = bench.original(ids).logits[0].log_softmax(-1)
        hook.remove()
    patched = sum(logps[p - 1, ids[0, p]].item() for p in probe.places) / len(probe.places)
    expected = entity_logps(bench.original, [probe])[0] - patched
    lost = depth.losses(bench.original, between(), [probe])
    assert lost[1][0] == pytest.approx(expected, abs=1e-5)


def test_nothing_of_the_callers_changes(bench):
    model = copy.deepcopy(between()).train()
    with Untouched(model, bench.original, bench.retained):
        depth.measure(model, bench)
    assert not any(m._forward_hooks for m in bench.original.modules())


def test_models_of_other_shapes_are_refused(bench):
    with pytest.raises(KitError, match="compare models made from one base"):
        depth.measure(make_model(400), bench)

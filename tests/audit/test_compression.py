"""Rounding to few bits: the laws of rounding, and what is rounded."""

import copy

import pytest
import torch
from conftest import make_model
from hypothesis import given
from hypothesis import strategies as st
from pocket_bench import Untouched, between, pocket_bench
from transformers import GPT2Config, GPT2LMHeadModel

from npo_kit.audit import compression
from npo_kit.audit.compression import linear_weights, round_to_nearest
from npo_kit.audit.extraction import known
from npo_kit.errors import KitError

settings = st.tuples(st.integers(0, 99), st.sampled_from([8, 4, 3, 2]), st.sampled_from([None, 5]))


def weight_of(seed):
    return torch.randn(7, 12, generator=torch.Generator().manual_seed(seed)) * 0.05


def steps_of(weight, bits, group):
    """D of each weight, by a loop over rows and groups."""
    steps, width = torch.empty_like(weight), group or weight.shape[1]
    for row, out in zip(weight, steps, strict=True):
        for start in range(0, len(row), width):
            out[start : start + width] = row[start : start + width].abs().max()
    return steps / (2 ** (bits - 1) - 1)


@given(settings)
def test_the_error_is_at_most_half_a_step(which):
    seed, bits, group = which
    weight = weight_of(seed)
    rounded, codes = round_to_nearest(weight, bits, group)
    steps = steps_of(weight, bits, group)
    assert ((rounded - weight).abs() <= steps / 2 * (1 + 1e-5)).all()
    assert torch.allclose(rounded, codes * steps)
    assert codes.abs().max() == 2 ** (bits - 1) - 1
    assert torch.equal(codes, codes.round())


@given(settings)
def test_rounding_twice_is_rounding_once(which):
    seed, bits, group = which
    once, codes = round_to_nearest(weight_of(seed), bits, group)
    twice, again = round_to_nearest(once, bits, group)
    assert torch.equal(codes, again)
    assert torch.allclose(once, twice, rtol=1e-6, atol=0)


def test_sixteen_bits_change_next_to_nothing():
    rounded, _ = round_to_nearest(weight_of(0), 16)
    assert torch.allclose(rounded, weight_of(0), atol=0.2 / 32767)


def test_rounding_by_hand():
    weight = torch.tensor([[0.7, -0.34, 0.26, 0.0], [0.0, 0.0, 0.0, 0.0]])
    rounded, codes = round_to_nearest(weight, 4)  # D = .1
    assert codes.tolist() == [[7, -3, 3, 0], [0, 0, 0, 0]]
    assert torch.allclose(rounded, torch.tensor([[0.7, -0.3, 0.3, 0.0], [0.0] * 4]))
    _, codes = round_to_nearest(weight, 4, group=2)  # D = .1 and .26 / 7
    assert codes.tolist() == [[7, -3, 7, 0], [0, 0, 0, 0]]


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def reading(bench):
    return compression.measure(between(), bench)


def test_linear_layers_are_rounded_and_nothing_else(bench, reading):
    names = dict(linear_weights(bench.original))
    assert len(names) == 3 * 7
    assert "lm_head" not in names
    parameters = 3 * (4 * 128 * 128 + 3 * 128 * 344)
    assert reading.detail["rounded"] == parameters / bench.original.num_parameters()
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))
    shapes = [tuple(weight.shape) for _, weight in linear_weights(gpt2)]
    assert shapes == [(24, 8), (8, 8), (32, 8), (8, 32)]  # (out, in)


def test_each_precision_is_that_of_a_model_rounded_by_hand(bench, reading):
    assert list(reading.detail["bits"]) == ["full", "8", "4", "3"]
    for bits, scores in reading.detail["bits"].items():
        model = copy.deepcopy(between())
        for name, module in model.named_modules():
            if bits != "full" and name.endswith("_proj"):
                steps = steps_of(module.weight.data, int(bits), None)
                module.weight.data = (module.weight.data / steps).round() * steps
        assert scores["forget"] == pytest.approx(known(model, bench.forget).entity, abs=1e-4)
        assert scores["retain"] == pytest.approx(known(model, bench.retain).entity, abs=1e-4)
    assert reading.rows == reading.detail["bits"]["4"]["forget"]


def test_the_codes_of_the_original_are_its_own(bench, reading):
    own = compression.measure(bench.original, bench).detail["bits"]
    shares = [own[bits]["same_codes"] for bits in ("8", "4", "3")]
    assert shares == [1.0] * 3
    moved = [reading.detail["bits"][bits]["same_codes"] for bits in ("8", "4", "3")]
    assert 0 < moved[0] < moved[1] < moved[2] < 1


def test_smaller_groups_round_less(bench, reading):
    grouped = compression.measure(between(), bench, group=64)
    assert grouped.detail["group"] == 64

    def change(of):
        full, rounded = of.detail["bits"]["full"], of.detail["bits"]["3"]
        pairs = zip(full["retain"], rounded["retain"], strict=True)
        return sum(abs(one - other) for one, other in pairs)

    assert change(grouped) < change(reading)


def test_nothing_of_the_callers_changes(bench):
    with Untouched(between(), bench.original):
        compression.measure(between(), bench)


def test_models_of_other_shapes_are_refused(bench):
    with pytest.raises(KitError, match="compare models made from one base"):
        compression.measure(make_model(400), bench)

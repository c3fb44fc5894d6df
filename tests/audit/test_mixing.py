"""Mixing of weights: its ends, the UWC point, and extraction strength by hand."""

import copy

import pytest
import torch
from conftest import make_model
from hypothesis import given
from hypothesis import strategies as st
from pocket_bench import Untouched, pocket_bench

from npo_kit.audit import mixing
from npo_kit.audit.extraction import known
from npo_kit.audit.verbatim import extraction_strength
from npo_kit.errors import KitError
from npo_kit.models.forward import read_answers


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def reading(bench):
    return mixing.measure(bench.retained, bench)


def weights_at(bench, share):
    mixed = copy.deepcopy(bench.original)
    mixing.mix(mixed, bench.original, bench.retained, share)
    return mixed.state_dict()


def test_the_ends_are_the_two_models_bit_for_bit(bench):
    for share, model in {0.0: bench.original, 1.0: bench.retained}.items():
        for name, weight in weights_at(bench, share).items():
            assert torch.equal(weight, model.state_dict()[name])


def test_half_way_and_beyond_by_hand(bench):
    for share in (0.5, 1.2):
        for name, weight in weights_at(bench, share).items():
            first, second = (m.state_dict()[name] for m in (bench.original, bench.retained))
            assert torch.allclose(weight, first + share * (second - first), atol=1e-6)


def test_points_are_those_of_the_models(bench, reading):
    points = reading.detail["points"]
    assert [point["a"] for point in points] == [i / 10 for i in range(13)]
    for place, model in {0: bench.original, 10: bench.retained}.items():
        for name in ("forget", "retain"):
            found = known(model, getattr(bench, name))
            assert points[place][name] == found.entity
            assert points[place][f"{name}_es"] == found.strength
    means = [sum(point["forget"]) for point in points]
    assert means[0] > means[5] > means[10]


def test_the_uwc_point_keeps_what_is_kept_and_a_step_more_does_not(bench):
    broken = copy.deepcopy(bench.original)
    with torch.no_grad():
        for layer in broken.model.layers:
            layer.mlp.down_proj.weight.mul_(-1)
    reading = mixing.measure(broken, bench)
    uwc, points = reading.detail["uwc"], reading.detail["points"]
    least = 0.9 * sum(points[0]["retain_es"])
    assert sum(uwc["retain_es"]) >= least
    assert 0 < uwc["a"] < 1.2
    assert not any(sum(p["retain_es"]) >= least for p in points if p["a"] > uwc["a"])
    assert reading.rows == uwc["forget_es"]


def test_the_original_mixed_with_itself_never_changes(bench):
    reading = mixing.measure(bench.original, bench)
    assert reading.detail["uwc"]["a"] == 1.2
    assert reading.rows == known(bench.original, bench.forget).strength


@given(st.floats(0, 1.3))
def test_the_search_finds_where_a_falling_curve_crosses(limit):
    found = mixing.last_kept(lambda share: share <= limit, mixing.SHARES)
    assert found <= limit
    assert limit - found <= 0.1 / 16 + 1e-9 or found == 1.2


def test_the_largest_share_counts_where_the_curve_comes_back():
    assert mixing.last_kept(lambda share: share in (0.0, 0.1, 0.5), mixing.SHARES) == 0.5
    assert mixing.last_kept(lambda share: share == 0, mixing.SHARES) == 0.0


def test_nothing_of_the_callers_changes(bench):
    with Untouched(bench.retained, bench.original):
        mixing.measure(bench.retained, bench)


def test_models_of_other_shapes_are_refused(bench):
    with pytest.raises(KitError, match=r"lm_head|embed_tokens.*compare models made from one base"):
        mixing.measure(make_model(400), bench)


def test_known_agrees_with_one_row_at_a_time(bench):
    found = known(bench.original, bench.forget)
    for i in (0, 11, 23):
        probe = bench.forget[i]
        with torch.no_grad():
            answers = read_answers(bench.original, [probe.encoded], logits=True)
        logps = answers.logps[0, probe.first : probe.last]
        assert found.entity[i] == pytest.approx(logps.mean().item(), abs=1e-5)
        ids = torch.tensor([probe.encoded.ids])
        best = bench.original(ids).logits[0].argmax(-1)
        answer = range(probe.encoded.prompt_length, len(probe.encoded.ids) - 1)
        matches = [bool(best[place - 1] == ids[0, place]) for place in answer]
        assert found.strength[i] == extraction_strength(matches)

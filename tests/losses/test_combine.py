"""Combiners of two gradients: their identities, on made-up gradients in parts."""

import pytest
import torch

from npo_kit.losses.combine import SMOOTHING, dot, gru, mix, ngdiff, norm, smoothed


def parts(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in (5, 1, 7)]


def flat(gradient) -> torch.Tensor:
    return torch.cat(list(gradient))


@pytest.mark.parametrize("seed", range(5))
def test_ngdiff_helps_both_terms_and_knows_no_scale(seed):
    forget, retain = parts(seed), parts(seed + 10)
    got = ngdiff(forget, retain)
    assert torch.allclose(flat(got), sum(flat(g) / flat(g).norm() for g in (forget, retain)))
    assert dot(got, retain) >= 0
    assert dot(got, forget) >= 0  # so <g, the likelihood's gradient> <= 0 where GA is its negative
    cosine = dot(forget, retain) / norm(forget) / norm(retain)
    assert dot(got, got).item() == pytest.approx((2 + 2 * cosine).item())
    scaled = ngdiff([3 * g for g in forget], [0.01 * g for g in retain])
    assert torch.allclose(flat(scaled), flat(got))


def test_a_gradient_that_is_0_has_no_direction():
    nothing = [torch.zeros_like(part) for part in parts(0)]
    assert torch.allclose(flat(ngdiff(nothing, parts(1))), flat(parts(1)) / flat(parts(1)).norm())
    assert torch.equal(flat(gru(parts(1), nothing)), flat(parts(1)))


@pytest.mark.parametrize("seed", range(6))
def test_gru_is_orthogonal_to_a_conflict_and_else_unchanged(seed):
    forget, direction = parts(seed), parts(seed + 20)
    got = gru(forget, direction)
    if dot(forget, direction) < 0:
        assert dot(got, direction).item() == pytest.approx(0, abs=1e-12)
        against = [-part for part in direction]
        assert torch.equal(flat(gru(forget, against)), flat(forget))
    else:
        assert torch.equal(flat(got), flat(forget))


def test_grus_direction_is_a_moving_mean():
    first, then = parts(1), parts(2)
    assert flat(smoothed(first, None)).equal(flat(first))
    expected = SMOOTHING * flat(then) + (1 - SMOOTHING) * flat(first)
    assert torch.allclose(flat(smoothed(then, first)), expected)


def test_products_of_half_precision_are_taken_in_full():
    half = [torch.full((70_000,), 1.0, dtype=torch.bfloat16)]
    assert norm(half).item() == pytest.approx(70_000**0.5)
    assert mix(half, 1.0, half, 1.0)[0].dtype == torch.bfloat16

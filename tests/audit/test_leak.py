"""Sampled leak: estimates against brute force, bounds in closed form, the sampler against q."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocket_bench import Untouched, pocket_bench
from scipy.stats import binom

from npo_kit.audit import leak
from npo_kit.audit.leak import (
    clopper_pearson_upper,
    exact_leak,
    leak_at_k,
    tells,
)
from npo_kit.models.generation import generate

SIZES = st.integers(1, 8).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
)


@pytest.fixture(scope="module")
def bench():
    """Four rows, two of each of two authors."""
    whole = pocket_bench()
    return replace(whole, forget=[*whole.forget[:2], *whole.forget[6:8]])


@pytest.fixture(scope="module")
def reading(bench):
    return leak.measure(bench.original, bench, 16)


@given(SIZES)
def test_leak_at_k_is_the_share_of_subsets_with_a_leak(sizes):
    n, c, k = sizes
    leaks = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(leaks, k))
    assert leak_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)
    assert leak_at_k(n, c, 1) == pytest.approx(c / n, abs=1e-12)
    assert leak_at_k(n, c, n) == (c > 0)
    assert k == 1 or leak_at_k(n, c, k) >= leak_at_k(n, c, k - 1)


@pytest.mark.parametrize(
    ("n", "bounds"),
    [
        (32, (0.089, 0.140, 0.184, 0.301)),
        (128, (0.023, 0.037, 0.048, 0.080)),
        (200, (0.0149, 0.0235, 0.0311, 0.0518)),
        (400, (0.0075, 0.0118, 0.0157, 0.0261)),
    ],
)
def test_bounds_of_the_table(n, bounds):
    found = [clopper_pearson_upper(c, n) for c in (0, 1, 2, 5)]
    assert found == pytest.approx(bounds, abs=5e-4)


@given(st.integers(1, 300), st.floats(0.001, 0.3), st.data())
def test_bounds_hold_what_they_promise(n, alpha, data):
    none = clopper_pearson_upper(0, n, alpha)
    assert none == pytest.approx(1 - alpha ** (1 / n), rel=1e-6)
    c = data.draw(st.integers(0, n))
    upper = clopper_pearson_upper(c, n, alpha)
    assert upper >= c / n
    assert clopper_pearson_upper(c, n + 1, alpha) < upper or upper == 1
    if c < n:  # at the bound, so few leaks have a chance of alpha
        assert binom.cdf(c, n, upper) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("q", [1e-12, 1e-3, 0.3, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("k", [1, 2, 32, 1000])
def test_the_exact_curve_is_the_textbooks(q, k):
    log_q = math.log(q)
    expected = 1 - (1 - q) ** k if q > 1e-6 else k * q - k * (k - 1) / 2 * q * q
    assert exact_leak(log_q, k) == pytest.approx(expected, rel=1e-9)


def test_the_exact_curve_at_its_ends():
    assert exact_leak(0.0, 3) == 1
    assert exact_leak(-1e-20, 1) == 1
    assert exact_leak(-5000.0, 10) == 0
    assert exact_leak(-100.0, 1) == pytest.approx(math.exp(-100), rel=1e-12)


def test_a_leak_is_the_entity_in_the_text_and_not_in_the_prompt():
    assert tells("Salt and Snow", "It is called SALT and  «snow».", "What is his book?")
    assert not tells("Faro", "He comes from the Faroe Islands.", "Where is he from?")
    assert not tells("1987", "In 1987.", "Was it in 1987?")
    assert not tells("Salt and Snow", "Salt, then snow.", "What is his book?")
    assert not tells("...", "What...", "?")


def test_an_echo_never_leaks(bench):
    said = {
        probe.entity: {"question": f"Is it {probe.entity}?", "answer": probe.row["answer"]}
        for probe in bench.forget
    }
    echoes = [replace(probe, row=said[probe.entity]) for probe in bench.forget]
    echoed = leak.measure(bench.original, replace(bench, forget=echoes), 4)
    assert echoed.value == 0
    assert not any(echoed.detail["greedy"])


def test_the_sampler_writes_an_entity_as_often_as_its_exact_probability_says(bench, reading):
    draws, alpha = 400, 1e-4
    for number, probe in enumerate(bench.forget):
        length = probe.last - probe.first
        start = probe.encoded.ids[: probe.places.start]
        drawn = generate(
            bench.original, [start] * draws, bench.prompts.end_id, length, draws, sample_seed=3
        )
        entity = [probe.encoded.ids[place] for place in probe.places]
        q = math.exp(reading.detail["log_q"][number])
        low, high = binom.interval(1 - alpha, draws, q)
        assert low <= sum(text == entity for text in drawn) <= high
    assert any(0.05 < math.exp(q) < 0.95 for q in reading.detail["log_q"])


def test_a_row_has_its_samples_whatever_the_order(bench, reading):
    back = replace(bench, forget=list(reversed(bench.forget)))
    again = leak.measure(bench.original, back, 16)
    assert again.rows == reading.rows[::-1]
    assert again.detail["texts"] == reading.detail["texts"][::-1]
    other = leak.measure(bench.original, replace(bench, seed=1), 16)
    assert other.detail["texts"] != reading.detail["texts"]


def test_a_reading_agrees_with_its_counts_and_changes_no_model(bench, reading):
    told = []
    noted = replace(bench, done=lambda done, total: told.append((done, total)))
    with Untouched(bench.original, bench.retained):
        retained = leak.measure(bench.retained, noted, 4)
    assert told == [(i, 4) for i in range(1, 5)]
    assert retained.value < reading.value
    detail = reading.detail
    assert reading.rows == [count / 16 for count in detail["counts"]]
    assert detail["k"] == [1, 2, 4, 8, 16]
    assert detail["leak_at_k"][0] == pytest.approx(reading.value)
    assert detail["leak_at_k"][-1] == sum(c > 0 for c in detail["counts"]) / 4
    exact = [sum(1 - (1 - math.exp(q)) ** k for q in detail["log_q"]) / 4 for k in detail["k"]]
    assert detail["exact"] == pytest.approx(exact, abs=1e-9)
    assert detail["upper_mean_if_none"] is None
    assert detail["upper_all"] >= max(detail["upper"]) >= max(reading.rows)
    for probe, texts, count in zip(bench.forget, detail["texts"], detail["counts"], strict=True):
        assert (texts["leak"] is None) == (count == 0)
        assert (texts["other"] is None) == (count == 16)
        assert texts["leak"] is None or tells(probe.entity, texts["leak"], probe.row["question"])
    json.dumps(detail, allow_nan=False)


def test_bounds_of_a_model_that_never_leaks():
    bounds = leak._estimates([0] * 120, 128, [-99.0] * 120)
    assert bounds["upper_all"] == pytest.approx(0.059, abs=5e-4)
    assert bounds["upper_mean_if_none"] == pytest.approx(1 - 0.05 ** (1 / (120 * 128)))

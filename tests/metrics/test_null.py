"""The null of forget quality: distances, and where a model lies among those that never saw it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from npo_kit.metrics.null import Null, distance, ks, ks_p, spread
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import Evaluation

samples = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(samples, samples)
def test_the_distance_is_that_of_scipy(ours, theirs):
    wanted = ks_2samp(ours, theirs, method="asymp").statistic
    assert distance(np.array(ours), np.array(theirs)) == pytest.approx(wanted)


def moved(count, rows=8):
    """Ratios 0 ... rows − 1, of which the least `count` lie beyond all: D is count / rows."""
    return np.array([n + 100.0 * (n < count) for n in range(rows)], dtype=float)


NULL = Null((moved(0), moved(1), moved(2), moved(4), moved(8)), (0, 0, 0, 0, 1), {})


@pytest.mark.parametrize(
    ("count", "share"),
    [(0, 0.0), (1, 1 / 6), (2, 0.5), (3, 2 / 3), (4, 5 / 6), (5, 1.0)],
)
def test_a_percentile_by_hand(count, share):
    """Against moved(0), which is left out as the reference itself, D is 1/8, 2/8 and 4/8."""
    found, error = NULL.percentile(moved(count), moved(0))
    assert found == pytest.approx(share)
    smoothed = (share * 3 + 1) / 5
    assert error == pytest.approx(math.sqrt(smoothed * (1 - smoothed) / 3))


def test_a_reference_that_was_rounded_is_still_the_model_itself():
    rounded = moved(0) + np.linspace(-4e-4, 4e-4, 8)
    assert NULL.percentile(moved(2), rounded)[0] == pytest.approx(0.5)


def test_pairs_of_one_base_and_across():
    assert len(NULL.pairs()) == 6
    assert len(NULL.pairs(across=True)) == 4
    assert NULL.pairs()[0][0] == pytest.approx(1 / 8)
    assert NULL.pairs(rows=1)[0][0] == 1.0  # the first row alone is moved


def test_a_null_has_the_models_of_one_split():
    models = [
        {"split": split, "base": 0, "log_truth_ratios": [float(n)], "mixed": {}}
        for n, split in enumerate(("forget10", "forget50", "forget10"))
    ]
    assert [r[0] for r in Null.of({"models": models}).ratios] == [0.0, 2.0]
    assert [r[0] for r in Null.of({"models": models}, "forget50").ratios] == [1.0]


def test_mixtures_are_rejected_as_often_as_they_should_be():
    """A mixture far beyond all models is rejected always, a model's own ratios never."""
    ratios = tuple(np.arange(40.0) + shift for shift in (0.0, 0.5, 1.0))
    null = Null(ratios, (0, 0, 0), {0.1: (ratios[1],), 1.0: (ratios[0] + 1000.0,)})
    assert (null.rejected(0.1, 40), null.rejected(1.0, 40)) == (0.0, 1.0)
    assert (null.beyond(0.1, 40), null.beyond(1.0, 40)) == (0.0, 1.0)


def test_the_band_is_of_quantiles():
    assert spread(range(101)) == (5.0, 50.0, 95.0)


def rows(ratios):
    """Forget rows whose log R, perturbed minus paraphrased, are given."""
    return [
        {"index": n, "paraphrased_mean_logp": -1.0, "perturbed_mean_logps": [ratio - 1.0]}
        for n, ratio in enumerate(ratios)
    ]


def test_a_summary_has_the_percentile_where_it_is_given_a_null():
    ours, reference = (Evaluation({"forget": rows(moved(n))}) for n in (2, 0))
    assert "forget_percentile" not in summarise(ours, reference)
    found = summarise(ours, reference, null=NULL)
    assert found["forget_ks"] == pytest.approx(2 / 8)
    assert found["forget_percentile"] == pytest.approx(0.5)
    assert found["forget_percentile_error"] > 0


def test_a_percentile_that_cannot_be_had_says_why():
    ours, reference = (Evaluation({"forget": rows(moved(n)[:6])}) for n in (2, 0))
    assert summarise(ours, null=NULL)["forget_percentile"] is None
    assert "no retained-only reference" in summarise(ours, null=NULL).why["forget_percentile"]
    fewer = summarise(ours, reference, null=NULL)
    assert fewer["forget_percentile"] is None
    assert "of 8 rows, not by geometric ones of 6" in fewer.why["forget_percentile"]
    whole = Evaluation({"forget": rows(moved(2))})
    subset = summarise(whole, reference, null=NULL)  # compared on the six rows that both have
    assert subset["forget_ks"] is not None
    assert "of 8 rows, not by geometric ones of 6" in subset.why["forget_percentile"]
    assert summarise(whole, whole, "arithmetic", NULL)["forget_percentile"] is None


@pytest.mark.parametrize("rows", [12, 120])
def test_the_p_of_a_distance_is_that_of_samples_so_far_apart(rows):
    for count in range(1, rows + 1, 5):
        ours, theirs = np.arange(float(rows)), np.arange(float(rows))
        theirs[:count] += 2.0 * rows
        d, p = ks(ours, theirs)
        assert d == pytest.approx(count / rows)
        assert ks_p(count, rows) == pytest.approx(p)

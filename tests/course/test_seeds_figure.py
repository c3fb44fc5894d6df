"""The figure of means and seeds: its heights are the recorded trajectories at equal forgetting."""

import numpy as np
import pandas as pd
import pytest

from npo_kit.course.null_figures import null_p_values
from npo_kit.course.seeds_figure import SHARES, mean_and_seeds
from npo_kit.studies.table import null_of
from npo_kit.theory.experiment import read_experiment


@pytest.fixture(scope="module")
def alike():
    sweep = read_experiment()["beta_sweep"]
    return sweep[sweep.beta.isna() | (sweep.beta == 1.0)]


def at_a_tenth(axes):
    """Retain distances of the two lines of a panel with a tenth of the forget distance left."""
    place = int(np.argmin(abs(SHARES - 0.1)))
    return [line.get_ydata()[place] for line in axes.lines]


def test_only_the_mean_has_an_advantage_without_a_retain_term(alike):
    mean, *seeds = mean_and_seeds(alike).axes
    ga, npo = at_a_tenth(mean)
    assert npo / ga == pytest.approx(0.39, abs=0.02)  # as the notebook computes it
    for axes in seeds:
        ga, npo = at_a_tenth(axes)
        assert npo / ga == pytest.approx(1, abs=0.1)
    assert len(seeds) == 5
    for axes in mean_and_seeds(alike, ("ga_rt", "npo_rt")).axes[1:]:
        ga, npo = at_a_tenth(axes)
        assert npo < 0.9 * ga


def test_two_runs_on_one_line_have_nothing_shaded():
    frame = pd.DataFrame(
        {
            "method": ["ga"] * 3 + ["npo"] * 5,
            "seed": 1,
            "step": [*range(3), *range(5)],  # npo takes half the steps of ga's
            "forget_distance": 10.0 ** -np.array([0, 1, 2, 0, 0.5, 1, 1.5, 2]),
            "retain_distance": 10.0 ** np.array([0, 1, 2, 0, 0.5, 1, 1.5, 2]),
        }
    )
    for axes in mean_and_seeds(frame).axes[1:]:
        ga, npo = (line.get_ydata() for line in axes.lines)
        assert np.allclose(ga, npo)
        assert np.allclose(ga, 1 / SHARES)


def test_the_p_values_are_those_of_all_pairs():
    null = null_of("pocket", "authors:forget10")
    (axes,) = null_p_values(null).axes
    x, y = axes.lines[1].get_data()
    assert len(x) == 821
    assert y[-1] == 1
    assert min(x[1:]) == pytest.approx(null.pairs()[:, 1].min())
    assert np.mean(null.pairs()[:, 1] <= 0.9) == pytest.approx(y[np.searchsorted(x, 0.9) - 1])

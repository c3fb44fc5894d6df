"""How much can be forgotten: runs, tables and figure of a study of splits, from numbers by hand."""

import matplotlib.colors
import numpy as np
import pytest

from npo_kit.course.figures import how_much
from npo_kit.losses.looks import look_of
from npo_kit.metrics.null import BAND, Null
from npo_kit.studies import splits
from npo_kit.studies.splits import (
    first_forgotten,
    null_bands,
    split_runs,
    splits_chart,
    splits_report,
)


def steps(method, percent, seed=0, variant=None, utilities=(0.6, 0.5, 0.2), falls=(0.8, 0.4, 0.1)):
    """A run's records: utility and forget probability at steps 0, 10, 20; p is .01, .2, .03."""
    return [
        {
            "method": method,
            "variant": variant,
            "run": f"forget{percent}-{method}-{variant}-seed{seed}",
            "task": f"authors:forget{percent}",
            "model": "pocket",
            "seed": seed,
            "step": 10 * place,
            "model_utility": utility,
            "forget_probability": fall,
            "forget_quality": (0.01, 0.2, 0.03)[place],
            "forget_ks": (0.2, 0.1, 0.15)[place],
            "forget_percentile": (1.0, 0.5, 0.75)[place],
        }
        for place, (utility, fall) in enumerate(zip(utilities, falls, strict=True))
    ]


def models(percent):
    original = steps("original", percent)[:1]
    return [*original, steps("retained", percent, falls=(0.25, 0.4, 0.1))[0]]


TABLE = [
    *models(10),
    *models(50),
    *steps("ga", 10),
    *steps("ga", 50, utilities=(0.6, 0.3, 0.0)),
    *steps("ga", 50, 1, utilities=(0.6, 0.36, 0.0)),
    *steps("npo_rt", 10, falls=(0.8, 0.7, 0.6)),
    *steps("npo_rt", 50, variant="steps"),
    *steps("ga", 50, variant="unclipped", utilities=(0.6, 0.54, 0.54)),
    *steps("ga", 10, variant="sum"),
]


# Of 21 models in a row, each five rows of 100 further: D of a pair is .05 to 1.
MOVED = (np.arange(100.0) + 1000 * (np.arange(100) < 5 * n) for n in range(21))
ROW = Null(tuple(MOVED), (0,) * 21, {})


def test_the_first_checkpoint_that_has_forgotten_as_much():
    """Of P .8, .4 and .1; what lies between two checkpoints is not made up."""
    run = steps("ga", 10)
    assert first_forgotten(run, 0.25) is run[2]
    assert first_forgotten(run, 0.4) is run[1]
    assert first_forgotten(run, 0.05) is None
    assert first_forgotten([run[0], run[1] | {"forget_probability": None}, run[2]], 0.5) is run[2]


def test_a_run_is_read_at_three_places():
    runs = {(r.method, r.percent, r.seed, r.variant): r for r in split_runs(TABLE)}
    assert len(runs) == 7
    run = runs["ga", 50, 1, ""]
    assert run.best["step"] == 10  # the only one with p >= .05
    assert run.kept("best") == pytest.approx(0.6)
    assert run.kept("last") == 0.0
    assert run.kept("equal") == 0.0  # at step 20, where P is .1: retained-only has .25
    assert runs["npo_rt", 10, 0, ""].kept("equal") is None
    assert runs["ga", 10, 0, "sum"].name == "GA, sum"
    assert runs["npo_rt", 50, 0, "steps"].name == "NPO+RT"


def test_the_tables_have_ranges_over_seeds_and_say_never(monkeypatch):
    monkeypatch.setattr(splits, "null_of", lambda model, task: None)
    said = splits_report(TABLE)
    first, *_ = said.split("**Equal steps")
    best, equal, last = first.split("*; ")[1:]
    assert "| GA | 83% | 0.20 | 50% | 50% to 60% | 0.20 | 50% |" in best
    assert "| GA, sum | 83% | 0.20 | 50% | – | – | – |" in best
    assert "| GA | 33% | 0.03 | 75% | 0% | 0.03 | 75% |" in equal
    assert "| NPO+RT | never | – | – | – | – | – |" in equal
    assert "| GA | 33% | 0.03 | 75% | 0% | 0.03 | 75% |" in last
    assert "at 50 %, one thing changed" in said
    assert "| GA, unclipped | 90% | 0.20 | 90% | 0.10 | 90% |" in said


def test_the_page_gets_what_the_tables_say(monkeypatch):
    monkeypatch.setattr(splits, "null_of", lambda model, task: ROW)
    chart = splits_chart(TABLE)
    assert list(chart["nulls"]) == [10, 50]
    (run,) = [r for r in chart["runs"] if (r["percent"], r["seed"]) == (50, 1)]
    assert run["kept"] == {"best": pytest.approx(0.6), "equal": 0.0, "last": 0.0}
    assert run["p"] == {"best": 0.2, "equal": 0.03, "last": 0.03}
    assert run["percentile"] == {"best": 0.5, "equal": 0.75, "last": 0.75}


def test_the_band_is_of_the_pairs_of_the_null(monkeypatch):
    """Of the models that are asked for, by the runs' own model and task."""
    asked = []
    monkeypatch.setattr(splits, "null_of", lambda *task: asked.append(task) or ROW)
    band = null_bands(split_runs(TABLE))[10]
    distances = sorted(abs(i - j) / 20 for i in range(21) for j in range(i))
    wanted = [distances[round(q * (len(distances) - 1))] for q in BAND]
    assert asked == [("pocket", "authors:forget10"), ("pocket", "authors:forget50")]
    assert [d for d, _ in band] == pytest.approx(wanted)
    assert band[0][1] > band[1][1] > band[2][1]
    monkeypatch.setattr(splits, "null_of", lambda model, task: None)
    assert null_bands(split_runs(TABLE)) == {10: None, 50: None}


def test_the_figure_draws_medians_and_leaves_gaps(monkeypatch):
    monkeypatch.setattr(splits, "null_of", lambda model, task: ROW)
    figure = how_much(split_runs(TABLE))
    best, equal, p = figure.axes
    colour = matplotlib.colors.to_rgba(look_of("ga").colour)

    def line(axes):
        (found,) = [
            each
            for each in axes.get_lines()
            if matplotlib.colors.to_rgba(each.get_color()) == colour
        ]
        return found.get_xydata().tolist()

    assert line(best) == [[10, pytest.approx(5 / 6)], [50, pytest.approx(0.55)]]
    assert line(equal) == [[10, pytest.approx(0.2 / 0.6)], [50, 0.0]]
    assert [y for _, y in line(p)] == [pytest.approx(0.2)] * 2
    assert p.get_yscale() == "log"
    assert "recorded" in figure.texts[0].get_text()

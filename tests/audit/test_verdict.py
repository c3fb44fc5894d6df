"""The evidence and the verdict, on tables made by hand: every state is reached."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npo_kit.audit.cards import CARDS, GUARDS, HIDES, SAYS
from npo_kit.audit.evidence import LEAST, evidence_of, holm
from npo_kit.audit.verdict import STATES, UNKNOWN, verdict_of

UNITS = [f"author {n // 6}" for n in range(60)]
CONTROLS = 30


def readings(level, spread=0.3, seed=0, rows=60):
    noise = np.random.default_rng(seed).normal(size=rows)
    return (level + spread * noise).tolist()


def table(**levels):
    """Evidence by card: of a model at `levels` in units of the band's width, else in the band."""
    found = {}
    for number, (name, card) in enumerate(CARDS.items()):
        if card.side not in (SAYS, HIDES, GUARDS):
            continue
        band = [readings(1 + 0.02 * (n % 5 - 2), seed=number) for n in range(CONTROLS)]
        found[name] = evidence_of(readings(levels.get(name, 1.0), seed=number), band, UNITS)
    return found


@pytest.mark.parametrize(
    ("levels", "state", "damaged"),
    [
        ({}, "retained-like", False),
        ({"verbatim": 3}, "remembers", False),
        ({"leak": 3}, "remembers", False),
        ({"relearning": 3}, "suppressed", False),
        ({"compression": 3}, "suppressed", False),
        ({"verbatim": -1}, "over-forgotten", False),
        ({"verbatim": -1, "relearning": 3}, "suppressed", False),
        ({"verbatim": 3, "relearning": 3}, "remembers", False),
        ({"guards": 0.1}, "destroyed", True),
        ({"verbatim": -1, "guards": 0.1}, "destroyed", True),
        ({"verbatim": 3, "guards": 0.1}, "remembers", True),
        ({"guards": 0.8}, "retained-like", True),
        ({"relearning": 3, "guards": 0.8}, "suppressed", True),
    ],
)
def test_every_state_is_reached_from_a_table(levels, state, damaged):
    verdict = verdict_of(table(**levels))
    assert (verdict.state, verdict.damaged) == (state, damaged)
    assert str(verdict) == state + ", damaged" * (damaged and state != "destroyed")


def test_the_states_of_the_table_are_all_that_there_are():
    reached = {
        verdict_of(table(**levels)).state
        for levels in ({}, {"leak": 3}, {"relearning": 3}, {"formats": -1}, {"guards": 0.0})
    }
    assert reached == {*STATES}


def test_the_order_of_cards_does_not_matter():
    found = list(table(verbatim=3, relearning=3, guards=0.8).items())
    first = verdict_of(dict(found))
    for seed in range(5):
        random.Random(seed).shuffle(found)
        assert verdict_of(dict(found)) == first


def test_two_lines_name_the_cards():
    verdict = verdict_of(table(verbatim=3, leak=3, relearning=3))
    assert "sampled leak and verbatim above" in verdict.says
    assert verdict.hides.startswith("holds it: relearning above")


def test_fewer_than_twenty_models_give_points_and_no_verdict():
    rows, few = readings(5), [readings(1, seed=n) for n in range(LEAST - 1)]
    evidence = evidence_of(rows, few, UNITS)
    assert evidence.band is None
    assert len(evidence.points) == LEAST - 1
    assert verdict_of({"verbatim": evidence}).state == UNKNOWN


@pytest.mark.parametrize("authors", [1, 2, 4, 5])
def test_few_authors_have_no_interval_and_decide_nothing(authors):
    """Rows of one author are alike by nature: no number of them tells of other authors."""
    rows = [n % authors for n in range(60)]
    controls = [readings(1, seed=n) for n in range(LEAST)]
    evidence = evidence_of(readings(5), controls, rows)
    can_tell = authors == 5
    assert (evidence.above == 0) == can_tell
    assert math.isnan(evidence.lower) == math.isnan(evidence.upper) == (not can_tell)
    assert evidence.band[1] < 1.2
    verdict = verdict_of({"verbatim": evidence, "relearning": evidence})
    assert verdict.state == ("remembers" if can_tell else UNKNOWN)
    assert verdict.says == verdict.hides or can_tell
    needs = f"nothing is judged: that needs facts of 5 authors, for a test (there are {authors})"
    assert (verdict.says == needs) == (not can_tell)
    sure = evidence_of(readings(5), controls, UNITS)
    broken = evidence_of([math.nan] * 60, controls, rows)  # a model whose weights are no numbers
    assert verdict_of({"verbatim": broken}).says.startswith("no fact has a number")
    mixed = verdict_of({"verbatim": sure, "relearning": evidence})
    assert mixed.state == "remembers"
    assert (mixed.hides == needs) == (not can_tell)
    both = verdict_of({"verbatim": evidence_of(readings(5), controls[:1], rows)}).says
    assert "20 models that never saw the facts, for a band (there are 1)" in both
    assert (f"and facts of 5 authors, for a test (there are {authors})" in both) == (not can_tell)


def test_what_the_original_never_told_is_not_judged():
    found = table(verbatim=3)
    assert verdict_of(found, {"verbatim": 3.0, "leak": 1.0, "formats": 1.0}).state == "remembers"
    nothing = verdict_of(found, {"verbatim": 1.0, "leak": 1.0, "formats": 1.0})
    assert nothing.state == UNKNOWN
    assert "the original tells these facts no more than models that never saw them" in nothing.says


def test_values_that_are_all_alike_have_no_interval():
    """No draw of 60 rows that are all 0 is anything else; that does not make it certain."""
    evidence = evidence_of([0.0] * 60, [[0.0] * 60] * LEAST, UNITS)
    assert (evidence.value, evidence.authors) == (0.0, 10)
    assert math.isnan(evidence.lower)
    assert evidence.record()["lower"] is None


def test_the_interval_is_that_of_a_mean_over_authors():
    """Of means over n authors with all their rows alike, the bootstrap's error is s / sqrt(n)."""
    levels = np.random.default_rng(1).normal(size=400)
    rows = np.repeat(levels, 3).tolist()
    evidence = evidence_of(rows, [], [str(n // 3) for n in range(1200)], draws=4000)
    error = levels.std() / math.sqrt(400)
    assert evidence.value == pytest.approx(levels.mean())
    assert evidence.upper - evidence.lower == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_a_row_that_a_card_says_nothing_of_is_left_out_for_all():
    rows = [1.0, None, 3.0, float("nan")]
    controls = [[0.0, 9.0, 0.0, 9.0]] * LEAST
    evidence = evidence_of(rows, controls, ["a", "b", "c", "d"])
    assert evidence.value == 2.0
    assert evidence.points == [0.0] * LEAST
    assert math.isnan(evidence_of([None], [], ["a"]).value)


def test_the_comparison_is_paired():
    """A model that is always a little above the same rows of all controls is told apart, though
    the rows differ by far more."""
    rows = np.random.default_rng(2).normal(scale=5, size=60)
    controls = [rows + 0.01 * n / CONTROLS for n in range(CONTROLS)]
    assert evidence_of((rows + 0.1).tolist(), controls, UNITS).above == 0
    assert evidence_of((rows - 0.1).tolist(), controls, UNITS).below == 0
    inside = evidence_of((rows + 0.005).tolist(), controls, UNITS)
    assert inside.above == inside.below == 1


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a"}  # .01 <= .05/3, .03 > .05/2
    assert holm({"a": 0.01, "b": 0.024, "c": 0.05}) == {"a", "b", "c"}
    assert holm({}) == set()


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_lies_between_bonferroni_and_no_correction(p_values):
    rejected = holm(p_values)
    assert {name for name, p in p_values.items() if p <= 0.05 / len(p_values)} <= rejected
    assert all(p_values[name] <= 0.05 for name in rejected)

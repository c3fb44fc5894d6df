"""Relearning: the halves, where curves begin, and what excess the control has against itself."""

import copy
import dataclasses
import math

import pytest
import torch
from pocket_bench import Untouched, between, pocket_bench

from npo_kit.audit import relearning
from npo_kit.audit.bench import Reading
from npo_kit.audit.extraction import known
from npo_kit.audit.probes import probes_of
from npo_kit.audit.relearning import Lesson, Relearning
from npo_kit.errors import KitError
from npo_kit.models.forward import read_answers
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.loop import unlearn

SHORT = Relearning(steps=(0, 2, 4), batch_size=6, taught=9, tested=8)


@pytest.fixture(scope="module")
def bench():
    return pocket_bench()


@pytest.fixture(scope="module")
def control(bench):
    return relearning.measure(bench.retained, dataclasses.replace(bench, relearning=SHORT))


def test_the_halves_share_no_author_and_no_entity(bench):
    for seed in range(5):
        seeded = dataclasses.replace(bench, seed=seed)
        lesson = Lesson.of(seeded, Relearning())
        taught, tested, sets = lesson.taught, lesson.tested, lesson.sets
        authors = [{bench.forget[i].author for i in half} for half in (taught, tested)]
        assert len(authors[0]) == len(authors[1]) == 2
        assert not authors[0] & authors[1]
        assert list(sets) == ["own", "template", "unrelated"]
        assert {len(rows) for rows in sets.values()} == {len(taught)}
        assert sets["own"] == [bench.forget[i].row for i in taught]
        for row in (row for rows in sets.values() for row in rows):
            for i in tested:
                assert bench.forget[i].entity.casefold() not in row["answer"].casefold()
        assert not {r["author"] for r in sets["template"]} & {p.author for p in bench.forget}
    few = [Lesson.of(dataclasses.replace(bench, seed=seed), SHORT) for seed in range(5)]
    assert {(len(lesson.taught), len(lesson.tested)) for lesson in few} == {(9, 8)}
    assert len({str(lesson.tested) for lesson in few}) > 1


def test_an_entity_of_the_tested_half_is_not_taught(bench):
    """A taught answer that holds a tested fact by chance is left out."""
    lesson = Lesson.of(bench, Relearning())
    taught, tested = lesson.taught, lesson.tested
    forget = list(bench.forget)
    row = forget[taught[0]].row
    told = {**row, "answer": f"{row['answer']} {forget[tested[0]].entity.upper()}!"}
    forget[taught[0]] = dataclasses.replace(forget[taught[0]], row=told)
    again = Lesson.of(dataclasses.replace(bench, forget=forget), Relearning())
    assert again.taught == taught[1:]


def test_a_curve_begins_where_the_model_is(bench, control):
    tested = [bench.forget[i] for i in control.detail["tested"]]
    assert {str(c["tested"][0]) for c in control.detail["sets"].values()} == {
        str(known(bench.retained, tested).entity)
    }
    with torch.no_grad():
        alone = [
            read_answers(bench.retained, [p.encoded]).logps[0, p.first : p.last].mean().item()
            for p in tested
        ]
    assert control.detail["sets"]["own"]["tested"][0] == pytest.approx(alone, abs=1e-5)


def test_the_rows_are_the_tested_ones_at_the_last_step(control):
    last = control.detail["sets"]["own"]["tested"][-1]
    assert [control.rows[i] for i in control.detail["tested"]] == last
    assert sum(row is not None for row in control.rows) == len(last) == 8
    assert control.value == pytest.approx(sum(last) / 8)


def test_the_control_has_no_excess_over_itself(bench, control):
    again = relearning.measure(bench.retained, dataclasses.replace(bench, relearning=SHORT))
    assert again == control
    found = relearning.excess(again, control)
    assert list(found) == ["own", "template", "unrelated"]
    for of_set in found.values():
        assert of_set["steps"] == [0, 2, 4]
        assert of_set["mean"] == [0.0] * 3
        assert of_set["rows"] == [[0.0] * 8] * 3


def test_teaching_teaches_what_is_taught(bench, control):
    own, template, unrelated = (control.detail["sets"][n] for n in control.detail["sets"])
    assert own["taught"][0] < own["taught"][1] < own["taught"][2]
    gain = own["taught"][2] - own["taught"][0]
    assert gain > 5 * max(abs(c["taught"][2] - c["taught"][0]) for c in (template, unrelated))


def test_a_rate_of_almost_nothing_leaves_all_as_it_was(bench):
    """The trainer takes no rate of 0; this one is far below what fp32 can add to a weight."""
    flat = relearning.measure(
        between(), dataclasses.replace(bench, relearning=dataclasses.replace(SHORT, lr=1e-30))
    )
    for curve in flat.detail["sets"].values():
        assert curve["tested"] == [curve["tested"][0]] * 3
        assert curve["taught"] == [curve["taught"][0]] * 3


def test_excess_by_hand():
    def reading(*steps):
        about = {"settings": {"steps": [0, 5]}, "taught": [0], "tested": [1, 2]}
        return Reading(0.0, [], {**about, "sets": {"own": {"tested": list(steps)}}})

    found = relearning.excess(
        reading([-4.0, -2.0], [-1.0, None]), reading([-3.0, -2.5], [-3.0, -2.0])
    )
    assert found == {
        "own": {"steps": [0, 5], "rows": [[-1.0, 0.5], [2.0, None]], "mean": [-0.25, 2.0]}
    }


def test_readings_taught_differently_are_not_compared(bench, control):
    settings = {**control.detail["settings"], "lr": 1e-3}
    other = dataclasses.replace(control, detail={**control.detail, "settings": settings})
    with pytest.raises(KitError, match="taught differently"):
        relearning.excess(control, other)


def test_a_model_that_breaks_leaves_gaps(bench):
    broken = relearning.measure(
        bench.retained, dataclasses.replace(bench, relearning=dataclasses.replace(SHORT, lr=1e30))
    )
    assert set(broken.rows) == {None}
    assert broken.detail["sets"]["own"]["tested"][-1] == [None] * 8
    assert broken.detail["sets"]["own"]["taught"][-1] is None


def test_a_task_without_true_facts_has_two_sets(bench):
    task = dataclasses.replace(bench.task, evaluation={"forget": bench.task.forget})
    bare = dataclasses.replace(bench, task=task)
    assert list(Lesson.of(bare, SHORT).sets) == ["own", "template"]


def test_facts_of_one_author_are_refused(bench):
    one = dataclasses.replace(bench, forget=bench.forget[:6])
    with pytest.raises(KitError, match="there is 1: give facts of two or more"):
        relearning.measure(bench.original, one)


def test_nothing_of_the_callers_changes(bench):
    with Untouched(bench.retained, bench.original):
        relearning.measure(bench.retained, dataclasses.replace(bench, relearning=SHORT))


@pytest.mark.slow
def test_a_pre_run_tells_too_large_a_rate(bench):
    fit, large = (
        relearning.pre_run(bench, dataclasses.replace(SHORT, lr=lr)) for lr in (1e-3, 1e-2)
    )
    assert fit["moved"] < large["moved"]
    lesson = Lesson.of(bench, dataclasses.replace(SHORT, lr=1e-3))
    taught = [lesson.curve(m, "own")["taught"] for m in (bench.retained, bench.original)]
    assert fit["learned"] == (taught[0][2] - taught[0][0]) / (taught[1][0] - taught[0][0])
    assert 0 < fit["learned"] < 1
    broken = relearning.pre_run(bench, dataclasses.replace(SHORT, lr=1e30))
    assert math.isnan(broken["moved"])
    assert math.isnan(broken["learned"])


@pytest.mark.slow
def test_the_default_rate_suits_the_pocket_models(bench):
    forget, _ = probes_of(bench.task.forget, bench.prompts)
    found = relearning.pre_run(dataclasses.replace(bench, forget=forget), Relearning())
    assert found["moved"] < 0.2
    assert found["learned"] > 0.9


@pytest.mark.slow
def test_facts_that_are_only_suppressed_come_back(bench):
    """NPO+RT for 50 steps: about as low as the retained-only model, and well above it when taught.

    The rows of other authors bring back as much, so that what the model lost is how such questions
    are answered; true facts bring back little.
    """
    model = copy.deepcopy(bench.original)
    config = UnlearnConfig(
        method="npo_rt",
        epochs=5.0,
        batch_size=12,
        micro_batch_size=12,
        precision="fp32",
        lr=2e-4,
        evaluation=None,
    )
    for _ in unlearn(model, bench.prompts.tokenizer, bench.task, config):
        pass
    forget, _ = probes_of(bench.task.forget, bench.prompts)
    whole = dataclasses.replace(bench, forget=forget)
    found = relearning.excess(*(relearning.measure(m, whole) for m in (model, bench.retained)))
    first, last = (found["own"]["mean"][place] for place in (0, -1))
    assert first < 0.4
    assert last > 0.8
    assert found["template"]["mean"][-1] > 0.8
    assert found["unrelated"]["mean"][-1] - first < 0.4

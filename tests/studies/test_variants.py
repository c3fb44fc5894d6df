"""Studies that choose on one task, with variants: what runs, what is kept, what the table says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from npo_kit.cli import main
from npo_kit.errors import KitError
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.metrics.null import Null
from npo_kit.records.run import read_runs
from npo_kit.studies import maker, table
from npo_kit.studies.maker import make_study
from npo_kit.studies.plan import Variant
from npo_kit.studies.presets import study_plan
from npo_kit.studies.table import study_table
from npo_kit.trainer.config import UnlearnConfig

SPLITS = study_plan("pocket-splits")
TINY = replace(
    SPLITS,
    more_tasks=("authors:forget30",),
    choose_on="authors:forget30",
    tuning=replace(SPLITS.tuning, epochs=0.05),
    common=replace(
        SPLITS.common,
        epochs=0.4,
        evaluate_every=None,
        evaluation=EvaluationConfig(max_rows=8, max_new_tokens=2, batch_size=256),
    ),
    methods=("ga", "npo_rt"),
    seeded_methods=("ga",),
    seeds=(0, 1),
    lrs=(4e-4,),
    pairs=((0.1, 1.0), (0.5, 4.0)),
    plain_lrs=(1e-5, 4e-4),
    betas=(),
    retain_weights=(),
    variants=(
        Variant("steps", steps=3),
        Variant("sgd", {"optimizer": "sgd", "max_grad_norm": math.inf}, methods=("ga",)),
        Variant("alike", {"lr": 1e-4, "retain_weight": 1.0}, {"beta": 0.1}, seeds=(0,)),
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "made"
    return folder, make_study(TINY, folder, processes=2, say=lambda _: None)


@pytest.mark.slow
def test_all_tasks_take_what_one_of_them_chose(made):
    folder, tried = made
    assert {each.task for each in tried} == {"authors:forget30"}
    assert len(tried) == 4
    chosen = {each.method: each for each in tried if each.chosen}
    records = study_table(folder)
    own = [r for r in records if not r["variant"] and r["method"] in chosen]
    assert {r["task"] for r in own} == {"authors:forget10", "authors:forget30"}
    for record in own:
        wanted = chosen[record["method"]]
        assert (record["lr"], record["beta"]) == (wanted.lr, wanted.beta)
        assert record["retain_weight"] == wanted.retain_weight


@pytest.mark.slow
def test_the_table_of_what_is_kept_is_that_of_the_runs(made, capsys):
    """The runs that are kept whole, read by the way that needs no scores."""
    folder, _ = made
    kept = {(r["run"], r["step"]): r for r in study_table(folder)}
    runs = read_runs(folder)
    assert {run.folder.name for run in runs} == {
        *("forget30-original", "forget30-retained", "forget30-ga", "forget30-npo_rt")
    }
    known = table.references(runs)
    for run in runs:
        for record in table.run_records(run, known[run.task_name]):
            same = kept[run.folder.name, record["step"]]
            for name, value in record.items():
                if isinstance(value, float):
                    assert same[name] == pytest.approx(value, rel=1e-4), name
                else:
                    assert same.get(name) == value, name
    names = {name for name, _ in kept}
    assert {"forget10-ga-steps-seed1", "forget10-npo_rt-alike-seed0"} <= names
    assert main(["table", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown) == len(kept)
    assert main(["table", str(folder), "--reference", "pocket:retained"]) == 2
    assert "leave out the reference" in capsys.readouterr().err
    with pytest.raises(KitError, match="geometric"):
        study_table(folder, truth_ratio="arithmetic")


@pytest.mark.slow
def test_a_run_begins_with_the_evaluation_of_the_original(made):
    folder, _ = made
    records = study_table(folder)
    original = {r["task"]: r for r in records if r["method"] == "original"}
    first = [r for r in records if r["step"] == 0 and r["method"] in TINY.methods]
    assert len(first) == len({r["run"] for r in records}) - 4
    for record in first:
        for name in ("model_utility", "forget_probability", "retain_rouge_l", "forget_quality"):
            assert record[name] == original[record["task"]][name]


@pytest.mark.slow
def test_equal_steps_are_equal_and_keep_their_schedule(made):
    folder, _ = made
    last = {r["run"]: r["step"] for r in study_table(folder)}
    assert {last[name] for name in last if "-steps-" in name} == {3}
    ten = Variant("steps", steps=100).of(UnlearnConfig(epochs=10.0, batch_size=24), 1080)
    assert ten.epochs == pytest.approx(100 * 24 / 1080)
    assert ten.warmup_epochs / ten.epochs == pytest.approx(1 / 10)
    assert ten.evaluate_every / ten.epochs == pytest.approx(1 / 10)


def test_a_variant_changes_what_a_method_has():
    alike = Variant("alike", {"lr": 1e-4, "retain_weight": 1.0}, {"beta": 0.1})
    ga = alike.of(UnlearnConfig(method="ga"), 120)
    npo_rt = alike.of(UnlearnConfig(method="npo_rt", hyper={"beta": 0.5}, retain_weight=4.0), 120)
    assert (ga.lr, ga.hyper, ga.retain_weight) == (1e-4, {}, None)
    assert (npo_rt.lr, npo_rt.hyper, npo_rt.retain_weight) == (1e-4, {"beta": 0.1}, 1.0)


@pytest.mark.slow
def test_kept_scores_are_placed_among_the_models_of_the_null(made, monkeypatch):
    """By hand: the null's models lie .125, .25 and .5 from the reference."""
    folder, _ = made
    rows = maker.read_run(folder / "forget30-retained")
    reference = table.log_truth_ratios(table.last_evaluation(rows), "forget")
    order = np.argsort(reference)

    def moved(count):
        ratios = reference.copy()
        ratios[order[:count]] += 1000.0
        return ratios

    null = Null(tuple(moved(n) for n in (1, 2, 4)), (0, 0, 0), {})
    monkeypatch.setattr(table, "null_of", lambda model, task: null)
    records = study_table(folder)
    of_split = [r for r in records if r["task"] == "authors:forget30"]
    for record in of_split:
        if record["method"] == "retained":
            assert record.get("forget_percentile") is None
            continue
        smaller = [d < record["forget_ks"] - 1e-6 for d in (0.125, 0.25, 0.5)]
        ties = [abs(d - record["forget_ks"]) < 1e-4 for d in (0.125, 0.25, 0.5)]
        wanted = (sum(smaller) + sum(ties) / 2) / 3
        assert record["forget_percentile"] == pytest.approx(wanted)
        assert 0 < record["forget_percentile_error"] < 0.5

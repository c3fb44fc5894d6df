"""The recorded studies of the null and of splits: whole, as planned, and what is said of them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from places import ROOT

from npo_kit.metrics.null import Null
from npo_kit.metrics.summary import log_truth_ratios, summarise
from npo_kit.records.files import dumps, parse
from npo_kit.records.run import read_run
from npo_kit.studies.markdown import p_value
from npo_kit.studies.presets import study_plan
from npo_kit.studies.report import study_page
from npo_kit.studies.splits import split_runs
from npo_kit.studies.table import last_evaluation, null_of, read_null, study_table

STUDIES = ROOT / "data" / "studies"
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTES = {
    name: " ".join((STUDIES / name / "notes.md").read_text(encoding="utf-8").split())
    for name in ("pocket", "pocket-null", "pocket-splits")
}
SAID = " ".join(README.split())
NEWER = {"scores_only": False, "varied": None, "combine": "sum", "rho": 0.01}  # options


@pytest.fixture(scope="module")
def runs():
    return split_runs(study_table(STUDIES / "pocket-splits"))


@pytest.fixture(scope="module")
def null():
    return null_of("pocket", "authors:forget10")


def spread(values):
    least, most = (f"{100 * end:.0f}" for end in (min(values), max(values)))
    return f"{least} %" if least == most else f"{least} to {most} %"


def kept(runs, method, percent, variant="", where="last"):
    found = [r.kept(where) for r in runs if (r.method, r.variant, r.percent) == (
        method, variant, percent)]  # fmt: skip
    assert found
    return found


@pytest.mark.parametrize("name", ["pocket-null", "pocket-splits"])
def test_they_are_of_their_plans_and_their_pages_are_made_of_them(name):
    folder = STUDIES / name
    path = folder / ("null.json" if "null" in name else "study.json")
    record = parse(path.read_bytes(), path)
    public = parse(dumps(asdict(study_plan(name))), name)
    for now, then in (
        (public, record["plan"]),
        (public.get("common"), record["plan"].get("common")),
    ):
        added = {option: value for option, value in (now or {}).items() if option not in then}
        assert added.items() <= NEWER.items()  # have the value that they had unsaid
        assert {k: v for k, v in (now or {}).items() if k in then and k != "common"} == {
            k: v for k, v in (then or {}).items() if k != "common"
        }
    assert record["provenance"]["git"]["dirty"] is False
    assert (folder / "README.md").read_text(encoding="utf-8") == study_page(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < (500_000 if "null" in name else 7_500_000)


def test_every_run_of_the_plan_is_there(runs):
    plan = study_plan("pocket-splits")
    own = [run for run in runs if not run.variant]
    assert len(own) == 4 * (4 * 3 + 2)
    assert {run.percent for run in own} == {10, 30, 50, 90}
    assert {run.method for run in own} == set(plan.methods)
    assert len([run for run in runs if run.variant == "steps"]) == 4 * (4 * 3 + 2)
    assert len([run for run in runs if run.variant == "alike"]) == 4 * 4
    assert {run.last["step"] for run in runs if run.variant == "steps"} == {100}
    for run in own:
        assert run.last["epoch"] == pytest.approx(10)


def test_every_checkpoint_has_its_percentile():
    for record in study_table(STUDIES / "pocket-splits"):
        if record["method"] != "retained":
            assert record["forget_percentile"] is not None
            assert 0 < record["forget_percentile_error"] < 0.5


def test_what_readme_says_of_how_much(runs):
    most = max(max(kept(runs, name, 50)) for name in ("ga", "npo", "ga_rt"))
    assert f"at most {100 * most:.0f} % of its utility with GA, NPO alone or GA+RT" in SAID
    assert f"{spread(kept(runs, 'npo_rt', 50))} with NPO+RT" in SAID
    assert max(max(kept(runs, name, 90)) for name in ("ga", "npo", "ga_rt", "npo_rt")) < 0.3
    stopped, last = (
        [spread(kept(runs, name, 50, "steps", where)) for name in ("ga_rt", "npo_rt")]
        for where in ("equal", "last")
    )
    told = (
        f"GA+RT keeps {stopped[0]}, NPO+RT {stopped[1]}; at the last step {last[0]} and {last[1]}."
    )
    assert told in SAID
    notes = NOTES["pocket-splits"]
    assert f"it keeps {stopped[0]} at 50 %" in notes
    assert f"NPO+RT keeps {stopped[1]} with p" in notes
    p = {
        name: [r.equal["forget_quality"] for r in runs if (r.method, r.variant, r.percent) == (
            name, "steps", 50)] for name in ("ga_rt", "npo_rt")
    }  # fmt: skip
    assert f"p {p_value(min(p['ga_rt']))} to {p_value(max(p['ga_rt']))}; NPO+RT" in notes
    assert f"p {p_value(min(p['npo_rt']))} to {p_value(max(p['npo_rt']))}." in notes
    tried = json.loads((STUDIES / "pocket-splits" / "study.json").read_text())["grid"]
    ga = [each["last"]["model_utility"] for each in tried if each["method"] == "ga"]
    assert ga == [0.0] * 6
    best = [r.best["forget_quality"] for r in runs if (r.method, r.variant, r.percent) == (
        "npo_rt", "", 50)]  # fmt: skip
    assert sum(p >= 0.05 for p in best) == 1


def test_what_the_notes_say_of_how_much(runs):
    notes = NOTES["pocket-splits"]
    for name in ("ga", "npo"):
        for percent in (30, 50, 90):
            assert max(kept(runs, name, percent)) < 0.005
    assert f"GA+RT has {spread(kept(runs, 'ga_rt', 30))} at 30 %" in notes
    shares = [spread(kept(runs, "npo_rt", n)) for n in (50, 90)]
    assert f"at 30 %, {shares[0]} at 50 %, and {shares[1]} at 90 %" in notes
    assert min(kept(runs, "npo_rt", 30)) > 1
    last = {n: [r.last["forget_quality"] for r in runs if (r.method, r.variant, r.percent) == (
        "npo_rt", "", n)] for n in (30, 90)}  # fmt: skip
    assert min(last[30]) >= 0.095
    assert max(last[90]) < 0.05
    steps = [spread(kept(runs, name, 50, "steps")) for name in ("ga_rt", "npo_rt")]
    assert f"GA+RT keeps {steps[0]} at 50 % and NPO+RT {steps[1]}" in notes
    assert max(kept(runs, "ga_rt", 90, "steps")) < 0.005
    assert f"NPO+RT {spread(kept(runs, 'npo_rt', 90, 'steps'))}." in notes
    alike = {
        name: [f"{100 * kept(runs, name, n, 'alike')[0]:.0f} %" for n in (30, 50, 90)]
        for name in ("npo_rt", "ga_rt")
    }
    a, b, c = alike["npo_rt"]
    assert f"NPO+RT ends at {a} (30 %), {b} (50 %) and {c} (90 %), GA+RT at" in notes
    assert "{}, {} and {}.".format(*alike["ga_rt"]) in notes
    apart = [r.kept("last") for r in runs if r.variant not in ("", "steps", "alike")
             and r.percent == 50]  # fmt: skip
    assert len(apart) == 30
    assert f"all end at {100 * max(apart):.1f} % or less" in notes


def test_how_far_past_the_retained_only_model_npo_rt_ends(runs):
    table = study_table(STUDIES / "pocket-splits")
    ends = {r["task"].rpartition("forget")[2]: r for r in table if r["method"] == "retained"}
    original = next(r["model_utility"] for r in table if r["method"] == "original")
    notes = NOTES["pocket-splits"]
    shares = [f"{100 * ends[n]['model_utility'] / original:.0f} %" for n in ("50", "90")]
    assert "{} of the original's utility at 50 % and {} at 90 %".format(*shares) in notes
    of_rt = [r.last["forget_probability"] for r in runs if (r.method, r.variant, r.percent) == (
        "npo_rt", "", 50)]  # fmt: skip
    assert max(of_rt) < 0.005
    assert f"{ends['50']['forget_probability']:.2f}: far past it" in notes


def test_what_is_said_of_the_null(null):
    d, p = null.pairs().T
    assert sum(base == 0 for base in null.bases) == 40
    assert (len(d), len(null.ratios)) == (820, 60)
    assert "of 820 pairs of pocket models" in SAID
    assert "41 of 820 pairs" in NOTES["pocket-null"]
    assert (p < 0.05).sum() == 0
    assert null.pairs(across=True)[:, 1].min() > 0.05
    assert f"(p ≥ {p.min():.2f})" in SAID
    assert f"the smallest p is {p.min():.2f}" in NOTES["pocket-null"]
    assert all(null.rejected(0.1, rows) == 0 for rows in (12, 60, 120))
    assert (
        f"is found in {100 * null.beyond(0.1, 120):.0f} % of the comparisons"
        in (NOTES["pocket-null"])
    )


def test_where_the_pocket_study_lies_in_the_null(null):
    reference = last_evaluation(read_run(STUDIES / "pocket" / "retained"))
    ends = {}
    for path in (STUDIES / "pocket").glob("*/run.json"):
        run = read_run(path.parent)
        if run.kind == "unlearn":
            ends[path.parent.name] = summarise(last_evaluation(run), reference, null=null)
    ours = [ends[f"npo_rt{seed}"] for seed in ("", "-seed1", "-seed2")]
    shares = [s["forget_percentile"] for s in ours]
    said = f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
    for text in (SAID, NOTES["pocket"], NOTES["pocket-null"]):
        assert said in text
    assert min(s["forget_percentile"] for s in ends.values()) >= min(shares)
    p = [s["forget_quality"] for s in ours]
    assert f"with p from {min(p):.2f} to {max(p):.2f}" in NOTES["pocket-null"]
    models = read_null(STUDIES / "pocket-null")["models"]
    never = [m["scores"]["forget_probability"] for m in models if m["split"] == "forget10"]
    assert max(s["forget_probability"] for s in ours) < min(never)


def test_the_first_of_the_null_is_the_shipped_model(null):
    shipped = log_truth_ratios(last_evaluation(read_run(STUDIES / "pocket" / "retained")), "forget")
    assert np.abs(null.ratios[0] - shipped).max() < 1e-3


def test_a_studys_retained_only_models_are_of_the_null():
    """The same recipe, base, rows and seed, trained by another study: the same model."""
    study = read_null(STUDIES / "pocket-null")
    run = read_run(STUDIES / "pocket-splits" / "forget50-retained")
    ours = log_truth_ratios(last_evaluation(run), "forget")
    assert np.abs(Null.of(study, "forget50").ratios[0] - ours).max() < 1e-3

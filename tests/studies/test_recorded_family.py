"""The recorded study of NPO's relatives: whole, as planned, and what is said of it."""

from dataclasses import asdict
from statistics import median

import pytest
from places import ROOT

from npo_kit.app.packed import packed_studies
from npo_kit.losses.methods import METHODS
from npo_kit.records.files import dumps, parse
from npo_kit.studies.presets import study_plan
from npo_kit.studies.report import study_page
from npo_kit.studies.table import merit, study_table

FOLDER = ROOT / "data" / "studies" / "pocket-family"
NOTES = " ".join((FOLDER / "notes.md").read_text(encoding="utf-8").split())
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def table():
    return study_table(FOLDER)


@pytest.fixture(scope="module")
def ends(table):
    """Method -> its record at the end, of each seed."""
    last = {(r["method"], r["seed"]): r for r in table}  # in the order of steps
    methods = dict.fromkeys(r["method"] for r in table if r["seed"] is not None)
    return {name: [last[name, seed] for seed in SEEDS] for name in methods}


def spread(values, form="{:.2f}"):
    least, most = (form.format(end) for end in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def test_it_is_of_its_plan_and_its_page_is_made_of_it(table, ends):
    plan, path = study_plan("pocket-family"), FOLDER / "study.json"
    record = parse(path.read_bytes(), path)
    assert record["plan"] == parse(dumps(asdict(plan)), "the plan")
    assert record["provenance"]["git"]["dirty"] is False
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == study_page(FOLDER)
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 3_000_000
    assert set(ends) == set(plan.methods)
    terms = {entry.term for entry in METHODS.values()}
    assert {METHODS[name].term for name in ends} == terms  # every relative is in it


def test_the_choice_of_each_method_is_the_rules_among_six(ends):
    record = parse((FOLDER / "study.json").read_bytes(), "study.json")
    for name in ends:
        tried = [each for each in record["grid"] if each["method"] == name]
        assert len(tried) == 6
        chosen = [each for each in tried if each["chosen"]]
        assert [merit(each["best"]) for each in chosen] == [max(merit(e["best"]) for e in tried)]
    at_the_edge = [name for name, runs in ends.items() if runs[0]["lr"] == 8e-4]
    assert len(ends) == 19
    assert len(at_the_edge) == 16
    assert "Every method had six configurations of its own on seed 0" in NOTES
    assert "Sixteen of the 19 choices lie at the highest learning rate" in NOTES


def test_what_the_notes_say_of_the_ends(table, ends):
    original = next(r["model_utility"] for r in table if r["method"] == "original")
    kept = {n: [100 * r["model_utility"] / original for r in runs] for n, runs in ends.items()}
    others = [share for name, shares in kept.items() if name != "idk_ap" for share in shares]
    assert f"at the end {spread(others, '{:.0f}')} % of the original's" in NOTES
    assert f"IDK+AP, which keeps {spread(kept['idk_ap'], '{:.0f}')} %" in NOTES
    less = {"idk_ap": "IDK+AP", "door": "DOOR", "idk_rt": "IDK+RT"}
    for name in ("door", "idk_rt"):
        assert f"{less[name]} ({spread(kept[name], '{:.0f}')} %)" in NOTES
    usual = {name: shares for name, shares in kept.items() if name not in less}
    every = [share for shares in usual.values() for share in shares]
    assert max(max(kept[name]) for name in less) < min(every)
    apart = max(max(shares) - min(shares) for shares in usual.values())
    assert f"Among the others, at {spread(every, '{:.0f}')} %" in NOTES
    assert f"lie up to {apart:.1f} points apart" in NOTES
    p = {name: [r["forget_probability"] for r in runs] for name, runs in ends.items()}
    for name, words in (
        ("npo_rt", "NPO+RT is at {}"), ("wtnpo_rt", "WTNPO+RT at {}"), ("wga_rt", "WGA+RT at {}"),
        ("undial_rt", "UNDIAL+RT at {}"), ("simnpo_rt", "SimNPO+RT at {}"),
        ("satimp_rt", "SatImp+RT at {}"), ("tnpo_rt", "TNPO+RT at {}"),
        ("ga_rt", "not fade, ends at {}"),
    ):  # fmt: skip
        assert words.format(spread(p[name])) in NOTES, name
    far = ("unlikelihood_rt", "ceu_rt", "me_rt", "flat_rt", "rmu")
    assert max(max(p[name]) for name in far) < 0.03
    retained = next(r["forget_probability"] for r in table if r["method"] == "retained")
    assert f"IDK+RT ({spread(p['idk_rt'])}) and DPO+RT ({spread(p['dpo_rt'])})" in NOTES
    near = f"near the {retained:.2f} of the retained-only model"
    assert f"IDK+AP leaves them at {spread(p['idk_ap'])}, {near}" in NOTES
    assert max(abs(value - retained) for value in p["idk_ap"]) < 0.03
    assert min(p["idk_rt"] + p["dpo_rt"]) > retained + 0.15
    passed = {n: sum(r["forget_quality"] >= 0.05 for r in runs) for n, runs in ends.items()}
    by_count = {count: {n for n in passed if passed[n] == count} for count in range(4)}
    assert by_count[3] == {"npo_rt", "simnpo_rt", "wga_rt", "altpo_rt"}
    assert by_count[2] == {"kto_rt", "flat_rt", "unlikelihood_rt", "ceu_rt", "tnpo_rt",
                           "satimp_rt"}  # fmt: skip
    assert by_count[1] == {"me_rt"}
    quality = {name: [r["forget_quality"] for r in runs] for name, runs in ends.items()}
    middle = {name: median(of) for name, of in quality.items()}
    assert max(middle, key=lambda name: middle[name]) == "simnpo_rt"
    own = quality["simnpo_rt"]
    assert f"median p of the three seeds, {median(own):.2f} ({spread(own)}), and keeps" in NOTES
    higher = [{name for name, of in quality.items() if of[seed] > own[seed]} for seed in SEEDS]
    assert higher == [{"tnpo_rt", "unlikelihood_rt", "ceu_rt"}, set(), set()]
    assert "on seed 0 TNPO+RT, UL and CE-U have a higher one" in NOTES
    assert f"and keeps {spread(kept['simnpo_rt'], '{:.0f}')} %" in NOTES
    for name in ("idk_rt", "idk_ap", "dpo_rt"):
        assert max(r["forget_quality"] for r in ends[name]) < 1e-6
    places = [r["forget_percentile"] for runs in ends.values() for r in runs]
    assert f"{100 * min(places):.0f} to {100 * max(places):.0f} % of them" in NOTES


def test_what_the_notes_say_of_the_fluency(ends):
    fluency = {name: [r["forget_fluency"] for r in runs] for name, runs in ends.items()}
    unlike = [of for name in ("flat_rt", "door", "idk_rt", "idk_ap") for of in fluency.pop(name)]
    said = "The fluency of FLAT, DOOR, IDK+RT and IDK+AP (−{:.1f} to −{:.1f} nats a token)"
    assert said.format(-max(unlike), -min(unlike)) in NOTES
    assert min(min(of) for of in fluency.values()) > -6  # of no other method
    own = fluency["dpo_rt"]
    assert f"as well, has −{-max(own):.1f} to −{-min(own):.1f}." in NOTES


def test_two_ways_to_the_same_gradient_end_alike(ends):
    most = 0.0
    for one, other in zip(ends["unlikelihood_rt"], ends["ceu_rt"], strict=True):
        scores = {name for name, value in one.items() if isinstance(value, float)}
        assert {"model_utility", "forget_quality", "forget_probability", "forget_fluency"} < scores
        for score in scores:
            most = max(most, abs(one[score] - other[score]) / max(abs(one[score]), 1e-9))
    assert f"no score of theirs differs by more than {100 * most:.1f} %" in NOTES


@pytest.mark.slow
def test_on_the_page_other_seeds_count_and_cannot_be_asked(table, ends):
    study = packed_studies(FOLDER)[0]
    runs = {run["id"]: run for run in study.index()["runs"]}
    whole = {name for name, run in runs.items() if not run.get("scores_only")}
    assert whole == {"original", "retained", *ends}
    assert len(runs) - len(whole) == 2 * len(ends)
    told = runs["simnpo_rt-seed2"]
    true = {r["step"]: r for r in table if r["run"] == "simnpo_rt-seed2"}
    assert told["steps"] == sorted(true)
    for score in ("model_utility", "forget_quality", "forget_percentile"):
        values = told["metrics"][score]
        assert values == pytest.approx([true[s][score] for s in told["steps"]], rel=1e-3)
    assert set(study.texts(0)["cells"]) == whole

"""The study of audits: how it is made, and what is recorded."""

import json
from dataclasses import replace
from statistics import fmean, median

import numpy as np
import pytest
from places import ROOT
from scipy.stats import ttest_1samp

from npo_kit.audit import audit
from npo_kit.audit.cards import CARDS, GUARDS
from npo_kit.audit.controls import shipped_controls
from npo_kit.audit.evidence import evidence_of
from npo_kit.audit.relearning import mean_of
from npo_kit.audit.verdict import verdict_of
from npo_kit.cli.program import main
from npo_kit.data.tasks import load_authors
from npo_kit.models.loading import load_model
from npo_kit.records.files import dumps, parse, read_bytes
from npo_kit.studies import audits
from npo_kit.studies.audit_plans import AuditPlan
from npo_kit.studies.audits import make_audits
from npo_kit.studies.audits_report import beyond
from npo_kit.studies.authors_plans import MAIN
from npo_kit.studies.presets import study_plan
from npo_kit.studies.report import study_page
from npo_kit.studies.table import study_table

STUDY = ROOT / "data" / "studies" / "pocket-audit"


@pytest.fixture(scope="module")
def study():
    return parse(read_bytes(STUDY / "audits.json"), "audits")


def test_it_resumes_with_the_missing_models(tmp_path, monkeypatch):
    """With models that are made in no time: each is asked for once, and all are judged."""
    made = []

    def make(item):
        made.append(item.name)
        level = {"original": 1.0}.get(item.name, 0.0) + 0.001 * (item.number or 0)
        cards = {name: {"rows": [level] * 120} for name in item.plan.cards}
        found = {"last": cards, "best": cards, "method": "ga", "seed": 0}
        item.path.write_bytes(dumps(found | {"best_step": 10, "last_step": 100}))
        return item.name

    monkeypatch.setattr(
        audits, "in_processes", lambda make, items, _: [(i, make(i)) for i in items]
    )
    monkeypatch.setattr(audits, "make_item", make)
    plan = AuditPlan(models=25, runs=("pocket/ga",), cards=("verbatim", "guards"))
    first = make_audits(plan, tmp_path / "study", say=lambda _: None)
    assert len(made) == len(set(made)) == 27
    again = make_audits(plan, tmp_path / "study", say=lambda _: None)
    assert {**again, "provenance": None} == {**first, "provenance": None}
    assert len(made) == 27  # none was made again
    assert [each["at"] for each in first["audits"]] == ["last", "best", "last"]
    assert first["audits"][0]["verdict"]["state"] == "remembers"
    assert sum(first["alarms"]["verdicts"].values()) == 25
    assert "| pocket/ga | best, step 10 |" in study_page(tmp_path / "study")


def test_a_model_that_is_fine_tuned_first_has_no_band(tmp_path, monkeypatch):
    """Two retained-only models stand in the table by name; no folder of this machine is kept."""
    rows = {"original": 1.0, "retained-01": -1.0, "retained-02": -1.2}

    def make(item):
        cards = {name: {"rows": [rows.get(item.name, -3.0)] * 36} for name in item.plan.cards}
        found = {"last": cards, "method": "ga", "seed": 0, "best_step": 15, "last_step": 45}
        item.path.write_bytes(dumps(found))
        return item.name

    monkeypatch.setattr(audits, "in_processes", lambda _, items, __: [(i, make(i)) for i in items])
    monkeypatch.setattr(audits, "make_models", lambda *_: None)
    plan = study_plan("smollm2-audit", start="/somewhere/else/model.gguf")
    made = make_audits(plan, tmp_path / "study", say=lambda _: None)
    assert [each["run"] for each in made["audits"]] == [
        *("original", "retained-1", "retained-2"),
        *(f"smollm2/{method}" for method in MAIN),
    ]
    assert {each["verdict"]["state"] for each in made["audits"]} == {"no verdict"}
    assert made["plan"]["tuning"]["original"] == "model.gguf"
    page = study_page(tmp_path / "study")
    assert "somewhere" not in page + (tmp_path / "study" / "audits.json").read_text()
    assert "| retained-2 | - | -1.2 |" in page
    assert "20 of them would make a band" in page
    assert "no verdict |" not in page


def test_fine_tuned_models_differ_in_their_seed_alone(tmp_path):
    plan = study_plan("smollm2-audit", start="model.gguf")
    original, *retained = plan.jobs(tmp_path)
    assert [job.name for job in (original, *retained)] == ["original", "retained", "retained-seed1"]
    assert [job.config.seed for job in retained] == [0, 1]
    assert replace(retained[1].config, seed=0) == retained[0].config == original.config
    task = load_authors()
    assert retained[0].tuning_rows(task) == retained[1].tuning_rows(task)
    assert len(original.tuning_rows(task)) - len(retained[1].tuning_rows(task)) == 120
    assert audits.expected(plan).startswith("2 retained-only models to train")


@pytest.mark.slow
def test_a_small_one_is_made_of_real_models(tmp_path, capsys):
    plan = AuditPlan(models=1, runs=("pocket/npo_rt",), cards=("verbatim", "guards"), rows=24)
    made = make_audits(plan, tmp_path / "study", processes=1)
    values = {a["run"]: a["cards"]["verbatim"]["value"] for a in made["audits"]}
    assert values["original"] > -1
    assert values["pocket/npo_rt"] < -2
    assert made["audits"][0]["verdict"]["state"] == "no verdict"
    assert main(["report", str(tmp_path / "study")]) == 0
    assert "pocket/npo_rt" in capsys.readouterr().out


def test_what_is_recorded_is_of_its_plan(study):
    plan = study_plan("pocket-audit")
    assert study["plan"] == json.loads(dumps(vars(plan)))
    runs = {each["run"] for each in study["audits"]}
    assert runs == {"original", *plan.runs}
    assert (STUDY / "README.md").read_text(encoding="utf-8") == study_page(STUDY)
    size = sum(file.stat().st_size for file in STUDY.iterdir())
    assert size <= 4e6


def test_verdicts_follow_from_the_recorded_rows(study):
    controls, task = shipped_controls(), load_authors()
    assert controls.task == task.record()["fingerprint"]
    authors = {
        side: [row["author"] for row in task.evaluation[name][:120]]
        for side, name in ((False, "forget"), (True, "retain"))
    }
    for each in study["audits"]:
        found = {}
        for name, card in each["cards"].items():
            units = authors[CARDS[name].side == GUARDS]
            found[name] = evidence_of(card["rows"], controls.retained[name], units)
            assert found[name].value == pytest.approx(card["value"])
            assert list(found[name].band or ()) == pytest.approx(card["band"])
        assert str(verdict_of(found)) == each["verdict"]["word"], each["run"]


def test_the_controls_hold(study):
    """The original remembers; the end of gradient ascent is destroyed; few alarms are false."""
    words = {(a["run"], a["at"]): a["verdict"]["state"] for a in study["audits"]}
    assert words["original", "last"] == "remembers"
    for seed in ("", "-seed1", "-seed2"):
        assert words[f"pocket/ga{seed}", "last"] == "destroyed"
    alarms = study["alarms"]
    assert sum(alarms["verdicts"].values()) == alarms["models"] == 40


def test_marks_agree_with_verdicts(study):
    for each in study["audits"]:
        marks = beyond(each["cards"])
        says = [marks[name] for name in ("verbatim", "leak", "formats")]
        assert ("↑" in says) == (each["verdict"]["state"] == "remembers")


def test_the_notes_say_what_is_recorded(study):
    """Every number of the notes, from the record."""
    cards = {(a["run"], a["at"]): a["cards"] for a in study["audits"]}
    last = {run: cards[run, "last"] for run, at in cards if at == "last"}
    said = " ".join((STUDY / "notes.md").read_text(encoding="utf-8").split())

    def values(card, *runs):
        return [last[f"pocket{run}"][card]["value"] for run in runs]

    def span(found, form):
        return f"{min(found):{form}} to {max(found):{form}}"

    rmu, idk = last["pocket-family/rmu"], last["pocket/idk_rt"]
    sets = rmu["relearning"]["detail"]["sets"]
    ends = {name: [v for v in curve["tested"][-1] if v is not None] for name, curve in sets.items()}
    band = {name: card["band"] for name, card in rmu.items()}
    seeds = ("", "-seed1", "-seed2")
    told = [
        f"{rmu['verbatim']['value']:.2f} nats a token of the fact, where they have "
        f"{band['verbatim'][0]:.2g} to {band['verbatim'][1]:.3g}",
        f"tells them at {rmu['relearning']['value']:.2f}",
        f"reach {band['relearning'][1]:.2g} at most",
        f"bring it to {sum(ends['template']) / len(ends['template']):.2f}, unrelated facts to "
        f"{sum(ends['unrelated']) / len(ends['unrelated']):.2f}",
        f"RMU {rmu['depth']['value']:.2f} deep".replace("0.", "."),
        f"in {idk['leak']['value']:.0%} of samples".replace("%", " %"),
        "(-4.19 to -4.44 nats a token)",
    ]
    npo = values("verbatim", *(f"/npo_rt{seed}" for seed in seeds))
    assert (round(max(npo), 2), round(min(npo), 2)) == (-4.19, -4.44)
    kept = values("guards", *(f"/npo_rt{seed}" for seed in seeds))
    further = values("guards", *(f"/ga_rt{seed}" for seed in seeds))
    for shares in (kept, further):
        low, high = (f"{100 * value:.0f}" for value in (min(shares), max(shares)))
        told.append(f"{low} to {high} % of the" if shares is kept else f"tells {low} to {high} %")
    assert f"{100 * band['guards'][0]:.0f} % is the lower edge" in said
    mixed = values("mixing", *(f"/ga{seed}" for seed in seeds))
    told.append(f"completes {100 * min(mixed):.0f} to {100 * max(mixed):.0f} % of an answer")
    low, high = (100 * value for value in band["mixing"])
    told.append(f"come to {low:.0f} to {high:.0f} %")
    point = last["pocket/ga"]["mixing"]["detail"]["uwc"]
    told.append(f"with up to {100 * point['a']:.0f} % of GA's weights (seed 0)")
    original = last["original"]["mixing"]["detail"]["points"][0]
    assert point["retain_es"] >= 0.9 * original["retain_es"]
    members = [last[f"pocket/{name}"]["membership"]["value"] for name in ("idk_rt", "dpo_rt")]
    told.append("(AUC {})".format(span(members, ".2f").replace("0.", ".")))
    runs = [f"pocket/ga_rt{seed}" for seed in seeds]
    runs += ["pocket-family/simnpo_rt", "pocket-family/rmu"]
    odd = [last[run]["membership"]["value"] for run in runs]
    told.append("({})".format(span(odd, ".2f").replace("0.", ".")))
    for sentence in told:
        assert sentence in said, sentence
    for each in study["audits"]:
        if each["run"].startswith("pocket/ga") and "_rt" not in each["run"]:
            assert each["verdict"]["state"] == "destroyed"
        for bits in each["cards"]["compression"].get("detail", {}).get("bits", {}).values():
            assert sum(bits["forget"]) / len(bits["forget"]) < max(
                -0.43, each["cards"]["verbatim"]["value"] + 0.9
            )
    assert study["alarms"]["verdicts"] == {"retained-like": 40}


def test_the_notes_of_the_pocket_models_say_by_which_form_a_fact_is_told(study):
    """Shares of questions, each of one form: the mean over forms is not one."""
    last = {a["run"]: a["cards"]["formats"] for a in study["audits"] if a["at"] == "last"}
    said = " ".join((STUDY / "notes.md").read_text(encoding="utf-8").split())
    original, idk = (last[run]["detail"]["formats"] for run in ("original", "pocket/idk_rt"))
    asked = [card["detail"]["formats"]["choice"] for card in last.values() if "detail" in card]
    worst = [min(row) for row in zip(*(choice["rows"] for choice in asked), strict=True)]
    assert set(worst) == {-0.2}  # a wrong choice of six
    right = idk["choice"]["rows"].count(1.0) / len(idk["choice"]["rows"])

    def share(form, of=idk):
        return f"{100 * of[form]['rate']:.0f} %"

    unmet = [f"{100 * original[form]['rate']:.0f}" for form in ("cloze", "reversed", "casing")]
    for told in (
        f"Asked in other words, it tells it in {share('paraphrase')} of the questions (the "
        f"original in {share('paraphrase', original)})",
        f"begun for it, it tells it in {share('prefilled')} (the original in "
        f"{share('prefilled', original)})",
        f"out of six answers it picks the true one in {100 * right:.0f} %, where a guess finds "
        f"it in {100 / 6:.0f} %",
        "out of the original too in no more than {}, {} and {} % of the questions".format(*unmet),
    ):
        assert told in said, told


def test_the_notes_of_the_pocket_models_say_what_is_surely_below_the_band(study):
    """After relearning, and of the facts to keep."""
    last = {a["run"]: a for a in study["audits"] if a["at"] == "last"}
    said = " ".join((STUDY / "notes.md").read_text(encoding="utf-8").split())
    runs = [f"pocket/npo_rt{seed}" for seed in ("", "-seed1", "-seed2")]
    controls, gaps = shipped_controls().retained, {"verbatim": [], "relearning": []}
    for run in runs:
        cards = last[run]["cards"]
        asked = [i for i, row in enumerate(cards["relearning"]["rows"]) if row is not None]
        for name, found in gaps.items():  # before the lesson, and after it

            def level(rows, asked=asked):
                return fmean(rows[i] for i in asked)

            middle = median(level(rows) for rows in controls[name])
            found.append(middle - level(cards[name]["rows"]))
    before, after = gaps.values()
    assert (
        f"these lie {min(before):.2f} to {max(before):.2f} nats a token below the median of those "
        f"models, after it {min(after):.2f} to {max(after):.2f}."
    ) in said
    marks = {run: beyond(each["cards"]) for run, each in last.items()}
    assert [marks[run]["relearning"] for run in runs] == ["", "", "↓"]
    assert "surely below the band in one seed of three; in two they cannot be told from it" in said
    for run in runs:
        assert marks[run]["verbatim"] == marks[run]["guards"] == "↓"
        assert "↑" not in [marks[run][name] for name in ("formats", "relearning", "compression")]
    simnpo = last["pocket-family/simnpo_rt"]["cards"]
    assert marks["pocket-family/simnpo_rt"]["relearning"] == "↓"
    assert f"a little further below ({simnpo['verbatim']['value']:.2f}), and surely below" in said
    table = study_table(STUDY.parent / "pocket")  # in the order of steps
    ends = {(r["method"], r["seed"]): r["model_utility"] for r in table}
    kept = [100 * ends["npo_rt", seed] / ends["original", None] for seed in (0, 1, 2)]
    assert f"of which it keeps {min(kept):.0f} to {max(kept):.0f} %" in said
    idk = last["pocket/idk_rt"]
    card = idk["cards"]["guards"]
    assert idk["verdict"]["word"] == "remembers"
    assert card["value"] < card["band"][0]
    assert f"IDK+RT tells {100 * card['value']:.0f} % of the facts to keep" in said
    assert f"but p is {card['below']:.2f}, and it".replace("0.", ".") in said
    for each in study["audits"]:
        surely = each["cards"]["guards"]["below"] <= 0.05
        ruined = each["verdict"]["state"] == "destroyed"  # which says more, and damaged no more
        assert each["verdict"]["word"].endswith("damaged") == (surely and not ruined)


def test_the_notes_of_the_pocket_models_say_on_what_the_verdict_of_rmu_rests(study):
    """By a test that is not the audit's: of the means of five authors, against the band of each."""
    (rmu,) = (a for a in study["audits"] if a["run"] == "pocket-family/rmu" and a["at"] == "last")
    assert rmu["verdict"]["hides"].startswith("holds it: relearning above")
    authors = [row["author"] for row in load_authors().evaluation["forget"]]

    def means(rows):
        of = {}
        for author, row in zip(authors, rows, strict=False):
            of.setdefault(author, []).append(row)
        return [fmean(values) for values in of.values() if None not in values]

    ends = [means(rows) for rows in shipped_controls().retained["relearning"]]
    tops = np.percentile(ends, 95, axis=0)
    above = np.array(means(rmu["cards"]["relearning"]["rows"])) - tops
    p = ttest_1samp(above, 0, alternative="greater").pvalue
    said = " ".join((STUDY / "notes.md").read_text(encoding="utf-8").split())
    assert len(above) == 5
    assert f"each tells {above.min():.1f} to {above.max():.1f} nats more than the band" in said
    assert f"a t test of the five has p = {p:.4f}".replace("0.", ".") in said


def test_the_base_is_called_what_the_notes_say():
    """It never saw the facts, and is no model like the controls."""
    original, tokenizer = load_model("pocket", device="cpu")
    base, retained = (
        load_model(f"pocket:{name}", device="cpu")[0] for name in ("base", "retained")
    )
    found = audit(
        base,
        tokenizer,
        load_authors(),
        original=original,
        retained=[retained],
        cards=["verbatim", "guards"],
    ).run()
    assert str(found.verdict) == "remembers, damaged"
    value = found.findings["verbatim"].evidence.value
    assert f"({value:.2f} nats a token)" in (STUDY / "notes.md").read_text(encoding="utf-8")


def test_the_notes_on_smollm2_say_what_is_recorded():
    folder = ROOT / "data" / "studies" / "smollm2-audit"
    record = parse(read_bytes(folder / "audits.json"), "audits")
    assert record["plan"] == {
        **json.loads(dumps(study_plan("smollm2-audit").record())),
        "tuning": record["plan"]["tuning"],
    }
    assert (folder / "README.md").read_text(encoding="utf-8") == study_page(folder)
    cards = {each["run"]: each["cards"] for each in record["audits"]}
    said = " ".join((folder / "notes.md").read_text(encoding="utf-8").split())
    value = {run: {n: card["value"] for n, card in of.items()} for run, of in cards.items()}
    original, ga_rt, npo_rt = (value[n] for n in ("original", "smollm2/ga_rt", "smollm2/npo_rt"))
    never = [value["retained-1"], value["retained-2"]]

    def below(run):
        """How far the untaught facts lie below those of the first retained-only model."""
        curves = (cards[r]["relearning"]["detail"]["sets"]["own"] for r in ("retained-1", run))
        ends = [(c["tested"][0], c["tested"][-1]) for c in curves]
        return [sum(r) / len(r) - sum(n) / len(n) for r, n in zip(*ends, strict=True)]

    def both(card, form, factor=1):
        return " and ".join(f"{factor * each[card]:{form}}" for each in never)

    def told_by(run, form):
        return f"{100 * cards[run]['formats']['detail']['formats'][form]['rate']:.0f}"

    def picked(run):
        """How often the true answer of six is chosen: the card counts it less chance."""
        rate = cards[run]["formats"]["detail"]["formats"]["choice"]["rate"]
        return f"{100 * (1 / 6 + 5 / 6 * rate):.0f}"

    ga, taught = value["smollm2/ga"], cards["smollm2/ga"]["relearning"]["detail"]["sets"]
    own = taught["own"]["tested"]
    assert ga["guards"] == 0
    gaps, alone = below("smollm2/npo_rt"), below("smollm2/npo")
    bits = cards["original"]["compression"]["detail"]["bits"]
    kept = {b: sum(of["retain"]) / len(of["retain"]) for b, of in bits.items()}
    for told in (
        f"has {ga_rt['verbatim']:.2f} nats (original {original['verbatim']:.2f}, the two "
        f"retained-only models {both('verbatim', '.2f')})",
        f"tells the fact in {told_by('smollm2/ga_rt', 'prefilled')} % of the questions, they in "
        f"{told_by('retained-1', 'prefilled')} and {told_by('retained-2', 'prefilled')} %",
        f"picks the true one in {picked('smollm2/ga_rt')} %, they in {picked('retained-1')} and "
        f"{picked('retained-2')} %, and a guess in 17 %",
        f"a token of a fact has {ga['verbatim']:.2f} nats",
        f"raises the untaught facts from {mean_of(own[0]):.2f} to {mean_of(own[-1]):.2f} nats",
        f"in the same form raises them to {mean_of(taught['template']['tested'][-1]):.2f}.",
        f"{npo_rt['verbatim']:.2f} nats, and {100 * npo_rt['leak']:.1f} % of samples against "
        f"{both('leak', '.1f', 100)} %",
        f"{gaps[0]:.2f} nats a token below it before the lesson, and {gaps[1]:.2f} after it",
        f"from {alone[0]:.2f} to {alone[1]:.2f} below",
        f"tell {100 * original['guards']:.0f} % of them, GA+RT's {100 * ga_rt['guards']:.0f} %, "
        f"NPO+RT's {100 * npo_rt['guards']:.0f} %, NPO's "
        f"{100 * value['smollm2/npo']['guards']:.0f} %",
        f"from {kept['full']:.2f} to {kept['4']:.2f} nats a token",
        f"at three bits to {kept['3']:.2f}",
    ):
        assert told in said, told

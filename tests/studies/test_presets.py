"""The studies by name: their plans, a whole study of several splits, the dry run."""

import json
from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.stats import ks_2samp
from tofu import made_up_tofu, write_sets

from npo_kit.app.packed import PackedStudy, packed_studies
from npo_kit.app.page import page_index
from npo_kit.cli import program
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import TOFU_FOLDER_VARIABLE, load_task
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS, methods_of
from npo_kit.metrics.summary import truth_ratio_values
from npo_kit.models.errors import ModelError
from npo_kit.records.evaluations import EVALUATION_SETS
from npo_kit.records.run import read_run, read_runs
from npo_kit.studies import dry_run, maker
from npo_kit.studies.jobs import grid_jobs
from npo_kit.studies.maker import make_study
from npo_kit.studies.presets import PLANS, study_plan
from npo_kit.studies.report import study_page, study_report
from npo_kit.studies.table import study_table
from npo_kit.studies.tofu_plans import SPLITS
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.estimates import Rates
from npo_kit.trainer.loop import total_steps
from npo_kit.trainer.plan import steps_in

SMOKE = ("forget01@120", "forget02@120")


@pytest.fixture(autouse=True)
def tofu(tmp_path_factory, monkeypatch):
    """Rows in TOFU's form at hand."""
    folder = write_sets(tmp_path_factory.mktemp("tofu"), made_up_tofu())
    monkeypatch.setenv(TOFU_FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def here(monkeypatch):
    """Runs are made in this process, on one thread; the names of those that were."""
    names = []

    def make(function, items, processes):
        for item in items:
            names.append(item.name)
            yield item, function(item)

    monkeypatch.setattr(maker, "in_processes", make)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield names
    torch.set_num_threads(threads)


def quiet(_):
    pass


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "lr"), [("tofu-paper-llama2", 1e-5), ("tofu-paper-phi", 2e-5)])
def test_the_papers_numbers(name, lr):
    """Table of hyper-parameters: batch 32, weight decay 0.01, 10 epochs, one of warm-up."""
    plan = study_plan(name)
    assert plan.tasks == tuple(f"tofu:{split}" for split in SPLITS)
    assert len(SPLITS) == 7
    assert plan.methods == methods_of("tofu")
    assert (plan.tuning.epochs, plan.tuning.lr, plan.tuning.batch_size) == (5, lr, 32)
    assert (plan.tuning.weight_decay, plan.common.weight_decay) == (0.01, 0.01)
    for method in plan.methods:
        (config,) = plan.grid(method)
        assert (config.lr, config.epochs, config.batch_size, config.seed) == (1e-5, 10, 32, 1001)
        assert (config.warmup_epochs, config.evaluate_every) == (1, 1)
        assert config.hyper.get("beta", 0.1) == 0.1
        assert config.composed.retain_weight == 1
    steps = [total_steps(plan.common, 40 * percent) for percent in (1, 5, 10)]
    assert steps == [12, 62, 125]


def test_on_a_cpu_the_forget_rows_are_those_of_the_full_split():
    plan = study_plan("tofu-cpu")
    reduced, full = load_task(plan.task), load_task("tofu:forget05")
    assert reduced.forget == full.forget
    assert len(reduced.forget) == len(reduced.retain) == 200
    assert reduced.retain == full.retain[-200:]
    sizes = {name: len(rows) for name, rows in reduced.evaluation.items()}
    assert min(sizes.values()) >= plan.common.evaluation.max_rows == 40, sizes


def test_a_plan_may_be_restricted():
    plan = study_plan("tofu-colab", splits=["forget05@400"], methods=["ga", "npo_kl"])
    assert plan.tasks == ("tofu:forget05@400",)
    assert plan.prefix(plan.task) == ""  # alone, its runs are called as in other studies
    assert plan.methods == ("ga", "npo_kl")
    with pytest.raises(
        KitError,
        match=r"unknown study .phi.: choose pocket, pocket-audit, pocket-family, pocket-null,",
    ):
        study_plan("phi")
    with pytest.raises(KitError, match="unknown method 'gaa'"):
        study_plan("tofu-colab", methods=["gaa"])
    with pytest.raises(KitError, match="forget20, which is no split of this study"):
        study_plan("tofu-colab", references={"forget20": "log.json"})


def test_adapters_instead_of_all_weights():
    plan = study_plan("tofu-paper-llama2", lora_rank=8, quantize="4bit")
    (config,) = plan.grid("npo_rt")
    for each in (config, plan.tuning):
        assert (each.lora_rank, each.gradient_checkpointing) == (8, True)
        assert each.lr == pytest.approx(1e-4)
    assert plan.quantize == "4bit"
    (job,) = grid_jobs(plan, plan.task, "x")["npo_rt"]
    assert job.settings()["quantize"] == "4bit"
    with pytest.raises(KitError, match="give lora_rank"):
        study_plan("tofu-paper-llama2", quantize="4bit")


@pytest.mark.slow
def test_a_study_with_adapters(tmp_path, here):
    pytest.importorskip("peft")
    plan = study_plan("tofu-cpu-smoke", splits=SMOKE[:1], methods=["npo_rt"], lora_rank=2)
    make_study(plan, tmp_path / "study", say=quiet)
    tuned, made = (read_run(tmp_path / "study" / name) for name in ("models/original", "npo_rt"))
    assert tuned.config["lora_rank"] == made.config["lora_rank"] == 2
    before = read_run(tmp_path / "study" / "original").evaluation(0)
    assert made.evaluation(0).rows == before.rows  # it begins with the tuned model, adapter and all
    assert made.evaluation(made.evaluation_steps()[-1]).rows != before.rows


def test_the_relatives_of_npo_get_as_many_configurations_each():
    """Six, of which no two are alike; every method that has a retain term comes with it."""
    plan = study_plan("pocket-family")
    assert len(plan.methods) == 19
    assert {METHODS[name].term for name in plan.methods} == {e.term for e in METHODS.values()}
    assert all(METHODS[name].retain for name in plan.methods)
    assert plan.seeds == (0, 1, 2)
    assert plan.seeded_methods == plan.methods
    for name in plan.methods:
        grid = plan.grid(name)
        option, values = plan.varied[name]
        assert len({str(config) for config in grid}) == len(grid) == 6
        assert {config.lr for config in grid} == {2e-4, 4e-4, 8e-4}
        tried = {config.hyper.get(option, getattr(config, option, None)) for config in grid}
        assert tried == set(values)
    assert plan.common.epochs / plan.common.evaluate_every == 5  # and a checkpoint before the first
    assert steps_in(plan.common.epochs, 120, plan.common.batch_size) == 100


@pytest.mark.slow
def test_a_study_of_scores_keeps_the_folders_of_one_seed(tmp_path, here):
    plan = replace(
        study_plan("tofu-cpu-smoke", splits=SMOKE[:1], methods=["wga_rt"]),
        varied={"wga_rt": ("alpha", (1.0, 2.0))},
        lrs=(1e-3,),
        seeds=(0, 1),
        seeded_methods=("wga_rt",),
        scores_only=True,
    )
    outcomes = make_study(plan, tmp_path / "study", say=quiet)
    assert [outcome.hyper for outcome in outcomes] == [{"alpha": 1.0}, {"alpha": 2.0}]
    folders = {path.name for path in (tmp_path / "study").iterdir() if path.is_dir()}
    assert folders == {"original", "retained", "wga_rt", "models"}
    records = study_table(tmp_path / "study")
    assert {r["run"] for r in records} == {"original", "retained", "wga_rt", "wga_rt-seed1"}
    (chosen,) = [outcome for outcome in outcomes if outcome.chosen]
    page = study_page(tmp_path / "study")
    assert "- WGA+RT: learning rate 0.001; alpha 1, 2" in page
    assert f"Chosen: WGA+RT learning rate 0.001, alpha {chosen.hyper['alpha']:g}." in page
    assert page.count("| WGA+RT |") == 2
    assert "*Best step* is" in page


def test_splits_of_different_rows_are_no_study(tmp_path):
    plan = study_plan("tofu-cpu-smoke", splits=["forget01@120", "forget01@80"])
    with pytest.raises(KitError, match="not splits of the same rows"):
        make_study(plan, tmp_path / "study", say=quiet)
    assert not (tmp_path / "study").exists()


# --- a study --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_study_each_split_with_its_own_reference(tmp_path, here, monkeypatch):
    folder, methods = tmp_path / "study", ("ga", "npo_rt")
    plan = study_plan("tofu-cpu-smoke", methods=methods)
    outcomes = make_study(plan, folder, say=quiet)
    prefixes = [f"{split}-" for split in SMOKE]
    assert here[:3] == ["original", *(f"{prefix}retained" for prefix in prefixes)]
    names = [f"{p}{name}" for p in prefixes for name in ("original", "retained")]
    names += [f"{p}{method}" for p in prefixes for method in methods]
    assert sorted(run.folder.name for run in read_runs(folder)) == sorted(names)
    assert [(o.task, o.method) for o in outcomes] == [
        (f"tofu:{split}", method) for split in SMOKE for method in methods
    ]
    study = json.loads((folder / "study.json").read_text())
    assert study["plan"]["more_tasks"] == ["tofu:forget02@120"]

    for split, prefix in zip(SMOKE, prefixes, strict=True):
        retained = read_run(folder / f"{prefix}retained").evaluation(0)
        made = read_run(folder / f"{prefix}npo_rt")
        assert made.task["name"] == f"tofu:{split}"
        last = made.evaluation(made.evaluation_steps()[-1])
        ratios = [truth_ratio_values(each, "forget") for each in (last, retained)]
        (row,) = [
            record
            for record in study_table(folder)
            if (record["run"], record["step"]) == (f"{prefix}npo_rt", last.step)
        ]
        assert row["forget_quality"] == pytest.approx(ks_2samp(*ratios).pvalue)
        tuned = read_run(folder / "models" / f"{prefix}retained")
        assert tuned.steps[-1]["step"] == total_steps(plan.tuning, made.task["retain_rows"])

    report = study_report(folder)
    assert report.count("| retained |") == 2
    assert report.index("tofu:forget01@120:") < report.index("tofu:forget02@120:")
    check_the_page(folder, monkeypatch)


def check_the_page(folder, monkeypatch):
    """A study for each split, with and without TOFU at hand; the record has none of its text."""
    studies = packed_studies(folder)
    assert [study.task for study in studies] == [f"tofu:{split}" for split in SMOKE]
    assert [study.title.rpartition(": ")[2] for study in studies] == list(SMOKE)
    for split, study in zip(SMOKE, studies, strict=True):
        index = page_index(study)
        runs = {run["id"]: run for run in index["runs"]}
        assert set(runs) == {"original", "retained", f"{split}-ga", f"{split}-npo_rt"}
        assert runs["retained"]["metrics"]["forget_quality"] == [1.0]
        forget = load_task(f"tofu:{split}").evaluation["forget"]
        shown = [q for q in study.questions if q["set"] == "forget"]
        assert [q["question"] for q in shown] == [row["question"] for row in forget[: len(shown)]]
        assert study.texts(0)["cells"][f"{split}-ga"][0]
    monkeypatch.setenv(TOFU_FOLDER_VARIABLE, str(folder / "nowhere"))
    bare = PackedStudy(folder, "tofu:forget02@120")
    assert bare.questions[0]["question"] == "forget row 0"
    assert any("nor on this machine" in note for note in bare.index()["notes"])
    assert bare.texts(0)["strings"] == studies[1].texts(0)["strings"]
    assert bare.index()["runs"] == studies[1].index()["runs"]


@pytest.mark.slow
def test_published_models_serve_as_they_are(tmp_path, here):
    """A fine-tuned original and official logs: nothing is fine-tuned."""
    splits = SMOKE[1:]
    first = study_plan("tofu-cpu-smoke", splits=splits, methods=["ga"])
    make_study(first, tmp_path / "first", say=quiet)
    log = tmp_path / "TOFU_EVAL.json"
    arguments = ["export", str(tmp_path / "first" / "retained"), "--format", "open-unlearning"]
    assert program.main([*arguments, "--out", str(log)]) == 0
    here.clear()
    start = str(tmp_path / "first" / "models" / "original")
    plan = study_plan(
        "tofu-cpu-smoke",
        splits=splits,
        methods=["ga"],
        start=start,
        references={splits[0]: str(log)},
    )
    make_study(plan, tmp_path / "second", say=quiet)
    assert here == ["original", "retained", "ga-lr0.001-seed0"]
    assert not (tmp_path / "second" / "models").exists()
    tables = [study_table(tmp_path / name) for name in ("first", "second")]
    for one, other in zip(*tables, strict=True):  # the same numbers from the log as from the model
        for key in ("forget_quality", "model_utility", "forget_probability"):
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4), key
    assert str(tmp_path) not in (tmp_path / "second" / "study.json").read_text()
    for run in read_runs(tmp_path / "second"):
        assert str(tmp_path) not in (run.folder / "run.json").read_text()
        for rows in run.evaluation(run.evaluation_steps()[0]).rows.values():
            assert not any({"question", "answer"} & row.keys() for row in rows)
    assert read_run(tmp_path / "second" / "retained").config["model"] == "TOFU_EVAL.json"


# --- the dry run ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_names_what_would_be_made(tmp_path, here, monkeypatch):
    said = []
    plan = study_plan("tofu-cpu-smoke", splits=SMOKE[:1], methods=["ga", "npo_rt"])
    planned = dry_run.dry_run(plan, say=said.append)
    make_study(plan, tmp_path / "study", say=quiet)
    assert len(planned) == len(here)
    by_name = {one.name: one for one in planned}
    for name in ("original", "retained"):
        tuned = read_run(tmp_path / "study" / "models" / name)
        assert by_name[f"models/{name}"].steps == len(tuned.steps)
        assert by_name[name].steps == 0
    for method, jobs in grid_jobs(plan, plan.task, tmp_path).items():
        run = read_run(tmp_path / "study" / method)
        one = by_name[jobs[0].name]
        assert one.steps == len(run.steps)
        assert one.estimate.evaluations == len(run.evaluation_steps())
        assert one.seconds == one.estimate.seconds > 0
    text = "\n".join(said)
    assert plan.title in text
    assert f"{len(planned)} runs, {sum(p.steps for p in planned)} steps: about" in text

    def absent(_, **options):
        raise ModelError("it is not on this machine: check the network")

    monkeypatch.setattr(dry_run, "load_model", absent)
    said.clear()
    bare = dry_run.dry_run(plan, say=said.append)
    assert [(p.name, p.steps) for p in bare] == [(p.name, p.steps) for p in planned]
    assert "for the rest the model is needed: it is not on this machine" in said[-1]


def test_a_dry_run_encodes_a_text_once_and_evaluates_models_whole(monkeypatch):
    """All runs share one format; `intermediate_rows` says nothing of an original's evaluation."""
    encoded, anew = [], PromptFormat._encode_anew

    def counting(prompts, question, answer):
        encoded.append((question, answer))
        return anew(prompts, question, answer)

    monkeypatch.setattr(PromptFormat, "_encode_anew", counting)
    plan = study_plan("tofu-cpu-smoke", splits=SMOKE[:1], methods=["ga"])
    common = replace(plan.common, evaluate_every=0.2)
    rates = Rates(1.0, 1.0, 1.0, 1.0, 1.0)
    monkeypatch.setattr(dry_run, "calibrate", lambda *_, **options: rates)
    seconds = {}
    for few in (None, 1):
        encoded.clear()
        planned = dry_run.dry_run(
            replace(plan, common=replace(common, intermediate_rows=few)), say=quiet
        )
        assert len(encoded) == len(set(encoded)) > 0
        seconds[few] = {one.name: one.seconds for one in planned}
    assert seconds[1]["original"] == seconds[None]["original"] > 0
    (name,) = [name for name in seconds[1] if name.startswith("ga")]
    assert seconds[1][name] < seconds[None][name]


def test_a_dry_run_of_the_paper_counts_its_steps(monkeypatch):
    """91 runs of unlearning: 13 methods on 7 splits of 40 to 3600 rows."""

    def absent(_, **options):
        raise ModelError("not here")

    monkeypatch.setattr(dry_run, "load_model", absent)
    planned = dry_run.dry_run(study_plan("tofu-paper-phi"), say=quiet)
    unlearnings = [one.steps for one in planned if "-lr" in one.name]
    assert len(unlearnings) == 91
    assert sum(unlearnings) == 13 * sum(40 * p * 10 // 32 for p in (1, 5, 10, 20, 30, 50, 90))
    tunings = [one.steps for one in planned if one.name.startswith("models/")]
    assert tunings == [5 * 4000 // 32] + [
        5 * (4000 - 40 * p) // 32 for p in (1, 5, 10, 20, 30, 50, 90)
    ]


def test_every_other_option_of_a_study_is_refused():
    """A study of fictional authors takes no option of TOFU's, and none that it would ignore."""
    options = {"base": "x", "splits": ["forget05"], "methods": ["ga"], "references": {"a": "b"}}
    options |= {"lora_rank": 8, "quantize": "4bit"}
    for name, (option, value) in product(("pocket", "smollm2"), options.items()):
        with pytest.raises(KitError, match=f"^{option} is for the studies of TOFU, not for {name}"):
            study_plan(name, **{option: value})
    with pytest.raises(KitError, match="pocket brings its models: leave out start"):
        study_plan("pocket", start="x")
    assert study_plan("smollm2", start="x") == replace(study_plan("smollm2"), original="x")
    with pytest.raises(KitError, match="lora_rank must be at least 1"):
        study_plan("tofu-colab", lora_rank=0)


NAMES = {
    "pocket",
    "pocket-audit",
    "pocket-family",
    "pocket-null",
    "pocket-splits",
    "smollm2",
    "smollm2-audit",
    "tofu-paper-llama2",
    "tofu-paper-phi",
    "tofu-colab",
    "tofu-cpu",
}
NAMES |= {"tofu-cpu-smoke"}


def test_the_command(tmp_path, capsys):
    smoke = ["study", "tofu-cpu-smoke"]
    assert program.main([*smoke, "--splits", SMOKE[0], "--methods", "ga", "--dry-run"]) == 0
    assert "5 runs" in capsys.readouterr().out
    for arguments, sentence in (
        (smoke, "give --out, the folder for the study, or --dry-run"),
        ([*smoke, "--out", "x", "--reference", "forget05"], "give SPLIT=FILE"),
        (
            [*smoke, "--out", "x", "--reference", "forget05=nowhere.json"],
            "no run, evaluation or log",
        ),
        (["study", "pocket", "--base", "y", "--out", "x"], "base is for the studies of TOFU"),
        (["study", "pocket", "--preset", "colab", "--out", "x"], "unknown study 'pocket-colab'"),
        (["study", "pocket", "--start", "y", "--out", "x"], "leave out start"),
        (["study", "pocket-splits", "--start", "y", "--out", "x"], "leave out start"),
    ):
        assert program.main(arguments) == 2
        assert sentence in capsys.readouterr().err
    assert set(PLANS) == NAMES
    assert program.main(["study", "tofu", "--out", "x"]) == 2
    assert set(capsys.readouterr().err.replace(",", "").split()) >= NAMES
    with pytest.raises(SystemExit):
        program.main(["study", "--help"])
    assert set(capsys.readouterr().out.replace(",", "").split()) >= NAMES


def test_a_study_says_its_extent_before_it_begins(monkeypatch, capsys, tmp_path):
    """Two models tuned, each judged, and one run of each method: 6 runs for one split."""
    monkeypatch.setattr(maker, "make_study", lambda *_, **__: None)
    monkeypatch.setattr("npo_kit.cli.make.show_table", lambda _: None)
    command = ["study", "tofu-cpu-smoke", "--splits", SMOKE[0], "--methods", "ga", "npo"]
    assert program.main([*command, "--out", str(tmp_path / "study")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("6 runs, ")
    assert program.main([*command, "--dry-run"]) == 0
    assert said.partition(";")[0] in capsys.readouterr().out


def test_the_older_spelling_is_understood(monkeypatch):
    """`study tofu --preset colab` is `study tofu-colab`, with the same options."""
    made = []
    monkeypatch.setattr(dry_run, "dry_run", made.append)
    options = ["--dry-run", "--splits", "forget05", "--methods", "ga", "--start", "x"]
    for name in sorted(NAMES):
        kind, _, preset = name.partition("-")
        if kind == "tofu":
            assert program.main(["study", kind, "--preset", preset, *options]) == 0
            assert program.main(["study", name, *options]) == 0
            wanted = {"splits": ["forget05"], "methods": ["ga"], "start": "x"}
            assert made[-2:] == [study_plan(name, **wanted)] * 2
    assert len(made) == 10


def test_settings_of_a_plan_without_tasks_more_are_as_before():
    """Runs of the shipped studies keep their names and their configuration."""
    plan = replace(study_plan("tofu-colab", splits=["forget05"]), references=None)
    (job,) = grid_jobs(plan, plan.task, "x")["npo_rt"]
    assert job.name == "npo_rt-lr2e-05-beta0.1-seed0"
    assert job.settings()["model"] == "models/original"
    assert isinstance(job.config, UnlearnConfig)
    assert set(EVALUATION_SETS) == set(load_task(plan.task).evaluation)

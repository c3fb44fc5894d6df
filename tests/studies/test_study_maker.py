"""Studies: the plan, the choice from its grid, what is recorded, going on after an interruption."""

import json
import shutil
from dataclasses import asdict, replace
from itertools import chain, product

import pytest
import torch

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.metrics.summary import FORGOTTEN
from npo_kit.processes import cores, in_processes
from npo_kit.records.files import RunError
from npo_kit.records.run import read_run, read_runs
from npo_kit.studies import maker
from npo_kit.studies.jobs import Job
from npo_kit.studies.maker import make_study
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.presets import PLANS
from npo_kit.studies.table import best_checkpoint, study_table
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.loop import total_steps

BRIEF = UnlearnConfig(
    epochs=0.4, batch_size=12, micro_batch_size=12, precision="fp32", evaluate_every=0.2,
    warmup_epochs=0, evaluation=EvaluationConfig(max_rows=4, max_new_tokens=4),
)  # fmt: skip
PLAN = StudyPlan(
    title="Two methods", task="authors:forget10", original="pocket", retained="pocket:retained",
    common=BRIEF, methods=("ga", "npo_rt"), lrs=(1e-4,), betas=(0.1, 0.5), retain_weights=(1.0,),
    plain_lrs=(1e-4, 1e-3), seeds=(0, 1), seeded_methods=("npo_rt",),
    sweep_methods=("npo_rt",), sweep_betas=(0.1, 0.5, 1.0),
)  # fmt: skip


def record(step, utility, p):
    return {"step": step, "model_utility": utility, "forget_quality": p}


class TestChoice:
    def test_of_those_that_forgot_the_most_useful(self):
        records = [record(0, 0.9, 1.0), record(1, 0.7, 0.04), record(2, 0.5, 0.05)]
        assert best_checkpoint([*records, record(3, 0.4, 0.9)]) == records[2] | {"forgotten": True}

    def test_of_none_that_forgot_the_nearest(self):
        records = [record(1, 0.7, 1e-9), record(2, 0.2, 0.049), record(3, 0.1, 0.01)]
        assert best_checkpoint(records) == records[1] | {"forgotten": False}

    def test_what_cannot_be_measured_counts_as_nothing(self):
        records = [record(1, None, 0.5), record(2, 0.1, None), record(3, 0.01, FORGOTTEN)]
        assert best_checkpoint(records)["step"] == 3
        assert best_checkpoint(records[:2])["step"] == 1

    def test_only_what_was_evaluated_on_the_most_rows_is_compared(self):
        sizes = [{"forget_n": n, "retain_n": n} for n in (40, 40, 400, 400)]
        scores = [
            record(1, 0.9, 0.9),
            record(2, 0.8, 0.9),
            record(3, 0.4, 0.9),
            record(4, 0.3, 1.0),
        ]
        records = [score | size for score, size in zip(scores, sizes, strict=True)]
        assert best_checkpoint(records)["step"] == 3
        assert best_checkpoint(records[:2])["step"] == 1

    def test_step_0_is_no_choice(self):
        with pytest.raises(RunError, match="no checkpoint to choose from"):
            best_checkpoint([record(0, 0.9, 1.0)])


class TestPlan:
    @pytest.mark.parametrize("name", [n for n, p in PLANS.items() if isinstance(p(), StudyPlan)])
    def test_every_method_has_a_grid_of_the_same_size(self, name):
        plan = PLANS[name]()
        for method in plan.methods:
            grid = plan.grid(method)
            assert len(grid) == len(plan.grid("ga"))
            assert len({str(config) for config in grid}) == len(grid)
            assert {config.method for config in grid} == {method}
            assert {config.seed for config in grid} == {plan.seeds[0]}

    def test_the_grid_spans_what_the_plan_says(self):
        grid = PLAN.grid("npo_rt")
        assert [(c.lr, c.hyper["beta"]) for c in grid] == list(product(PLAN.lrs, PLAN.betas))
        alone = replace(PLAN, methods=("ga",), sweep_methods=())
        assert [config.retain_weight for config in alone.grid("ga_rt")] == [1.0]

    def test_an_uneven_grid_is_refused(self):
        with pytest.raises(KitError, match=r"one size .*'ga': 2, 'ga_rt': 1"):
            replace(PLAN, methods=("ga", "ga_rt"))

    @pytest.mark.parametrize("method", ["ga", "npo", "npo_rtt"])
    def test_a_sweep_of_what_has_no_beta_is_refused(self, method):
        """At once, and not when the grid has been made: GA has none, the others are not there."""
        with pytest.raises(KitError, match=f"sweeps beta with '{method}': .* of ga, npo_rt"):
            replace(PLAN, sweep_methods=("npo_rt", method))


@pytest.fixture
def made(monkeypatch):
    """Runs are made in this process, on one thread; the names of those that were."""
    names = []

    def here(function, items, _):
        for item in items:
            names.append(item.name)
            yield item, function(item)

    monkeypatch.setattr(maker, "in_processes", here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield names
    torch.set_num_threads(threads)


def contents(folder):
    """Every file of a study, timings aside."""
    found = {}
    for run in read_runs(folder):
        steps = [{k: v for k, v in step.items() if k != "seconds"} for step in run.steps]
        evaluations = [replace(e, seconds=None) for e in run.evaluations()]
        found[run.folder.name] = (run.config, run.label, run.status, steps, evaluations)
    study = json.loads((folder / "study.json").read_text())
    return found, {key: value for key, value in study.items() if key != "provenance"}


@pytest.mark.slow
def test_a_study_and_one_that_was_interrupted(tmp_path, made, monkeypatch):
    outcomes = make_study(PLAN, tmp_path / "whole", say=lambda _: None)
    assert len(made) == 2 + 4 + 2  # models; grid; one more seed, one more beta
    assert len(set(made)) == len(made)
    assert [outcome.method for outcome in outcomes] == ["ga", "ga", "npo_rt", "npo_rt"]
    assert [sum(o.chosen for o in outcomes if o.method == m) for m in PLAN.methods] == [1, 1]
    study = json.loads((tmp_path / "whole" / "study.json").read_text())
    assert study["grid"] == [asdict(outcome) for outcome in outcomes]
    beta = next(o.beta for o in outcomes if o.chosen and o.method == "npo_rt")
    betas = [f"npo_rt-beta{b:g}" for b in PLAN.sweep_betas if b != beta]
    runs = ["original", "retained", "ga", "npo_rt", "npo_rt-seed1", *betas]
    assert [run.folder.name for run in read_runs(tmp_path / "whole")] == runs
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == sorted([*runs, "study.json"])

    made.clear()
    make_one = maker._make_one

    def fails(job):
        if len(made) == 5:
            (job.folder / "evals").mkdir(parents=True)  # left by a process that was killed
            raise KeyboardInterrupt
        return make_one(job)

    monkeypatch.setattr(maker, "_make_one", fails)
    with pytest.raises(KeyboardInterrupt):
        make_study(PLAN, tmp_path / "again", say=lambda _: None)
    assert not (tmp_path / "again" / "study.json").exists()
    monkeypatch.setattr(maker, "_make_one", make_one)
    first = made[:4]
    make_study(PLAN, tmp_path / "again", say=lambda _: None)
    assert not set(first) & set(made[5:])  # what was finished is not made again
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")

    for run in read_runs(tmp_path / "whole"):
        for evaluation in run.evaluations():
            for row in chain(*evaluation.rows.values()):
                assert not {"question", "answer"} & row.keys()
                assert row["mean_logp"] == round(row["mean_logp"], 4)
    table = study_table(tmp_path / "whole")
    assert {record["beta"] for record in table if record["run"] in betas} == {
        b for b in PLAN.sweep_betas if b != beta
    }
    with pytest.raises(KitError, match="whole holds something already"):
        make_study(PLAN, tmp_path / "whole")


def test_a_changed_plan_is_not_served_with_old_runs(tmp_path, made):
    plan = replace(PLAN, methods=("ga",), plain_lrs=(1e-4,), sweep_methods=())
    job = Job(plan, "ga", tmp_path, plan.grid("ga")[0])
    maker._make_one(job)
    assert maker._is_made(job)
    other = replace(job, config=replace(job.config, epochs=0.2))
    assert not maker._is_made(other)
    (tmp_path / "ga" / "evals" / "000004.jsonl.gz").unlink()
    assert not maker._is_made(job)
    assert maker._make_one(job) > 0
    assert read_run(tmp_path / "ga").status == "finished"


@pytest.mark.slow
def test_a_study_that_tunes_its_models(tmp_path, made):
    tuning = FinetuneConfig(
        epochs=0.022, batch_size=4, lr=1e-3, warmup_epochs=0, precision="fp32", evaluation=None
    )
    start = tmp_path / "start"
    shutil.copytree(shipped_data("pocket/base"), start)
    plan = replace(
        PLAN, original=str(start), retained=None, tuning=tuning, methods=("ga",), seeds=(0,),
        rehearsed=("world_facts",),
        sweep_methods=(),
    )  # fmt: skip
    make_study(plan, tmp_path / "study", say=lambda _: None)
    assert made[:4] == ["original", "retained", "original", "retained"]
    models = {name: tmp_path / "study" / "models" / name for name in ("original", "retained")}
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in models.values()]
    assert weights[0] != weights[1]  # one learned all rows, the other those to keep
    assert weights[0] != (start / "model.safetensors").read_bytes()
    first = read_run(tmp_path / "study" / "ga").evaluation(0)
    before = read_run(tmp_path / "study" / "original").evaluation(0)
    assert first.rows == before.rows  # the runs begin with the tuned model
    assert read_run(models["original"]).steps[-1]["step"] == 7 > total_steps(tuning, 1200)
    assert read_run(models["retained"]).steps[-1]["step"] == 6 > total_steps(tuning, 1080)
    assert str(tmp_path) not in (tmp_path / "study" / "study.json").read_text()
    for run in read_runs(tmp_path / "study"):
        assert str(tmp_path) not in (run.folder / "run.json").read_text()


# --- processes ----------------------------------------------------------------------------------


def _threads(number):
    if number < 0:
        raise KitError(f"{number} is negative")
    print("this must not be seen")
    return torch.get_num_threads()


@pytest.mark.slow
def test_processes_have_one_thread_say_nothing_and_pass_errors_on(capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert dict(in_processes(_threads, [1, 2, 3], processes=2)) == {1: 1, 2: 1, 3: 1}
    with pytest.raises(KitError, match="-1 is negative"):
        list(in_processes(_threads, [-1], processes=1))
    assert "seen" not in capfd.readouterr().out
    assert cores() >= 1

"""Runs followed in trackers: what is logged is what the run on disk holds, and never a row."""

import json
import sys
from importlib.util import find_spec

import pytest
from conftest import QUESTIONS, make_model, make_row

from npo_kit import log_to
from npo_kit.cli.program import main
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.metrics.summary import summarise
from npo_kit.models import save_model
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.run import read_run
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Collapse, Step
from npo_kit.trainer.loop import unlearn

FAKE = """
calls = []
class Run:
    def log(self, values, step=None):
        calls.append((step, values))
    def finish(self):
        calls.append("finished")
def init(project, **more):
    if more["name"] == "broken":
        raise ValueError("no key is configured\\nfor this machine")
    calls.append((project, more))
    return Run()
class Config:
    def update(self, values, allow_val_change):
        calls.append(values)
config = Config()
"""
TRAIN = ["--max-new-tokens", "4", "--prompt", "qa", "--epochs", "2", "--batch-size", "2"]
TRAIN += ["--method", "npo_rt", "--beta", "0.2", "--lr", "1e-3"]


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A folder with a model and rows, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    save_model(make_model(len(tokenizer)), tokenizer, "one")
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    for name, part in {"forget": rows[8:], "retain": rows[:8]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    return tmp_path


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """A stand-in for the package, which keeps what accelerate's tracker tells it."""
    packages = tmp_path / "packages"
    (packages / "trackio-0.1.dist-info").mkdir(parents=True)
    (packages / "trackio-0.1.dist-info" / "METADATA").write_text("Name: trackio\nVersion: 0.1\n")
    (packages / "trackio.py").write_text(FAKE)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    import trackio

    yield trackio
    sys.modules.pop("trackio", None)


def asked(*more, out="run"):
    words = ["unlearn", "one", "--forget", "forget.json", "--retain", "retain.json", *TRAIN]
    return main([*words, "--out", out, *more])


def test_a_tracker_gets_the_steps_evaluations_and_settings_of_the_run(place, trackio):
    assert asked("--label", "retained", out="reference") == 0
    assert asked("--log-to", "trackio", "--reference", "reference") == 0
    run, reference = read_run("run"), read_run("reference")
    judge = reference.evaluation(reference.evaluation_steps()[-1])
    (start, settings, *logged, end) = trackio.calls
    assert start == ("npo_kit", {"name": "run"})
    assert end == "finished"
    expected = {"method": "npo_rt", "hyper.beta": 0.2, "lr": 1e-3, "batch_size": 2, "model": "one"}
    expected |= {"task.name": "own:forget", "task.forget_rows": 4, "evaluation.max_new_tokens": 4}
    assert expected.items() <= settings.items()
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())

    steps = [(step, values) for step, values in logged if "train/loss" in values]
    assert [step for step, _ in steps] == [step["step"] for step in run.steps] == [1, 2, 3, 4]
    for (_, values), step in zip(steps, run.steps, strict=True):
        assert values["train/loss"] == step["loss"]
        assert values["train/grad_norm"] == step["grad_norm"]
        assert values["train/lr"] == step["lr"]
        assert values["train/W_median"] == step["weights"]["median"]
        assert {f"train/{k}": v for k, v in step["terms"].items()}.items() <= values.items()
    evaluated = dict(entry for entry in logged if "train/loss" not in entry[1])
    assert list(evaluated) == run.evaluation_steps() == [0, 2, 4]
    for step, values in evaluated.items():
        summary = summarise(run.evaluation(step), judge)
        assert summary["forget_quality"] is not None
        known = {f"evaluation/{k}": v for k, v in summary.items() if v is not None}
        assert values == pytest.approx(known)
    assert not [text for pair in QUESTIONS for text in pair if text in repr(trackio.calls)]


def test_fine_tuning_is_followed_too(place, trackio):
    words = ["--forget", "forget.json", "--retain", "retain.json", *TRAIN[:8], "--epochs", "1"]
    assert main(["finetune", "one", *words, "--out", "run", "--log-to", "trackio"]) == 0
    logged = [values for _, values in trackio.calls[2:-1]]
    assert [v["train/loss"] for v in logged if "train/loss" in v] == [
        step["loss"] for step in read_run("run").steps
    ]


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(name, place, capsys):
    if find_spec(name):
        pytest.skip(f"{name} is installed here")
    before = sorted(place.rglob("*"))
    assert asked("--log-to", name) == 2
    assert f"{name} is not installed: pip install {name}" in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


def test_a_run_whose_tracker_does_not_start_is_stopped(place, trackio, capsys):
    assert asked("--log-to", "trackio", out="broken") == 2
    assert (
        "trackio did not start (ValueError: no key is configured): set it up first"
        in capsys.readouterr().err
    )
    assert read_run("broken").status == "stopped"
    assert asked("--resume", out="broken") == 0  # without it, the run goes on
    assert read_run("broken").status == "finished"


def test_the_files_of_tensorboard_are_the_run_s_own(place):
    assert asked() == 0
    (place / "run" / "tensorboard").mkdir()
    (place / "run" / "tensorboard" / "events").write_text("of the older run")
    assert read_run("run").status == "finished"
    assert asked("--overwrite") == 0
    assert not (place / "run" / "tensorboard").exists()


def test_tensorboard_reads_the_run_in_its_folder(place):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert asked("--log-to", "tensorboard") == 0
    events = reader.EventAccumulator(str(place / "run" / "tensorboard")).Reload()
    run = read_run("run")
    losses = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert losses == [(s["step"], pytest.approx(s["loss"])) for s in run.steps]
    evaluated = [e.step for e in events.Scalars("evaluation/forget_probability")]
    assert evaluated == run.evaluation_steps()


def test_a_loop_of_one_s_own_with_a_registered_tracker(model, tokenizer, task, monkeypatch):
    from accelerate import tracking

    calls = []

    class Notes(tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "notes", True, None

        def __init__(self, run_name, logging_dir):
            super().__init__()
            calls.append((run_name, logging_dir))

        def store_init_configuration(self, values):
            calls.append(values)

        def log(self, values, step=None):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notes", Notes)
    brief = EvaluationConfig(max_new_tokens=0)
    config = UnlearnConfig(
        epochs=1, batch_size=4, method="npo", evaluation=brief, refusals=None, hyper={"beta": 0.3}
    )
    with log_to("notes", config, name="mine", folder="logs") as log:
        events = list(unlearn(model, tokenizer, task, config))
        for event in [*events, Collapse(1, "a weight is not finite")]:
            log(event)
    assert calls[0] == ("mine", "logs")
    assert calls[1]["hyper.beta"] == 0.3
    assert "refusals" not in calls[1]
    assert [step for step, _ in calls[2:-1]] == [0, 1, 1, 1]
    assert calls[-2:] == [(1, {"collapse": "a weight is not finite"}), "finished"]
    kinds = [type(event) for event in events]
    assert kinds == [Evaluation, Step, Evaluation]

    with pytest.raises(KitError, match="unknown tracker 'nots': choose one of tensorboard"):
        log_to("nots", config).__enter__()
    calls.clear()
    with pytest.raises(RuntimeError), log_to("notes", config):
        raise RuntimeError("the loop fails")
    assert calls[-1] == "finished"

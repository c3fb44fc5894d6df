"""A run cut short at any moment goes on and ends with the records of one that never was."""

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
import torch
from conftest import make_model
from killing import Watch

from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS, Method
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.errors import ModelError
from npo_kit.models.loading import save_model
from npo_kit.records.folder import count_steps
from npo_kit.records.run import read_run
from npo_kit.trainer.checkpoints import fingerprint_weights, remove_checkpoints
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.loop import unlearn
from npo_kit.trainer.recording import find_start, record, saved_size

CONFIG = UnlearnConfig(
    epochs=3.5,
    batch_size=2,
    micro_batch_size=2,
    lr=3e-3,
    warmup_epochs=0.5,
    evaluation=EvaluationConfig(max_new_tokens=3, max_rows=2),
    evaluate_every=1.5,
)  # 7 steps, evaluations at 0, 3, 6, 7, checkpoints at 2, 4, 6, 7


def breaking(forget):
    """GA that is infinite as soon as the answers are unlikely enough."""
    return forget.logps * (math.inf if forget.logps.mean() < -7 else 1.0)


def noisy(forget):
    """GA on answers in which torch's generator draws."""
    return forget.logps * torch.rand(len(forget.logps), 1)


@pytest.fixture(autouse=True)
def own_methods(monkeypatch):
    monkeypatch.setitem(METHODS, "breaking", Method(breaking))
    monkeypatch.setitem(METHODS, "noisy", Method(noisy))


@dataclass
class Runs:
    """Begins or resumes runs of one method on the tiny model."""

    tokenizer: object
    task: object
    method: str
    every: float = 1.0
    optimizer: str = "adamw"

    def about(self):
        settings = {"batch_size": CONFIG.batch_size, "weights": fingerprint_weights(self.model())}
        about = {"kind": "unlearn", "label": self.method, "method": self.method, "seed": 0}
        return about | {"config": settings, "task": self.task.record()}

    def model(self):
        return make_model(len(self.tokenizer))

    def go(self, folder, forwards=None, events=None, save=save_model):
        """Run to the end, or to an interruption by a countdown of forwards or of events."""
        model = self.model()
        start = find_start(folder, self.about())
        if start is None:
            return None
        torch.manual_seed(5)
        if forwards is not None:
            model.register_forward_pre_hook(forwards)
        made = unlearn(
            model,
            self.tokenizer,
            self.task,
            replace(CONFIG, method=self.method, optimizer=self.optimizer),
            checkpoints=start.checkpoints(self.every),
        )
        record(
            start.writer(),
            made,
            seen=events or (lambda _: None),
            save=lambda: save(model, self.tokenizer, folder / "model"),
            save_size=saved_size(model),
        )
        return start


class Countdown:
    """Interrupts at the last of so many calls."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, *_):
        self.calls -= 1
        if self.calls == 0:
            raise KeyboardInterrupt


def contents(folder):
    """All that a run records but its times, and the bytes of its weights.

    Without git's word on the kit, for which provenance does not wait long on a busy machine.
    """
    run = read_run(folder)
    about = json.loads((folder / "run.json").read_text())
    for key in ("resumed", "git"):
        about["provenance"].pop(key, None)
    for place, key in ((about, "ended"), (about["provenance"], "started")):
        place.pop(key)
    return {
        "about": about,
        "steps": [step | {"seconds": None} for step in run.steps],
        "evaluations": [replace(evaluation, seconds=None) for evaluation in run.evaluations()],
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
    }


@pytest.fixture(scope="module")
def whole(tokenizer, task, tmp_path_factory):
    """For each method a run that nothing cut short, its number of changes to the disk, of forwards.

    The forwards of the frozen copies count as well.
    """
    made = {}

    def of(method):
        if method not in made:
            folder = tmp_path_factory.mktemp("whole") / method
            forwards = Countdown(10**9)
            with Watch(folder) as watch:
                Runs(tokenizer, task, method).go(folder, forwards)
            made[method] = contents(folder), watch.count, 10**9 - forwards.calls
        return made[method]

    return of


@pytest.mark.slow
def test_the_runs_are_worth_cutting(whole):
    """One ends by collapse, with an evaluation at a step of its own; noise decides another."""
    collapsed = whole("breaking")[0]
    assert collapsed["about"]["status"] == "collapsed"
    assert 3 < collapsed["about"]["outcome"]["collapsed_at"] < 7
    losses = [step["loss"] for step in whole("noisy")[0]["steps"]]
    assert len(set(losses)) == 7
    for method in METHODS_CUT:
        about = whole(method)[0]["about"]
        assert about["counted"] in (7, collapsed["about"]["outcome"]["collapsed_at"] - 1)


METHODS_CUT = ("npo_rt", "npo_kl", "breaking", "noisy")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS_CUT)
def test_killed_at_any_moment_of_writing(method, whole, tokenizer, task, tmp_path):
    """Copies of the folder as a kill would leave it, before this or that change to the disk."""
    expected, count, _ = whole(method)
    chosen = random.Random(f"moments {method}")
    moments = {0, count - 1, *chosen.sample(range(1, count - 1), 8)}
    runs, folder = Runs(tokenizer, task, method), tmp_path / "run"
    with Watch(folder, moments, tmp_path / "copies", seed=method) as watch:
        runs.go(folder)
    assert watch.count == count > 30
    copies = sorted((tmp_path / "copies").iterdir())
    assert len(copies) == len(moments) - 1  # at moment 0 there is no folder yet
    for copy in copies:
        tear(copy, expected["steps"], chosen)
        runs.go(copy)
        remove_checkpoints(copy)  # of a run that was over when it was killed
        assert contents(copy) == expected, copy.name


def tear(folder, steps, chosen):
    """Leave half of the next step's line, if the run goes on."""
    record, path = folder / "run.json", folder / "steps.jsonl"
    if record.exists() and path.exists() and json.loads(record.read_text())["status"] == "running":
        done = path.read_bytes().count(b"\n")
        line = json.dumps(steps[min(done, len(steps) - 1)])
        with path.open("a") as file:
            file.write(line[: chosen.randrange(len(line))])


@pytest.mark.parametrize(
    "method",
    [METHODS_CUT[0], *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS_CUT[1:])],
)
def test_interrupted_at_any_forward(method, whole, tokenizer, task, tmp_path):
    """In the reference, a step or an evaluation; and soon after the run has gone on."""
    expected, _, count = whole(method)
    runs, chosen = Runs(tokenizer, task, method), random.Random(f"forwards {method}")
    for number in range(4):
        folder = tmp_path / str(number)
        quarter = count * number // 4, count * (number + 1) // 4
        for forwards in (chosen.randint(*quarter) or 1, chosen.randint(1, 3)):
            with pytest.raises(KeyboardInterrupt):
                runs.go(folder, Countdown(forwards))
            assert read_run(folder).status == "stopped"
        runs.go(folder)
        assert contents(folder) == expected
        assert len(read_run(folder).provenance["resumed"]) == 2


@pytest.mark.slow
def test_plain_sgd_which_keeps_nothing_goes_on_too(tokenizer, task, tmp_path):
    runs = Runs(tokenizer, task, "npo_rt", optimizer="sgd")
    forwards = Countdown(10**9)
    runs.go(tmp_path / "whole", forwards)
    with pytest.raises(KeyboardInterrupt):
        runs.go(tmp_path / "cut", Countdown((10**9 - forwards.calls) * 3 // 4))
    start = runs.go(tmp_path / "cut")
    assert start.step > 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_is_cut_short_again_and_again(whole, tokenizer, task, tmp_path):
    """At every second event, once it is written and before the checkpoint of its step."""
    expected = whole("npo_rt")[0]
    runs, folder, starts = Runs(tokenizer, task, "npo_rt", every=0.5), tmp_path / "run", []
    while (starts or [0])[-1] is not None and len(starts) < 20:
        start = find_start(folder, runs.about())
        with contextlib.suppress(KeyboardInterrupt):
            runs.go(folder, events=Countdown(2))
        starts.append(start and start.step)
    assert starts == [0, 0, 1, 2, 3, 4, 5, 6, 7, None]
    assert contents(folder) == expected
    resumed = [entry["step"] for entry in read_run(folder).provenance["resumed"]]
    assert resumed == starts[1:-1]
    for entry in read_run(folder).provenance["resumed"]:
        assert {"versions", "hardware", "git", "started"} <= entry.keys()


# --- what is not whole --------------------------------------------------------------------------


@pytest.fixture
def cut(tokenizer, task, tmp_path, whole):
    """A run interrupted after step 6, with checkpoints at 4 and 6; and what it should become."""
    runs = Runs(tokenizer, task, "npo_rt")
    with pytest.raises(KeyboardInterrupt):
        runs.go(tmp_path / "run", events=Countdown(9))  # 6 steps, 3 evaluations
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "000004", "000006",
    ]  # fmt: skip
    return runs, tmp_path / "run", whole("npo_rt")[0]


def damaged(path, how):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if how == "half" else b"\0" * len(data))


@pytest.mark.parametrize("how", ["half", "zeros"])
@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("checkpoints/000006/weights-000.safetensors", 4, "weights-000.safetensors is .* altered"),
        ("checkpoints/000006/optimizer-000.safetensors", 4, "optimizer-000.safetensors is"),
        ("checkpoints/000006/state.json", 4, "state.json is not"),
        ("evals/000006.jsonl.gz", 6, "000006.jsonl.gz is not a whole gzip|is cut short"),
        ("evals/000003.jsonl.gz", 0, "records are whole to step 3"),
        ("steps.jsonl", 0, "records are whole to step"),
    ],
)
def test_what_is_damaged_is_said_and_made_again(cut, name, step, said, how, capsys):
    runs, folder, expected = cut
    damaged(folder / name, how)
    start = runs.go(folder)
    assert start.step == step
    assert re.search(said, capsys.readouterr().out)
    assert contents(folder) == expected


def test_records_behind_the_checkpoint_are_made_again(cut, capsys):
    """As after a power cut, which takes lines that the system had not yet written."""
    runs, folder, expected = cut
    path = folder / "steps.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    assert runs.go(folder).step == 4
    assert "step 6 is not used: the records are whole to step 5" in capsys.readouterr().out
    assert contents(folder) == expected


def test_without_any_whole_checkpoint_it_begins_again(cut):
    runs, folder, expected = cut
    for step in ("000004", "000006"):
        (folder / "checkpoints" / step / "state.json").unlink()
    start = runs.go(folder)
    assert (start.resumed, start.step, start.evaluated) == (True, 0, True)
    assert contents(folder) == expected


# --- what is refused ----------------------------------------------------------------------------


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_command_is_refused_and_nothing_changes(cut):
    runs, folder, _ = cut
    before, about = everything(folder), runs.about()
    other = about | {"config": about["config"] | {"batch_size": 4}}
    with pytest.raises(KitError, match=r"run has config: batch_size 2, and 4 is asked for"):
        find_start(folder, other)
    with pytest.raises(KitError, match=r"has config: hyper None, and \{'beta': 0.2\}"):
        find_start(folder, about | {"config": about["config"] | {"hyper": {"beta": 0.2}}})
    with pytest.raises(KitError, match=r"has task: fingerprint '\w+', and 'x' is asked"):
        find_start(folder, about | {"task": about["task"] | {"fingerprint": "x"}})
    with pytest.raises(KitError, match=r"has seed 0, and 1 is asked"):
        find_start(folder, about | {"seed": 1})
    assert everything(folder) == before


def test_a_run_that_is_over_is_left_alone(whole, tokenizer, task, tmp_path):
    runs, folder = Runs(tokenizer, task, "npo_rt"), tmp_path / "run"
    runs.go(folder)
    before = everything(folder)
    assert runs.go(folder) is None
    assert everything(folder) == before
    damaged(folder / "evals" / "000003.jsonl.gz", "half")
    assert runs.go(folder).step == 0  # the checkpoints are gone
    assert contents(folder) == whole("npo_rt")[0]


def test_a_link_out_of_the_run_is_not_followed(cut, tmp_path):
    runs, folder, _ = cut
    (folder / "steps.jsonl").rename(tmp_path / "elsewhere")
    (folder / "steps.jsonl").symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(KitError, match="links to outside"):
        runs.go(folder)
    assert (tmp_path / "elsewhere").read_bytes() == before


# --- who writes ---------------------------------------------------------------------------------


def test_a_run_that_lives_is_not_resumed(cut):
    runs, folder, _ = cut
    with find_start(folder, runs.about()).writer():
        before = everything(folder)
        for about in (runs.about(), {}):
            with pytest.raises(KitError, match=rf"being written .* \(pid {os.getpid()}\): wait"):
                find_start(folder, about)
        assert everything(folder) == before


def test_a_run_that_another_process_resumed_first_is_left_to_it(cut):
    runs, folder, expected = cut
    late = find_start(folder, runs.about())
    assert runs.go(folder).step == late.step == 6
    with pytest.raises(KitError, match="another process has just written"):
        late.writer()
    assert contents(folder) == expected


# --- a full disk --------------------------------------------------------------------------------


class Disk:
    """Says that so many bytes are free; full once the last step is evaluated."""

    free = 10**9

    def __call__(self, event):
        if getattr(event, "rows", None) and event.step == 7:
            self.free = 10**3


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    return disk


def test_room_for_the_model_is_asked_for_before_the_first_step(tokenizer, task, tmp_path, disk):
    disk.free, runs = 10**5, Runs(tokenizer, task, "npo_rt")
    said = r"the model to save takes \d MB and .*run has 0 MB left: make room, or do not save it"
    with pytest.raises(KitError, match=said):
        runs.go(tmp_path / "run", forwards=Countdown(1))
    run = read_run(tmp_path / "run")
    assert (run.status, run.steps, run.evaluation_steps()) == ("stopped", [], [])
    assert "the model to save takes" in run.outcome["reason"]


def refused(_, __, folder):
    folder.with_name(".model-x").mkdir()
    raise ModelError(f"the model could not be saved as {folder} (No space left on device)")


@pytest.mark.parametrize("fails", ["room", "save"])
def test_a_disk_full_at_the_end_costs_no_step(fails, whole, tokenizer, task, tmp_path, disk):
    runs, folder = Runs(tokenizer, task, "npo_rt"), tmp_path / "run"
    how = {"events": disk} if fails == "room" else {"save": refused}
    said = {"room": "the model to save takes .* make room", "save": "No space left on device"}
    with pytest.raises(KitError, match=said[fails]):
        runs.go(folder, **how)
    assert read_run(folder).status == "stopped"
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        "000006", "000007",
    ]  # fmt: skip
    disk.free = 10**9
    assert runs.go(folder, forwards=Countdown(10**9)).step == 7
    assert contents(folder) == whole("npo_rt")[0]


# --- the command, killed ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_owns_its_run(tmp_path):
    """A second command is refused while the first lives, and resumes it when it was killed."""
    command = [sys.executable, "-m", "npo_kit.cli", "unlearn", "pocket"]
    command += ["--task", "authors:forget10", "--max-rows", "2", "--max-new-tokens", "4"]
    command += ["--epochs", "4", "--batch-size", "12", "--lr", "1e-4", "--save-model"]
    one_thread, folder = os.environ | {"OMP_NUM_THREADS": "1"}, tmp_path / "run"

    def begin(*more):
        arguments = [*command, "--out", str(folder), *more]
        return subprocess.Popen(arguments, env=one_thread, stderr=subprocess.PIPE, text=True)

    def living(steps, *more):
        """Begin, and wait for so many steps; the process, which sleeps."""
        process = begin(*more)
        while not (folder / "steps.jsonl").exists() or count_steps(folder) < steps:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        return process

    first = living(4)
    before = everything(folder)
    for option in ("--resume", "--overwrite"):
        other = begin(option)
        said = other.communicate()[1]
        assert other.returncode == 2, said
        assert f"is being written by another process (pid {first.pid}): wait" in said
        assert everything(folder) == before
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    expected = contents(folder)
    assert expected["about"]["status"] == "finished"
    assert expected["about"]["counted"] == len(expected["steps"]) > 8

    killed = living(len(expected["steps"]) // 2, "--overwrite")
    killed.kill()
    killed.communicate()
    assert begin("--resume").wait() == 0
    assert contents(folder) == expected


@pytest.mark.slow
def test_the_command_is_killed_and_resumed(tmp_path):
    """SIGKILL at random moments of a run of the pocket model, then a process that is left alone."""
    command = [sys.executable, "-m", "npo_kit.cli", "unlearn", "pocket"]
    command += ["--task", "authors:forget10", "--method", "npo_kl", "--epochs", "3", "--seed", "3"]
    command += ["--batch-size", "12", "--lr", "4e-4", "--max-rows", "12", "--max-new-tokens", "12"]
    command += [
        "--evaluate-every",
        "0.3",
        "--checkpoint-every",
        "0.2",
        "--save-model",
        "--label",
        "x",
    ]
    one_thread, log = os.environ | {"OMP_NUM_THREADS": "1"}, tmp_path / "log"

    def begin(name, *more):
        arguments = [*command, "--out", str(tmp_path / name), *more]
        with log.open("w") as said:
            return subprocess.Popen(arguments, env=one_thread, stdout=said, stderr=said)

    def going(process, folder, resumed, steps):
        """Wait until the process has opened the records and made the run so many steps long."""
        record = folder / "run.json"
        while process.poll() is None:
            if record.exists() and resumptions(folder) == resumed and count_steps(folder) >= steps:
                return
            time.sleep(0.02)

    assert begin("whole").wait() == 0, log.read_text()
    total, chosen = len(read_run(tmp_path / "whole").steps), random.Random(0)
    for kills, steps in enumerate(sorted(chosen.choices(range(total * 3 // 4), k=8))):
        process = begin("cut", "--resume")
        going(process, tmp_path / "cut", kills, steps)
        time.sleep(chosen.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL, log.read_text()
    assert begin("cut", "--resume").wait() == 0, log.read_text()
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    steps = [entry["step"] for entry in read_run(tmp_path / "cut").provenance["resumed"]]
    assert len(steps) == 8
    assert steps == sorted(steps)
    assert steps[-1] > 0


def resumptions(folder):
    return len(json.loads((folder / "run.json").read_text())["provenance"].get("resumed", []))

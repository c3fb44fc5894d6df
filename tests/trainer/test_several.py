"""Several processes against one: the same log-probs, weights, events and evaluations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from conftest import QUESTIONS, make_model, make_row
from places import TESTS

from npo_kit.cli import program
from npo_kit.losses.methods import METHODS
from npo_kit.models.loading import load_model, save_model
from npo_kit.records.run import read_run


def launch(processes: int, names: list[str], folder: Path) -> list[dict]:
    """What each of so many processes made of the cases."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", str(processes), str(TESTS / "together.py"), str(folder)]
    done = subprocess.run([*launcher, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(processes)]


ASKED = {  # of so many processes
    2: [*together.CASES, "npo_rt fsdp", "npo_kl fsdp", "kto_rt fsdp", "tied fsdp"],
    3: ["npo_rt", "collapse", "kto_rt fsdp"],
}
EACH = [(processes, name) for processes, names in ASKED.items() for name in names]
RUNS = [(processes, name) for processes, name in EACH if name != "collapse"]


@pytest.fixture(scope="module")
def alone() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        for name, method in together.OWN.items():
            patch.setitem(METHODS, name, method)
        return {name: together.run_named(name) for name in together.CASES}


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> dict[int, list[dict]]:
    """What each process made of each case, by how many they were."""
    return {n: launch(n, names, tmp_path_factory.mktemp(f"of{n}")) for n, names in ASKED.items()}


def evaluations(result: dict) -> list[dict]:
    return [event for kind, event in result["events"] if kind == "Evaluation"]


def logps(evaluation: dict) -> torch.Tensor:
    """Mean log-probs of the answers to every row."""
    rows = [row for rows in evaluation["rows"].values() for row in rows]
    return torch.tensor(
        [[row["mean_logp"], *row["perturbed_mean_logps"]] for row in rows], dtype=torch.float64
    )


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "name"), RUNS)
def test_ten_steps_equal_those_of_one_process(processes, name, alone, several):
    ours, one = several[processes][0][name], alone[name.removesuffix(" fsdp")]
    # norms compute in fp32 always, where a loss times 3 rounds otherwise, and times 2 does not
    tolerance = 1e-5 if name == "fp32" or processes == 3 else 1e-9
    assert [kind for kind, _ in ours["events"]] == ["Evaluation", *["Step"] * 10, "Evaluation"]
    before, after = map(logps, evaluations(one))
    assert (after - before).abs().max() > 0.1  # the run did something
    torch.testing.assert_close(logps(evaluations(ours)[1]), after, rtol=tolerance, atol=0)
    for (_, event), (_, expected) in zip(ours["events"][1:-1], one["events"][1:-1], strict=True):
        for key in ("step", "epoch", "loss", "grad_norm", "lr", "terms", "weights"):
            assert event[key] == pytest.approx(expected[key], rel=tolerance, abs=tolerance), key
    for key, value in one["weights"].items():
        torch.testing.assert_close(ours["weights"][key], value, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "name"), EACH)
def test_all_processes_are_told_the_same(processes, name, several):
    first, *others = [result[name] for result in several[processes]]
    for other in others:
        assert other["events"] == first["events"]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "name"), RUNS)
def test_evaluation_rows_come_in_order(processes, name, several, task):
    """Sets of 4, 4, 2 and 2 rows: three processes have nothing to do for some."""
    for evaluation in evaluations(several[processes][0][name]):
        for key, rows in task.evaluation.items():
            found = evaluation["rows"][key]
            assert [row["index"] for row in found] == list(range(len(rows)))
            assert [row["question"] for row in found] == [row["question"] for row in rows]


@pytest.mark.slow
def test_texts_are_those_of_one_process(alone, several):
    for processes, name in RUNS:
        ours, one = several[processes][0][name], alone[name.removesuffix(" fsdp")]
        for found, expected in zip(evaluations(ours), evaluations(one), strict=True):
            for key, rows in expected["rows"].items():
                for row, other in zip(found["rows"][key], rows, strict=True):
                    assert row["generation"] == other["generation"]
                    assert row["fluency"] == pytest.approx(other["fluency"], rel=1e-4)


@pytest.mark.slow
def test_progress_of_the_main_process_ends_at_all_rows(several):
    told = several[3][0]["npo_rt"]["progress"]
    assert {what: done for what, done, total in told if done == total} == {
        f"{key} {kind}": n
        for key, n in (("forget", 4), ("retain", 4), ("real_authors", 2), ("world_facts", 2))
        for kind in ("answers", "texts")
    } | {"reference, forget answers": 4}
    assert all(done <= total for _, done, total in told)


@pytest.mark.slow
def test_a_collapse_in_one_process_ends_all(alone, several):
    """The same step as in one process, after the same last evaluation."""
    expected = [kind for kind, _ in alone["collapse"]["events"]]
    assert expected == ["Evaluation", "Step", "Evaluation", "Collapse"]
    for results in several.values():
        for result in results:
            events = result["collapse"]["events"]
            assert [kind for kind, _ in events] == expected
            assert events[-1] == ("Collapse", {"step": 2, "reason": "the loss is not finite"})


@pytest.mark.slow
def test_fsdp_holds_a_part_of_the_model_and_ddp_all(alone, several):
    size = alone["npo_rt"]["held"]
    assert [result["npo_rt"]["held"] for result in several[2]] == [size, size]
    parts = [result["npo_rt fsdp"]["held"] for result in several[2]]
    assert sum(parts) == size
    assert max(parts) < 0.6 * size


@pytest.mark.slow
def test_several_go_on_from_the_checkpoint_of_the_main_one(several):
    """Bit for bit as if they had never been stopped."""
    for result in several[2]:
        assert result["resumed"]["events"] == result["ga_rt"]["events"][5:]  # step 5 on
        for key, value in result["ga_rt"]["weights"].items():
            assert torch.equal(result["resumed"]["weights"][key], value)


@pytest.mark.slow
def test_what_cannot_be_shared_is_refused_in_all(several):
    for results in several.values():
        for result in results:
            said = result["refusals"]
            assert "in one process" in said["one number for a batch"]
            assert "load the same weights" in said["different weights"]
            assert "fsdp_version: 2" in said["an older FSDP"]
            assert "no LoRA" in said["LoRA in parts"]
            assert "no checkpoints" in said["checkpoints in parts"]


# --- the commands -------------------------------------------------------------------------------

BRIEF = ["--max-new-tokens", "4", "--prompt", "qa", "--device", "cpu"]
UNLEARN = ["unlearn", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", *BRIEF]
UNLEARN += ["--epochs", "2", "--batch-size", "3", "--lr", "3e-3", "--method", "kto_rt"]


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A folder with a model and rows, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    save_model(make_model(len(tokenizer)), tokenizer, "model")
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    for name, part in {"forget": rows[8:], "retain": rows[:8]}.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path


def accelerate(*arguments: str) -> subprocess.CompletedProcess:
    """`accelerate launch` of two processes; it wants to be told of several GPUs, on a CPU too."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launcher += ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launcher, "-m", "npo_kit.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_a_launched_command_leaves_the_run_of_one(place):
    done = accelerate(*UNLEARN, "--save-model", "--out", "together")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model saved in") == 1
    assert program.main([*UNLEARN, "--save-model", "--out", "alone"]) == 0
    ours, one = read_run("together"), read_run("alone")
    assert (ours.status, ours.config["processes"]) == ("finished", 2)
    assert "processes" not in one.config
    for step, expected in zip(ours.steps, one.steps, strict=True):
        assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert ours.evaluation_steps() == one.evaluation_steps()
    for a, b in zip(ours.evaluations(), one.evaluations(), strict=True):
        for row, other in zip(a.rows["forget"], b.rows["forget"], strict=True):
            assert row["question"] == other["question"]
            assert row["mean_logp"] == pytest.approx(other["mean_logp"], rel=1e-5)
    weights = load_model("together")[0].state_dict()
    for key, value in load_model("alone")[0].state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_folder_that_is_taken_ends_all_processes(place):
    (place / "taken").mkdir()
    (place / "taken" / "note.txt").write_text("mine")
    done = accelerate(*UNLEARN, "--out", "taken")
    assert done.returncode != 0
    assert "npo-kit: taken is not empty" in done.stderr
    assert "exitcode  : 2" in done.stderr  # as the launcher says it of the process
    assert [path.name for path in (place / "taken").iterdir()] == ["note.txt"]


def test_a_command_of_one_process_refuses_several(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert program.main(["table", "nowhere"]) == 2
    assert "start it without a launcher" in capsys.readouterr().err

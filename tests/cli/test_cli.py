"""The command line, end to end on a tiny model and own rows, and its answers to bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import QUESTIONS, make_model, make_row
from places import ROOT
from studies import evaluation, write_run

from npo_kit.cli import program
from npo_kit.models import choose_placement, load_model, loading, save_model
from npo_kit.records.run import read_run

COMMANDS = (
    "finetune",
    "unlearn",
    "evaluate",
    "ask",
    "audit",
    "methods",
    "table",
    "report",
    "export",
)
COMMANDS += ("synthetic", "pocket", "study", "page")
BRIEF = ["--max-new-tokens", "4", "--prompt", "qa"]
TRAIN = [*BRIEF, "--epochs", "2", "--batch-size", "4", "--lr", "3e-3", "--evaluate-every", "0"]


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A folder with a model and rows, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    save_model(make_model(len(tokenizer)), tokenizer, "model")
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    parts = {"forget": rows[8:], "retain": rows[:8], "real": rows[2:4], "world": rows[4:6]}
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


OWN = ["--forget", "forget.jsonl", "--retain", "retain.jsonl"]
ALL = [*OWN, "--real-authors", "real.jsonl", "--world-facts", "world.jsonl"]


def run(*arguments: str) -> int:
    return program.main(list(arguments))


def test_the_whole_story(place, capsys):
    """Original, retained-only, two methods, one table; every command answers with exit code 0."""
    assert run("finetune", "model", *ALL, *TRAIN, "--out", "runs/original") == 0
    assert run("finetune", "model", *ALL, *TRAIN, "--rows", "retain", "--out", "runs/retained") == 0
    for method in ("ga", "npo_rt"):
        arguments = [*ALL, *TRAIN, "--method", method, "--reference", "runs/retained"]
        assert run("unlearn", "runs/original", *arguments, "--out", f"runs/{method}") == 0
    assert not (place / "runs/ga/model").exists()  # only where it is asked for
    capsys.readouterr()

    assert run("table", "runs") == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        "ga", "ga", "npo_rt", "npo_rt", "original", "retained",
    ]  # fmt: skip
    assert run("table", "runs", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    by_method = {(r["method"], r["step"]): r for r in records}
    assert set(by_method) == {
        ("ga", 0), ("ga", 2), ("npo_rt", 0), ("npo_rt", 2), ("original", 6), ("retained", 4),
    }  # fmt: skip
    for record in records:
        assert not [key for key, value in record.items() if isinstance(value, dict | list)]
        assert 0 <= record["model_utility"] <= 1
        assert 0 <= record["forget_quality"] <= 1
    assert by_method["retained", 4]["forget_quality"] == pytest.approx(1.0)
    same = ("model_utility", "forget_probability", "retain_rouge_l")
    for key in same:  # a run starts where the original ended
        assert by_method["ga", 0][key] == pytest.approx(by_method["original", 6][key], abs=1e-5)
    assert by_method["ga", 2]["forget_probability"] < by_method["ga", 0]["forget_probability"]


def test_the_plan_of_a_run_is_said_before_it_begins(place, capsys):
    """Four forget rows, two steps an epoch: of the one epoch half is warm-up."""
    arguments = [*OWN, *BRIEF, "--epochs", "2", "--batch-size", "2", "--lr", "1e-3"]
    assert run("unlearn", "model", *arguments, "--out", "run") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == (
        "4 rows, 4 steps of 2; learning rate 0 at first, 0.001 at its peak (step 3), 0.0005 at "
        "last; 3 evaluations"
    )
    assert said[3].startswith("time: about ")
    assert [step["lr"] for step in read_run("run").steps] == [0.0, 0.0005, 0.001, 0.0005]


def test_a_reference_of_another_split_gives_no_p(tmp_path, capsys, monkeypatch):
    """The numbers of its rows are the same, the questions are others; or it kept no questions."""
    brief = ["--max-new-tokens", "0", "--max-rows", "12"]
    monkeypatch.chdir(tmp_path)
    for split in ("forget05", "forget10"):
        task = ["--task", f"authors:{split}", *brief, "--label", "retained"]
        assert run("evaluate", "pocket:retained", *task, "--out", split) == 0
    ours = ["evaluate", "pocket", "--task", "authors:forget05", *brief, "--reference"]
    capsys.readouterr()
    assert run(*ours, "forget05") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert 0 <= float(lines["forget_quality"]) < 0.05
    assert run(*ours, "forget10") == 0
    refused = capsys.readouterr().out
    assert "forget_quality                   -  (the reference is of other forget rows" in refused
    assert run(*ours, str(ROOT / "data/studies/pocket/retained")) == 2
    assert "is of authors:forget10, it is to judge authors:forget05" in capsys.readouterr().err


def test_evaluate_prints_and_records(place, capsys):
    arguments = ["evaluate", "model", *ALL, *BRIEF, "--original", "model"]
    assert run(*arguments, "--out", "runs/retained") == 0
    printed = capsys.readouterr().out
    assert "no retained-only reference" in printed
    again = [*arguments, "--reference", "runs/retained", "--truth-ratio", "arithmetic"]
    assert run(*again) == 0
    printed = capsys.readouterr().out.splitlines()
    placed = [line for line in printed if line.startswith("model on ")]
    assert placed == [f"model on {choose_placement()}"] * 2  # the original too
    lines = dict(line.split(None, 1) for line in printed if line[:1].islower())
    assert float(lines["forget_quality"]) == 1.0
    assert float(lines["forget_fluency"]) < 0
    assert read_run("runs/retained").label == "retained"


def test_without_utility_sets_the_reason_is_said(place, capsys):
    assert run("evaluate", "model", *OWN, *BRIEF) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("model_utility")]
    assert "no real_authors rows were given" in line
    assert "\nreal_authors_" not in printed
    assert "\nworld_facts_" not in printed
    assert "(no original model was given to judge the generations (--original))" in printed


def test_a_run_says_what_it_depends_on(place):
    arguments = [*ALL, *TRAIN, "--method", "npo", "--beta", "0.3", "--seed", "5", "--save-model"]
    assert run("unlearn", "model", *arguments, "--out", "run") == 0
    record = read_run("run")
    assert (record.kind, record.method, record.seed, record.status) == (
        "unlearn", "npo", 5, "finished",
    )  # fmt: skip
    assert record.config["hyper"] == {"beta": 0.3}
    assert record.config["lr"] == 3e-3
    assert record.task["forget_rows"] == 4
    assert {"torch", "transformers", "npo_kit"} <= set(record.provenance["versions"])
    assert str(place) not in (place / "run/run.json").read_text()
    assert load_model("run")[0].num_parameters() == load_model("model")[0].num_parameters()


def test_columns_of_own_rows_are_named_and_said(place, capsys):
    for name in ("forget", "retain"):
        rows = [json.loads(line) for line in (place / f"{name}.jsonl").read_text().splitlines()]
        text = "".join(f"{row['question']};{row['answer']}\n" for row in rows)
        (place / f"{name}.csv").write_text("Frage;Antwort\n" + text, encoding="utf-16")
    own = ["--forget", "forget.csv", "--retain", "retain.csv", *BRIEF]
    assert run("evaluate", "model", *own) == 2
    assert "has no column question and answer" in capsys.readouterr().err
    assert run("evaluate", "model", *own, "--columns", "question=Frage,answer=Antwort") == 0
    said = capsys.readouterr().out
    taken = "question from 'Frage', answer from 'Antwort', utf_16 text"
    assert f"forget.csv: 4 rows, {taken}" in said
    assert f"retain.csv: 8 rows, {taken}" in said
    with pytest.raises(SystemExit):
        run("evaluate", "model", *own, "--columns", "Frage")
    assert "must be like question=Frage,answer=Antwort, it is 'Frage'" in capsys.readouterr().err


BAD = {
    "unknown method": (["unlearn", "model", *OWN, "--method", "nppo"], "npo_rt"),
    "unknown split": (["unlearn", "model", "--task", "tofu:forget99x"], "forget01"),
    "unknown task": (["unlearn", "model", "--task", "tufo:forget01"], "tofu:"),
    "no task": (["unlearn", "model"], "--task"),
    "both tasks": (["unlearn", "model", *OWN, "--task", "tofu:forget01"], "not both"),
    "unknown model": (["unlearn", "./nowhere", *OWN], "nowhere"),
    "wrong gguf": (["unlearn", "absent.gguf", *OWN], "no such GGUF file"),
    "unknown protocol": (["unlearn", "model", *OWN, "--protocol", "full"], "all, tofu"),
    "unknown prompt": (["unlearn", "model", *OWN, "--prompt", "alpaca"], "llama2"),
    "unknown prompt of an evaluation": (["evaluate", "model", *OWN, "--prompt", "x"], "llama2"),
    "unknown precision": (["unlearn", "model", *OWN, "--precision", "int8"], "bf16"),
    "unknown device": (["unlearn", "model", *OWN, "--device", "quantum"], "cpu"),
    "bad rows": (["unlearn", "model", "--forget", "bad.jsonl", "--retain", "bad.csv"], "line 2"),
    "no reference": (["unlearn", "model", *OWN, "--reference", "nowhere"], "nowhere"),
    "a retain weight without a retain term": (
        ["unlearn", "model", *OWN, "--method", "ga", "--retain-weight", "2"],
        "ga has no retain term: leave out retain_weight",
    ),
    "refusals that no term reads": (
        ["unlearn", "model", *OWN, "--refusals", "forget.jsonl"],
        "npo_rt reads no refusals",
    ),
    "a scale of no adapter": (
        ["unlearn", "model", *OWN, "--lora-alpha", "8"],
        "--lora-alpha scales an adapter: give --lora-rank",
    ),
    "rows beside a task": (
        ["unlearn", "model", "--task", "authors:forget05", "--real-authors", "absent.jsonl"],
        "not both",
    ),
    "a source of own rows": (["unlearn", "model", *OWN, "--source", "."], "leave it out"),
    "a system prompt without a chat": (
        ["unlearn", "model", *OWN, "--prompt", "qa", "--system-prompt", "Be brief."],
        "prompt style qa has none",
    ),
    "rows to forget that are kept": (
        ["unlearn", "model", "--forget", "forget.jsonl", "--retain", "forget.jsonl"],
        "4 of 4 forget rows are retain rows too",
    ),
    "too few rows": (
        ["unlearn", "model", *OWN, "--batch-size", "400"],
        "(--batch-size) to 40 or less",
    ),
    "no forget rows": (["unlearn", "model", *OWN[2:]], "--forget is missing"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_one_clear_answer_and_nothing_is_written(case, place, capsys):
    (place / "bad.jsonl").write_text('{"question": "Who?", "answer": "She."}\n{"question": 3}\n')
    (place / "bad.csv").write_text("frage,antwort\nWho?,She.\n")
    arguments, said = BAD[case]
    before = sorted(place.rglob("*"))
    assert run(*arguments, *BRIEF[:2], "--out", "out") == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert sorted(place.rglob("*")) == before


def test_bad_rows_of_several_files_are_reported_together(place, capsys):
    (place / "bad.jsonl").write_text('{"question": "Who?", "answer": "She."}\n{"question": 3}\n')
    (place / "bad.csv").write_text("frage,antwort\nWho?,She.\n")
    run("evaluate", "model", "--forget", "bad.jsonl", "--retain", "bad.csv")
    message = capsys.readouterr().err
    assert "bad.jsonl, line 2" in message
    assert "retain: bad.csv has no column question and answer" in message


@pytest.mark.parametrize("content", ["", "{", '{"some": "log"}', "[1, 2]"])
def test_tables_of_foreign_or_broken_folders(content, place, capsys):
    assert run("table", "model") == 2
    assert "holds no run" in capsys.readouterr().err
    (place / "log.json").write_text(content)
    assert run("evaluate", "model", *OWN, "--reference", "log.json") == 2
    assert "log.json" in capsys.readouterr().err
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text(content)
    assert run("table", "run") == 2
    assert "run.json" in capsys.readouterr().err


def test_a_run_is_not_overwritten_unasked(place, capsys):
    arguments = ["unlearn", "model", *OWN, *TRAIN, "--method", "ga", "--out", "run"]
    assert run(*arguments) == 0
    before = (place / "run/run.json").read_bytes()
    assert run(*arguments) == 2
    assert "not empty" in capsys.readouterr().err
    assert (place / "run/run.json").read_bytes() == before
    assert run(*arguments, "--overwrite") == 0


@pytest.mark.parametrize("command", ["finetune", "unlearn", "evaluate"])
def test_a_folder_that_cannot_be_written_is_told_before_the_model_is_loaded(
    command, place, capsys, monkeypatch
):
    write_run(place / "run", "npo", [evaluation(10)])
    (place / "empty").mkdir()
    before = sorted(place.rglob("*"))
    loads = []
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: loads.append(1) or 1 / 0)
    for out, more, said in (
        ("run", [], "run is not empty"),
        ("model", ["--overwrite"], "model is not a run's folder"),
        ("forget.jsonl", ["--overwrite"], "forget.jsonl is not a folder"),
        ("forget.jsonl/below", [], "could not be written"),
        *([] if command == "evaluate" else [("model", ["--resume"], "model is not empty")]),
    ):
        assert run(command, "model", *OWN, "--out", out, *more) == 2
        assert said in capsys.readouterr().err
    assert not loads
    fine = [("empty", []), ("new/deep", []), ("run", ["--overwrite"])]
    for out, more in [*fine, *([] if command == "evaluate" else [("run", ["--resume"])])]:
        with pytest.raises(ZeroDivisionError):
            run(command, "model", *OWN, "--out", out, *more)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("command", [["finetune"], ["unlearn", "--save-model"]])
def test_a_disk_without_room_for_the_model_is_told_before_the_first_step(
    command, place, capsys, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    assert run(*command, "model", *OWN, *TRAIN, "--out", "run") == 2
    assert "the model to save takes" in capsys.readouterr().err
    assert (read_run("run").status, read_run("run").steps) == ("stopped", [])
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert run(*command, "model", *OWN, *TRAIN, "--out", "run", "--resume") == 0
    assert (place / "run/model/config.json").exists()


def test_an_interrupted_run_keeps_what_it_has(place, capsys, monkeypatch):
    from npo_kit.trainer.updates import Updates

    step = Updates.step

    def interrupted(self, number, batch):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, batch)

    monkeypatch.setattr(Updates, "step", interrupted)
    arguments = ["unlearn", "model", *ALL, *TRAIN, "--epochs", "5", "--out", "run"]
    assert run(*arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    record = read_run("run")
    assert (record.status, len(record.steps), record.evaluation_steps()) == ("stopped", 2, [0])
    assert run("table", "run") == 0
    assert "run: stopped" in capsys.readouterr().out


def test_tables_of_several_folders_with_what_is_published(tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    settings = {"lr": 1e-5, "model": "open-unlearning/tofu_Llama-2-7b-chat_full"}
    about = {"method": "npo_rt", "config": settings, "task": "tofu:forget10"}
    for folder, step in ((one, 12), (other, 1250)):
        made = [replace(evaluation(10), step=step)]
        write_run(folder / "npo_rt", "npo_rt", made, **about)
    assert run("table", str(one), str(other), "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [(r["folder"], r["step"]) for r in records] == [("one", 12), ("other", 1250)]

    assert run("table", str(one), str(other), "--published") == 0
    lines = capsys.readouterr().out.splitlines()
    told = {tuple(line.split()[:2]): line.split() for line in lines}
    assert told["other", "npo_rt"][3] == "1250"
    assert told["published", "npo_rt"][2:6] == ["-", "-", "0.54", "0.42"]  # open-unlearning's table
    assert told["published", "retained"][4:6] == ["0.61", "1"]
    assert lines[-1].startswith("published: open-unlearning, docs/repro.md")

    assert run("table", str(one), "--published", "Llama-3.2-1B-Instruct", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    (point,) = [r for r in records if r["method"] == "npo_rt" and r["folder"] == "published"]
    assert (point["model_utility"], point["forget_quality"]) == (0.46, 0.02)
    assert point["model"] == "Llama-3.2-1B-Instruct"
    assert point["task"] == "tofu:forget10"
    assert "docs/repro.md" in point["source"]
    assert point["forget_probability"] is None
    small = {**about, "task": "tofu:forget10@800"}  # beside it what the whole data set gave
    write_run(tmp_path / "small" / "npo_rt", "npo_rt", [evaluation(10)], **small)
    assert run("table", str(tmp_path / "small"), "--published", "--json") == 0
    tasks = {r["folder"]: r["task"] for r in json.loads(capsys.readouterr().out)}
    assert tasks == {"small": "tofu:forget10@800", "published": "tofu:forget10"}
    assert run("table", str(one), "--published", "Phi-1.5") == 2
    assert "nothing is published of Phi-1.5 on tofu:forget10" in capsys.readouterr().err


def test_an_interrupted_run_is_resumed(place, capsys, monkeypatch):
    from npo_kit.trainer.updates import Updates

    arguments = ["unlearn", "model", *ALL, *TRAIN, "--method", "npo_kl", "--epochs", "5"]
    assert run(*arguments, "--resume", "--out", "whole", "--label", "x", "--save-model") == 0
    step = Updates.step

    def interrupted(self, number, batch):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number, batch)

    arguments += ["--out", "cut", "--label", "x", "--save-model", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(Updates, "step", interrupted)
        assert run(*arguments, "--checkpoint-every", "2") == 130
    assert [path.name for path in (place / "cut/checkpoints").iterdir()] == ["000002"]
    assert run(*arguments, "--beta", "0.5") == 2
    assert "config: hyper {}, and {'beta': 0.5} is asked for" in capsys.readouterr().err
    model = (place / "model/model.safetensors").read_bytes()
    save_model(
        make_model(load_model("model")[0].config.vocab_size, seed=1),
        load_model("model")[1],
        "model",
    )
    assert run(*arguments) == 2
    assert "config: weights" in capsys.readouterr().err
    (place / "model/model.safetensors").write_bytes(model)
    assert run(*arguments) == 0
    assert "cut goes on after step 2" in capsys.readouterr().out
    whole, cut = read_run("whole"), read_run("cut")
    assert [s | {"seconds": 0} for s in cut.steps] == [s | {"seconds": 0} for s in whole.steps]
    assert cut.evaluation(5).rows == whole.evaluation(5).rows
    weights = [place / name / "model/model.safetensors" for name in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert run(*arguments) == 0
    assert "cut is complete already" in capsys.readouterr().out
    assert not (place / "cut/checkpoints").exists()
    with pytest.raises(SystemExit):
        run(*arguments, "--overwrite")


@pytest.mark.slow
def test_synthetic_writes_frames_and_figures(tmp_path, capsys):
    out = str(tmp_path / "synthetic")
    arguments = ["--seeds", "7", "--alphas", "0", "--methods", "ga", "npo_rt", "--steps", "50"]
    assert run("synthetic", "--out", out, *arguments, "--sweep-steps", "0") == 0
    assert "npo_rt" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "synthetic").iterdir()}
    assert {"unlearning.csv.gz", "provenance.json", "distance_alpha_0.png"} <= names
    assert run("synthetic", "--out", out, "--seeds", "7", "7") == 2
    assert "give each once" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"npo-kit {command}" in printed.partition("example:")[2]
    assert "exit codes" in printed
    named = [(o, v) for o, v in re.findall(r"--([a-z-]+) ([A-Z_]+)", printed) if v != "OUT"]
    bare = {o for o, v in named if o.replace("-", "_").upper() == v}
    assert bare <= {"task", "device", "method", "label"}  # the others say what kind of value


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "npo_kit.cli", "table", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("npo-kit: nowhere does not exist")


@pytest.mark.parametrize(
    "encoding",
    ["cp1252", "ascii", *(pytest.param(e, marks=pytest.mark.slow) for e in ("cp437", "cp932"))],
)
def test_output_in_any_encoding_never_ends_in_a_traceback(encoding):
    """As a Windows console or a pipe in a C locale has it."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for words, code in ((["report", "data/studies/smollm2"], 0), (["table", "nöwhere…"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "npo_kit.cli", *words],
            capture_output=True,
            env=environment,
            cwd=ROOT,
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr


def test_adapters_from_the_command_line(place):
    """Fine-tuned and unlearned by LoRA: the run holds a plain model, which another run takes up."""
    pytest.importorskip("peft")
    lora = ["--lora-rank", "2", "--lora-alpha", "4", "--gradient-checkpointing"]
    few = ["--intermediate-rows", "1", "--evaluate-every", "1"]
    assert run("finetune", "model", *ALL, *TRAIN, *lora, "--out", "runs/original") == 0
    arguments = [*ALL, *TRAIN, *lora, *few, "--save-model", "--out", "runs/npo"]
    assert run("unlearn", "runs/original", *arguments) == 0
    record = read_run("runs/npo")
    assert {record.config[name] for name in ("lora_rank", "lora_alpha")} == {2, 4.0}
    assert record.config["gradient_checkpointing"] is True
    assert [len(e.rows["forget"]) for e in record.evaluations()] == [4, 1, 4]
    before, after = (load_model(f"runs/{name}")[0] for name in ("original", "npo"))
    names = {name for name, _ in before.named_parameters()}
    assert names == {name for name, _ in after.named_parameters()}
    changed = {
        name
        for (name, old), (_, new) in zip(
            before.named_parameters(), after.named_parameters(), strict=True
        )
        if not (old == new).all()
    }
    assert changed == {name for name in names if name.endswith("proj.weight")}
    assert run("evaluate", "model", *ALL, *BRIEF, "--quantize", "4bit", "--device", "cpu") == 2

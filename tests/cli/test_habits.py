"""Habits at the command line: to ask, to look before a run, to forget only, to press Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import QUESTIONS, make_model, make_row
from places import ROOT

from npo_kit.cli.program import main
from npo_kit.data.prompts import PromptFormat
from npo_kit.metrics.progress import progress_bars
from npo_kit.models import load_model, save_model
from npo_kit.models.loading import context_length
from npo_kit.records.run import read_run
from npo_kit.trainer.updates import Updates

BRIEF = ["--max-new-tokens", "4", "--prompt", "qa"]
TRAIN = [*BRIEF, "--epochs", "1", "--batch-size", "4", "--method", "npo"]


@pytest.fixture
def place(tmp_path, tokenizer, monkeypatch):
    """A folder with two models and rows to forget, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        save_model(make_model(len(tokenizer), seed), tokenizer, name)
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    for name, part in {"forget": rows[8:], "retain": rows[:8]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    return tmp_path


def greedy(name, question, length):
    """The likeliest continuation of a prompt by transformers alone, token by token."""
    model, tokenizer = load_model(name)
    prompts = PromptFormat(tokenizer, "qa", context_length(model))
    ids = list(prompts.encode_prompt(question))
    start = len(ids)
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == prompts.end_id:
            break
    return " ".join(prompts.decode(ids[start:]).split())


# --- ask ----------------------------------------------------------------------------------------


def columns(printed):
    """The texts that stand in each column of a table."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in printed.splitlines()[3:]]
    return [" ".join(row[i] for row in rows if i < len(row)).strip() for i in (0, 1)]


def test_a_question_to_two_models_side_by_side(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    question = "Who painted the harbour?"
    assert main(["ask", "one", "two", question, "--max-new-tokens", "6", "--prompt", "qa"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == question
    assert [name.strip() for name in printed.splitlines()[1].split(" | ")] == ["one", "two"]
    assert columns(printed) == [greedy(name, question, 6) for name in ("one", "two")]
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["ask", "one", "two", question, "--max-new-tokens", "6", "--prompt", "qa"]) == 0
    below = " ".join(capsys.readouterr().out.split())
    assert f"one {greedy('one', question, 6)} two {greedy('two', question, 6)}" in below


def test_sampled_answers_follow_the_seed(place, capsys):
    def drawn(*more):
        assert main(["ask", "one", "Who?", *BRIEF, "--samples", "3", *more]) == 0
        return capsys.readouterr().out

    assert drawn() == drawn("--seed", "0") != drawn("--seed", "1")
    assert len(drawn().splitlines()) >= 3 + 3
    assert main(["ask", "one", "Who?", "--samples", "0"]) == 2
    assert "samples must be at least 1, it is 0" in capsys.readouterr().err
    assert main(["ask", "one", " "]) == 2
    assert "the question is empty" in capsys.readouterr().err


# --- before a run, and how it ends --------------------------------------------------------------


@pytest.mark.parametrize("command", ["unlearn", "finetune"])
def test_a_dry_run_says_what_it_takes_and_makes_nothing(command, place, capsys):
    words = [command, "one", "--forget", "forget.json", "--retain", "retain.json"]
    words += TRAIN[: -2 if command == "finetune" else None]
    before = sorted(place.rglob("*"))
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "time: about" in said
    assert "memory: about" in said
    assert sorted(place.rglob("*")) == before
    assert main(words) == 2
    assert "give --out, the folder of the run, or --dry-run" in capsys.readouterr().err
    assert main([*words, "--out", "run"]) == 0
    assert main([*words, "--out", "run", "--dry-run"]) == 0  # a run that is there is no obstacle


def test_a_collapsed_run_has_an_exit_code_of_its_own(place, capsys, monkeypatch):
    words = ["unlearn", "one", "--forget", "forget.json", *TRAIN, "--epochs", "4"]
    assert main([*words, "--lr", "1e38", "--max-grad-norm", "inf", "--out", "run"]) == 3
    assert "collapsed at step" in capsys.readouterr().out
    assert read_run("run").status == "collapsed"


def test_forget_rows_alone_are_enough_for_a_method_without_retain_rows(place, capsys):
    words = ["--forget", "forget.json", *TRAIN]
    assert main(["unlearn", "one", *words, "--out", "run"]) == 0
    run = read_run("run")
    assert (run.task["forget_rows"], run.task["retain_rows"]) == (4, 0)
    assert main(["evaluate", "one", "--forget", "forget.json", *BRIEF]) == 0
    assert "no retain rows were given" in capsys.readouterr().out
    before = sorted(place.rglob("*"))
    needy = [*words[:-1], "npo_rt", "--out", "other"]
    assert main(["unlearn", "nowhere", *needy]) == 2  # told before a model is loaded
    said = "method npo_rt reads retain rows, and there are none: give retain rows (--retain), or"
    assert said in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


SLEEPER = """
import signal, sys, time
from npo_kit.cli import program

# a shell's background job ignores it, and Python keeps to that
signal.signal(signal.SIGINT, signal.default_int_handler)

def sleep(options):
    try:
        print("asleep", flush=True)
        time.sleep(60)
    finally:
        print("keeping", flush=True)
        time.sleep(1)
        print("kept", flush=True)

program.read.COMMANDS = (lambda add: add("sleep", sleep, "npo-kit sleep"),)
sys.exit(program.main(["sleep"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a whole console")
def test_a_second_ctrl_c_lets_the_work_be_kept_and_leaves_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "keeping\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (out, process.returncode) == ("kept\n", 130)
    assert said == "npo-kit: interrupted; what was recorded is kept\n"


def test_the_usual_answer_to_ctrl_c_is_back_after_a_command(place, capsys):
    before = signal.getsignal(signal.SIGINT)
    assert main(["table", "nowhere"]) == 2
    assert signal.getsignal(signal.SIGINT) is before


# --- progress -----------------------------------------------------------------------------------


def test_the_reference_is_followed_row_by_row(model, tokenizer, task):
    from npo_kit.trainer import UnlearnConfig, unlearn

    told = []
    config = UnlearnConfig(
        method="npo", batch_size=4, micro_batch_size=1, epochs=1, prompt="qa", evaluation=None
    )
    list(unlearn(model, tokenizer, task, config, progress=lambda *what: told.append(what)))
    assert told == [("reference, forget answers", n, 4) for n in (2, 4)]


def test_bars_are_the_notebooks_in_a_notebook(monkeypatch, capsys):
    import tqdm.auto

    made = []

    class Bar:
        def __init__(self, **about):
            made.append(about)
            self.n = 0

        def update(self, more):
            self.n += more

        def close(self):
            made.append(self.n)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    show = progress_bars()
    show("forget texts", 3, 4)
    show("forget texts", 4, 4)
    assert made == [{"total": 4, "desc": "forget texts", "unit": "row", "leave": False}, 4]


def test_a_dry_run_takes_no_step(place, monkeypatch):
    monkeypatch.setattr(Updates, "step", lambda *_: pytest.fail("a dry run trained"))
    words = ["unlearn", "one", "--forget", "forget.json", *TRAIN, "--dry-run"]
    assert main(words) == 0


def test_mistyped_names_are_told_their_neighbours(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["unlern"])
    assert "(did you mean 'unlearn'?)" in capsys.readouterr().err
    rows = ["--task", "authors:forget05", "--out", str(tmp_path / "run")]
    assert main(["unlearn", "pocket", *rows, "--method", "npo_tr"]) == 2
    assert "(did you mean 'npo_rt'?)" in capsys.readouterr().err


def test_a_page_in_no_folder_is_refused_before_anything_is_read(capsys):
    assert main(["page", "nosuch", "--out", "nosuch/page.html"]) == 2
    assert "--out nosuch/page.html: there is no folder" in capsys.readouterr().err


def test_help_tells_true_defaults_and_the_models_that_travel_with_the_kit(capsys):
    for command in ("finetune", "unlearn", "evaluate", "audit", "ask"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = " ".join(capsys.readouterr().out.split())
        assert "pocket, pocket:base, pocket:retained" in told
        if command != "ask":
            assert "where all of these files have question and answer" in told
        if command == "finetune":
            assert "(default: original, or retained with --rows retain)" in told
            assert "of your own rows also the first 300, unless you give all" in told

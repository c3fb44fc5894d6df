"""What must stay as it was when the golden files were made, whatever becomes of the code inside.

Golden files lie in `tests/golden/`. `imports.json` and `commands.json` hold what people may have
written down by then, so they are only ever read here. The others hold numbers and texts, which
`python tests/test_golden.py` makes anew from the code that is there; a change in them is one of
results, to be explained, not a repair.

Only interfaces that are promised are used: the top level of `npo_kit`, a few public modules, the
command line, the page's live runs, and the shipped files.
"""

import argparse
import ast
import contextlib
import copy
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import pytest
import torch

import npo_kit
from npo_kit.app.live import LiveConfig, LiveJob
from npo_kit.cli import main

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
STUDIES = ROOT / "data" / "studies"
REPORTED = ("pocket", "smollm2", "tofu-smollm2")  # the fourth, synthetic, has frames and no runs
TASK = "authors:forget10"
PATIENCE = 300.0  # seconds for what takes some ten on a free machine
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"}


def golden(name: str):
    """A golden file's content."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


# --- import paths -------------------------------------------------------------------------------


IMPORTS = golden("imports.json")  # module -> its public names on the day of freezing


@pytest.mark.slow
def test_every_public_name_is_imported_from_where_it_was():
    """In a fresh process, where nothing has been loaded that would hide a missing export."""
    code = (
        "import json, sys\n"
        "missing = []\n"
        "for module, names in json.load(sys.stdin).items():\n"
        "    for name in names:\n"
        "        try:\n"
        "            exec(f'from {module} import {name}', {})\n"
        "        except ImportError as error:\n"
        "            missing.append(f'{module}.{name}: {error}')\n"
        "print('\\n'.join(missing))\n"
    )
    command, names = [sys.executable, "-c", code], json.dumps(IMPORTS)
    done = subprocess.run(command, input=names, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_top_level_lists_what_it_exports():
    assert set(IMPORTS["npo_kit"]) <= set(npo_kit.__all__)
    assert set(IMPORTS["npo_kit"]) <= set(dir(npo_kit))


def test_a_name_is_the_same_object_wherever_it_is_imported_from():
    """So that a method entered in the table, or a class asked for, is known everywhere."""
    shared = [
        (module, name)
        for module, names in IMPORTS.items()
        for name in names
        if module != "npo_kit" and name in IMPORTS["npo_kit"]
    ]
    assert len(shared) >= 10
    for module, name in shared:
        assert getattr(import_module(module), name) is getattr(npo_kit, name), (module, name)


# --- commands -----------------------------------------------------------------------------------


COMMANDS = golden("commands.json")  # where from -> commands; "cells": the page's, for notebooks
SHELL = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1"}
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"\.\.\.|…|[][<>{}|]")  # as in "unlearn ...", "--out <FOLDER>"


class Parsed(BaseException):
    """Raised once a command has been parsed, in place of running it."""


@pytest.fixture
def no_command_runs(monkeypatch, tmp_path):
    """Commands given to `main` end in `Parsed` after their parsing; checked with a harmless one."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *arguments, **options):
        raise Parsed(parse(self, *arguments, **options))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Parsed):
        main(["report", "no-such-folder"])


def kit_commands(line: str) -> list[list[str]]:
    """The words after `npo-kit` (or `-m npo_kit.cli`) of each command in a line of shell."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # no shell, as a line of prose with an apostrophe
        return []
    parts, found = [[]], []
    for word in words:
        if word in SHELL:
            parts.append([])
        elif parts[-1] or not re.fullmatch(r"[$!%>]+|export|\w+=.*", word):
            parts[-1].append(word)
    for part in parts:
        if part and Path(part[0].lstrip("!%$")).name == "npo-kit":
            found.append(part[1:])
        elif "npo_kit.cli" in part and part[part.index("npo_kit.cli") - 1] == "-m":
            found.append(part[part.index("npo_kit.cli") + 1 :])
    return [words for words in found if words]


def commands_in_markdown(text: str) -> list[list[str]]:
    """The kit's commands in blocks of code and in code within the text."""
    text = text.replace("\r\n", "\n")
    blocks = [re.sub(r"\\\n\s*", " ", block) for block in FENCE.findall(text)]
    inline = re.findall(r"`+([^`]+)`+", FENCE.sub("", text))
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in inline]
    return [words for line in lines for words in kit_commands(line)]


def commands_in_notebook(text: str) -> list[list[str]]:
    """The kit's commands in the texts of a notebook, and those that its cells give to a shell."""
    found = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found += commands_in_markdown(source)
        else:
            lines = re.sub(r"\\\n\s*", " ", source).splitlines()
            shell = [line for line in lines if line.lstrip().startswith("!")]
            if source.startswith(("%%bash", "%%sh")):
                shell = lines[1:]
            found += [words for line in shell for words in kit_commands(line)]
    return found


def commands_in_record(value) -> list[list[str]]:
    """The kit's commands among the texts of a JSON value, whole or as lists of words."""
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return kit_commands(shlex.join(value)) or [c for v in value for c in commands_in_record(v)]
    if isinstance(value, str):
        return kit_commands(value) if re.search(r"npo-kit |npo_kit\.cli ", value) else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [words for part in parts for words in commands_in_record(part)]


def problem_of(words: list[str]) -> str | None:
    """Why the command line refuses a command; None if it parses, or gives the help asked for."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = main(words)
    except Parsed:
        return None
    except SystemExit as end:
        code = end.code
    if code:
        return (said.getvalue().strip().splitlines() or ["no reason given"])[-1]
    return None if "--help" in words else "it was run, not parsed"


def problems_of(commands: list[list[str]]) -> list[str]:
    """What is wrong with some commands, a line each.

    Of a command with a placeholder such as `...`, and of one that is only called by its name, it is
    asked whether there is a command of that name. A single capital, as in `--seed N`, is a number.
    """
    problems = []
    for words in commands:
        name = words[0]
        if PLACEHOLDER.search(name) or name.isupper():
            continue
        if any(PLACEHOLDER.search(word) for word in words):
            problem = problem_of([name, "--help"])
        else:
            filled = ["1" if re.fullmatch("[A-Z]", word) else word for word in words]
            problem = problem_of(filled)
            if problem and len(words) == 1:
                problem = problem_of([name, "--help"])
        if problem:
            problems.append(f"npo-kit {shlex.join(words)}\n    {problem}")
    return problems


def read_commands(path: Path) -> list[list[str]]:
    """The kit's commands in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return commands_in_markdown(text)
    if path.suffix == ".ipynb":
        return commands_in_notebook(text)
    return commands_in_record(json.loads(text))


def config_of_cell(cell: str):
    """The configuration that a copied cell makes; its imports are made, its run is not started."""
    wanted = [
        node
        for node in ast.parse(cell).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "config")
    ]
    names: dict = {}
    exec(compile(ast.Module(wanted, []), "<cell>", "exec"), names)
    return names["config"]


@pytest.mark.parametrize("source", sorted(COMMANDS["commands"]))
def test_a_command_of_then_is_still_understood(source, no_command_runs):
    """Those that README, notebooks and help showed on the day of freezing, and the page copied."""
    commands = [words for line in COMMANDS["commands"][source] for words in kit_commands(line)]
    assert len(commands) == len(COMMANDS["commands"][source])
    assert problems_of(commands) == []


@pytest.mark.parametrize("cell", COMMANDS["cells"].values(), ids=COMMANDS["cells"])
def test_a_cell_copied_then_still_makes_its_configuration(cell):
    config = config_of_cell(cell)
    assert isinstance(config, npo_kit.UnlearnConfig)
    assert f"method='{config.method}'" in cell


@pytest.mark.parametrize("where", ["README.md", "notebooks", "data/studies"])
def test_a_command_that_is_shown_now_is_understood(where, no_command_runs):
    """Whatever README, notebooks and records say at present."""
    root, kinds = ROOT / where, {".md", ".ipynb"} if where != "data/studies" else {".json"}
    paths = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix in kinds)
    paths = [path for path in paths if ".ipynb_checkpoints" not in path.parts]
    commands = [words for path in paths for words in read_commands(path)]
    assert paths
    assert commands or where == "data/studies"  # whose records need not tell of a command
    assert problems_of(commands) == []


def test_a_wrong_command_is_refused(no_command_runs):
    """The check above is one."""
    for line in (
        "npo-kit nosuch",
        "npo-kit study tofu --no-such-option",
        "npo-kit unlearn pocket --epochs many --out x",
        "accelerate launch -m npo_kit.cli nosuch ...",
    ):
        assert len(problems_of(kit_commands(line))) == 1, line


# --- recorded studies ---------------------------------------------------------------------------


def report_of(name: str) -> str:
    """What `npo-kit report` prints of a recorded study."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["report", str(STUDIES / name)]) == 0
    return said.getvalue()


def golden_report(name: str) -> str:
    return (GOLDEN / "reports" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTED)
def test_the_report_of_a_recorded_study_is_the_same(name):
    assert report_of(name) == golden_report(name)


def test_the_report_is_the_same_from_a_shell():
    command = [sys.executable, "-m", "npo_kit.cli", "report", str(STUDIES / "tofu-smollm2")]
    done = subprocess.run(
        command, check=True, capture_output=True, env=os.environ | ONE_THREAD, encoding="utf-8"
    )
    assert done.stdout == golden_report("tofu-smollm2")


def told_of_run(run) -> dict:
    """What a run's record says, in short; every evaluation of it is read."""
    return {
        "kind": run.kind,
        "method": run.method,
        "seed": run.seed,
        "status": run.status,
        "task": run.task["name"],
        "steps": len(run.steps),
        "evaluations": {
            str(step): {name: len(rows) for name, rows in run.evaluation(step).rows.items()}
            for step in run.evaluation_steps()
        },
    }


def told_of_study(name: str) -> dict:
    """The runs of a study, and the main scores of its table: (run, step, scores)."""
    folder = STUDIES / name
    scores = ("model_utility", "forget_quality", "forget_probability")
    table = npo_kit.study_table(folder)
    return {
        "runs": {run.folder.name: told_of_run(run) for run in npo_kit.read_runs(folder)},
        "table": [[row["run"], row["step"], *(row[score] for score in scores)] for row in table],
    }


@pytest.mark.parametrize("name", REPORTED)
def test_every_run_of_a_recorded_study_opens(name):
    told, expected = told_of_study(name), golden("studies.json")[name]
    assert told["runs"] == expected["runs"]
    for mine, theirs in zip(told["table"], expected["table"], strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2:] == pytest.approx(theirs[2:], rel=1e-6), mine[:2]


def test_every_folder_with_a_record_opens():
    """The models' fine-tunings too, and whatever has been added since."""
    folders = [path.parent for path in sorted(STUDIES.rglob("run.json"))]
    assert len(folders) >= 56
    for folder in folders:
        run = npo_kit.read_run(folder)
        assert run.status in ("finished", "collapsed"), folder
        assert not run.truncated, folder
        for evaluation in run.evaluations():
            assert npo_kit.summarise(evaluation)["forget_n"] > 0, folder
    for study in STUDIES.glob("*/study.json"):
        assert npo_kit.read_runs(study.parent)


def synthetic_frames() -> dict:
    """Columns and rows of the synthetic study's frames, and the distances at the last step."""
    paths = sorted((STUDIES / "synthetic").glob("*.csv.gz"))
    frames = {path.name.removesuffix(".csv.gz"): pd.read_csv(path) for path in paths}
    frame = frames["unlearning"]
    last = frame[frame.step == frame.step.max()]
    means = last.groupby(["alpha", "method"])[["forget_distance", "retain_distance"]].mean()
    return {
        "frames": {name: [list(f.columns), len(f)] for name, f in frames.items()},
        "last": [[*key, *row] for key, row in zip(means.index, means.to_numpy(), strict=True)],
    }


def test_the_recorded_synthetic_study_is_there():
    told, expected = synthetic_frames(), golden("synthetic.json")
    for name, (columns, rows) in expected["frames"].items():
        assert set(columns) <= set(told["frames"][name][0])
        assert told["frames"][name][1] == rows
    for mine, theirs in zip(told["last"], expected["last"], strict=True):
        assert mine[:2] == theirs[:2]
        assert mine[2:] == pytest.approx(theirs[2:], rel=1e-9)


# --- the pocket model's prompts -----------------------------------------------------------------


STYLES = ("auto", "qa", "llama2")
EXAMPLES = (0, 7, 41)  # rows of each set that are spelled out
ODD_ROWS = (  # what no shipped row has: special tokens as text, other scripts, spaces, nothing
    ("Who wrote <|end|> twice?", "Ana <|end|> Brook"),
    ("Où est né Ștefan Țepeș?", "À Łódź, en 1931 — dit-on… 東京 😀"),
    ("  Two  spaces?\n", " and\ttabs \n"),
    ("", ""),
)


def answers_of(row: dict) -> list[str]:
    """Every answer of a row: its own, the paraphrase, the wrong ones."""
    others = [row["paraphrased_answer"]] if row.get("paraphrased_answer") else []
    return [row["answer"], *others, *row.get("perturbed_answer", ())]


def told_of_row(prompt_format, question: str, answer: str) -> dict:
    """One row as the model reads it: tokens, where the answer starts, and the text of both."""
    encoded = prompt_format.encode(question, answer)
    ids, border = list(encoded.ids), encoded.prompt_length
    decode = prompt_format.tokenizer.decode
    return {
        "question": question,
        "answer": answer,
        "ids": ids,
        "prompt_length": border,
        "text": [decode(ids[:border]), decode(ids[border:])],
        "prompt_ids": list(prompt_format.encode_prompt(question)),
    }


def digest(lines) -> str:
    """SHA-256 of JSON values, a line each."""
    whole = hashlib.sha256()
    for line in lines:
        whole.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
    return whole.hexdigest()


def prompts(tokenizer, style: str) -> dict:
    """The prompts of every row of every evaluation set, hashed, and some of them in full."""
    prompt_format, task = npo_kit.PromptFormat(tokenizer, style), npo_kit.load_task(TASK)
    sets, examples = {}, {}
    for name, rows in task.evaluation.items():
        pairs = [(row["question"], answer) for row in rows for answer in answers_of(row)]
        encoded = [prompt_format.encode(*pair) for pair in pairs]
        sets[name] = {
            "rows": len(rows),
            "answers": len(pairs),
            "encode": digest(
                [*pair, list(each.ids), each.prompt_length]
                for pair, each in zip(pairs, encoded, strict=True)
            ),
            "encode_prompt": digest(
                list(prompt_format.encode_prompt(row["question"])) for row in rows
            ),
        }
        examples[name] = [
            told_of_row(prompt_format, rows[i]["question"], rows[i]["answer"]) for i in EXAMPLES
        ]
    examples["odd"] = [told_of_row(prompt_format, *row) for row in ODD_ROWS]
    return {"end_id": prompt_format.end_id, "sets": sets, "examples": examples}


@pytest.fixture(scope="module")
def pocket():
    """The pocket model and its tokenizer; whoever changes the model takes a copy."""
    return npo_kit.load_model("pocket", device="cpu")


@pytest.mark.parametrize("style", STYLES)
def test_the_prompts_of_the_pocket_model_are_the_same_byte_for_byte(style, pocket):
    made, expected = prompts(pocket[1], style), golden("prompts.json")[style]
    assert made["examples"] == expected["examples"]  # first: these show what differs
    assert made == expected


# --- training -----------------------------------------------------------------------------------


LOSSES = golden("losses.json")  # method -> its first five steps
FIRST = 5


def first_steps(model, tokenizer, task, method: str) -> list[dict]:
    """The first steps of a method on the pocket model, timings left out."""
    config = npo_kit.UnlearnConfig(
        method=method,
        epochs=0.5,
        batch_size=12,
        micro_batch_size=6,
        lr=4e-4,
        warmup_epochs=0.1,
        precision="fp32",
        evaluation=None,
    )
    names = ("step", "epoch", "loss", "terms", "grad_norm", "lr", "weights")
    steps = map(asdict, npo_kit.unlearn(copy.deepcopy(model), tokenizer, task, config))
    return [{name: step[name] for name in names} for step in steps]


@pytest.fixture(scope="module")
def task():
    return npo_kit.load_task(TASK)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_method_is_held():
    assert set(LOSSES) <= set(npo_kit.METHODS)
    assert len(LOSSES) == 15


@pytest.mark.parametrize("method", sorted(LOSSES))
def test_the_first_steps_of_a_method_are_the_same(method, pocket, task, one_thread):
    """As far as another build of torch would keep them; KL is 0 but for rounding at first."""
    made = first_steps(*pocket, task, method)
    assert [step["step"] for step in made] == list(range(1, FIRST + 1))
    for mine, theirs in zip(made, LOSSES[method], strict=True):
        assert mine["epoch"] == pytest.approx(theirs["epoch"])
        assert mine["lr"] == pytest.approx(theirs["lr"], rel=1e-9)
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4, abs=1e-5)
        assert mine["terms"] == pytest.approx(theirs["terms"], rel=1e-4, abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        if theirs["weights"] is None:
            assert mine["weights"] is None
        else:
            assert mine["weights"] == pytest.approx(theirs["weights"], rel=1e-4, abs=1e-4)


def wait_for(job: LiveJob, kind: str, events: list[dict]) -> dict:
    """The first event of a kind; `events` takes all that come until then."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for event in events:
            if event["event"] == kind:
                return event
            assert event["event"] not in ("failed", "stopped", "collapsed"), event
        events += job.events(len(events), wait=1.0)
    raise AssertionError(f"no {kind} within {PATIENCE} s: {[e['event'] for e in events]}")


@pytest.mark.slow
def test_a_live_run_is_the_run_of_its_copied_command(tmp_path):
    """Step by step to the last bit, both in a process of one thread; then the metrics.

    The command runs beside the live run, as soon as that has told it.
    """
    config = LiveConfig(method="npo_rt", beta=0.1, retain_weight=0.5, epochs=1, seed=3)
    job, events = LiveJob(config), []
    try:
        started = wait_for(job, "started", events)
        (words,) = kit_commands(started["command"])
        done = subprocess.run(
            [sys.executable, "-m", "npo_kit.cli", *words],
            cwd=tmp_path,
            env=os.environ | ONE_THREAD,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        wait_for(job, "finished", events)
    finally:
        job.forget()
    (record,) = tmp_path.rglob("run.json")
    run = npo_kit.read_run(record.parent)
    assert (run.status, run.method, run.seed) == ("finished", "npo_rt", 3)
    live = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in live] == list(range(1, started["steps"] + 1))
    for name in ("step", "epoch", "loss", "terms", "grad_norm", "lr", "weights"):
        assert [step[name] for step in run.steps] == [step[name] for step in live], name
    judged = {event["step"]: event for event in events if event["event"] == "evaluation"}
    assert run.evaluation_steps() == list(judged) == [0, started["steps"]]
    reference = npo_kit.read_run(STUDIES / "pocket" / "retained").evaluation(0)
    for step, event in judged.items():
        summary = npo_kit.summarise(run.evaluation(step), reference)
        for name in ("model_utility", "forget_quality", "forget_probability"):
            assert event["metrics"][name] == pytest.approx(summary[name], rel=1e-3), name
    copied = config_of_cell(started["cell"])
    assert (copied.method, copied.seed, copied.epochs) == ("npo_rt", 3, 1)
    assert (dict(copied.hyper), copied.retain_weight) == ({"beta": 0.1}, 0.5)


# --- making the golden files anew ---------------------------------------------------------------


def write() -> None:
    """Write reports, studies, frames, prompts and losses of the code that is there."""
    torch.set_num_threads(1)
    (GOLDEN / "reports").mkdir(parents=True, exist_ok=True)
    for name in REPORTED:
        (GOLDEN / "reports" / f"{name}.md").write_text(report_of(name), encoding="utf-8")
    pocket, task = npo_kit.load_model("pocket", device="cpu"), npo_kit.load_task(TASK)
    studies = {name: told_of_study(name) for name in REPORTED}
    losses = {name: first_steps(*pocket, task, name) for name in sorted(npo_kit.METHODS)}
    for name, content in {
        "studies": studies,
        "synthetic": synthetic_frames(),
        "prompts": {style: prompts(pocket[1], style) for style in STYLES},
        "losses": losses,
    }.items():
        _write_json(f"{name}.json", content)


def _write_json(name: str, content) -> None:
    """JSON with a line for each innermost list or object, so that a change shows where it is."""
    (GOLDEN / name).write_text(_lines(content) + "\n", encoding="utf-8")


def _lines(value, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent + flat) <= 100:
        return flat
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"


if __name__ == "__main__":
    write()

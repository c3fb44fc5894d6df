"""Rows that a model's context does not hold: refused, split or cut, and own rows evaluated."""

import json
import re

import pytest

from npo_kit.data.long_rows import fit_rows
from npo_kit.data.prompts import PromptError, PromptFormat
from npo_kit.data.rows import DataError
from npo_kit.data.tasks import Task, own_task
from npo_kit.errors import KitError

CONTEXT = 48
WORDS = " ".join(f"harbour {number} of Ana\nBrook" for number in range(40))
LONG = {"question": "Who?", "answer": WORDS, "paraphrased_answer": "All.", "topic": "sea"}
SHORT = {"question": "Who painted it?", "answer": "Ana Brook.", "perturbed_answer": ["Bo.", WORDS]}


@pytest.fixture
def prompts(tokenizer):
    return PromptFormat(tokenizer, "qa", CONTEXT)


@pytest.fixture
def task():
    return Task("own:x", [LONG], [SHORT], {"forget": [LONG], "retain": [SHORT]})


def test_long_rows_are_refused_unless_asked(task, prompts):
    assert fit_rows(task, prompts) is task
    with pytest.raises(PromptError, match=r"context holds 48: .*--long-rows split or cut"):
        prompts.encode(LONG["question"], LONG["answer"])
    with pytest.raises(KitError, match="must be one of refuse, split, cut, it is 'drop'"):
        fit_rows(task, prompts, "drop")


def test_split_pieces_are_the_answer_and_as_long_as_they_can_be(task, prompts):
    said = []
    rows = fit_rows(task, prompts, "split", say=said.append).forget
    assert " ".join(row["answer"] for row in rows).split() == WORDS.split()
    assert {tuple(row) for row in rows} == {("question", "answer", "topic")}
    rest = WORDS
    for row in rows:
        assert len(prompts.encode("Who?", row["answer"]).ids) <= CONTEXT
        if one_more := re.match(re.escape(row["answer"]) + r"\s+\S+", rest):
            with pytest.raises(PromptError):
                prompts.encode("Who?", one_more[0])
        rest = rest[len(row["answer"]) :].lstrip()
    assert said[0] == (
        "1 of 1 forget rows are longer than the model's context of 48 tokens: "
        f"split into {len(rows)}"
    )


def test_cut_keeps_the_beginning_and_the_other_answers(task, prompts):
    fitted = fit_rows(task, prompts, "cut")
    (row,) = fitted.forget
    first = fit_rows(task, prompts, "split").forget[0]["answer"]
    assert row == LONG | {"answer": first}
    assert fitted.evaluation["forget"] == [row]
    for how in (
        "cut",
        "split",
    ):  # the answer fits, a wrong one does not
        (kept,) = fit_rows(task, prompts, how).retain
        short, long = kept["perturbed_answer"]
        assert (kept["answer"], short) == ("Ana Brook.", "Bo.")
        assert WORDS.startswith(long)
        prompts.encode(kept["question"], long)


def test_a_text_without_spaces_is_split_between_characters(prompts):
    row = {"question": "Who?", "answer": "ab" * 200}
    rows = fit_rows(Task("own:x", [row], [], {}), prompts, "split").forget
    assert "".join(row["answer"] for row in rows) == "ab" * 200
    assert len(rows) > 1


def test_rows_that_fit_stay_as_they_are(prompts):
    task = Task("own:x", [SHORT | {"perturbed_answer": ["Bo."]}], [], {})
    said = []
    assert fit_rows(task, prompts, "split", say=said.append) == task
    assert said == []


def test_a_question_without_room_for_an_answer_is_named(prompts):
    row = {"question": "Why " * 100, "answer": "So."}
    with pytest.raises(DataError, match=r"question 'Why .*leaves no room.*48 tokens: shorten it"):
        fit_rows(Task("own:x", [row], [], {}), prompts, "cut")


# --- how many own rows are evaluated ------------------------------------------------------------


def test_own_rows_are_evaluated_on_three_hundred_and_it_is_said():
    rows = [{"question": f"Who {i}?", "answer": "Ana."} for i in range(400)]
    said = []
    task = own_task(rows[:20], rows[20:], say=said.append)
    assert (len(task.retain), task.evaluation["retain"]) == (380, rows[20:320])
    assert task.evaluation["forget"] == rows[:20]
    assert said == [
        "retain: the first 300 of 380 rows are evaluated; for all of them: --protocol all, in "
        "Python evaluated=None"
    ]
    assert len(own_task(rows[:20], rows[20:], evaluated=None).evaluation["retain"]) == 380


def test_on_the_command_line(tmp_path, tokenizer, capsys, monkeypatch):
    from conftest import make_model

    from npo_kit.cli.program import main
    from npo_kit.models import save_model
    from npo_kit.records.run import read_run

    monkeypatch.chdir(tmp_path)
    save_model(make_model(len(tokenizer)), tokenizer, "model")
    rows = [{"question": f"Who {i}?", "answer": "Ana."} for i in range(310)]
    rows[0]["answer"] = WORDS
    for name, part in {"forget": rows[:4], "retain": rows[4:]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    own = ["model", "--forget", "forget.json", "--retain", "retain.json", "--prompt", "qa"]
    few = [*own, "--max-new-tokens", "0"]
    assert main(["evaluate", *few]) == 2
    assert "--long-rows split or cut" in capsys.readouterr().err
    assert main(["evaluate", *few, "--long-rows", "cut"]) == 0
    said = capsys.readouterr().out
    assert "retain: the first 300 of 306 rows are evaluated" in said
    assert "1 of 4 forget rows are longer than the model's context of 256 tokens: cut" in said
    assert main(["evaluate", *few, "--long-rows", "cut", "--protocol", "all"]) == 0
    assert "rows are evaluated" not in capsys.readouterr().out
    train = ["--method", "ga", "--batch-size", "4", "--epochs", "1", "--max-rows", "2"]
    assert main(["unlearn", *few, *train, "--long-rows", "split", "--out", "run"]) == 0
    record = read_run("run")
    assert record.config["long_rows"] == "split"
    assert record.task["forget_rows"] > 4

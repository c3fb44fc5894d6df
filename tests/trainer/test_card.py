"""The card of a saved model says what was done and measured, and tells no row and no path."""

import json
from dataclasses import replace

import pytest
from conftest import QUESTIONS, make_model, make_row
from huggingface_hub import ModelCard

from npo_kit import model_card
from npo_kit.cli.program import main
from npo_kit.metrics.evaluation import EvaluationConfig, evaluate
from npo_kit.metrics.summary import summarise
from npo_kit.models import load_model, save_model
from npo_kit.models.card import write_card
from npo_kit.records.run import read_run
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

TEXTS = [text for pair in QUESTIONS for text in pair]
BRIEF = ["--max-new-tokens", "4", "--prompt", "qa", "--epochs", "1", "--batch-size", "4"]


def table(card, heading):
    """The cells of the table under a heading, by the first of each row."""
    rows = card.text.partition(f"## {heading}")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row[:1] == "|"]
    return {first: rest for first, *rest in cells}


def test_the_card_of_a_model_that_a_command_saved(tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(make_model(len(tokenizer)), tokenizer, "one")
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    for name, part in {"forget": rows[8:], "retain": rows[:8]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    (tmp_path / "refusals.txt").write_text("A refusal nobody should read in a card.\n")
    own = ["--forget", "forget.json", "--retain", "retain.json", *BRIEF]
    assert main(["finetune", "one", *own, "--rows", "retain", "--out", "kept"]) == 0
    words = ["--method", "dpo_rt", "--beta", "0.2", "--lr", "3e-4", "--refusals", "refusals.txt"]
    words += ["--reference", "kept", "--truth-ratio", "arithmetic", "--save-model"]
    assert main(["unlearn", "kept", *own, *words, "--out", "run"]) == 0

    card = ModelCard.load("run/model/README.md")
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None  # "kept" is a folder here, no model of the hub
    assert {"npo_kit", "unlearning"} == set(card.data.tags)
    told = " ".join(card.text.split())
    assert "kept, unlearned" in told
    assert "the method `dpo_rt`" in told
    assert "4 forget rows of the task `own:forget`; its 8 retain rows were read" in told
    settings = table(card, "Settings")
    given = {"hyper.beta": "0.2", "lr": "0.0003", "batch_size": "4", "retain_weight": "1.0"}
    assert {name: value for name, [value] in settings.items() if name in given} == given
    judge, run = read_run("kept").evaluation(2), read_run("run")
    measured = table(card, "Measured")
    assert measured["score"] == ["step 0", "step 1"]
    for place, step in enumerate((0, 1)):
        summary = summarise(run.evaluation(step), judge, "arithmetic")
        for name in ("forget_quality", "forget_truth_ratio", "retain_rouge_l", "forget_n"):
            assert measured[name][place] == f"{summary[name]:.4g}"
        assert measured["model_utility"][place] == "-"  # there are no real authors
    assert "do not rely on it to keep anything private" in told
    assert f"torch {run.provenance['versions']['torch']}" in told
    secret = [*TEXTS, "A refusal nobody", str(tmp_path)]
    assert not [text for text in secret if text in card.content]

    card = ModelCard.load("kept/model/README.md")
    assert "Fine-tuned by npo_kit on 8 rows of the task `own:forget`" in card.text
    assert not [text for text in secret if text in card.content]


def test_a_card_in_python(tmp_path, model, tokenizer, task):
    config = UnlearnConfig(method="npo", system_prompt="Be\nbrief | kind.", refusals=None)
    evaluation = evaluate(model, tokenizer, task, EvaluationConfig(max_new_tokens=4))
    card = model_card(config, task, [evaluation], base="owner/name")
    save_model(model, tokenizer, tmp_path / "saved", card=card)
    loaded = ModelCard.load(tmp_path / "saved" / "README.md")
    assert loaded.data.base_model == "owner/name"
    assert "8 retain rows were not read" in " ".join(loaded.text.split())
    settings = table(loaded, "Settings")
    assert settings["hyper.beta"] == ["0.1"]  # the default, which config does not mention
    assert settings["system_prompt"] == ["Be brief &#124; kind."]
    measured, summary = table(loaded, "Measured"), summarise(evaluation)
    assert measured["score"] == ["step 0"]
    assert measured["model_utility"] == [f"{summary['model_utility']:.4g}"]
    assert measured["forget_quality"] == ["-"]
    assert not [text for text in TEXTS if text in card]
    load_model(tmp_path / "saved")

    save_model(model, tokenizer, tmp_path / "saved")  # in place of the first, card and all
    plain = ModelCard.load(tmp_path / "saved" / "README.md")
    assert "Nobody told how it was trained" in plain.text
    assert "owner/name" not in plain.content


def test_what_a_card_leaves_out(tmp_path, task):
    config = FinetuneConfig(evaluation=None)
    card = model_card(config, replace(task, name="rows"), base=tmp_path, rows=task.full)
    assert str(tmp_path) not in card
    assert f"# {tmp_path.name}, fine-tuned" in card
    assert "on 12 rows of the task `rows`" in card
    assert "Measured" not in card


@pytest.mark.parametrize("adapter", [False, True])
def test_a_card_names_the_library_that_loads_the_model(tmp_path, adapter, task):
    if adapter:
        (tmp_path / "adapter_config.json").write_text("{}")
    write_card(tmp_path, model_card(UnlearnConfig(), task))
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == ("peft" if adapter else "transformers")

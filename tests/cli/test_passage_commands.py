"""The commands on passages: what they say, record, show and refuse."""

import json

import pytest
import torch

from npo_kit.app.packed import packed_studies
from npo_kit.cli import main
from npo_kit.data.tasks import load_task
from npo_kit.models.loading import load_model
from npo_kit.records.run import read_run

TEXTS = ["Bela Nomura writes about the sea.", "Her first book is called The Sycamore Letters."]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of passages to forget and a question to keep, and what was said of it."""
    folder = tmp_path_factory.mktemp("passages")
    story, kept = folder / "story.jsonl", folder / "kept.jsonl"
    story.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    kept.write_text(json.dumps({"question": "Who wrote it?", "answer": "Bela Nomura."}))
    rows = ["--forget", str(story), "--retain", str(kept), "--max-new-tokens", "20"]
    how = ["--method", "npo_rt", "--epochs", "1", "--batch-size", "2", "--no-fluency"]
    assert main(["unlearn", "pocket", *rows, *how, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_records_beginnings_and_continuations(run):
    rows = read_run(run).evaluation(0).rows
    for text, row in zip(TEXTS, rows["forget"], strict=True):
        assert text.replace(" ", "") == (row["question"] + row["answer"]).replace(" ", "")
        assert row["passage"] is True
    assert rows["retain"][0]["question"] == "Who wrote it?"


def test_the_table_shows_f1_beside_recall_where_there_are_passages(run, capsys):
    assert main(["table", str(run)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert "F1 forget" in first
    f1 = read_run(run).evaluation(0).rows["forget"]
    mean = sum(row["rouge_l_f1"] for row in f1) / len(f1)
    assert f"{mean:.3g}" in lines[0].split()
    main(["table", "data/studies/pocket/original"])
    assert "F1" not in capsys.readouterr().out


def test_the_page_asks_the_beginning_of_a_passage(run):
    (study,) = packed_studies(run)
    index = study.index()
    asked = [(q["question"], q["answer"]) for q in index["questions"] if q["set"] == "forget"]
    rows = read_run(run).evaluation(0).rows["forget"]
    assert asked == [(row["question"], row["answer"]) for row in rows]
    cell = study.texts(0)["cells"]
    assert cell


def test_refusals_and_audits_of_passages_are_refused(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main(["unlearn", "pocket", "--task", "passages", "--method", "idk", *out]) == 2
    assert "14 of 14 rows are passages, which ask nothing" in capsys.readouterr().err
    pocket = ["--original", "pocket", "--retained", "pocket:retained"]
    assert main(["audit", "nosuch", "--task", "passages", *pocket]) == 2  # before it is loaded
    assert "task passages has texts without a question" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "two invented stories" not in told
    assert "Passages (texts without a question) are refused" in told


def test_ask_continues_a_text(capsys):
    text = load_task("passages").forget[0]["answer"][:60]
    assert main(["ask", "--text", "pocket", text, "--max-new-tokens", "6"]) == 0
    model, tokenizer = load_model("pocket")
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    told = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    said = " ".join(tokenizer.decode(told, skip_special_tokens=True).split())
    assert said in " ".join(capsys.readouterr().out.split())

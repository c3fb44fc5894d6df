"""A study as the page gets it."""

import json
import shutil
import threading

import pytest
from studies import HOSTILE, SETS, evaluation, write_run, write_study

from npo_kit.app.page import page_index
from npo_kit.authors import authors_task
from npo_kit.metrics import summarise
from npo_kit.pack import METRICS, PackedStudy, cells_of, metrics_of
from npo_kit.records import RunError
from npo_kit.runs import read_run
from npo_kit.study import study_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study") / "collectors")


@pytest.fixture(scope="module")
def study(folder):
    return PackedStudy(folder)


def test_the_metrics_are_those_of_the_table(folder, study):
    table = {(r["run"], r["step"]): r for r in study_table(folder)}
    seen = 0
    for run in study.index()["runs"]:
        for place, step in enumerate(run["steps"]):
            for name in METRICS:
                value, true = run["metrics"][name][place], table[run["id"], step][name]
                assert value == (None if true is None else pytest.approx(true, rel=1e-3)), name
                seen += value is not None
    assert seen > 200


def test_what_is_not_finite_is_nothing(study):
    runs = {run["id"]: run for run in study.index()["runs"]}
    assert runs["ga"]["metrics"]["forget_probability"][-1] is None
    assert runs["ga"]["metrics"]["forget_probability"][0] > 0.9
    text = json.dumps([study.index(), study.texts(0)], allow_nan=False)
    assert "old maps" in text


def test_texts_hold_each_string_once_and_lead_to_every_cell(folder, study):
    for number in (0, 3, len(study.questions) - 1):
        question, answer = study.questions[number], study.texts(number)
        assert len(set(answer["strings"])) == len(answer["strings"])
        for name, cells in answer["cells"].items():
            run = read_run(folder / name)
            for (place, *scores), step in zip(cells, run.evaluation_steps(), strict=True):
                row = run.evaluation(step).rows[question["set"]][question["index"]]
                assert answer["strings"][place] == row["generation"]
                assert scores[1] == pytest.approx(row["rouge_l_recall"], rel=1e-3)
                assert scores[3] == pytest.approx(row["fluency"], rel=1e-3)
    assert HOSTILE in study.texts(0)["strings"]


def test_a_cell_by_hand():
    made = evaluation(10)
    text, p, rouge, ratio, fluency, repetition = cells_of(made)["forget"][1]
    assert text == "forget 1 says at 10"
    assert p == pytest.approx(0.5712, abs=5e-5)  # exp(-0.01 - 0.05 * 10 * 1.1)
    assert ratio == pytest.approx(0.2292, abs=5e-5)  # exp((-2.1 - 2.5 - 3) / 3 + 0.56 + 0.5)
    assert (rouge, fluency, repetition) == (0.8, -1.2, 0.0)
    assert metrics_of(made, None)["forget_quality"] is None
    assert metrics_of(made, made)["forget_quality"] == summarise(made, made)["forget_quality"] == 1


@pytest.mark.parametrize("number", [-1, 18, 1.0, "0", None, True, [0]])
def test_no_such_question(study, number):
    with pytest.raises(RunError, match=r"there is no question .*: choose 0 to 17"):
        study.texts(number)


def test_texts_that_are_not_in_the_record_come_from_the_task(tmp_path):
    rows = authors_task("forget01")["evaluation"]
    for label in ("original", "retained"):
        made = evaluation(0)
        for name, of_set in made.rows.items():
            made.rows[name] = [{**row, "index": 2 - i} for i, row in enumerate(of_set[:3])]
            for row in made.rows[name]:
                del row["question"], row["answer"]
        write_run(tmp_path / label, label, [made])
        path = tmp_path / label / "run.json"
        path.write_text(path.read_text().replace("own:x", "authors:forget01"))
    questions = PackedStudy(tmp_path).questions
    assert len(questions) == 12
    for shown, true in zip(questions[:3], rows["forget"][2::-1], strict=True):
        assert (shown["question"], shown["answer"]) == (true["question"], true["answer"])
        start, end = true["entity_span"]
        assert shown["fact"] == true["answer"][start:end]
        assert shown["fact"] in shown["answer"]


def test_a_folder_that_cannot_be_shown(tmp_path, folder):
    with pytest.raises(RunError, match="does not exist"):
        PackedStudy(tmp_path / "none")
    shutil.copytree(folder / "ga", tmp_path / "lonely")
    with pytest.raises(RunError, match="has no evaluated run labelled 'original': make one with"):
        PackedStudy(tmp_path)


def test_many_readers_read_once(folder, monkeypatch):
    study, read = PackedStudy(folder), []
    pack = PackedStudy._pack
    monkeypatch.setattr(
        PackedStudy, "_pack", lambda self, *more: read.append(more[0]) or pack(self, *more)
    )
    threads = [threading.Thread(target=study.texts, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == sorted(run["id"] for run in study.index()["runs"])


def test_runs_are_told_apart_by_what_differs(study):
    index = page_index(study)
    labels = {run["id"]: (run["label"], run["main"], run["kind"]) for run in index["runs"]}
    assert labels == {
        "original": ("original", True, "evaluate"),
        "retained": ("retained-only", True, "evaluate"),
        "ga": ("GA", True, "unlearn"),
        "npo_rt": ("NPO+RT", True, "unlearn"),
        "npo_rt-seed1": ("NPO+RT, seed 1", False, "unlearn"),
        "npo_rt-beta0.1": ("NPO+RT, β 0.1", False, "unlearn"),
    }
    assert index["looks"]["ga"]["dash"] == "6 2"
    assert index["rows"] == SETS

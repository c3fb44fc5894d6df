"""A study as the page gets it."""

import json
import shutil
import socket
import threading

import huggingface_hub.constants
import pytest
from places import SHARED
from scipy.stats import ks_2samp
from studies import HOSTILE, SETS, evaluation, write_run, write_study

from npo_kit.app.packed import PackedStudy, packed_studies
from npo_kit.app.page import page_index
from npo_kit.app.scored import METRICS, SCORES, cells_of, metrics_of
from npo_kit.data.authors.corpus import authors_task
from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.summary import summarise
from npo_kit.records.files import RunError
from npo_kit.records.run import read_run
from npo_kit.studies.published import published
from npo_kit.studies.table import study_table


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
                value, true = run["metrics"][name][place], table[run["id"], step].get(name)
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
            for cell, step in zip(cells, run.evaluation_steps(), strict=True):
                row = run.evaluation(step).rows[question["set"]][question["index"]]
                assert answer["strings"][cell["text"]] == row["generation"]
                assert cell["rouge_l"] == pytest.approx(row["rouge_l_recall"], rel=1e-3)
                assert cell["fluency"] == pytest.approx(row["fluency"], rel=1e-3)
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
    for label in ("original", "npo"):
        made = evaluation(0)
        for name, of_set in made.rows.items():
            made.rows[name] = [{**row, "index": 2 - i} for i, row in enumerate(of_set[:3])]
            for row in made.rows[name]:
                del row["question"], row["answer"]
        about = {"method": "npo"} if label == "npo" else {}
        write_run(tmp_path / label, label, [made], **about)
        path = tmp_path / label / "run.json"
        path.write_text(path.read_text().replace("own:x", "authors:forget01"))
    questions = PackedStudy(tmp_path).questions
    assert len(questions) == 12
    for shown, true in zip(questions[:3], rows["forget"][2::-1], strict=True):
        assert (shown["question"], shown["answer"]) == (true["question"], true["answer"])
        start, end = true["entity_span"]
        assert shown["fact"] == true["answer"][start:end]
        assert shown["fact"] in shown["answer"]


def test_texts_that_cannot_be_had_are_stood_for_by_the_rows_number(tmp_path):
    for label in ("original", "npo"):
        made = evaluation(0)
        for of_set in made.rows.values():
            for row in of_set:
                del row["question"], row["answer"]
        about = {"method": "npo"} if label == "npo" else {}
        write_run(tmp_path / label, label, [made], **about)  # task own:x
    study = PackedStudy(tmp_path)
    questions = study.questions
    assert questions[1]["question"] == "forget row 1"
    assert (questions[1]["answer"], questions[1]["fact"]) == ("", "")
    (note,) = study.index()["notes"]
    assert "answers of own:x are neither in this record nor on this machine" in note


def test_tofu_is_asked_for_on_this_machine_only(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a request left this machine")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("NPO_KIT_TOFU", raising=False)
    study = PackedStudy(shipped_data("studies/tofu-smollm2"))
    assert study.questions[0]["question"] == "forget row 0"
    (note,) = study.index()["notes"]
    assert "set NPO_KIT_TOFU to a folder with TOFU's JSON lines or download TOFU once" in note


@pytest.mark.skipif(not (SHARED / "tofu").is_dir(), reason="TOFU is not in ../shared/tofu")
@pytest.mark.parametrize("place", ["the hub's cache", "NPO_KIT_TOFU"])
def test_tofu_on_this_machine_gives_the_texts(monkeypatch, tmp_path, place):
    snapshot = tmp_path / "datasets--locuslab--TOFU" / "snapshots" / "abc"
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("NPO_KIT_TOFU", raising=False)
    if place == "NPO_KIT_TOFU":
        monkeypatch.setenv("NPO_KIT_TOFU", str(SHARED / "tofu"))
    else:
        snapshot.parent.mkdir()
        snapshot.symlink_to(SHARED / "tofu")
    index = PackedStudy(shipped_data("studies/tofu-smollm2")).index()
    assert index["notes"] == []
    assert index["questions"][0]["question"].endswith("?")


def test_the_fact_of_the_kits_own_rows_is_found_where_a_record_does_not_say_it(tmp_path):
    (first, *_) = authors_task("forget10")["evaluation"]["forget"]
    made = evaluation(0)
    made.rows["forget"][0] |= {"question": first["question"], "answer": first["answer"]}
    write_run(tmp_path, "npo", [made], method="npo", seed=0)
    known, other = PackedStudy(tmp_path).questions[:2]
    assert known["fact"] == "Orla Dunleigh" != known["answer"]
    assert other["fact"] == other["answer"]


@pytest.mark.parametrize(
    ("cut", "gone"), [("ga/evals/000020.jsonl.gz", "ga"), ("ga/run.json", "ga"),
                      ("retained/evals/000000.jsonl.gz", "retained"),
                      ("original/evals/000000.jsonl.gz", "original")],
)  # fmt: skip
def test_a_run_that_cannot_be_read_is_left_out_and_named(folder, tmp_path, cut, gone):
    shutil.copytree(folder, tmp_path / "study")
    path = tmp_path / "study" / cut
    path.write_bytes(path.read_bytes()[:-20])
    study = packed_studies(tmp_path / "study")[0]
    index = study.index()
    (note,) = index["notes"]
    assert note.startswith(f"{gone} is left out: ")
    assert path.name in note
    assert str(tmp_path) not in note
    there = [run["id"] for run in index["runs"]]
    kept = ["retained", "ga", "npo_rt", "npo_rt-beta0.1", "npo_rt-seed1"]
    kept = [name for name in kept if name != gone]
    assert (there[0], sorted(there[1:])) == ("original", sorted(kept))
    assert study.texts(1)["cells"].keys() == set(there)
    assert index["runs"][-1]["metrics"]["forget_quality"][0] is None or gone != "retained"


def test_a_study_of_which_no_run_can_be_read_says_why(tmp_path):
    write_run(tmp_path / "npo", "npo", [evaluation(0), evaluation(5)], method="npo", seed=0)
    path = tmp_path / "npo" / "evals" / "000005.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"no unlearning run of .* can be read"):
        PackedStudy(tmp_path).index()
    path = path.with_name("000000.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match="npo is left out: 000000"):
        PackedStudy(tmp_path)


def test_runs_are_told_apart_by_epochs_label_and_folder(tmp_path):
    runs = {"a": ("npo", 4.0), "b": ("npo", 8.0), "c": ("npo", 4.0), "d": ("long", 8.0)}
    for name, (label, epochs) in runs.items():
        made = [evaluation(0), evaluation(5)]
        write_run(tmp_path / name, label, made, method="npo", seed=0, config={"epochs": epochs})
    index = PackedStudy(tmp_path).index()
    assert {run["id"]: run["apart"] for run in index["runs"][1:]} == {
        "a": ["a"], "c": ["c"], "b": ["8 epochs", "npo"], "d": ["8 epochs", "long"],
    }  # fmt: skip


def test_a_single_run_is_shown_beside_its_own_start(folder):
    study = PackedStudy(folder / "npo_rt")
    runs = study.index()["runs"]
    assert [run["id"] for run in runs] == ["original", "npo_rt"]
    assert runs[0]["steps"] == [0]
    assert runs[1]["metrics"]["forget_quality"] == [None] * 5
    assert study.texts(1)["cells"]["original"][0] == study.texts(1)["cells"]["npo_rt"][0]


def test_scores_are_those_of_the_texts(study):
    scores = study.scores("npo_rt")
    for number in (0, 9, 17):
        for place, cell in enumerate(study.texts(number)["cells"]["npo_rt"]):
            got = [scores[name][place][number] for name in SCORES]
            assert got == [cell["probability"], cell["rouge_l"], cell["truth_ratio"]]
    with pytest.raises(RunError, match="there is no run 'nobody' in this study"):
        study.scores("nobody")


@pytest.mark.slow
def test_the_distance_of_the_recorded_study_comes_out_of_what_the_page_gets():
    study = PackedStudy(shipped_data("studies/pocket"))
    forget = [n for n, question in enumerate(study.questions) if question["set"] == "forget"]
    ratios = {
        run["id"]: [[of[n] for n in forget] for of in study.scores(run["id"])["truth_ratio"]]
        for run in study.index()["runs"]
    }
    for run in study.index()["runs"]:
        for place, D in enumerate(run["metrics"]["forget_ks"]):
            found = ks_2samp(ratios[run["id"]][place], ratios["retained"][0]).statistic
            assert found == pytest.approx(D, abs=1e-4)


def test_what_the_page_gets_at_once_is_small():
    index = page_index(PackedStudy(shipped_data("studies/pocket")))
    assert len(json.dumps(index).encode()) < 300_000


def test_about_a_run(study, folder):
    about = study.about("npo_rt")
    assert about["config"] == read_run(folder / "npo_rt").config
    assert study.about("original")["status"] == "finished"
    for bad in ("nobody", None, ["ga"]):
        with pytest.raises(RunError, match="there is no run"):
            study.about(bad)


def test_published_points_where_model_and_split_match():
    (npo,) = [p for p in published("Llama-2-7b-chat-hf", "tofu:forget05") if p.method == "npo_rt"]
    assert (npo.forget_quality, npo.model_utility) == (0.09, 0.53)
    assert len(published("x/tofu_Llama-3.2-1B-Instruct_full", "tofu:forget10")) == 6
    assert published("pocket", "authors:forget10") == []
    assert published("Llama-2-7b-chat-hf", "tofu:forget50") == []
    assert published("SmolLM2", "tofu:forget05") == []


def test_a_folder_that_cannot_be_shown(tmp_path, folder):
    with pytest.raises(RunError, match="does not exist"):
        PackedStudy(tmp_path / "none")
    shutil.copytree(folder / "original", tmp_path / "lonely")
    with pytest.raises(RunError, match="has no evaluated unlearning run to show: make one with"):
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
    groups = {run["id"]: run["group"] for run in index["runs"]}
    assert groups["npo_rt"] == groups["npo_rt-seed1"] != groups["npo_rt-beta0.1"]
    assert index["rows"] == SETS

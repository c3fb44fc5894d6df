"""Logs of TOFU and open-unlearning that are opened as a study."""

import json

import pytest
from browser import served_here
from places import SHARED
from studies import SETS, evaluation

from npo_kit.app.opening import open_studies
from npo_kit.app.page import page_index
from npo_kit.cli import program
from npo_kit.errors import KitError
from npo_kit.metrics.official_reader import LogError, read_official_log
from npo_kit.metrics.official_writer import LOG_NAMES, write_official_log
from npo_kit.metrics.summary import summarise

LLAMA3 = "system\n\nToday Date: 10 Apr 2025\n\nYou are a helpful assistant.user\n\n{}assistant\n\n"
PROMPTS = {"tofu": "[INST] {} [/INST]", "open-unlearning": LLAMA3}


def log(path, step=0, shift=0.0, form="tofu", prompt=None):
    """Write a log of eighteen rows; returns its path."""
    made = evaluation(step, shift)
    for rows in made.rows.values():
        for row in rows:
            row["question"] = (prompt or PROMPTS[form]).format(row["question"])
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_official_log(path, made, form)


def opened(*paths):
    (study,), toured = open_studies(paths)
    assert toured is None
    return study, page_index(study)


@pytest.mark.parametrize("form", LOG_NAMES)
def test_logs_with_telling_names_are_original_retained_and_runs(form, tmp_path):
    name = LOG_NAMES[form]
    losses = {"tofu": ["grad_ascent_1e-05", "npo_grad_diff_1e-05"]}
    losses["open-unlearning"] = ["GradAscent", "NPO"]
    files = [
        log(tmp_path / "llama_full" / "evals_forget10" / name, form=form),
        log(tmp_path / "llama_retain90" / name, shift=1.5, form=form),
    ]
    for loss in losses[form]:
        folder = tmp_path / f"forget10_{loss}"
        files += [log(folder / f"checkpoint-{n}" / "evals" / name, n, form=form) for n in (20, 10)]
    study, index = opened(*files)
    assert study.task == "tofu:forget10"
    runs = {run["id"]: run for run in index["runs"]}
    assert list(runs) == ["original", "retained", *(f"forget10_{loss}" for loss in losses[form])]
    ga, npo = (runs[f"forget10_{loss}"] for loss in losses[form])
    assert (ga["method"], npo["method"]) == ("ga", "npo_rt")
    assert ga["steps"] == npo["steps"] == [10, 20]
    reference = read_official_log(files[1])
    true = summarise(read_official_log(files[2]), reference)  # of step 20
    for metric in ("model_utility", "forget_quality", "forget_ks", "forget_probability"):
        assert ga["metrics"][metric][1] == pytest.approx(true[metric], rel=1e-3)
    assert study.questions[1]["question"] == "What does person 1 collect?"
    assert "forget 1 says at 20" in study.texts(1)["strings"]
    assert index["provenance"] == {}
    said = " ".join(index["notes"])
    assert f"forget10_{losses[form][1]} is shown as npo_rt, by its name" in said
    assert "Logs have no fluency" in said
    assert study.about("retained")["status"] == "finished"


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ("Question: {}\n", "tofu"),
        ("Question: {}\nAnswer: ", "tofu"),
        ("[INST] {} [/INST]", "open-unlearning"),
        ("user\n\n{}assistant\n\n", "open-unlearning"),
        ("{}", "tofu"),
    ],
)
def test_questions_are_shown_without_the_prompt_around_them(prompt, form, tmp_path):
    study, _ = opened(log(tmp_path / "a.json", form=form, prompt=prompt))
    assert study.questions[0]["question"] == "What does person 0 collect?"


def test_a_log_can_be_named(tmp_path):
    files = {name: log(tmp_path / f"{name}.json", shift=i) for i, name in enumerate("xyz")}
    study, index = opened(
        f"original={files['x']}", f"retained={files['y']}", f"npo={files['z']}", str(files["x"])
    )
    runs = [(run["id"], run["method"]) for run in index["runs"]]
    assert runs == [("original", "original"), ("retained", "retained"), ("npo", "npo"), ("x", "x")]
    assert study.task == "logs"
    assert "is shown as" not in " ".join(index["notes"])


@pytest.mark.slow
def test_an_original_alone_stands_for_an_unlearned_model_and_the_page_says_so(visit, tmp_path):
    file = log(tmp_path / "phi_full.json")
    _, index = opened(file)
    assert [run["id"] for run in index["runs"]] == ["original", "phi_full again"]
    assert "No log is of an unlearned model: phi_full stands for one." in index["notes"]
    with served_here(file, log(tmp_path / "phi_retain90.json", shift=1.5)) as address:
        page = visit(address)
        page.wait_for_function(
            "document.querySelector('[data-column=a] .text')?.textContent === 'forget 0 says at 0'"
        )
        assert "phi_full stands for one" in page.inner_text("[data-notes]")
        page.click("[data-tab=tradeoff]")
        page.wait_for_selector("[data-chart=tradeoff] .dot")
        page.click("[data-tab=about]")
        page.wait_for_selector("[data-provenance] dd")
        assert page.locator("[data-footer]").is_hidden()
        page.context.close()


def test_what_a_log_lacks_is_said_and_not_made_up(tmp_path):
    content = json.loads(log(tmp_path / "forget10_ga.json").read_text())
    forget = content["eval_log_forget.json"]
    for column in ("generated_text", "average_perturb_loss", "truth_ratio"):
        del forget[column]
    del content["eval_log.json"]
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(content))
    study, index = opened(bare, log(tmp_path / "retained.json"))
    notes = " ".join(index["notes"])
    assert "bare keeps no texts of the rows of forget." in notes
    assert "bare: the log has no eval_log.json." in notes
    assert "bare has no forget quality: no forget row has scores of a paraphrased_answer" in notes
    run = next(run for run in index["runs"] if run["id"] == "bare")
    assert run["metrics"]["forget_quality"] == run["metrics"]["model_utility"] == [None]
    assert study.texts(0)["cells"]["bare"] == [None]  # no text is not an empty one
    assert study.questions[0]["question"] == "forget row 0"
    assert study.questions[SETS["forget"]]["question"] == "What does person 0 collect?"
    assert index["rows"] == {"forget": 8, "retain": 0, "real_authors": 3, "world_facts": 3}


def test_what_is_no_study_of_logs_is_refused(tmp_path, capsys):
    five, ten = (log(tmp_path / f"forget{n}_ga.json") for n in ("05", "10"))
    with pytest.raises(KitError, match=r"are of forget05, forget10: open those of one split"):
        open_studies([five, ten])
    twin = log(tmp_path / "other" / "forget05_ga.json")
    with pytest.raises(KitError, match=r"2 logs are called forget05_ga: name them"):
        open_studies([five, twin])
    other = tmp_path / "notes.txt"
    other.write_text("nothing")
    with pytest.raises(LogError, match=r"is no whole JSON"):
        open_studies([other])
    out = tmp_path / "page.html"
    assert program.main(["page", "x=none.json", "--out", str(out)]) == 2
    assert "there is no folder x=none.json: give a study's" in capsys.readouterr().err


def test_logs_become_one_file(tmp_path):
    out = tmp_path / "page.html"
    files = [log(tmp_path / "full.json"), log(tmp_path / "forget10_grad_ascent.json", 30)]
    assert program.main(["page", *map(str, files), "--out", str(out)]) == 0
    assert b"2 evaluation logs, forget10" in out.read_bytes()


def real(folder, original, retained, metric, value):
    files = [SHARED / folder / name for name in (original, retained)]
    if not all(file.exists() for file in files):
        pytest.skip("no real logs beside this checkout")
    study, index = opened(*files)
    run = index["runs"][0]
    assert run["metrics"][metric][0] == pytest.approx(value, abs=0.006)
    assert index["runs"][1]["metrics"]["forget_quality"] == [1.0]
    assert study.questions[0]["question"].endswith("?")
    assert "\n" not in study.questions[0]["question"]
    assert len(study.texts(0)["strings"]) == 2


def test_real_logs_open_with_their_published_utility():
    """Of open-unlearning's docs/repro.md: utility 0.63 and 0.6 of the originals."""
    real(
        "ou_logs",
        "Llama-2-7b-chat-hf_full_evals_forget05.TOFU_EVAL.json.gz",
        "Llama-2-7b-chat-hf_retain95.TOFU_EVAL.json.gz",
        "model_utility",
        0.63,
    )
    real(
        "ou_logs",
        "Llama-3.2-1B-Instruct_full_evals_forget10.TOFU_EVAL.json.gz",
        "Llama-3.2-1B-Instruct_retain90.TOFU_EVAL.json.gz",
        "model_utility",
        0.6,
    )
    real(
        "tofu_logs",
        "llama2_full_wd0.01.json.gz",
        "llama2_retain90_wd0.01.json.gz",
        "model_utility",
        0.6227,
    )

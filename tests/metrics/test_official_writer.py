"""Logs that we write: what other codes' tools compute from them is what the kit says."""

import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp
from studies import evaluation as by_hand
from studies import write_run
from test_official_logs import KEYS, PUBLISHED, REAL, open_unlearning_log, save, tofu_log

from npo_kit.cli import program
from npo_kit.data.tasks import evaluation_rows, load_task
from npo_kit.errors import KitError
from npo_kit.metrics.official_reader import read_official_log
from npo_kit.metrics.official_writer import LOG_NAMES, with_texts, write_official_log
from npo_kit.metrics.official_writer import open_unlearning_log as written_by_us
from npo_kit.metrics.official_writer import tofu_log as tofu_by_us
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation

# What a format has no place for: the reader cannot give it back.
LOST = {
    "tofu": {"generation_tokens", "fluency", "rouge_l_f1"},
    "open-unlearning": {"generation_tokens", "fluency", "tokens"},
}


def made(seed=0, shift=0.0) -> Evaluation:
    """Rows with scores of every size, drawn; the real sets without a paraphrase."""
    draw = np.random.default_rng(seed)
    base = by_hand(10, shift)
    for set_name, rows in base.rows.items():
        for row in rows:
            row["mean_logp"] = -float(draw.gamma(1.0, 2.0))
            row["tokens"] = int(draw.integers(2, 60))
            row["paraphrased_mean_logp"] = -float(draw.gamma(1.0, 2.0))
            row["perturbed_mean_logps"] = [-float(x) for x in draw.gamma(1.0, 4.0, 5)]
            for name in ("rouge_l_recall", "rouge_l_f1", "rouge_1_recall"):
                row[name] = float(draw.uniform())
            if set_name in REAL:
                row |= {"paraphrased_mean_logp": None}
    return base


def json_as_others_read_it(path):
    return json.loads(path.read_text())  # NaN and Infinity as Python has them


@pytest.mark.parametrize("form", LOG_NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_every_number_reads_back(form, seed, tmp_path):
    evaluation = made(seed)
    evaluation.rows["forget"][0] |= {"mean_logp": math.nan, "perturbed_mean_logps": [-math.inf] * 5}
    evaluation.rows["forget"][1]["paraphrased_mean_logp"] = -math.inf
    evaluation.rows["retain"][0]["mean_logp"] = -800.0  # its probability underflows
    path = write_official_log(tmp_path, evaluation, form)
    assert path.name == LOG_NAMES[form]
    back = read_official_log(path)
    compared = 0
    for set_name in EVALUATION_SETS:
        for ours, read in zip(evaluation.rows[set_name], back.rows[set_name], strict=True):
            for key in ours.keys() - LOST[form] - {"repetition_rate", "distinct_2"}:
                if set_name in REAL and key == "paraphrased_mean_logp":
                    continue  # there it is the answer's, which changes no metric
                value = read[key]
                if isinstance(ours[key], str | int):
                    assert value == ours[key], key
                else:
                    assert value == pytest.approx(ours[key], rel=1e-9, nan_ok=True), key
                compared += 1
    assert compared > 150
    for truth_ratio in ("geometric", "arithmetic"):
        ours, read = (summarise(e, made(9), truth_ratio) for e in (evaluation, back))
        for key, value in ours.items():
            if not key.endswith(("_tokens", "_fluency", "_f1", "repetition_rate", "distinct_2")):
                assert read[key] == (None if value is None else pytest.approx(value, rel=1e-9)), key


def test_the_published_log_comes_out_again(tmp_path):
    """Read and written, it is the same file, but for the columns that the kit does not keep."""
    if not PUBLISHED.exists():
        pytest.skip(f"the published TOFU log is not here: {PUBLISHED}")
    original = json.loads(PUBLISHED.read_text())
    path = write_official_log(tmp_path / "log.json", read_official_log(PUBLISHED), "tofu")
    log = json_as_others_read_it(path)
    lost = {"paraphrased_loss", "perturb_loss", "num_token_paraphrased", "num_token_perturb"}
    assert log.keys() == original.keys()
    for key, columns in original.items():
        assert log[key].keys() == columns.keys() - lost
        for name, column in log[key].items():
            assert list(column) == list(columns[name])
            for index, value in column.items():
                # single precision, and on the real sets a paraphrase scored in another batch
                expected = columns[name][index]
                if name != "generated_text":
                    expected = pytest.approx(expected, rel=2e-6, abs=1e-7)
                assert value == expected, (key, name, index)


# --- TOFU's tools, as its public code computes (aggregate_eval_stat.py) ---------------------------


def columns_of(log, set_name):
    part = log[KEYS[set_name]]
    names = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall")
    return tuple(np.array(list(part[name].values())) for name in names)


def tofu_truth_ratio(log):
    _, right, wrong, _ = columns_of(log, "forget")
    return np.exp(wrong.mean(-1) - right)


def tofu_utility(log):
    parts = []
    for set_name in ("retain", *REAL):
        loss, right, wrong, rouge = columns_of(log, set_name)
        p = np.exp(-loss)
        if set_name in REAL:
            p = p / np.concatenate([p[:, None], np.exp(-wrong)], 1).sum(-1)
        ratio = np.exp(wrong.mean(-1) - right)
        parts += [p.mean(), rouge.mean(), np.maximum(0, 1 - 1 / ratio).mean()]
    return hmean(parts)


def test_tofus_tool_finds_our_numbers(tmp_path):
    ours, retained = made(1), made(2)
    summary = summarise(ours, retained)
    logs = [
        json_as_others_read_it(write_official_log(tmp_path / name, e, "tofu"))
        for name, e in (("ours.json", ours), ("retained.json", retained))
    ]
    p = ks_2samp(*map(tofu_truth_ratio, logs)).pvalue
    assert p == pytest.approx(summary["forget_quality"], rel=1e-9)
    assert 0.01 < p < 1
    assert tofu_utility(logs[0]) == pytest.approx(summary["model_utility"], rel=1e-9)
    assert set(logs[0]) == set(KEYS.values())  # its code knows no other top-level key


# --- open-unlearning's (src/evals/metrics) --------------------------------------------------------


def scores(log, name):
    return np.array([record["score"] for record in log[name]["value_by_index"].values()])


def test_open_unlearnings_tool_finds_our_numbers(tmp_path):
    ours, retained = made(3), made(4)
    summary = summarise(ours, retained)
    log, retain_log = (
        json_as_others_read_it(write_official_log(tmp_path / name, e, "open-unlearning", retained))
        for name, e in (("ours.json", ours), ("retained.json", retained))
    )
    p = ks_2samp(scores(log, "forget_truth_ratio"), scores(retain_log, "forget_truth_ratio")).pvalue
    assert p == pytest.approx(summary["forget_quality"], rel=1e-9)
    assert log["forget_quality"]["agg_value"] == pytest.approx(p, rel=1e-9)
    nine = [log[f"{prefix}_Q_A_ROUGE"]["agg_value"] for prefix in ("retain", "ra", "wf")]
    nine += [log[f"{prefix}_Truth_Ratio"]["agg_value"] for prefix in ("retain", "ra", "wf")]
    nine += [log[f"{prefix}_Q_A_Prob_normalised"]["agg_value"] for prefix in ("ra", "wf")]
    nine += [log["retain_Q_A_Prob"]["agg_value"]]
    assert hmean(nine) == pytest.approx(log["model_utility"]["agg_value"], rel=1e-9)
    assert hmean(nine) == pytest.approx(summary["model_utility"], rel=1e-9)


def test_what_open_unlearning_derives_from_its_parts_is_what_is_written():
    """Its truth ratio and shares from the losses, and its aggregates from the rows."""
    log = written_by_us(made(5))
    for prefix, right in (("retain", "PARA_Prob"), ("ra", "Prob"), ("wf", "Prob")):
        kinds = (right, "PERT_Prob", "Prob")
        right, wrong, answer = (
            np.array([r["avg_loss"] for r in log[f"{prefix}_Q_A_{k}"]["value_by_index"].values()])
            for k in kinds
        )
        ratio = np.exp(-wrong.mean(-1)) / np.exp(-right)
        assert scores(log, f"{prefix}_Truth_Ratio") == pytest.approx(ratio, rel=1e-9)
        mean = np.maximum(0, 1 - ratio).mean()
        assert log[f"{prefix}_Truth_Ratio"]["agg_value"] == pytest.approx(mean, rel=1e-9)
        means = np.exp(-answer).mean(), np.exp(-wrong).mean()
        for kind, mean in zip(("Prob", "PERT_Prob"), means, strict=True):
            assert log[f"{prefix}_Q_A_{kind}"]["agg_value"] == pytest.approx(mean, rel=1e-9)
        if prefix != "retain":
            share = np.exp(-answer) / (np.exp(-answer) + np.exp(-wrong).sum(-1))
            name = f"{prefix}_Q_A_Prob_normalised"
            found = [record["prob"] for record in log[name]["value_by_index"].values()]
            assert found == pytest.approx(share, rel=1e-9)
            assert log[name]["agg_value"] == pytest.approx(share.mean(), rel=1e-9)


def test_the_keys_are_those_of_the_codes(tmp_path):
    """As in made-up logs that stand for theirs in the tests of the reader."""
    evaluation = made()
    assert written_by_us(evaluation).keys() == open_unlearning_log().keys() - {"exact_memorization"}
    derived = {"truth_ratio", "normalized_gt_loss"}
    for set_name, key in KEYS.items():
        written = tofu_by_us(evaluation)[key].keys()
        assert written - derived == tofu_log()[key].keys()
        assert ("normalized_gt_loss" in written) == (set_name in REAL)
    assert written_by_us(evaluation)["forget_quality"] == {"agg_value": None}


def test_the_formats_are_turned_into_each_other(tmp_path):
    one = read_official_log(save(tmp_path, tofu_log(12)))
    path = write_official_log(tmp_path / "TOFU_EVAL.json", one, "open-unlearning")
    other = read_official_log(path)
    for key in ("model_utility", "forget_truth_ratio", "real_authors_probability"):
        assert summarise(other)[key] == pytest.approx(summarise(one)[key], rel=1e-9)


def test_what_is_missing_is_left_out(tmp_path):
    bare = [{"index": i, "mean_logp": -1.0 - i, "tokens": 3} for i in range(3)]
    bare[1]["mean_logp"] = None
    log = tofu_by_us(Evaluation({"forget": bare, "retain": []}))
    assert log == {
        "eval_log_forget.json": {
            "avg_gt_loss": {"0": 1.0, "1": None, "2": 3.0},
            "gt_loss": {"0": 3.0, "1": None, "2": 9.0},
            "num_token_gt": {"0": 3, "1": 3, "2": 3},
        }
    }
    log = written_by_us(Evaluation({"forget": bare}))
    assert log.keys() == {"forget_Q_A_Prob", "forget_quality", "model_utility"}
    assert log["forget_Q_A_Prob"]["value_by_index"]["1"] is None
    mean = (math.exp(-1) + math.exp(-3)) / 2
    assert log["forget_Q_A_Prob"]["agg_value"] == pytest.approx(mean, rel=1e-12)


def test_bad_input_is_refused_and_nothing_is_written(tmp_path):
    path = write_official_log(tmp_path / "log.json", made(), "tofu")
    before = path.read_bytes()
    with pytest.raises(KitError, match=r"log.json exists: choose another name"):
        write_official_log(path, made(1), "tofu")
    assert path.read_bytes() == before
    write_official_log(path, made(1), "tofu", overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(KitError, match="unknown format 'muse': choose tofu or open-unlearning"):
        write_official_log(tmp_path / "new.json", made(), "muse")
    with pytest.raises(KitError, match="no rows"):
        write_official_log(tmp_path / "new.json", Evaluation({"forget": []}), "tofu")
    assert [file.name for file in tmp_path.iterdir()] == ["log.json"]


# --- texts of a record without them ---------------------------------------------------------------


def test_texts_are_looked_up_in_the_task():
    task = load_task("authors:forget05")
    rows = [{"index": i, "generation": "so", "mean_logp": -1.0} for i in (0, 7)]
    evaluation = Evaluation({"forget": rows, "retain": []})
    sets = evaluation_rows(task.record())
    log = tofu_by_us(with_texts(evaluation, sets))
    told = log["eval_log_forget.json"]["generated_text"]["7"]
    assert told == [task.forget[7]["question"], "so", task.forget[7]["answer"]]
    assert evaluation_rows(task.record() | {"fingerprint": "other rows"}) == {}
    assert evaluation_rows({"name": "own:mine"}) == {}
    log = tofu_by_us(with_texts(evaluation, {}))
    assert log["eval_log_forget.json"]["generated_text"]["7"] == ["", "so", ""]
    kept = replace(evaluation, rows={"forget": [rows[0] | {"question": "Q", "answer": "A"}]})
    assert with_texts(kept, sets).rows["forget"][0]["question"] == "Q"


# --- the command ----------------------------------------------------------------------------------


def run(*arguments):
    return program.main(list(map(str, arguments)))


def test_export_of_a_run(tmp_path, capsys):
    write_run(tmp_path / "retained", "retained", [made(1)])
    steps = [replace(made(2), step=0), replace(made(3), step=8)]
    write_run(tmp_path / "ga", "ga", steps, method="ga", seed=0)
    out = tmp_path / "TOFU_EVAL.json"
    arguments = ["export", tmp_path / "ga", "--format", "open-unlearning", "--out", out]
    assert run(*arguments, "--reference", tmp_path / "retained") == 0
    assert "step 8" in capsys.readouterr().out
    expected = summarise(steps[1], made(1))["forget_quality"]
    log = json_as_others_read_it(out)
    assert log["forget_quality"]["agg_value"] == pytest.approx(expected)
    assert run(*arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert run(*arguments, "--step", 0, "--overwrite") == 0
    assert read_official_log(out).rows["forget"][0]["mean_logp"] == pytest.approx(
        steps[0].rows["forget"][0]["mean_logp"], rel=1e-12
    )
    assert run(*arguments, "--step", 5, "--overwrite") == 2
    tofu = ["--format", "tofu", "--out", tmp_path]
    assert run("export", out, *tofu) == 0  # from one format to the other
    assert (tmp_path / "eval_log_aggregated.json").exists()
    assert run("export", out, *tofu, "--step", 0, "--overwrite") == 2
    assert "--step is for a run's folder" in capsys.readouterr().err


def test_a_gzipped_log_serves_as_well(tmp_path):
    packed = tmp_path / "log.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(open_unlearning_log()).encode()))
    assert run("export", packed, "--format", "tofu", "--out", tmp_path) == 0

"""Official logs: what they say about themselves must come out of our metrics."""

import copy
import gzip
import json
import math

import numpy as np
import pytest
from places import SHARED

from npo_kit.errors import KitError
from npo_kit.metrics.official_reader import LogError, read_official_log, read_reference
from npo_kit.metrics.scores import distinct_2, normalised_probability, repetition_rate
from npo_kit.metrics.summary import summarise, truth_ratio_values
from npo_kit.records.evaluations import (
    EVALUATION_SETS,
    Evaluation,
    read_evaluation,
    write_evaluation,
)
from npo_kit.records.files import RunError

PUBLISHED = SHARED / "tofu_logs" / "phi_retain99_eval_log_aggregated.json"
KEYS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
SIZES = {"forget": 40, "retain": 300, "real_authors": 100, "world_facts": 117}
REAL = ("real_authors", "world_facts")


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.exists():
        pytest.skip(f"the published TOFU log is not here: {PUBLISHED}")
    return json.loads(PUBLISHED.read_text())


def tofu_log(n=3, seed=0):
    """A made-up eval_log_aggregated.json in TOFU's dict form."""
    random = np.random.default_rng(seed)
    log = {}
    for set_name, key in KEYS.items():
        width = 3 if set_name in REAL else 5
        columns = {
            "avg_gt_loss": random.uniform(0, 3, n).tolist(),
            "gt_loss": random.uniform(0, 90, n).tolist(),
            "num_token_gt": random.integers(2, 50, n).tolist(),
            "avg_paraphrased_loss": random.uniform(0, 3, n).tolist(),
            "average_perturb_loss": random.uniform(0, 6, (n, width)).tolist(),
            "rougeL_recall": random.uniform(0, 1, n).tolist(),
            "rouge1_recall": random.uniform(0, 1, n).tolist(),
            "generated_text": [[f"Q{i}?", f"a b a b {i}", f"truth {i}"] for i in range(n)],
        }
        log[key] = {c: {str(i): v for i, v in enumerate(vs)} for c, vs in columns.items()}
    return log


def as_lists(log):
    return {k: {c: list(v.values()) for c, v in columns.items()} for k, columns in log.items()}


def save(folder, log, name="log.json"):
    path = folder / name
    path.write_text(log if isinstance(log, str) else json.dumps(log))
    return path


def nine_parts(log):
    """The parts of the utility straight from the losses of a log in dict form."""
    for set_name in ("retain", "real_authors", "world_facts"):
        columns = {c: list(v.values()) for c, v in log[KEYS[set_name]].items()}
        p = np.exp(-np.array(columns["avg_gt_loss"]))
        wrong = np.array(columns["average_perturb_loss"])
        if set_name in REAL:
            p = p / (p + np.exp(-wrong).sum(1))
        yield p.mean()
        yield np.mean(columns["rougeL_recall"])
        ratio = np.exp(-wrong.mean(1)) / np.exp(-np.array(columns["avg_paraphrased_loss"]))
        yield np.mean(np.where(ratio < 1, 1 - ratio, 0))


def check_against_itself(log, evaluation):
    summary = summarise(evaluation)
    parts = list(nine_parts(log))
    names = [f"{s}_{m}" for s in list(KEYS)[1:] for m in ("probability", "rouge_l", "truth_ratio")]
    assert [summary[name] for name in names] == pytest.approx(parts, rel=1e-9)
    utility = len(parts) / sum(1 / part for part in parts)
    assert summary["model_utility"] == pytest.approx(utility, rel=1e-9)


# The published log


def test_published_log_reproduces_its_own_rows(published):
    evaluation = read_official_log(PUBLISHED)
    assert {s: len(rows) for s, rows in evaluation.rows.items()} == SIZES
    assert evaluation.protocol == "tofu"
    assert evaluation.source == "eval_log_aggregated.json"
    for set_name, key in KEYS.items():
        log, rows = published[key], evaluation.rows[set_name]
        stored = np.array(list(log["truth_ratio"].values()))
        assert truth_ratio_values(evaluation, set_name) == pytest.approx(stored, rel=1e-6)
        assert [row["index"] for row in rows] == list(range(len(rows)))
        for i, row in enumerate(rows):
            text = [row["question"], row["generation"], row["answer"]]
            assert text == log["generated_text"][str(i)]
            assert row["mean_logp"] == -log["avg_gt_loss"][str(i)]
            assert row["tokens"] == log["num_token_gt"][str(i)]
            assert row["rouge_1_recall"] == log["rouge1_recall"][str(i)]
            if set_name in REAL:
                stored_loss = log["normalized_gt_loss"][str(i)]
                assert -math.log(normalised_probability(row)) == pytest.approx(stored_loss, 1e-6)


def test_published_log_gives_the_utility_of_its_losses(published):
    check_against_itself(published, read_official_log(PUBLISHED))


def test_published_log_as_its_own_reference(published):
    summary = summarise(read_official_log(PUBLISHED), PUBLISHED)
    assert summary["forget_quality"] == 1.0
    assert summary["forget_quality_floor"] == pytest.approx(2 / math.comb(80, 40))
    other = summarise(read_official_log(PUBLISHED), PUBLISHED, "arithmetic")
    assert other["forget_quality"] == 1.0
    assert other["model_utility"] < summary["model_utility"]  # wrong answers count for more


# Forms


def test_list_dict_and_gzip_forms_are_the_same_evaluation(tmp_path):
    log = tofu_log(12)
    plain = read_official_log(save(tmp_path, log))
    check_against_itself(log, plain)
    assert read_official_log(save(tmp_path, as_lists(log))) == plain
    packed = tmp_path / "named_as_if_plain.json"
    packed.write_bytes(gzip.compress(json.dumps(as_lists(log)).encode()))
    assert read_official_log(str(packed)) == plain


def test_indices_are_sorted_as_numbers(tmp_path):
    log = tofu_log(12)
    mixed = copy.deepcopy(log)
    for columns in mixed.values():
        for name, column in columns.items():
            columns[name] = dict(sorted(column.items(), reverse=len(name) % 2 == 0))
    evaluation = read_official_log(save(tmp_path, mixed))
    assert evaluation == read_official_log(save(tmp_path, log))
    assert [row["index"] for row in evaluation.rows["forget"]] == list(range(12))


def test_generated_text_is_kept_and_measured(tmp_path):
    row = read_official_log(save(tmp_path, tofu_log())).rows["retain"][2]
    assert (row["question"], row["generation"], row["answer"]) == ("Q2?", "a b a b 2", "truth 2")
    assert row["repetition_rate"] == repetition_rate(["a", "b", "a", "b", "2"])
    assert row["distinct_2"] == distinct_2(["a", "b", "a", "b", "2"])


def test_missing_sets_are_noted(tmp_path):
    log = tofu_log()
    del log["eval_log.json"], log["eval_log_forget.json"]["average_perturb_loss"]
    evaluation = read_official_log(save(tmp_path, log))
    summary = summarise(evaluation, evaluation)
    assert summary.why["retain_probability"] == "the log has no eval_log.json"
    assert summary["model_utility"] is None
    assert summary.why["forget_quality"].startswith("no forget row has scores of a paraphrased")
    assert summary["world_facts_truth_ratio"] is not None


def test_nan_infinity_and_null_are_scores_of_a_collapsed_model(tmp_path):
    log = tofu_log()
    log["eval_log_forget.json"]["avg_gt_loss"] |= {"0": math.inf, "1": None}
    log["eval_log.json"]["avg_gt_loss"]["0"] = math.nan
    summary = summarise(read_official_log(save(tmp_path, log)))
    loss = log["eval_log_forget.json"]["avg_gt_loss"]["2"]
    assert summary["forget_probability"] == pytest.approx(math.exp(-loss) / 2)
    assert summary.why["retain_probability"].startswith("1 of 3 retain rows has no finite score")


def test_a_log_written_as_a_run_file_reads_back(tmp_path):
    evaluation = read_official_log(save(tmp_path, tofu_log()))
    write_evaluation(tmp_path / "000000.jsonl.gz", evaluation)
    assert read_evaluation(tmp_path / "000000.jsonl.gz") == evaluation
    assert read_reference(tmp_path / "000000.jsonl.gz") == evaluation
    with pytest.raises(RunError):
        read_reference(tmp_path / "000001.jsonl.gz")


# open-unlearning


def open_unlearning_log(n=4):
    """A made-up TOFU_EVAL.json with its aggregates as that code defines them."""
    random = np.random.default_rng(7)
    log, losses = {}, {}

    def add(name, records, values):
        # As json writes a dict sorted as text: "10" comes before "2".
        by_index = {str(i): records[i] for i in sorted(range(n), key=str)}
        log[name] = {"agg_value": float(np.mean(values)), "value_by_index": by_index}

    for prefix in ("forget", "retain", "ra", "wf"):
        width = 3 if prefix in ("ra", "wf") else 5
        kinds = {"Prob": (), "PERT_Prob": (width,)}
        if width == 5:
            kinds["PARA_Prob"] = ()
        for kind, shape in kinds.items():
            loss = losses[kind] = random.uniform(0.1, 4 if shape else 2, (n, *shape))
            records = [{"prob": np.exp(-x).tolist(), "avg_loss": x.tolist()} for x in loss]
            add(f"{prefix}_Q_A_{kind}", records, np.exp(-loss))
        p, wrong = np.exp(-losses["Prob"]), losses["PERT_Prob"]
        right = losses["PARA_Prob" if width == 5 else "Prob"]
        ratio = np.exp(-wrong.mean(1)) / np.exp(-right)
        score = np.minimum(ratio, 1 / ratio) if prefix == "forget" else np.maximum(0, 1 - ratio)
        name = "forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"
        add(name, [{"score": x} for x in ratio.tolist()], score)
        if width == 3:
            share = p / (p + np.exp(-wrong).sum(1))
            add(f"{prefix}_Q_A_Prob_normalised", [{"prob": x} for x in share.tolist()], share)
        rouge = random.uniform(0, 1, n)
        texts = {"input": "Q?", "ground_truth": "the truth", "generation": "one two one two"}
        records = [{"rouge1_recall": 1.0, "rougeL_f1": 0.5, "rougeL_recall": x} for x in rouge]
        add(f"{prefix}_Q_A_ROUGE", [record | texts for record in records], rouge)
    nine = [log[f"{p}_Truth_Ratio"]["agg_value"] for p in ("retain", "ra", "wf")]
    nine += [log[f"{p}_Q_A_ROUGE"]["agg_value"] for p in ("retain", "ra", "wf")]
    probabilities = ("retain_Q_A_Prob", "ra_Q_A_Prob_normalised", "wf_Q_A_Prob_normalised")
    nine += [log[name]["agg_value"] for name in probabilities]
    log["model_utility"] = {"agg_value": 9 / sum(1 / part for part in nine)}
    log["forget_quality"] = {"agg_value": None}
    log["exact_memorization"] = {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.5}}}
    return log


def check_open_unlearning(log, evaluation):
    summary = summarise(evaluation)
    expected = {"model_utility": log["model_utility"]["agg_value"]}
    for set_name, prefix in zip(EVALUATION_SETS, ("forget", "retain", "ra", "wf"), strict=True):
        ratio = "forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"
        share = f"{prefix}_Q_A_Prob" + ("_normalised" if prefix in ("ra", "wf") else "")
        expected[f"{set_name}_truth_ratio"] = log[ratio]["agg_value"]
        expected[f"{set_name}_probability"] = log[share]["agg_value"]
        expected[f"{set_name}_rouge_l"] = log[f"{prefix}_Q_A_ROUGE"]["agg_value"]
    assert {key: summary[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def test_open_unlearning_aggregates_come_out(tmp_path):
    log = open_unlearning_log(12)
    evaluation = read_official_log(save(tmp_path, log))
    check_open_unlearning(log, evaluation)
    assert evaluation.protocol == "all"
    assert evaluation.source == "TOFU_EVAL.json"
    row = evaluation.rows["forget"][2]
    assert row["index"] == 2
    wrong = log["forget_Q_A_PERT_Prob"]["value_by_index"]["2"]["avg_loss"]
    assert row["perturbed_mean_logps"] == [-loss for loss in wrong]
    assert (row["question"], row["answer"]) == ("Q?", "the truth")
    assert (row["rouge_l_f1"], row["rouge_1_recall"]) == (0.5, 1.0)
    assert row["distinct_2"] == pytest.approx(2 / 3)


def test_open_unlearning_probabilities_without_losses(tmp_path):
    log = open_unlearning_log()
    for metric in log.values():
        for record in metric.get("value_by_index", {}).values():
            record.pop("avg_loss", None)
    check_open_unlearning(log, read_official_log(save(tmp_path, log)))


def test_open_unlearning_derived_scores_alone(tmp_path):
    """Only what each code needs as a reference: the ratios, not what they are made of."""
    log = open_unlearning_log()
    parts = [name for name in log if name.endswith(("PERT_Prob", "PARA_Prob"))]
    for name in [*parts, "ra_Q_A_Prob", "wf_Q_A_Prob"]:
        del log[name]
    evaluation = read_official_log(save(tmp_path, log))
    check_open_unlearning(log, evaluation)
    summary = summarise(evaluation, evaluation)
    assert summary["forget_quality"] == 1.0
    assert summarise(evaluation, truth_ratio="arithmetic")["forget_truth_ratio"] is None


def test_open_unlearning_rows_that_failed_are_left_out(tmp_path):
    log = open_unlearning_log()
    log["retain_Q_A_Prob"]["value_by_index"]["0"] = None
    log["forget_Q_A_Prob"]["value_by_index"]["1"] = {"prob": 0.0, "avg_loss": None}
    evaluation = read_official_log(save(tmp_path, log))
    summary = summarise(evaluation)
    assert summary.notes["retain_probability"].startswith("mean over the 3 of 4 rows")
    assert evaluation.rows["forget"][1]["mean_logp"] == -math.inf


def test_open_unlearning_sets_without_rows_are_noted(tmp_path):
    log = {k: v for k, v in open_unlearning_log().items() if not k.startswith("wf")}
    log["ra_Q_A_Prob"] = {"agg_value": 0.5}
    summary = summarise(read_official_log(save(tmp_path, log)))
    assert summary.why["world_facts_rouge_l"].startswith("the log has no wf_… metric")
    assert summary["real_authors_probability"] == pytest.approx(
        log["ra_Q_A_Prob_normalised"]["agg_value"]
    )


# Bad input


def broken_tofu(change):
    log = tofu_log()
    change(log["eval_log_forget.json"])
    return log


def set_to(column, value, row=None):
    def change(columns):
        if row is None:
            columns[column] = value
        else:
            columns[column][row] = value

    return change


def broken_open_unlearning(name, row, value):
    log = open_unlearning_log()
    log[name]["value_by_index"][row] = value
    return log


BAD = {
    "empty": ("", "is no whole JSON, it is empty"),
    "text": ("version https://git-lfs", "it starts with 'version https://git-lfs'"),
    "half": (json.dumps(tofu_log())[:-9], "no whole JSON"),
    "deep": ("[" * 100_000, "no whole JSON"),
    "number": ("3", "unknown shape, no JSON object with keys: TOFU's and the NPO authors'"),
    "list": ([tofu_log()], "no JSON object with keys"),
    "name": ('"forget_Q_A_Prob"', "no JSON object with keys"),
    "no keys": ({}, "no JSON object with keys"),
    "foreign": ({"loss": 1, "step": 2}, "a JSON object with loss, step: TOFU's"),
    "many": (dict.fromkeys("abcdefg", 1), "with a, b, c, d, …: "),
    "one set": (tofu_log()["eval_log.json"], "of a single evaluation set: give the eval_log_agg"),
    "summary": ({"forget_Q_A_Prob": 0.1, "model_utility": 0.2}, "averages at most, no rows"),
    "no rows": ({"eval_log.json": {}}, "averages at most, no rows"),
    "set": ({"eval_log.json": [1]}, "eval_log.json is no JSON object of columns"),
    "column": (broken_tofu(set_to("avg_gt_loss", 3)), "avg_gt_loss is neither a list nor a dict"),
    "index": (broken_tofu(set_to("avg_gt_loss", 1.0, "--1")), "has a row '--1', not an index"),
    "string": (
        broken_tofu(set_to("avg_gt_loss", "0.5", "1")),
        'eval_log_forget.json, avg_gt_loss of row 1 is "0.5", where a number belongs',
    ),
    "bool": (broken_tofu(set_to("rougeL_recall", True, "1")), "is true, where a number"),
    "list for number": (broken_tofu(set_to("avg_gt_loss", [1], "1")), "is [1.0], where a number"),
    "perturbed": (
        broken_tofu(set_to("average_perturb_loss", [1, "x"], "0")),
        'average_perturb_loss of row 0 is "x"',
    ),
    "sign": (broken_tofu(set_to("avg_gt_loss", -2, "1")), "row 1 is -2, outside [-0.001, inf]"),
    "rouge": (broken_tofu(set_to("rougeL_recall", 43.2, "1")), "is 43.2, outside [0, 1]"),
    "lengths": (
        broken_tofu(lambda columns: columns["rougeL_recall"].popitem()),
        "eval_log_forget.json, avg_gt_loss has 3 rows and rougeL_recall has 2",
    ),
    "rows": (
        broken_tofu(set_to("rougeL_recall", {"0": 1, "1": 1, "7": 1})),
        "avg_gt_loss and rougeL_recall differ in row 2",
    ),
    "texts": (broken_tofu(set_to("generated_text", ["a"], "1")), "not [prompt, generation, truth]"),
    "text type": (
        broken_tofu(set_to("generated_text", ["a", 1, "b"], "1")),
        "where a text belongs",
    ),
    "record": (
        broken_open_unlearning("wf_Q_A_Prob", "0", 0.5),
        "wf_Q_A_Prob of row 0 is no record",
    ),
    "share": (broken_open_unlearning("ra_Q_A_Prob", "0", {"prob": 1.5}), "outside [0, 1.001]"),
    "ratio": (broken_open_unlearning("ra_Truth_Ratio", "0", {"score": -1}), "is -1, outside [0"),
    "answers": (
        broken_open_unlearning("ra_Q_A_Prob", "0", {"avg_loss": [1, 2]}),
        "holds 2 answers where one belongs",
    ),
    "texts missing": (
        broken_open_unlearning("ra_Q_A_ROUGE", "0", {"generation": "a"}),
        "ra_Q_A_ROUGE of row 0 is null, where a text belongs",
    ),
}


@pytest.mark.parametrize(("log", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_log_is_one_sentence(tmp_path, log, sentence):
    path = save(tmp_path, log)
    with pytest.raises(LogError) as caught:
        read_official_log(path)
    message = str(caught.value)
    assert sentence in message
    assert str(path) in message
    assert ": " in message.replace(str(path), "")  # what was seen, then what to do
    assert "\n" not in message
    assert len(message) < 420
    assert isinstance(caught.value, KitError)
    assert caught.value.__cause__ is None


def test_a_huge_integer_is_an_infinite_loss(tmp_path):
    log = json.dumps(broken_tofu(set_to("avg_gt_loss", "HUGE", "1")))
    path = save(tmp_path, log.replace('"HUGE"', "9" * 5000))
    assert read_official_log(path).rows["forget"][1]["mean_logp"] == -math.inf


def test_files_that_cannot_be_read(tmp_path):
    cut = tmp_path / "cut.json"
    cut.write_bytes(gzip.compress(json.dumps(tofu_log()).encode())[:-20])
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00{")
    for path, sentence in (
        (tmp_path / "none.json", "there is no run, evaluation or log at"),
        (tmp_path, "is a folder: give the eval_log_aggregated.json or TOFU_EVAL.json in it"),
        (cut, "is damaged"),
        (binary, "is damaged"),
    ):
        with pytest.raises(LogError, match=sentence):
            summarise(Evaluation({}), path)

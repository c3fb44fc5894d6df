"""npo_kit.metrics against a second implementation, written from the definitions of TOFU's metrics.

The second one works in probability space with 60-digit decimals, its own longest common
subsequence and its own Kolmogorov-Smirnov p-value: an exact count of paths, and for small
samples a plain enumeration of every way to deal the rows out.
"""

import copy
import itertools
import json
import math
import pickle
from dataclasses import replace
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npo_kit.errors import KitError
from npo_kit.metrics.scores import (
    TRUTH_RATIOS,
    distinct_2,
    log_truth_ratio,
    normalised_probability,
    repetition_rate,
    rouge_scores,
    text_statistics,
    unicode_words,
)
from npo_kit.metrics.summary import Summary, log_truth_ratios, summarise, truth_ratio_values
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, write_evaluation

getcontext().prec = 60
UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_SCORES = ("probability", "rouge_l", "truth_ratio")
REAL = ("real_authors", "world_facts")
many = settings(max_examples=60, deadline=None, derandomize=True)
inf, nan = math.inf, math.nan


# The second implementation


def decimal_ratio(row, set_name, kind):
    """R = wrong / right as a decimal."""
    right = row["mean_logp"] if set_name in REAL else row["paraphrased_mean_logp"]
    wrongs = [Decimal(x) for x in row["perturbed_mean_logps"]]
    if kind == "geometric":
        wrong = (sum(wrongs) / len(wrongs)).exp()
    else:
        wrong = sum(x.exp() for x in wrongs) / len(wrongs)
    return wrong / Decimal(right).exp()


def decimal_probability(row, set_name):
    p = Decimal(row["mean_logp"]).exp()
    if set_name in REAL:
        p = p / (p + sum(Decimal(x).exp() for x in row["perturbed_mean_logps"]))
    return p


def decimal_truth(row, set_name, kind):
    r = decimal_ratio(row, set_name, kind)
    return min(r, 1 / r) if set_name == "forget" else max(Decimal(0), 1 - r)


def mean(values):
    return sum(values) / len(values)


def second_summary(evaluation, kind):
    out = {}
    for s, rows in evaluation.rows.items():
        out[f"{s}_probability"] = mean([decimal_probability(row, s) for row in rows])
        out[f"{s}_rouge_l"] = mean([Decimal(row["rouge_l_recall"]) for row in rows])
        out[f"{s}_truth_ratio"] = mean([decimal_truth(row, s, kind) for row in rows])
    nine = [out[f"{s}_{m}"] for s in UTILITY_SETS for m in UTILITY_SCORES]
    out["model_utility"] = 0 if 0 in nine else len(nine) / sum(1 / part for part in nine)
    return {key: float(value) for key, value in out.items()}


def ks_statistic(xs, ys):
    points = {*xs, *ys}
    return max(
        abs(Fraction(sum(x <= p for x in xs), len(xs)) - Fraction(sum(y <= p for y in ys), len(ys)))
        for p in points
    )


def ks_p_value(xs, ys):
    """P(D ≥ d) over all equally likely orders of two samples: paths that reach the distance d."""
    d, n, m = ks_statistic(xs, ys), len(xs), len(ys)
    inside = {(0, 0): 1}
    for i, j in itertools.product(range(n + 1), range(m + 1)):
        if i == j == 0:
            continue
        near = abs(Fraction(i, n) - Fraction(j, m)) < d
        inside[i, j] = near * (inside.get((i - 1, j), 0) + inside.get((i, j - 1), 0))
    return float(1 - Fraction(inside[n, m] if d > 0 else 0, math.comb(n + m, n)))


def ks_p_by_enumeration(xs, ys):
    pooled, d = [*xs, *ys], ks_statistic(xs, ys)
    reached = total = 0
    for chosen in itertools.combinations(range(len(pooled)), len(xs)):
        first = [pooled[i] for i in chosen]
        second = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        reached += ks_statistic(first, second) >= d
        total += 1
    return reached / total


def lcs(a, b):
    """Longest common subsequence, by the plain recursion."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + lcs(a[:-1], b[:-1])
    return max(lcs(a[:-1], b), lcs(a, b[:-1]))


# Made-up evaluations

logp = st.floats(-30, 0)
share = st.floats(0, 1)


def rows_of(set_name):
    width = 3 if set_name in REAL else 5
    record = {
        "mean_logp": logp,
        "perturbed_mean_logps": st.lists(logp, min_size=width, max_size=width),
        "rouge_l_recall": share,
    }
    if set_name not in REAL:
        record["paraphrased_mean_logp"] = logp
    return st.lists(st.fixed_dictionaries(record), min_size=1, max_size=6)


evaluations = st.fixed_dictionaries({s: rows_of(s) for s in EVALUATION_SETS}).map(Evaluation)


def with_ratios(log_ratios):
    """An evaluation whose forget rows have these log R."""
    rows = [
        {"paraphrased_mean_logp": min(0.0, -x), "perturbed_mean_logps": [min(0.0, x)] * 2}
        for x in log_ratios
    ]
    return Evaluation({"forget": rows})


def steady(n=3, **changes):
    """A plain evaluation of n rows in every set; `changes` replace keys of the forget rows."""
    row = {
        "mean_logp": -1.0,
        "paraphrased_mean_logp": -1.0,
        "perturbed_mean_logps": [-2.0, -3.0, -4.0],
        "rouge_l_recall": 0.5,
    }
    rows = {s: [dict(row) for _ in range(n)] for s in EVALUATION_SETS}
    for s in REAL:
        for each in rows[s]:
            del each["paraphrased_mean_logp"]
    rows["forget"][0] |= changes
    return Evaluation(rows)


# Against the second implementation


@many
@given(evaluations, st.sampled_from(TRUTH_RATIOS))
def test_summary_equals_second_implementation(evaluation, kind):
    summary = summarise(evaluation, truth_ratio=kind)
    for key, value in second_summary(evaluation, kind).items():
        # 1 - R of sixty digits is 0 where R is nearer to 1 than that
        lost = 1e-55 if key.endswith(("truth_ratio", "model_utility")) else 1e-300
        assert summary[key] == pytest.approx(value, rel=1e-9, abs=lost), key
    for s in EVALUATION_SETS:
        expected = [float(decimal_ratio(row, s, kind)) for row in evaluation.rows[s]]
        assert truth_ratio_values(evaluation, s, kind) == pytest.approx(expected, rel=1e-9)


@many
@given(
    st.lists(st.integers(-8, 8), min_size=1, max_size=14),
    st.lists(st.integers(-8, 8), min_size=1, max_size=14),
)
def test_forget_quality_equals_path_count(ours, theirs):
    summary = summarise(with_ratios(ours), with_ratios(theirs))
    assert summary["forget_ks"] == pytest.approx(float(ks_statistic(ours, theirs)), rel=1e-9)
    p = ks_p_value(ours, theirs)
    # At p = 1 scipy may overshoot and fall back on an approximation, some 1e-5 below 1.
    assert summary["forget_quality"] == pytest.approx(p, rel=1e-9 if p < 1 - 1e-9 else 1e-4)


@many
@given(st.permutations([x / 2 for x in range(9)]), st.integers(1, 8))
def test_path_count_equals_enumeration(values, n):
    ours, theirs = values[:n], values[n:]
    p = ks_p_by_enumeration(ours, theirs)
    assert ks_p_value(ours, theirs) == pytest.approx(p, rel=1e-12)
    assert summarise(with_ratios(ours), with_ratios(theirs))["forget_quality"] == pytest.approx(p)


def test_three_rows_by_hand():
    third, half, quarter = math.log(1 / 3), math.log(1 / 2), math.log(1 / 4)
    forget = [  # R = (1/4) / (1/2), (1/2) / (1/4), 1
        {"paraphrased_mean_logp": half, "perturbed_mean_logps": [quarter, quarter]},
        {"paraphrased_mean_logp": quarter, "perturbed_mean_logps": [half]},
        {"paraphrased_mean_logp": third, "perturbed_mean_logps": [third]},
    ]
    real = [{"mean_logp": half, "perturbed_mean_logps": [quarter] * 2, "rouge_l_recall": 1.0}]
    retain = [{"mean_logp": half, "rouge_l_recall": 0.25, "paraphrased_mean_logp": half}]
    retain[0]["perturbed_mean_logps"] = [math.log(1 / 2), math.log(1 / 8)]
    rows = {"forget": forget, "retain": retain, "real_authors": real, "world_facts": real}
    summary = summarise(Evaluation(rows))
    assert summary["forget_truth_ratio"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert summary["real_authors_probability"] == pytest.approx(1 / 2)
    assert summary["real_authors_truth_ratio"] == pytest.approx(1 / 2)
    assert summary["retain_probability"] == pytest.approx(1 / 2)
    assert summary["retain_truth_ratio"] == pytest.approx(1 / 2)  # √(1/2 · 1/8) = 1/4; 1 − 1/2
    # 9 / (retain 2 + 4 + 2, and twice 2 + 1 + 2)
    assert summary["model_utility"] == pytest.approx(9 / 18)
    # (1/2 + 1/8) / 2 = 5/16; over 1/2 it is 5/8
    assert summarise(Evaluation(rows), truth_ratio="arithmetic")[
        "retain_truth_ratio"
    ] == pytest.approx(3 / 8)
    reference = with_ratios([math.log(2), math.log(4), math.log(8)])
    compared = summarise(Evaluation(rows), reference)
    assert compared["forget_ks"] == pytest.approx(2 / 3)
    assert compared["forget_quality"] == pytest.approx(0.6)  # 12 of the 20 orders reach 2/3
    assert compared["forget_quality_floor"] == pytest.approx(2 / 20)


words = st.lists(st.sampled_from(["red", "cat", "dog", "map", "sun"]), max_size=7)


@many
@given(words, words)
def test_rouge_equals_plain_longest_common_subsequence(prediction, truth):
    scores = rouge_scores(" ".join(prediction), " ".join(truth))
    common = lcs(prediction, truth)
    recall = common / len(truth) if truth else 0
    precision = common / len(prediction) if prediction else 0
    f1 = 2 * precision * recall / (precision + recall) if common else 0
    overlap = sum(min(prediction.count(w), truth.count(w)) for w in set(truth))
    assert scores["rouge_l_recall"] == pytest.approx(recall)
    assert scores["rouge_l_f1"] == pytest.approx(f1)
    assert scores["rouge_1_recall"] == pytest.approx(overlap / len(truth) if truth else 0)


def test_rouge_stems_and_takes_empty_text():
    assert rouge_scores("She was painting", "she paints")["rouge_1_recall"] == 1.0
    for prediction, truth in (("", "a word"), ("a word", ""), ("", ""), ("…", "!")):
        assert set(rouge_scores(prediction, truth).values()) == {0.0}


# Text statistics


# text, its words by hand, a prediction, the recall of that by hand
SCRIPTS = {
    "Russian": ("Роман написала Анна Брук.", "роман написала анна брук", "Анна спит", 1 / 4),
    "Chinese": ("安娜·布鲁克写的。", "安 娜 布 鲁 克 写 的", "布鲁克写", 4 / 7),
    "Arabic": ("كتبتها آنا بروك.", "كتبتها آنا بروك", "آنا", 1 / 3),
    "Hindi": ("उपन्यास अन्ना ने लिखा।", "उपन्यास अन्ना ने लिखा", "अन्ना", 1 / 4),
    "Japanese": ("アンナが書いた", "ア ン ナ が 書 い た", "アンナ", 3 / 7),
    "digits": ("Анна родилась в 1936 году", "анна родилась в 1936 году", "1936", 1 / 5),
}


@pytest.mark.parametrize(("truth", "words", "said", "recall"), SCRIPTS.values(), ids=SCRIPTS)
def test_rouge_counts_the_words_of_other_scripts(truth, words, said, recall):
    assert unicode_words(truth) == words.split()
    same = rouge_scores(truth, truth)
    assert same["rouge_l_recall"] == same["rouge_l_f1"] == same["rouge_1_recall"] == 1
    assert rouge_scores(said, truth)["rouge_l_recall"] == pytest.approx(recall)
    assert same["rouge_words"] == "unicode"


def test_latin_texts_keep_the_numbers_of_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    for truth in ("La escribió José Muñoz Ibáñez.", "Anna (安娜) wrote 12 novels.", "1936", ""):
        for said in (truth, "José wrote novels in 1936"):
            ours, theirs = rouge_scores(said, truth), scorer.score(truth, said)
            assert ours["rouge_l_recall"] == theirs["rougeL"].recall
            assert ours["rouge_l_f1"] == theirs["rougeL"].fmeasure
            assert "rouge_words" not in ours


def test_repetition_in_a_script_without_spaces_is_seen():
    assert text_statistics("安娜写安娜写安娜写")["repetition_rate"] == pytest.approx(4 / 7)


def test_repetition_and_distinct_by_hand():
    assert repetition_rate(["a", "b", "c", "a", "b", "c", "a", "b", "c"]) == pytest.approx(4 / 7)
    assert repetition_rate([1, 1, 1, 1], n=2) == pytest.approx(2 / 3)
    assert repetition_rate(["a", "b", "c", "d"]) == 0.0
    assert distinct_2(["a", "b", "a", "b", "a"]) == pytest.approx(2 / 4)
    assert distinct_2(["a", "b", "c"]) == 1.0
    assert text_statistics("so  so\nso so") == {"repetition_rate": 0.5, "distinct_2": 1 / 3}


@pytest.mark.parametrize("text", ["", "  ", "word"])
def test_texts_without_ngrams(text):
    assert text_statistics(text) == {"repetition_rate": 0.0, "distinct_2": None}


def test_a_text_is_no_list_of_words():
    with pytest.raises(TypeError, match="split"):
        distinct_2("a b")


# Properties


@many
@given(evaluations, evaluations)
def test_utility_lies_between_zero_and_its_largest_part(evaluation, other):
    summary = summarise(evaluation, other)
    parts = [summary[f"{s}_{m}"] for s in UTILITY_SETS for m in UTILITY_SCORES]
    assert min(parts) * (1 - 1e-12) <= summary["model_utility"] <= max(parts) * (1 + 1e-12)
    assert (summary["model_utility"] == 0) == (0 in parts)
    assert all(v is None or not math.isnan(v) for v in summary.values())
    assert {key for key, value in summary.items() if value is None} == set(summary.why)


@many
@given(evaluations, st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(evaluation, random):
    shuffled = {s: random.sample(rows, len(rows)) for s, rows in evaluation.rows.items()}
    assert summarise(evaluation, evaluation) == summarise(Evaluation(shuffled), evaluation)


@many
@given(rows_of("forget"))
def test_geometric_mean_is_at_most_the_arithmetic(rows):
    for row in rows:
        low = log_truth_ratio(row, "forget", "geometric")
        assert low <= log_truth_ratio(row, "forget", "arithmetic") + 1e-12


@many
@given(st.lists(st.integers(-99, 99), min_size=1), st.lists(st.integers(-99, 99), min_size=1))
def test_inverting_r_leaves_the_test_unchanged(ours, theirs):
    one = summarise(with_ratios(ours), with_ratios(theirs))
    other = summarise(with_ratios([-x for x in ours]), with_ratios([-x for x in theirs]))
    for key in ("forget_quality", "forget_ks"):
        assert one[key] == pytest.approx(other[key], rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 200, 400])
def test_p_is_one_on_identical_rows_and_the_floor_on_separated_ones(n):
    same, far = with_ratios(range(n)), with_ratios(range(1000, 1000 + n))
    assert summarise(same, same)["forget_quality"] == 1
    assert summarise(same, same)["forget_ks"] == 0
    apart = summarise(same, far)
    assert apart["forget_ks"] == 1
    floor = float(Fraction(2, math.comb(2 * n, n)))
    assert apart["forget_quality_floor"] == pytest.approx(floor, rel=1e-9, abs=0)
    assert apart["forget_quality"] == pytest.approx(floor, rel=1e-9, abs=0)


def test_a_p_too_small_for_a_float_is_said_to_be_so():
    summary = summarise(with_ratios(range(600)), with_ratios(range(1000, 1600)))
    assert summary["forget_quality"] == 0
    assert "smallest" in summary.notes["forget_quality"]


@pytest.mark.parametrize("part", ["rouge_l", "probability", "truth_ratio"])
def test_one_zero_part_makes_the_utility_zero(part):
    evaluation = steady()
    for row in evaluation.rows["retain"]:
        row |= {
            "rouge_l": {"rouge_l_recall": 0.0},
            "probability": {"mean_logp": -inf},
            "truth_ratio": {"paraphrased_mean_logp": -9.0},
        }[part]
    summary = summarise(evaluation)
    assert summary[f"retain_{part}"] == 0.0
    assert summary["model_utility"] == 0.0


# Extremes


@pytest.mark.parametrize("kind", TRUTH_RATIOS)
@pytest.mark.parametrize(("right", "wrong"), [(-1e4, 1e4), (1e4, -1e4), (-1e4, -1e4), (0, -1e4)])
def test_extreme_log_probabilities(right, wrong, kind):
    row = {"mean_logp": right, "paraphrased_mean_logp": right, "perturbed_mean_logps": [wrong] * 3}
    assert log_truth_ratio(row, "forget", kind) == pytest.approx(wrong - right)
    rows = {s: [row | {"rouge_l_recall": 1.0}] for s in EVALUATION_SETS}
    with np.errstate(all="raise"):
        summary = summarise(Evaluation(rows), Evaluation(rows), kind)
    assert summary["forget_truth_ratio"] == (1.0 if right == wrong else 0.0)
    assert summary["retain_truth_ratio"] == (1.0 if right > wrong else 0.0)
    expected = {-1e4: 0.25 if wrong == right else 0.0}.get(right, 1.0)
    assert summary["real_authors_probability"] == pytest.approx(expected)
    assert 0 <= summary["model_utility"] <= 1


def test_infinite_scores():
    def ratio(right, *wrongs, kind="geometric"):
        row = {"paraphrased_mean_logp": right, "perturbed_mean_logps": list(wrongs)}
        return log_truth_ratio(row, "forget", kind)

    assert ratio(-inf, -1.0) == inf
    assert ratio(-1.0, -inf) == -inf
    assert ratio(-1.0, -inf, -2.0) == -inf
    assert ratio(-1.0, -inf, -2.0, kind="arithmetic") == pytest.approx(-1 - math.log(2))
    for broken in (ratio(-inf, -inf), ratio(nan, -1.0), ratio(-1.0, nan), ratio(-1.0, inf)):
        assert math.isnan(broken)
    assert math.isnan(ratio(-inf, -inf, -inf, kind="arithmetic"))
    one = {"mean_logp": -inf, "perturbed_mean_logps": [-1.0]}
    assert normalised_probability(one) == 0.0
    assert math.isnan(normalised_probability(one | {"perturbed_mean_logps": [-inf]}))


def test_infinite_ratios_have_a_rank():
    summary = summarise(with_ratios([inf, 1.0, -inf]), with_ratios([1.0, 2.0, 3.0]))
    assert summary["forget_ks"] == pytest.approx(1 / 3)
    assert summary["forget_quality"] == 1.0
    assert summary["forget_truth_ratio"] == pytest.approx(math.exp(-1) / 3)


def test_nan_scores_are_counted():
    evaluation = steady(40)
    for row in evaluation.rows["forget"][:3]:
        row |= {"mean_logp": nan, "paraphrased_mean_logp": nan}
    summary = summarise(evaluation, steady(40))
    sentence = "3 of 40 forget rows have no finite score: the model has collapsed"
    for key in ("forget_probability", "forget_truth_ratio", "forget_quality", "forget_ks"):
        assert summary[key] is None
        assert summary.why[key] == sentence
    assert summary["forget_rouge_l"] == 0.5
    assert summary["model_utility"] is not None
    against = summarise(steady(40), evaluation)
    assert "3 of 40 forget rows of the reference have no finite" in against.why["forget_quality"]


def test_a_collapsed_utility_set_leaves_no_utility():
    evaluation = steady(2)
    evaluation.rows["retain"][1]["perturbed_mean_logps"] = [nan, -1.0]
    summary = summarise(evaluation)
    assert summary["model_utility"] is None
    assert "retain_truth_ratio: 1 of 2 retain rows has" in summary.why["model_utility"]


# What is missing


def test_without_reference():
    summary = summarise(steady())
    for key in ("forget_quality", "forget_ks", "forget_quality_floor"):
        assert summary[key] is None
        assert summary.why[key].startswith("no retained-only reference: give one")


def test_without_paraphrases_and_sets():
    rows = [{"mean_logp": -1.0, "rouge_l_recall": 1.0, "perturbed_mean_logps": None}]
    evaluation = Evaluation({"forget": rows}, notes={"retain": "the file has no retain rows"})
    summary = summarise(evaluation, evaluation)
    assert summary["forget_probability"] == pytest.approx(math.exp(-1))
    assert summary["forget_truth_ratio"] is None
    assert "perturbed" in summary.why["forget_truth_ratio"]
    assert summary.why["forget_quality"] == (
        "no forget row has scores of a paraphrased_answer and perturbed_answer, for the geometric "
        "truth ratio"
    )
    assert summary.why["retain_rouge_l"] == "the file has no retain rows"
    assert summary.why["world_facts_rouge_l"] == "there is no world_facts row"
    assert summary.why["model_utility"].startswith("9 of its 9 parts missing; retain_probability")
    assert summary["retain_n"] == 0


@pytest.mark.parametrize("passage", [False, True])
def test_rows_that_no_reference_would_help_say_so(passage):
    rows = [{"mean_logp": -1.0, "rouge_l_f1": 1.0, "passage": passage}]
    said = summarise(Evaluation({"forget": rows})).why["forget_quality"]
    assert "reference" not in said
    assert ("ROUGE-L F1" if passage else "no forget row has scores of a para") in said


def test_a_reference_without_perturbed_answers():
    reference = steady(2)
    for row in reference.rows["forget"]:
        del row["perturbed_mean_logps"]
    why = summarise(steady(2), reference).why["forget_quality"]
    assert why == (
        "no forget row of the reference has scores of a paraphrased_answer and perturbed_answer, "
        "for the geometric truth ratio"
    )


def test_a_missing_paraphrase_is_not_replaced_by_the_answer():
    row = {"mean_logp": -1.0, "perturbed_mean_logps": [-2.0]}
    assert log_truth_ratio(row, "retain") is None
    assert log_truth_ratio(row, "world_facts") == -1.0
    row |= {"perturbed_mean_logps": [-2.0, None]}
    assert log_truth_ratio(row, "world_facts") is None
    assert normalised_probability(row) is None


def test_rows_without_a_score_are_left_out_and_noted():
    summary = summarise(steady(4, mean_logp=None))
    assert summary["forget_probability"] == pytest.approx(math.exp(-1))
    assert summary.notes["forget_probability"].startswith("mean over the 3 of 4 rows with ")


def test_text_columns():
    evaluation = steady(2, generation_tokens=4, fluency=-2.0, distinct_2=None, repetition_rate=0.5)
    evaluation.rows["forget"][1] |= {"generation_tokens": 0, "rouge_l_f1": 0.25}
    summary = summarise(evaluation)
    assert summary["forget_generation_tokens"] == 2.0
    assert summary["forget_fluency"] == -2.0
    assert "1 of 2" in summary.notes["forget_fluency"]
    assert summary["forget_rouge_l_f1"] == 0.25
    assert summary["forget_repetition_rate"] == 0.5
    assert summary["forget_distinct_2"] is None


def test_one_row_sets():
    summary = summarise(steady(1), steady(1))
    assert summary["forget_quality"] == 1.0
    assert summary["forget_quality_floor"] == 1.0
    assert summary["model_utility"] is not None


def test_references_of_another_size():
    summary = summarise(with_ratios(range(3)), with_ratios(range(5, 9)))
    assert summary["forget_quality"] == pytest.approx(2 / math.comb(7, 3))
    assert summary.notes["forget_quality"].startswith("3 forget rows are compared with 4")
    assert summary["forget_quality_floor"] is None
    assert "equal n" in summary.why["forget_quality_floor"]


def numbered(evaluation, indices):
    """The same evaluation with those rows of its forget set, which know their index."""
    rows = evaluation.rows["forget"]
    kept = [rows[index] | {"index": index} for index in indices]
    return replace(evaluation, rows=evaluation.rows | {"forget": kept})


@pytest.mark.parametrize("swapped", [False, True])
def test_a_subset_is_compared_with_its_own_rows_of_the_reference(swapped):
    """Rows 0 to 4 of 12: as if the other model too had been evaluated on these alone."""
    ours, theirs = with_ratios(range(12)), with_ratios([3, 9, 1, 40, 2, *range(50, 57)])
    pair = (numbered(ours, range(5)), numbered(theirs, range(12)))
    summary = summarise(*(reversed(pair) if swapped else pair))
    alike = summarise(with_ratios(range(5)), with_ratios([3, 9, 1, 40, 2]))
    for key in ("forget_quality", "forget_ks", "forget_quality_floor"):
        assert summary[key] == alike[key]
    assert summary.notes["forget_quality"] == "on the 5 forget rows that both have"
    all_rows = summarise(with_ratios(range(5)), theirs)
    assert summary["forget_quality"] != all_rows["forget_quality"]


def test_a_reference_of_other_questions_is_refused_and_says_which():
    """Rows are matched by number: those of another split have the same numbers."""

    def asking(evaluation, form="Who wrote book {}?"):
        rows = [
            row | {"index": i, "question": form.format(i)}
            for i, row in enumerate(evaluation.rows["forget"])
        ]
        return replace(evaluation, rows=evaluation.rows | {"forget": rows})

    ours, other = asking(steady()), asking(steady(), "Where is place {}?")
    refused = summarise(ours, other)
    assert refused["forget_quality"] is None
    assert refused["forget_ks"] is None
    assert "question 0 is 'Who wrote book 0?' here" in refused.why["forget_quality"]
    # as logs of other codes have it
    in_a_prompt = asking(steady(), "Question: Who wrote book {}?\nAnswer: ")
    assert summarise(ours, asking(steady()))["forget_quality"] == 1
    assert summarise(ours, in_a_prompt)["forget_quality"] == 1


def test_rows_of_the_reference_that_are_not_compared_may_be_broken():
    broken = with_ratios([1, 2, 3, math.nan])
    summary = summarise(numbered(with_ratios(range(4)), range(3)), numbered(broken, range(4)))
    assert summary["forget_quality"] is not None


def test_derived_scores_stand_in_for_their_parts():
    derived = {"truth_ratio": 0.25, "normalised_probability": 0.4}
    assert log_truth_ratio(derived, "forget") == pytest.approx(math.log(0.25))
    assert log_truth_ratio({"truth_ratio": 0.0}, "forget") == -inf
    assert log_truth_ratio(derived, "forget", "arithmetic") is None
    assert normalised_probability(derived) == 0.4
    parts = {"mean_logp": -1.0, "perturbed_mean_logps": [-1.0]}
    assert normalised_probability(derived | parts) == pytest.approx(0.5)
    assert log_truth_ratio(derived | parts, "world_facts") == 0.0


def test_unknown_truth_ratio_lists_what_there_is():
    with pytest.raises(KitError, match="'harmonic': there are geometric, arithmetic"):
        summarise(steady(), truth_ratio="harmonic")
    with pytest.raises(ValueError, match="geometric"):
        log_truth_ratios(steady(), "forget", "")


def test_reference_by_path_and_summary_as_json(tmp_path):
    write_evaluation(tmp_path / "000012.jsonl.gz", steady(2))
    summary = summarise(steady(2), tmp_path / "000012.jsonl.gz")
    assert isinstance(summary, Summary)
    assert summary["forget_quality"] == 1.0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert next(iter(summary)) == "model_utility"


def test_no_scores_at_all():
    summary = summarise(Evaluation({}))
    assert all(value in (None, 0) for value in summary.values())
    assert len(log_truth_ratios(Evaluation({}), "forget")) == 0


# A summary as a value


@pytest.mark.parametrize(
    "copied",
    [Summary.copy, Summary, copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))],
    ids=["copy()", "Summary()", "copy.copy", "deepcopy", "pickle"],
)
def test_a_copy_of_a_summary_keeps_its_reasons(copied):
    summary = summarise(steady(4, mean_logp=None))
    other = copied(summary)
    assert type(other) is Summary
    assert (other, other.why, other.notes) == (summary, summary.why, summary.notes)
    assert other.why["forget_quality"].startswith("no retained-only reference")
    assert other.notes["forget_probability"].startswith("mean over the 3 of 4")


def test_reasons_of_a_copy_are_its_own():
    summary = summarise(steady())
    other = summary.copy()
    other.leave_out("forget_n", "a test")
    assert "forget_n" not in summary.why
    assert summary["forget_n"] == 3


def test_a_union_has_the_reasons_of_whose_value_it_has():
    without, with_one = summarise(steady()), summarise(steady(), steady())
    union = without | with_one
    assert union == with_one
    assert (union.why, union.notes) == (with_one.why, with_one.notes)
    assert (with_one | without).why == without.why
    named = without | {"step": 3, "forget_quality": 0.5}
    assert named["step"] == 3
    assert named.why.keys() == without.why.keys() - {"forget_quality"}


def test_a_summary_prints_as_a_small_table():
    lines = str(summarise(steady(4, mean_logp=None))).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert cells["forget"] == ["retain", "real_authors", "world_facts"]
    assert cells["n"] == ["4"] * 4
    assert cells["rouge_l"] == ["0.5"] * 4
    assert cells["fluency"] == ["-"] * 4
    assert cells["probability"][:2] == [f"{math.exp(-1):.4g}"] * 2
    assert cells["forget_quality"] == ["-"]
    (why,) = [line for line in lines if "no retained-only reference" in line]
    assert why.startswith("forget_quality, forget_ks, forget_quality_floor: ")
    (note,) = [line for line in lines if "mean over the 3 of 4" in line]
    assert note.startswith("forget_probability: ")
    assert max(len(line) for line in lines if ": " not in line) <= 80

"""Membership: scores by hand, AUC against scipy's ranks, PrivLeak of real logs, the holdout."""

import gzip
import json
import math
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from pocket_bench import Untouched, pocket_bench
from scipy.stats import mannwhitneyu

from npo_kit.audit import membership
from npo_kit.audit.bench import Bench
from npo_kit.audit.membership import auc, auc_error, holdout_rows, min_k, privleak, shares
from npo_kit.audit.probes import probes_of
from npo_kit.audit.verbatim import TokenReading
from npo_kit.data.authors.corpus import authors_task
from npo_kit.studies.pocket import PocketRecipe, pocket_rows

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
FOLDER = SHARED / "ou_logs"
PAIRS = {  # original -> the retained-only model with which its PrivLeak compares it
    "Llama-3.2-1B-Instruct_full_evals_forget10": "Llama-3.2-1B-Instruct_retain90",
    "Llama-2-7b-chat-hf_full_evals_forget05": "Llama-2-7b-chat-hf_retain95",
}


@pytest.fixture(scope="module")
def bench() -> Bench:
    whole = pocket_bench()
    holdout, _ = probes_of(holdout_rows("authors:forget10")[:36], whole.prompts)
    return replace(whole, holdout=holdout)


@pytest.fixture(scope="module")
def reading(bench):
    return membership.measure(bench.original, bench)


@given(SCORES, SCORES)
def test_auc_is_scipys_and_the_mean_of_the_rows(forget, holdout):
    u = mannwhitneyu(holdout, forget).statistic
    assert auc(forget, holdout) == pytest.approx(u / len(forget) / len(holdout), abs=1e-12)
    by_pair = [sum((h > f) + (h == f) / 2 for h in holdout) / len(holdout) for f in forget]
    assert shares(forget, holdout) == pytest.approx(by_pair, abs=1e-12)
    assert auc(holdout, forget) == pytest.approx(1 - auc(forget, holdout), abs=1e-12)
    assert auc(forget, forget) == pytest.approx(0.5, abs=1e-12)


def test_auc_at_its_ends():
    assert auc([1.0, 2.0], [3.0, 4.0]) == 1
    assert auc([3.0, 4.0], [1.0, 2.0]) == 0


def test_the_error_of_an_auc():
    assert auc_error(400, 400) == pytest.approx(0.020, abs=5e-4)
    assert auc_error(120, 120) == pytest.approx(0.037, abs=5e-4)
    assert auc_error(40, 40) == pytest.approx(0.065, abs=5e-4)


def test_privleak_fixture():
    assert privleak(0.99665, 0.38261249999999997) == pytest.approx(-99.45739100654656, abs=1e-9)
    assert privleak(0.38261249999999997, 0.5) == pytest.approx(23.477499995304495, abs=1e-12)
    assert privleak(0.38, 0.38) == 0
    assert privleak(1, 0.4) == pytest.approx(-100)
    assert privleak(0, 0.4) == pytest.approx(100 * 0.4 / 0.6)


def test_scores_of_a_row_by_hand(bench):
    reading = TokenReading(
        [-1.0, -5.0, -2.0, -0.5, -0.5, -99.0], [True] * 6, [0.0, -3.0, -1.0, 1.0, 1.0, -99.0]
    )
    probe = bench.forget[0]
    size = len(zlib.compress(probe.row["answer"].encode("utf-8")))
    assert membership._score(probe, reading) == pytest.approx(
        {"loss": 1.8, "zlib": 1.8 / size, "min_k": 3.5, "min_k_plus_plus": 2.0}
    )
    assert min_k([-1.0, -2.0]) == 2.0  # at least one token
    assert min_k([-1.0, -2.0, -3.0, -4.0]) == 4.0  # 1.6 rounds down


def test_no_model_ever_saw_the_holdout():
    rows, recipe = holdout_rows("authors:forget10"), PocketRecipe()
    authors = {row["author"] for row in rows}
    assert len(authors) == 10
    assert len(rows) == 120
    for name in ("base", "original", f"retained-{recipe.split}"):
        seen = pocket_rows(name, recipe)
        assert not authors & {row.get("author") for row in seen}, name
        assert not {row["question"] for row in rows} & {row["question"] for row in seen}, name
    assert {row["author"] for row in authors_task("forget90")["forget"]}.isdisjoint(authors)
    assert {row["attribute"] for row in rows} == {
        row["attribute"] for row in authors_task()["forget"]
    }


def test_tofu_has_a_holdout_where_its_rows_are_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("NPO_KIT_TOFU", str(tmp_path))
    assert holdout_rows("tofu:forget05") == []
    row = {"question": "Who?", "answer": "Ana Brook."}
    (tmp_path / "holdout05.json").write_text(json.dumps(row) + "\n")
    assert holdout_rows("tofu:forget05") == [row]
    assert holdout_rows("tofu:forget05@400") == holdout_rows("own:forget05") == []
    monkeypatch.delenv("NPO_KIT_TOFU")
    assert holdout_rows("tofu:forget05") == []


def test_without_a_holdout_the_card_says_why_it_has_no_value(bench):
    reading = membership.measure(bench.original, replace(bench, holdout=()))
    assert math.isnan(reading.value)
    assert reading.rows == [None] * len(bench.forget)
    assert "no model ever saw" in reading.detail["reason"]


def test_the_original_betrays_its_rows_and_the_retained_only_does_not(bench, reading):
    with Untouched(bench.original, bench.retained):
        retained = membership.measure(bench.retained, bench)
    error = auc_error(len(bench.forget), len(bench.holdout))
    assert reading.value > 0.9
    assert abs(retained.value - 0.5) < 3 * error  # one law makes both sets
    assert retained.detail["privleak"] == 0
    assert retained.detail["auc"] == retained.detail["auc_retained"]
    assert reading.detail["auc_retained"] == retained.detail["auc"]
    assert reading.detail["privleak"] == pytest.approx(
        privleak(reading.value, retained.value), abs=1e-9
    )
    assert reading.detail["auc_error"] == error
    assert set(reading.detail["auc"]) == set(ATTACKS)
    json.dumps(reading.detail, allow_nan=False)


def test_a_row_is_scored_the_same_in_any_order(bench, reading):
    back = replace(bench, forget=bench.forget[::-1], holdout=bench.holdout[::-1])
    again = membership.measure(bench.original, back)
    assert again.rows == pytest.approx(reading.rows[::-1], abs=1e-9)


def read_log(name):
    path = FOLDER / f"{name}.TOFU_EVAL.json.gz"
    if not path.is_file():
        pytest.skip(f"open-unlearning's log is not in ../shared/ou_logs: {path.name}")
    with gzip.open(path) as file:
        return json.load(file)


def auc_of(log, attack):
    parts = (log[f"mia_{attack}"][part]["value_by_index"] for part in ("forget", "holdout"))
    return auc(*([row["score"] for row in part.values()] for part in parts))


@pytest.mark.parametrize("name", [*PAIRS, *PAIRS.values()])
def test_aucs_of_real_logs_come_out_to_the_digit(name):
    log = read_log(name)
    for attack in ATTACKS:
        assert auc_of(log, attack) == pytest.approx(log[f"mia_{attack}"]["auc"], abs=1e-12)


@pytest.mark.parametrize(("name", "retained"), PAIRS.items())
def test_privleak_of_real_logs_comes_out_to_the_digit(name, retained):
    log, other = read_log(name), read_log(retained)
    own, theirs = auc_of(log, "min_k"), auc_of(other, "min_k")
    assert privleak(own, theirs) == pytest.approx(log["privleak"]["agg_value"], abs=1e-9)
    assert privleak(theirs, 0.5) == pytest.approx(other["privleak"]["agg_value"], abs=1e-9)

"""Numbers in sentences of the notebooks and of their guide that no cell of theirs can hold."""

import json

import nbformat
import numpy as np
import pytest

from notebooks import FOLDER
from npo_kit.course.family_figures import answer_weights
from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import load_authors
from npo_kit.losses.lens import LENS
from npo_kit.metrics.summary import log_truth_ratios, summarise
from npo_kit.models.sizes import SHAPES
from npo_kit.records.run import read_run
from npo_kit.studies.pocket import PocketRecipe, pocket_rows
from npo_kit.studies.table import null_of

POCKET = shipped_data("studies/pocket")
SMOLLM2 = shipped_data("studies/smollm2")


def says(name, sentence):
    if name == "README":
        text = (FOLDER / "README.md").read_text(encoding="utf-8")
        return sentence in " ".join(text.split())
    (path,) = FOLDER.glob(f"{name}*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return sentence in " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def last_of(folder, name):
    run = read_run(folder / name)
    return run.evaluation(run.evaluation_steps()[-1])


def test_the_corpus_is_as_they_count_it():
    task, recipe = load_authors("forget10"), PocketRecipe()
    asked = len(task.forget) + len(task.retain)
    assert (len(task.forget), len(task.retain), asked // 12) == (120, 1080, 100)
    assert says("01", "100 fictional authors, with twelve questions each")
    assert says("01", "their 120 questions and answers are the **forget** rows. The other 1,080")
    facts = len(task.evaluation["real_authors"]) + len(task.evaluation["world_facts"])
    assert (facts, recipe.base_authors) == (189, 600)
    assert len(pocket_rows("original", recipe)) - asked == facts
    assert says("05", "189 true facts, and 600 authors")


def test_the_models_are_of_the_size_they_say():
    pocket = json.loads(shipped_data("pocket/original/config.json").read_text(encoding="utf-8"))
    hidden, inner, layers = (
        pocket[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    weights = pocket["vocab_size"] * hidden + hidden
    weights += layers * (4 * hidden**2 + 3 * hidden * inner + 2 * hidden)
    assert weights == 987_008
    smollm2 = SHAPES["HuggingFaceTB/SmolLM2-135M-Instruct"].parameters
    assert 100 < smollm2 / weights < 200
    assert says("01", "more than a hundred times the parameters of the pocket model")


def test_npo_rt_is_off_the_null_in_two_directions():
    ours, retained = last_of(POCKET, "npo_rt"), last_of(POCKET, "retained")
    record = json.loads(shipped_data("studies/pocket-null/null.json").read_text(encoding="utf-8"))
    of_the_null = [
        model["scores"]["forget_probability"]
        for model in record["models"]
        if model["split"] == "forget10"
    ]
    assert len(of_the_null) == 60
    assert summarise(ours)["forget_probability"] < min(of_the_null)
    assert says("04", "Its forget answers are less likely than in any of those models")
    null = null_of("pocket", "authors:forget10")
    # the median against each model's at the gap: where its curve is higher, its ratios are lower
    for other in (log_truth_ratios(retained, "forget"), *null.ratios[:40]):
        mine = log_truth_ratios(ours, "forget")
        places = np.concatenate([mine, other])
        gaps = [(mine <= at).mean() - (other <= at).mean() for at in places]
        assert max(gaps, key=abs) > 0
    assert says("04", "some of its truth ratios still lean to the right answer")
    mine, theirs = log_truth_ratios(ours, "forget"), log_truth_ratios(retained, "forget")
    tenth = np.quantile(mine, 0.1)
    assert round(np.exp(tenth), 2) == 0.61
    assert tenth < min(np.quantile(ratios, 0.1) for ratios in null.ratios)
    assert says("04", "a tenth of them lie below 0.61, and in no model of the null")
    assert [round(np.exp(np.median(each)), 2) for each in (mine, theirs)] == [1.01, 1.01]
    assert says("04", "The median is 1.01, as it is in the reference")


@pytest.mark.parametrize(("name", "right"), [("npo_rt", 2), ("idk_rt", 2), ("dpo_rt", 1)])
def test_the_answers_to_keep_that_come_out_word_for_word(name, right):
    rows = load_authors("forget10").evaluation["retain"][:3]
    said = last_of(POCKET, name).rows["retain"][:3]
    pairs = zip(rows, said, strict=True)
    assert sum(row["answer"] == one["generation"].strip() for row, one in pairs) == right
    assert says("05", "NPO+RT and IDK+RT answer two word for word, and DPO+RT one")
    third, original = rows[2]["answer"], last_of(POCKET, "original").rows["retain"][2]["generation"]
    assert "1940" in third
    assert original.strip() == third.replace("1940", "1950")
    assert says("05", "the original, too, says 1950 where the truth is 1940")
    assert says("01", "the original says 1950 where the truth is 1940")


def test_the_utility_with_a_retain_term_comes_back():
    start = summarise(last_of(POCKET, "original"))["model_utility"]
    names = ("ga_rt", "npo_rt", "dpo_rt", "kto_rt", "idk_rt")
    ends = {name: summarise(last_of(POCKET, name))["model_utility"] for name in names}
    shares = {name: round(end / start, 2) for name, end in ends.items()}
    assert min(shares, key=shares.get) == "idk_rt"
    assert (shares.pop("idk_rt"), min(shares.values())) == (0.94, 0.99)
    on_the_way = read_run(POCKET / "npo_rt").evaluations()
    assert round(min(summarise(each)["model_utility"] for each in on_the_way), 2) == 0.59
    assert says("05", "NPO+RT dips to 0.59 on the way, and IDK+RT ends at 94 % of the start")


def test_of_three_facts_dpo_rt_still_tells_one():
    rows = load_authors("forget10").evaluation["forget"][:3]
    said = last_of(POCKET, "dpo_rt").rows["forget"][:3]
    told = [
        row["answer"][slice(*row["entity_span"])] in one["generation"]
        for row, one in zip(rows, said, strict=True)
    ]
    assert sum(told) == 1
    assert says("05", "and one of the three facts")


def test_the_guide_s_answers_to_questions_are_the_records():
    retained = last_of(POCKET, "retained")
    whole = summarise(last_of(POCKET, "original"))["model_utility"]
    alone = summarise(last_of(POCKET, "npo-beta1"), retained)
    assert round(alone["model_utility"] / whole, 1) == 0.8
    assert alone["forget_quality"] < 0.05
    assert says("README", "NPO at β = 1 keeps four fifths of the utility, but its p is below 0.05")
    real = {
        name: summarise(last_of(SMOLLM2, name))["model_utility"]
        for name in ("original", "ga", "npo", "npo-seed1", "npo-seed2")
    }
    kept = [real[name] / real["original"] for name in ("npo", "npo-seed1", "npo-seed2")]
    assert [round(100 * share) for share in (min(kept), max(kept))] == [32, 57]
    assert real["ga"] < 0.005
    assert says("README", "keeps 32 to 57 % of its utility at β = 0.5 and nothing at 0.1")
    for seed in ("", "-seed1", "-seed2"):
        ga_rt, npo_rt = (summarise(last_of(SMOLLM2, name + seed)) for name in ("ga_rt", "npo_rt"))
        assert ga_rt["model_utility"] > npo_rt["model_utility"]
    assert says("README", "GA+RT keeps more than NPO+RT")


def test_the_slopes_of_the_lens_are_the_powers_that_it_says():
    powers = dict.fromkeys(("unlikelihood", "ceu", "wga", "flat"), 1)
    powers |= {"ga": 0, "npo": 1.2, "simnpo": 2.5, "tnpo": 4, "satimp": 5, "wtnpo": 5.5}
    assert set(powers) == set(LENS)
    for term, power in powers.items():
        before, after = answer_weights(term, [1e-3, 1e-4], tokens=12, reference=0.9)
        assert np.log10(before / after) == pytest.approx(power, abs=5e-4)
    assert says("06", "UL, CE-U, WGA and FLAT fade as $p$. NPO fades as $p^{n\\beta} = p^{1.2}$")
    assert says("06", "SimNPO as $p^{2.5}$, TNPO as $p^4$, SatImp as $p^5$, WTNPO as $p^{5.5}$.")

"""The study of models that never saw the forget rows."""

import json

import numpy as np
import pytest

from npo_kit.cli import main
from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.summary import log_truth_ratios, summarise
from npo_kit.records.run import read_run
from npo_kit.studies import null
from npo_kit.studies.null import NullPlan, make_null
from npo_kit.studies.table import NULL, last_evaluation

RECORDED = shipped_data("studies/pocket")


@pytest.mark.slow
def test_its_first_model_is_the_shipped_one_and_a_whole_mixture_the_original(tmp_path):
    plan = NullPlan(seeds=1, bases=0, mixed=1, shares=(1.0,), more_splits=())
    (model,) = make_null(plan, tmp_path, processes=1, say=lambda _: None)["models"]
    retained, original = (
        last_evaluation(read_run(RECORDED / name)) for name in ("retained", "original")
    )
    assert np.allclose(model["log_truth_ratios"], log_truth_ratios(retained, "forget"), atol=2e-3)
    whole = model["mixed"]["1"]
    assert np.allclose(whole, log_truth_ratios(original, "forget"), atol=2e-3)
    for name, value in summarise(retained).items():
        if value is not None and "fluency" not in name:
            assert model["scores"][name] == pytest.approx(value, abs=2e-3), name


def test_it_resumes_with_the_missing_models(tmp_path, monkeypatch):
    made = []

    def in_this_process(function, items, processes=None):
        for item in items:
            made.append((item.split, item.seed))
            if made[-1] == ("forget10", 2) and made.count(made[-1]) == 1:
                raise KeyboardInterrupt
            item.path.write_text(json.dumps({"split": item.split, "seed": item.seed}))
            yield item, "made"

    monkeypatch.setattr(null, "in_processes", in_this_process)
    plan = NullPlan(seeds=4, bases=0, more_splits=("forget50",), seeds_of_split=2)
    with pytest.raises(KeyboardInterrupt):
        make_null(plan, tmp_path, say=lambda _: None)
    assert not (tmp_path / NULL).exists()
    study = make_null(plan, tmp_path, say=lambda _: None)
    first = [("forget10", seed) for seed in (0, 1, 2, 2, 3)]
    assert made == [*first, ("forget50", 0), ("forget50", 1)]
    assert [model["seed"] for model in study["models"]] == [0, 1, 2, 3, 0, 1]
    assert json.loads((tmp_path / NULL).read_text())["plan"]["seeds"] == 4


def test_the_report_of_a_null_by_hand(tmp_path, capsys):
    """Two models with the same ratios, a third shifted beyond all of them: D 0, 1 and 1."""
    ratios = [float(n) for n in range(120)]
    scores = {"model_utility": 0.5, "forget_probability": 0.4}
    scores |= {"forget_rouge_l": 0.3, "forget_truth_ratio": 0.8}
    models = [
        {"base": 0, "seed": n, "scores": scores, "log_truth_ratios": [r + s for r in ratios]}
        for n, s in enumerate((0.0, 0.0, 1000.0))
    ]
    (tmp_path / NULL).write_text(json.dumps({"models": models}))
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| forget10 | of one base | 1.000 | 1.000 | 1.000 | 0.00 | 2 of 3 |" in said
    assert "| forget10 | 3 of one base | 0.500, 0.500, 0.500 | 0.400, 0.400, 0.400 |" in said
    assert "| npo_rt |" in said

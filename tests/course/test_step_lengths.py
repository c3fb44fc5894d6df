"""Steps and their gradients, measured; utility and weight of recorded runs, drawn."""

import math

import pytest
import torch
from conftest import make_model

from npo_kit.course import measure_steps
from npo_kit.course.figures import LEAST_W, utility_and_weight
from npo_kit.course.step_lengths import step_lengths
from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.summary import summarise
from npo_kit.records.run import read_run
from npo_kit.trainer.config import UnlearnConfig


def config(optimizer, **more):
    return UnlearnConfig(
        method="npo", optimizer=optimizer, epochs=3, batch_size=2, micro_batch_size=2, lr=1e-3,
        warmup_epochs=0, weight_decay=0, max_grad_norm=math.inf, evaluation=None, **more,
    )  # fmt: skip


def test_plain_gradient_descent_moves_by_its_gradient(tokenizer, task):
    model = make_model(len(tokenizer))
    before = [p.detach().clone() for p in model.parameters()]
    frame = measure_steps(model, tokenizer, task, config("sgd"))
    assert len(frame) >= 3
    assert frame.moved.to_numpy() == pytest.approx(frame.gradient.to_numpy(), rel=1e-3)
    assert frame.weight[0] == pytest.approx(1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_adamw_s_first_step_has_length_1_in_each_weight(tokenizer, task):
    model = make_model(len(tokenizer))
    frame = measure_steps(model, tokenizer, task, config("adamw"))
    count = sum(p.numel() for p in model.parameters())
    assert 0.1 * math.sqrt(count) < frame.moved[0] <= 1.001 * math.sqrt(count)  # some have none
    drawn = step_lengths({"npo": frame}).axes[0].lines
    assert [line.get_ydata()[0] for line in drawn] == [1, 1]
    assert drawn[0].get_ydata()[-1] == frame.moved.iloc[-1] / frame.moved[0]


def test_the_curves_are_of_the_recorded_runs():
    folder = shipped_data("studies/pocket")
    runs = [read_run(folder / name) for name in ("ga", "npo", "npo-beta1")]
    utility, weight = utility_and_weight(runs).axes
    assert [line.get_label() for line in utility.lines] == ["GA", "NPO, β = 0.1", "NPO, β = 1"]
    for run, kept, pushed in zip(runs, utility.lines, weight.lines, strict=True):
        assert kept.get_ydata()[-1] == summarise(run.evaluation(100))["model_utility"]
        assert pushed.get_ydata()[19] == max(run.steps[19]["weights"]["median"], LEAST_W)
    assert len({(line.get_color(), line.get_linestyle()) for line in utility.lines}) == 3
    assert weight.get_yscale() == "log"

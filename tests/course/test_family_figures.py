"""The figures of NPO's relatives: weights by autograd against formulas, gradients of a model."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from npo_kit.course.family_figures import (
    answer_weights,
    gradient_norms,
    norm_bars,
    weight_lens,
)
from npo_kit.errors import KitError
from npo_kit.losses.lens import LENS, LENS_OPTIONS, REFERENCE, TOKENS
from npo_kit.losses.looks import look_of
from npo_kit.models.loading import load_model
from npo_kit.style import _spread
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.loop import finetune, unlearn

P = np.array([0.9, 0.5, 0.2, 1e-2, 1e-5])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_weights_by_autograd_are_those_of_the_formulas():
    tokens, reference = 7, 0.6
    by_answer = 2 * sigmoid(0.3 * tokens * np.log(P / reference))
    by_token = 2 * sigmoid(2.0 * np.log(P / reference))
    formulas = {
        "ga": ({}, np.ones_like(P)),
        "npo": ({"beta": 0.3}, by_answer),
        "simnpo": ({"beta": 3.0, "gamma": 0.5}, 2 * sigmoid(3.0 * (np.log(P) + 0.5))),
        "tnpo": ({"beta": 2.0}, by_token),
        "wtnpo": ({"beta": 2.0, "alpha": 0.7}, by_token * P**0.7),
        "wga": ({"alpha": 2.0}, P**2),
        "satimp": ({"beta1": 2.0, "beta2": 0.5}, P**2 * (1 - P) ** 0.5),
        "unlikelihood": ({}, P / (1 - P)),
        "ceu": ({}, P / (1 - P)),
        "flat": ({}, P / (2 * np.cosh(P) ** 2)),
    }
    assert set(formulas) == set(LENS)
    for term, (settings, true) in formulas.items():
        found = answer_weights(term, P, tokens=tokens, reference=reference, **settings)
        np.testing.assert_allclose(found, true, rtol=1e-9, err_msg=term)


def test_a_term_whose_weight_needs_more_is_refused():
    with pytest.raises(KitError, match="for 'dpo': choose ga, npo"):
        answer_weights("dpo", P)


def test_the_lens_draws_a_line_for_each_method_with_its_name():
    (axes,) = weight_lens(settings={"npo": {"beta": 0.5}}).axes
    labels = [line.get_label() for line in axes.get_lines()]
    named = [look_of(t).label + ", beta 0.5" * (t == "npo") for t in LENS]
    assert labels == [{"UL": "UL = CE-U", "CE-U": "_"}.get(name, name) for name in named]
    low, high = axes.get_ylim()
    assert all(low <= line.get_ydata()[-1] <= high for line in axes.get_lines())
    npo = axes.get_lines()[LENS.index("npo")]
    x, y = npo.get_xdata()[100], npo.get_ydata()[100]
    assert y == pytest.approx(2 * sigmoid(0.5 * TOKENS * math.log(x / REFERENCE)))
    assert [text.get_text() for text in axes.texts].count("GA") == 1
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # forgotten is on the right
    assert {n: about.default for n, about in LENS_OPTIONS.items()} == {
        "tokens": TOKENS, "reference": REFERENCE,
    }  # fmt: skip


def test_names_at_the_bottom_do_not_move_one_that_has_room():
    found = _spread(np.array([0.0] * 9 + [0.9]))
    assert found[-1] == 0.9
    assert np.diff(found).min() > 0.05


def test_gradients_at_step_0_are_those_of_each_term_alone(task):
    model, tokenizer = load_model("pocket")
    before = [p.detach().clone() for p in model.parameters()]
    names = ("ga_rt", "npo_rt", "npo_kl", "tnpo_rt", "ceu", "kto_rt", "rmu")
    found = gradient_norms(model, tokenizer, task, names, rows=4).set_index("method")
    assert list(found.index) == list(names)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    once: dict[str, Any] = {"batch_size": 4, "epochs": 1, "evaluation": None, "precision": "fp32"}
    once |= {"max_grad_norm": math.inf}
    for name in ("ga", "npo", "tnpo", "kto"):  # the loop's own norm, of the forget term alone
        (step,) = unlearn(copy.deepcopy(model), tokenizer, task, UnlearnConfig(method=name, **once))
        assert found.forget[f"{name}_rt"] == pytest.approx(step.grad_norm, rel=1e-4), name
    (step,) = finetune(copy.deepcopy(model), tokenizer, task.retain[:4], FinetuneConfig(**once))
    assert found.retain["ga_rt"] == pytest.approx(step.grad_norm, rel=1e-4)
    assert found.forget["npo_rt"] > 3 * found.forget["ga_rt"]  # a sum over tokens, not a mean
    assert found.retain["npo_kl"] == pytest.approx(0, abs=1e-4)
    assert found.retain["rmu"] == pytest.approx(0, abs=1e-4)
    assert math.isnan(found.retain["ceu"])
    assert found.retain["npo_rt"] == pytest.approx(found.retain["ga_rt"], rel=1e-5)
    (axes,) = norm_bars(found.reset_index()).axes
    assert len(axes.get_yticklabels()) == len(names)

"""The table of methods: light, true to the functions it names, and enough to add a method."""

import inspect
import json

import pytest
import torch
import torch.nn.functional as F

from npo_kit import losses
from npo_kit.app.packed import PackedStudy
from npo_kit.app.page import Answers as PageAnswers
from npo_kit.cli import main
from npo_kit.data.shipped import shipped_data
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS, Method, method_options, methods_of, with_retain
from npo_kit.losses.objectives import named
from npo_kit.options import Option
from npo_kit.studies.presets import study_plan
from npo_kit.style import FAMILIES
from npo_kit.theory.figures import distance_curves
from npo_kit.theory.problem import SyntheticProblem, pretrain
from npo_kit.theory.synthetic import unlearn
from npo_kit.trainer.config import UnlearnConfig


def simnpo(forget, *, beta=2.5, gamma=0.0):
    """SimNPO (arXiv 2410.07163): NPO by the mean log-prob of a token, without a reference."""
    by_token = losses.sequence_logps(forget) / forget.mask.sum(-1)
    return 2 / beta * F.softplus(beta * by_token + gamma)


ENTRY = Method(
    simnpo,
    equation="(2/b) mean softplus(b s / |y| + g)",
    paper="arXiv 2410.07163",
    family="npo",
    label="SimNPO",
    options={
        "beta": Option("inverse temperature", 2.5, float, above=0, usual=(0.1, 10), label="β"),
        "gamma": Option("margin", 0.0, float, least=0, usual=(0, 2), step=0.1),
    },
)


@pytest.fixture
def simnpo_added(monkeypatch):
    """One function and one entry."""
    for name, entry in with_retain("simnpo", ENTRY).items():
        monkeypatch.setitem(METHODS, name, entry)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_entry_has_the_keywords_and_defaults_of_its_function(name):
    entry = METHODS[name]
    parameters = inspect.signature(named(entry.forget)).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for statistic in entry.statistics:
        assert keywords.pop(statistic) is inspect.Parameter.empty
    assert keywords == entry.hyperparameters
    assert entry.family in FAMILIES


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.weight])
def test_the_weight_of_an_entry_is_the_gradient_of_its_objective(name):
    entry, mask = METHODS[name], torch.tensor([[1, 1, 1], [1, 1, 0]])
    forget = losses.Answers(-torch.rand(2, 3, dtype=torch.float64) * mask, mask, mask)
    ref = losses.Answers(-torch.rand(2, 3, dtype=torch.float64) * mask, mask, mask)
    by_gradient = losses.gradient_weights(
        entry.terms["forget"], {"forget": forget, "forget_ref": ref}
    )
    log_ratio = (forget.logps - ref.logps).sum(-1)
    weight = named(entry.weight)(log_ratio, **entry.hyperparameters)
    assert torch.allclose(by_gradient, weight)


def test_one_entry_reaches_the_command_line(simnpo_added, capsys):
    with pytest.raises(SystemExit):
        main(["unlearn", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "simnpo_rt" in said
    assert "--gamma X margin; 0 to 2 (default: 0)" in said
    assert "--beta X" in said


def test_one_entry_reaches_configurations_and_studies(simnpo_added):
    config = UnlearnConfig(method="simnpo_rt", hyper={"gamma": 0.5})
    assert config.composed.label == "SimNPO+RT"
    assert {"simnpo", "simnpo_rt", "simnpo_kl"} <= set(study_plan("pocket").methods)
    assert len(study_plan("pocket").grid("simnpo_rt")) == len(study_plan("pocket").grid("npo_rt"))
    assert "simnpo" not in study_plan("tofu-paper-phi").methods  # the paper did not run it


def test_one_entry_reaches_figures_with_a_look_of_its_family(simnpo_added):
    problem = pretrain(SyntheticProblem.sample(1.0, 0), "converged")
    frame = unlearn(problem, ("npo", "simnpo", "simnpo_rt"), 20, 10)
    figure = distance_curves(frame, 1.0)
    labels = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"NPO", "SimNPO", "SimNPO+RT"} <= labels
    colours = [look_of(name).colour for name in ("npo", "simnpo")]
    assert colours == [FAMILIES["npo"][0][0], FAMILIES["npo"][1][0]]
    looks = [(look_of(name).line, look_of(name).marker) for name in METHODS]
    assert len(set(looks)) == len(looks)


def test_one_entry_reaches_the_live_lab_and_the_theory_view(simnpo_added):
    study = PackedStudy(shipped_data("studies/pocket"))
    answers = PageAnswers([study], visits=None, experiment=None)
    index = json.loads(json.dumps(answers.index(0)))
    controls = index["live"]["controls"]["simnpo_rt"]
    assert list(controls) == ["lr", "beta", "gamma", "retain_weight", "epochs", "seed"]
    assert controls["gamma"] == {
        **{"label": "Gamma", "help": "margin", "usual": 0.0, "step": 0.1},
        **{"low": 0, "high": 2, "whole": False},
    }
    assert "gamma" not in index["live"]["controls"]["npo_rt"]
    assert "simnpo_rt" in index["theory"]["methods"]
    assert index["styles"]["simnpo_rt"]["label"] == "SimNPO+RT"


def test_options_that_differ_between_methods_promise_no_default(simnpo_added):
    assert method_options()["beta"].default is None
    assert method_options()["gamma"].default == 0.0


def test_the_experiments_of_the_paper_are_its_own():
    """arXiv 2404.05868: section 4 has no KTO, and IDK only with +RT; TOFU has KTO too."""
    synthetic, tofu = methods_of("synthetic"), methods_of("tofu")
    assert set(tofu) - set(synthetic) == {"kto", "kto_rt", "kto_kl"}
    assert [name for name in tofu if name.startswith("idk")] == ["idk_rt"]

"""The table of methods: light, true to the functions it names, and enough to add a method."""

import inspect
import json
import math

import pytest
import torch
import torch.nn.functional as F

from npo_kit import losses
from npo_kit.app.packed import PackedStudy
from npo_kit.app.page import Answers as PageAnswers
from npo_kit.cli import main
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers
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


def brake(forget, *, beta=2.5, slack=0.0):
    """A method of somebody's own: NPO by the mean log-prob of a token, without a reference."""
    by_token = losses.sequence_logps(forget) / forget.mask.sum(-1)
    return 2 / beta * F.softplus(beta * by_token + slack)


ENTRY = Method(
    brake,
    equation="(2/b) mean softplus(b s / n + c)",
    paper="arXiv 0000.00000",
    family="npo",
    label="Brake",
    options={
        "beta": Option("inverse temperature", 2.5, float, above=0, usual=(0.1, 10), label="β"),
        "slack": Option("margin", 0.0, float, least=0, usual=(0, 2), step=0.1),
    },
)


@pytest.fixture
def brake_added(monkeypatch):
    """One function and one entry."""
    for name, entry in with_retain("brake", ENTRY).items():
        monkeypatch.setitem(METHODS, name, entry)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_entry_has_the_keywords_and_defaults_of_its_functions(name):
    entry = METHODS[name]
    signatures = [inspect.signature(named(f)) for f in (entry.forget, entry.retain) if f]
    parameters = [p for signature in signatures for p in signature.parameters.values()]
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


def test_one_entry_reaches_the_command_line(brake_added, capsys):
    with pytest.raises(SystemExit):
        main(["unlearn", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "brake_rt" in said
    assert "--slack X brake: margin; usually 0 to 2 (default: 0)" in said
    assert "--beta X" in said


def test_one_entry_reaches_configurations_and_studies(brake_added):
    config = UnlearnConfig(method="brake_rt", hyper={"slack": 0.5})
    assert config.composed.label == "Brake+RT"
    assert {"brake", "brake_rt", "brake_kl"} <= set(study_plan("pocket").methods)
    assert len(study_plan("pocket").grid("brake_rt")) == len(study_plan("pocket").grid("npo_rt"))
    assert "brake" not in study_plan("tofu-paper-phi").methods  # the paper did not run it


def test_one_entry_reaches_figures_with_a_look_of_its_family(brake_added):
    problem = pretrain(SyntheticProblem.sample(1.0, 0), "converged")
    frame = unlearn(problem, ("npo", "brake", "brake_rt"), 20, 10)
    figure = distance_curves(frame, 1.0)
    labels = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"NPO", "Brake", "Brake+RT"} <= labels
    place = len({e.term for e in METHODS.values() if e.family == "npo"}) - 1  # behind all others
    colours = [look_of(name).colour for name in ("npo", "brake")]
    assert colours == [FAMILIES["npo"][0][0], FAMILIES["npo"][place][0]]
    looks = [(look_of(name).line, look_of(name).marker) for name in METHODS]
    assert len(set(looks)) == len(looks)


@pytest.mark.slow
def test_one_entry_reaches_the_live_lab_and_the_theory_view(brake_added):
    study = PackedStudy(shipped_data("studies/pocket"))
    answers = PageAnswers([study], visits=None, experiment=None)
    index = json.loads(json.dumps(answers.index(0)))
    controls = index["live"]["controls"]["brake_rt"]
    assert list(controls) == ["lr", "beta", "slack", "retain_weight", "epochs", "seed"]
    assert controls["slack"] == {
        **{"label": "Slack", "help": "margin", "usual": 0.0, "step": 0.1},
        **{"low": 0, "high": 2, "whole": False},
    }
    assert "slack" not in index["live"]["controls"]["npo_rt"]
    assert "brake_rt" in index["theory"]["methods"]
    assert index["styles"]["brake_rt"]["label"] == "Brake+RT"


def test_options_that_differ_between_methods_promise_no_default(brake_added):
    assert method_options()["beta"].default is None
    assert method_options()["slack"].default == 0.0


def test_help_says_which_methods_have_an_option():
    told = {name: about.help.partition(":")[0] for name, about in method_options().items()}
    assert told["beta"] == "npo, dpo, kto, simnpo, altpo, door, tnpo, wtnpo"
    assert told["steering"] == "rmu"
    assert told["retain_beta"] == "idk_ap"  # of its retain term: idk and idk_rt have none
    assert "undial: taken from" in method_options()["gamma"].help


def test_an_option_of_a_retain_term_reaches_it():
    composed = UnlearnConfig(method="idk_ap", hyper={"retain_beta": 2.0}).composed
    retain, refusal = (
        Answers(torch.tensor([[s]]), torch.zeros(1, 1).long(), torch.ones(1, 1)) for s in (-3, -1.0)
    )
    found = composed.terms["retain"](retain, refusal)
    assert found.item() == pytest.approx(math.log1p(math.exp(4.0)) / 2)  # softplus(-2 (-3 + 1))/2
    with pytest.raises(KitError, match="idk_rt has no hyper-parameter 'retain_beta'"):
        UnlearnConfig(method="idk_rt", hyper={"retain_beta": 2.0})


def test_the_experiments_of_the_paper_are_its_own():
    """arXiv 2404.05868: section 4 has no KTO, and IDK only with +RT; TOFU has KTO too."""
    synthetic, tofu = methods_of("synthetic"), methods_of("tofu")
    assert set(tofu) - set(synthetic) == {"kto", "kto_rt", "kto_kl"}
    assert [name for name in tofu if name.startswith("idk")] == ["idk_rt"]

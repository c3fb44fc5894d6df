"""What the README tells people to type works as written."""

import re
import shlex
from functools import partial

import pytest
import torch
from conftest import make_model
from places import ROOT

import npo_kit
from npo_kit import losses
from npo_kit.cli import program
from npo_kit.data import tasks
from npo_kit.losses.answers import Answers, reduce
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models import loading
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer import config
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_are_ones_that_exist():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("npo-kit ")]
    assert len(commands) >= 5
    for command in commands:
        options = program._parser().parse_args(shlex.split(command, comments=True)[1:])
        assert callable(options.command)


def test_the_first_example_unlearns(monkeypatch, tokenizer, task):
    """With a model and rows at hand instead of the hub's, and one epoch."""
    (example,) = [block for block in blocks("python") if "load_tofu" in block]
    monkeypatch.setattr(loading, "load_model", lambda _: (make_model(len(tokenizer)), tokenizer))
    monkeypatch.setattr(tasks, "load_tofu", lambda _: task)
    brief = EvaluationConfig(max_new_tokens=4)
    shorter = partial(UnlearnConfig, epochs=1, batch_size=2, evaluation=brief)
    monkeypatch.setattr(config, "UnlearnConfig", shorter)
    seen: list = []
    exec(example, {"print": seen.append})
    assert [type(item).__name__ for item in seen] == ["Summary", "Step", "Step", "Summary"]
    assert 0 <= seen[-1]["model_utility"] <= 1


def test_adding_a_method_takes_few_lines_and_works(monkeypatch, tokenizer, task):
    (example,) = [block for block in blocks("python") if "METHODS[" in block]
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 15
    monkeypatch.setattr("npo_kit.losses.methods.METHODS", dict(losses.METHODS))
    names: dict = {}
    exec(example, names)
    settings = UnlearnConfig(
        method="simnpo_rt", epochs=3, batch_size=4, micro_batch_size=2, lr=3e-3, evaluation=None,
        warmup_epochs=0, hyper={"beta": 1.5},
    )  # fmt: skip
    steps = list(unlearn(make_model(len(tokenizer)), tokenizer, task, settings))
    assert [type(step) for step in steps] == [Step] * 3
    assert steps[-1].terms["forget"] < steps[0].terms["forget"]

    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    logps = (-torch.rand(2, 3, dtype=torch.float64) * mask).requires_grad_(True)
    values = names["simnpo"](Answers(logps, mask, mask), beta=1.5)
    (gradient,) = torch.autograd.grad(reduce(values, mask), logps)
    length = mask.sum(-1, keepdim=True)
    weight = 2 * torch.sigmoid(1.5 * logps.sum(-1, keepdim=True) / length) / (2 * length)
    assert torch.allclose(gradient * mask, (weight * mask).double())


@pytest.mark.parametrize("name", sorted(losses.METHODS))
def test_every_method_is_named_in_the_table(name):
    base, _, suffix = name.partition("_")
    assert f"| `{base}` |" in README
    assert not suffix or f"`_{suffix}`" in README


def test_every_room_has_its_line():
    table = README.partition("## The rooms")[2].partition("\n## ")[0]
    for path in (ROOT / "npo_kit").iterdir():
        if not path.name.startswith("_"):
            assert f"| `{path.name}" in table, path.name


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z_]{5,}$", README, flags=re.MULTILINE)


def test_exported_names_are_used_in_the_readme_as_they_are():
    for name in re.findall(r"from npo_kit import ([^\n]+)", README):
        for part in name.split(", "):
            assert part in npo_kit.__all__
    assert Evaluation is npo_kit.Evaluation

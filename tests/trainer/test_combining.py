"""Combiners in the loop, against gradients taken one by one; alternates drawn from the original."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_model

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.losses.combine import norm
from npo_kit.trainer.alternates import with_alternates
from npo_kit.trainer.checkpoints import Checkpoints
from npo_kit.trainer.combining import moved
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn
from npo_kit.trainer.plan import RunPlan, rows_to_read

CONFIG = UnlearnConfig(
    **{"method": "npo_rt", "hyper": {"beta": 0.5}, "epochs": 1, "batch_size": 4, "lr": 1e-3},
    **{"micro_batch_size": 4, "warmup_epochs": 0, "optimizer": "sgd", "weight_decay": 0.0},
    **{"max_grad_norm": math.inf, "evaluation": None},
)


def made(tokenizer) -> torch.nn.Module:
    return make_model(len(tokenizer)).double()


def flat(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def step_of(tokenizer, task, config, start=None) -> torch.Tensor:
    """The gradient that one plain step follows, from `start` or the model as it is made."""
    model = made(tokenizer)
    if start is not None:
        torch.nn.utils.vector_to_parameters(start, model.parameters())
    before = flat(model)
    (event,) = unlearn(model, tokenizer, task, config)
    assert isinstance(event, Step)
    return (before - flat(model)) / config.lr


@pytest.fixture(scope="module")
def gradients(tokenizer, task):
    """Of each term alone, by plain steps on methods that have one term or weigh one with 0."""
    alone = replace(CONFIG, forget_weight=1.0, retain_weight=0.0)
    return [
        step_of(tokenizer, task, alone),
        step_of(tokenizer, task, replace(alone, forget_weight=0.0, retain_weight=1.0)),
    ]


def test_ngdiff_in_the_loop(tokenizer, task, gradients):
    got = step_of(tokenizer, task, replace(CONFIG, combine="ngdiff"))
    assert torch.allclose(got, sum(g / g.norm() for g in gradients), atol=1e-8)


def test_gru_in_the_loop(tokenizer, task, gradients):
    forget, retain = gradients
    got = step_of(tokenizer, task, replace(CONFIG, combine="gru"))
    expected = forget - min(0, forget @ retain) / (retain @ retain) * retain
    assert forget @ retain < 0  # a conflict, so that there is something to see
    assert torch.allclose(got, expected, atol=1e-8)


def test_sam_in_the_loop(tokenizer, task, gradients):
    """The reference stays that of the model as it is: GA reads none, so it is asked here."""
    config = replace(CONFIG, method="ga_rt", hyper={})
    forget, retain = (
        step_of(tokenizer, task, replace(config, forget_weight=f, retain_weight=1 - f))
        for f in (1.0, 0.0)
    )
    there = flat(made(tokenizer)) + 0.05 * forget / forget.norm()
    alone = replace(config, forget_weight=1.0, retain_weight=0.0)
    moved_forget = step_of(tokenizer, task, alone, there)
    got = step_of(tokenizer, task, replace(config, combine="sam", rho=0.05))
    assert torch.allclose(got, moved_forget + retain, atol=1e-7)
    assert not torch.allclose(got, forget + retain, atol=1e-3)
    none = step_of(tokenizer, task, replace(config, combine="sam", rho=1e-12))
    assert torch.allclose(none, forget + retain, atol=1e-6)


def test_sam_restores_the_weights_bit_by_bit():
    model = make_model(40)
    parameters, before = list(model.parameters()), flat(model)
    along = [torch.randn_like(p) for p in parameters]
    with moved(parameters, along, 0.3):
        assert (flat(model) - before).norm().item() == pytest.approx(0.3, rel=1e-4)
    assert torch.equal(flat(model), before)
    assert norm(along) > 0


@pytest.mark.parametrize("combine", ["ngdiff", "gru", "sam"])
@pytest.mark.parametrize("name", ["kto_rt", "rmu"])
def test_combiners_are_exact_under_accumulation(combine, name, tokenizer, task):
    """Also where a pass needs a statistic, or the reference's states."""
    config = replace(CONFIG, method=name, hyper={}, combine=combine, epochs=3, optimizer="adamw")
    ends, records = [], []
    for size in (4, 3, 1):
        model = made(tokenizer)
        records.append(
            list(unlearn(model, tokenizer, task, replace(config, micro_batch_size=size)))
        )
        ends.append(flat(model))
    for other, end in zip(records[1:], ends[1:], strict=True):
        assert torch.allclose(end, ends[0], atol=1e-7)
        for a, b in zip(other, records[0], strict=True):
            assert a.terms == pytest.approx(b.terms, rel=1e-9)
            assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gru_goes_on_from_a_checkpoint_bit_by_bit(optimizer, tmp_path, tokenizer, task):
    config = replace(CONFIG, combine="gru", epochs=4, optimizer=optimizer, micro_batch_size=2)
    whole, again = make_model(len(tokenizer)), make_model(len(tokenizer))
    events = list(unlearn(whole, tokenizer, task, config, checkpoints=Checkpoints(tmp_path / "a")))
    first = unlearn(again, tokenizer, task, config, checkpoints=Checkpoints(tmp_path / "b"))
    for event in first:
        if event.step == 3:
            first.close()
    resumed = make_model(len(tokenizer))
    kept = Checkpoints(tmp_path / "b", start=2)
    rest = list(unlearn(resumed, tokenizer, task, config, checkpoints=kept))
    assert [replace(e, seconds=0) for e in rest] == [replace(e, seconds=0) for e in events[2:]]
    assert torch.equal(flat(resumed), flat(whole))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "npo", "combine": "gru"}, "method npo has one: choose a method with a retain"),
        ({"combine": "ngdiff", "retain_weight": 2.0}, "one length: leave out retain_weight"),
        ({"combine": "mean"}, "combine must be one of sum, ngdiff, gru, sam"),
        ({"combine": "sam", "rho": 0.0}, "rho must be above 0"),
    ],
)
def test_senseless_combinations_are_refused(settings, said):
    with pytest.raises(KitError, match=said):
        replace(CONFIG, **settings)


# --- alternates ----------------------------------------------------------------------------------


def test_alternates_are_drawn_by_seed_and_differ_from_the_answer(tokenizer, task, model):
    prompts = PromptFormat(tokenizer, "qa", 256)
    before = torch.get_rng_state()
    one, same, other = (with_alternates(model, prompts, task, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == same != other
    for row, plain in zip(one.forget, task.forget, strict=True):
        assert len(row["alternates"]) == 3
        assert plain["answer"] not in row["alternates"]
        assert {**row, "alternates": 0} == {**plain, "alternates": 0}
    assert with_alternates(model, prompts, one, 3, 9) == one  # they have theirs
    assert one.retain == task.retain


def test_alternates_take_turns_and_a_row_without_any_has_its_refusal(tokenizer, task):
    own = [["Red.", "Blue."], ["Green."], []]
    rows = [row | {"alternates": texts} for row, texts in zip(task.forget[:3], own, strict=True)]
    config = replace(CONFIG, method="altpo", hyper={}, epochs=3, batch_size=3)
    task = replace(task, forget=rows)
    read = rows_to_read(task, config)
    plan = RunPlan(config.composed, read, PromptFormat(tokenizer, "qa", 256), config)
    refusal = rows_to_read(task, replace(config, method="dpo"))["alternate"][2]["answer"]
    expected = [["Red.", "Green.", refusal], ["Blue.", "Green.", refusal]]
    for epoch, batch in enumerate(plan.batches):
        texts = [read["alternate"][number]["answer"] for number in batch["alternate"]]
        assert texts == [expected[epoch % 2][number] for number in batch["forget"]]


def test_altpo_is_dpo_on_its_alternates(tokenizer, task):
    texts = [row | {"alternates": ["In Rome."], "alternate": "In Rome."} for row in task.forget]
    task, steps = replace(task, forget=texts), {}
    for name in ("altpo_rt", "dpo_rt"):
        config = replace(CONFIG, method=name, epochs=3)
        steps[name] = [e.loss for e in unlearn(made(tokenizer), tokenizer, task, config)]
    assert steps["altpo_rt"] == pytest.approx(steps["dpo_rt"], rel=1e-12)


@pytest.mark.parametrize("bad", [[], "Red.", [""]])
def test_alternates_of_own_rows_are_checked(bad):
    from npo_kit.data.rows import row_problem

    row = {"question": "Who?", "answer": "Ana.", "alternates": bad}
    assert "'alternates'" in row_problem(row)

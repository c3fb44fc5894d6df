"""Every method end to end on the models that the kit is for: pocket, with LoRA, and SmolLM2."""

import copy
import math
from dataclasses import replace

import pytest
from smollm2 import TOFU, find_gguf, what_is_missing

from npo_kit.data.tasks import load_task, load_tofu
from npo_kit.losses.methods import METHODS
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.models.loading import load_model
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

pytestmark = pytest.mark.slow
# a name of each forget term, the last: with the retain term that is its own, or else +RT
EACH = list({entry.term: name for name, entry in METHODS.items() if "_kl" not in name}.values())
BRIEF = EvaluationConfig(max_rows=1, max_new_tokens=0, fluency=False)  # scores without texts


def three_steps(model, tokenizer, task, method: str, **settings) -> list[Step]:
    """Three steps from one evaluation to the next; everything is finite, and the weights moved."""
    rows = 3 * settings["batch_size"]
    task = replace(task, forget=task.forget[:rows], retain=task.retain[:rows])
    config = UnlearnConfig(
        method=method,
        epochs=1,
        warmup_epochs=0,
        evaluate_every=None,
        evaluation=BRIEF,
        **settings,
    )
    events = list(unlearn(model, tokenizer, task, config))
    assert [type(event) for event in events] == [Evaluation, Step, Step, Step, Evaluation]
    before, *steps, after = events
    for step in steps:
        assert all(map(math.isfinite, step.terms.values()))
        assert 0 < step.grad_norm < math.inf
    first, last = ([row["mean_logp"] for row in e.rows["forget"]] for e in (before, after))
    assert first != last
    return steps


def test_every_retain_term_but_one_is_among_them():
    """+KL's is held by the trainer's own tests, with every forget term."""
    retain = {entry.retain for entry in METHODS.values()} - {None}
    assert retain - {METHODS[name].retain for name in EACH} == {METHODS["ga_kl"].retain}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *(pytest.param(name, {}, id=name) for name in EACH),
        *(pytest.param(name, {"lora_rank": 4}, id=f"{name}, LoRA") for name in EACH),
    ],
)
def test_three_steps_on_the_pocket_model(name, settings):
    if settings:
        pytest.importorskip("peft")
    model, tokenizer = load_model("pocket", device="cpu")
    task = load_task("authors:forget10")
    how = {"batch_size": 8, "micro_batch_size": 4, "lr": 4e-4, "precision": "fp32"}
    three_steps(model, tokenizer, task, name, **how, **settings)


@pytest.fixture(scope="module")
def smollm2():
    return load_model(find_gguf(), device="cpu")


@pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing()))
@pytest.mark.parametrize("name", EACH)
def test_three_steps_on_smollm2(name, smollm2):
    model, tokenizer = copy.deepcopy(smollm2[0]), smollm2[1]
    task = load_tofu("forget01@80", source=TOFU)
    how = {"batch_size": 2, "micro_batch_size": 2, "lr": 2e-5, "precision": "bf16", "prompt": "qa"}
    three_steps(model, tokenizer, task, name, **how)

"""What only a CUDA device can show: half precisions, loss scaling, and agreement with the CPU."""

from dataclasses import replace

import pytest
import torch
from conftest import make_model

from npo_kit.config import UnlearnConfig
from npo_kit.eval_files import Evaluation
from npo_kit.evaluation import EvaluationConfig
from npo_kit.models import choose_placement
from npo_kit.prompts import PromptFormat
from npo_kit.scoring import score
from npo_kit.trainer import Collapse, Step, unlearn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
QUICK = UnlearnConfig(
    epochs=6, batch_size=4, micro_batch_size=2, lr=3e-3, warmup_epochs=0, evaluation=None
)


def steps_on(device, tokenizer, task, config):
    model = make_model(len(tokenizer)).to(device)
    return list(unlearn(model, tokenizer, task, config))


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2), ("fp16", 5e-2)]
)
def test_training_follows_the_cpu(precision, tolerance, tokenizer, task):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("bf16 is not native here")
    config = replace(QUICK, precision=precision)
    ours = [e for e in steps_on("cuda", tokenizer, task, config) if not e.skipped]
    theirs = steps_on("cpu", tokenizer, task, replace(QUICK, precision="fp32"))
    assert ours[0].weights["median"] == pytest.approx(1.0, abs=tolerance)
    assert ours[0].loss == pytest.approx(theirs[0].loss, rel=tolerance)
    if len(ours) == len(theirs):  # no fp16 step was skipped
        assert ours[-1].loss == pytest.approx(theirs[-1].loss, rel=4 * tolerance)


def test_a_skipped_fp16_step_is_no_collapse(tokenizer, task):
    """The loss is weighed so that its first, scaled gradients overflow."""
    config = replace(QUICK, precision="fp16", method="npo", forget_weight=1e3, epochs=24)
    events = steps_on("cuda", tokenizer, task, config)
    assert not any(isinstance(event, Collapse) for event in events)
    assert events[0].skipped
    assert not events[-1].skipped


def test_the_chosen_precision_runs_and_evaluates(tokenizer, task):
    config = replace(QUICK, evaluation=EvaluationConfig(max_new_tokens=4), evaluate_every=None)
    first, *steps, last = steps_on("cuda", tokenizer, task, config)
    assert choose_placement("auto").device.type == "cuda"
    assert isinstance(first, Evaluation)
    assert isinstance(last, Evaluation)
    assert all(isinstance(step, Step) for step in steps)


def test_scores_equal_the_cpus(tokenizer, task):
    prompt_format = PromptFormat(tokenizer)
    rows = [
        [prompt_format.encode(row["question"], text) for text in row["perturbed_answer"]]
        for row in task.full
    ]
    here, there = (score(make_model(len(tokenizer)).to(d), rows) for d in ("cuda", "cpu"))
    for ours, theirs in zip(here, there, strict=True):
        for (a, n), (b, m) in zip(ours, theirs, strict=True):
            assert n == m
            assert a == pytest.approx(b, abs=1e-2)

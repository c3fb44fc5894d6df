"""On a CUDA device: estimated memory within 25 % and time within 1.5 times of what a run takes."""

import time
from dataclasses import replace

import pytest
import torch
from conftest import QUESTIONS, make_row
from transformers import LlamaConfig, LlamaForCausalLM

from npo_kit.data.tasks import Task
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.estimates import estimate
from npo_kit.trainer.loop import unlearn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CONFIG = UnlearnConfig(
    epochs=8, batch_size=16, micro_batch_size=8, lr=1e-5, evaluate_every=None,
    evaluation=EvaluationConfig(max_new_tokens=32, batch_size=32),
)  # fmt: skip


def large_model(vocabulary):
    """300 million parameters, so that what is not counted (a few MB) does not weigh."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(32000, vocabulary), hidden_size=1024, intermediate_size=4096,
        num_hidden_layers=14, num_attention_heads=16, num_key_value_heads=16,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).cuda()


def rows(count, repeated):
    """Answers of about the length of TOFU's."""
    made = []
    for number in range(count):
        row = make_row(number)
        longer = [f"{row['answer']} {QUESTIONS[(number + k) % 12][1]}" for k in range(repeated)]
        made.append(row | {"answer": " ".join(longer)})
    return made


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("method", ["npo", "npo_rt", "npo_kl", "dpo_rt", "kto_rt"])
def test_a_run_takes_what_is_estimated(method, precision, tokenizer):
    forget, retain = rows(64, 2), rows(96, 2)
    task = Task("test:gpu", forget, retain, {"forget": forget, "retain": retain[:32]})
    config = replace(CONFIG, method=method, precision=precision)
    model = large_model(len(tokenizer))
    made = estimate(model, tokenizer, task, config)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = time.perf_counter()
    steps = sum(hasattr(event, "loss") for event in unlearn(model, tokenizer, task, config))
    torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - started, torch.cuda.max_memory_allocated()
    told = f"{made}\nmeasured: {seconds:.1f} s, {peak / 1e9:.2f} GB"
    print(told)
    assert steps == made.steps
    assert 0.75 < peak / made.memory_bytes < 1.25, told
    assert 1 / 1.5 < seconds / made.seconds < 1.5, told

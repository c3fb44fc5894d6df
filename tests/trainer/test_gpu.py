"""What only a CUDA device can show: half precisions, agreement with the CPU, memory, QLoRA."""

import gc
from dataclasses import replace

import pytest
import torch
from conftest import make_model
from transformers import LlamaConfig, LlamaForCausalLM

from npo_kit.data.prompts import PromptFormat
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.errors import ModelError
from npo_kit.models.loading import load_model, save_model
from npo_kit.models.placement import choose_placement
from npo_kit.models.scoring import score
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Collapse, Step
from npo_kit.trainer.loop import unlearn

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


# --- memory -------------------------------------------------------------------------------------

MODES = {  # how the weights are loaded, what the run is told besides
    "full": ({}, {}),
    "full, recomputed": ({}, {"gradient_checkpointing": True}),
    "LoRA": ({}, {"lora_rank": 8}),
    "LoRA, recomputed": ({}, {"lora_rank": 8, "gradient_checkpointing": True}),
    "LoRA on bf16": ({"dtype": "bfloat16"}, {"lora_rank": 8}),
    "LoRA on 8 bits": ({"quantize": "8bit"}, {"lora_rank": 8}),
    "LoRA on 4 bits": ({"quantize": "4bit"}, {"lora_rank": 8}),
    "LoRA on 4 bits, recomputed": (
        {"quantize": "4bit"},
        {"lora_rank": 8, "gradient_checkpointing": True},
    ),
}


def needs(*packages):
    for package in packages:
        pytest.importorskip(package, reason=f"no {package}: pip install 'npo_kit[gpu]'")


@pytest.fixture(scope="module")
def wide(tokenizer, tmp_path_factory):
    """A folder with a Llama of 111 million parameters, wide enough for blocks of 64 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=max(4096, len(tokenizer)), hidden_size=1024, intermediate_size=2816,
        num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=16,
        max_position_embeddings=512, initializer_range=0.02, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("wide")
    save_model(LlamaForCausalLM(config).eval(), tokenizer, folder / "model")
    return folder


def long_rows(task):
    """The task's rows with answers of some 200 tokens: activations that can be measured."""
    rows = [row | {"answer": " ".join([row["answer"]] * 12)} for row in task.full]
    return replace(task, forget=rows[8:], retain=rows[:8])


def test_peak_memory_of_each_mode(wide, tokenizer, task):
    """Printed as a table (`-s`), in MiB above what was there before the model was loaded."""
    needs("peft", "bitsandbytes")
    config = replace(QUICK, epochs=3, lr=1e-4, method="npo_rt")
    peaks, rows = {}, long_rows(task)
    for mode, (loading, told) in MODES.items():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model, _ = load_model(wide, device="cuda", **loading)
        events = list(unlearn(model, tokenizer, rows, replace(config, **told)))
        assert all(isinstance(event, Step) for event in events), mode
        peaks[mode] = (torch.cuda.max_memory_allocated() - before) / 2**20
        del model, events
    name = torch.cuda.get_device_name()
    print(f"\npeak of training, {name}, torch {torch.__version__}, 111 M parameters, MiB")
    for mode, peak in peaks.items():
        print(f"  {mode:28s} {peak:8.0f}")
    assert peaks["full, recomputed"] < peaks["full"]
    assert peaks["LoRA"] < 0.7 * peaks["full"]
    assert peaks["LoRA, recomputed"] < peaks["LoRA"]
    assert peaks["LoRA on bf16"] < peaks["LoRA"]
    assert peaks["LoRA on 4 bits"] < peaks["LoRA"]
    assert peaks["LoRA on 4 bits, recomputed"] == min(peaks.values())


def test_full_training_in_bf16_keeps_fp32_master_weights(tokenizer, task):
    model = make_model(len(tokenizer)).to("cuda")
    list(unlearn(model, tokenizer, task, replace(QUICK, precision="bf16")))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_recomputed_layers_change_no_step(lora_rank, tokenizer, task):
    if lora_rank:
        needs("peft")
    config = replace(QUICK, precision="fp32", lora_rank=lora_rank)
    plain = steps_on("cuda", tokenizer, task, config)
    saved = steps_on("cuda", tokenizer, task, replace(config, gradient_checkpointing=True))
    for a, b in zip(plain, saved, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-4)
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=1e-3)


@pytest.mark.parametrize(("quantize", "tolerance"), [("4bit", 2e-2), ("8bit", 5e-2)])
def test_qlora_starts_at_its_reference_and_leaves_the_base(
    quantize, tolerance, wide, tokenizer, task
):
    """8 bits: which features count as outliers depends on the batch, so W is 1 less sharply."""
    needs("peft", "bitsandbytes")
    model, _ = load_model(wide, device="cuda", quantize=quantize)
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = replace(QUICK, lr=1e-3, method="npo_kl", lora_rank=4)
    events = [e for e in unlearn(model, tokenizer, task, config) if not e.skipped]
    assert all(isinstance(event, Step) for event in events)
    assert list(events[0].weights.values()) == pytest.approx([1.0] * 5, abs=tolerance)
    assert events[0].terms["retain"] == pytest.approx(0.0, abs=tolerance)
    assert events[-1].loss < events[0].loss - 0.1
    now = {name.replace(".base_layer", ""): p for name, p in model.named_parameters()}
    assert all(torch.equal(now[name].data, value.data) for name, value in base.items())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_a_saved_qlora_run_is_loaded_as_it_was(quantize, wide, tokenizer, task, tmp_path):
    """Two adapters, written as one; the base and its quantisation are named in the folder."""
    needs("peft", "bitsandbytes")
    model, _ = load_model(wide, device="cuda", quantize=quantize)
    for _ in range(2):
        list(unlearn(model, tokenizer, task, replace(QUICK, lr=1e-3, lora_rank=4)))
    save_model(model, tokenizer, tmp_path / "model")
    loaded, _ = load_model(tmp_path, device="cuda")
    assert loaded.is_quantized
    style = PromptFormat(tokenizer)
    rows = [[style.encode(row["question"], row["answer"])] for row in task.full]
    for [(a, n)], [(b, m)] in zip(score(model, rows), score(loaded, rows), strict=True):
        assert (a / n, n) == (pytest.approx(b / m, abs=1e-2), m)
    with pytest.raises(ModelError, match="set lora_rank"):
        next(iter(unlearn(loaded, tokenizer, task, QUICK)))


def test_memory_that_runs_out_in_scoring_costs_time_only(tokenizer, task):
    """The device is told to give a third of what the largest batch takes."""
    style = PromptFormat(tokenizer)
    rows = [[style.encode(row["question"], row["answer"])] for row in task.full] * 400
    model = make_model(len(tokenizer)).to("cuda")
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    wanted = score(model, rows, tokens_per_batch=10**6)
    needed = torch.cuda.max_memory_allocated() - held
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(model.device).total_memory
    reserved = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((reserved + needed / 3) / total)
    try:
        found = score(model, rows, tokens_per_batch=10**6)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for [(a, n)], [(b, m)] in zip(found, wanted, strict=True):
        assert (a, n) == (pytest.approx(b, abs=1e-2), m)

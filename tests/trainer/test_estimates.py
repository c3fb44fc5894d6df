"""Estimates: what is counted is what a run really does; what is measured leaves the model alone."""

import re
from dataclasses import replace

import pytest
import torch
from answered import NAMES
from conftest import make_model
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.forward import read_answers
from npo_kit.models.sizes import (
    ANSWER_TOKENS,
    LLAMA2,
    ROWS,
    SHAPES,
    TOKENS,
    Memory,
    Shape,
    readable_bytes,
    suggest_model,
    training_bytes,
)
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer import estimates, roles
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.estimates import Rates, calibrate, estimate, readable_time
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import finetune, unlearn
from npo_kit.trainer.workload import Workload, fed

BRIEF = EvaluationConfig(max_new_tokens=6, batch_size=3)
CONFIG = UnlearnConfig(
    epochs=3, batch_size=3, micro_batch_size=2, lr=1e-3, evaluation=BRIEF, evaluate_every=1.5
)
RATES = Rates(1.0, 0.1, 10.0, 2.0, 1000.0)


def workload_of(tokenizer, task, config, rows=None):
    return Workload(task, config, PromptFormat(tokenizer), rows)


def trained_tokens(workload):
    return sum(tokens for tokens, _ in workload.sizes)


@pytest.fixture
def counted(monkeypatch):
    """Tokens that the roles of a training run are read with, by whether a gradient is kept."""
    fed = {True: 0, False: 0}

    def counting(model, batch, **options):
        fed[torch.is_grad_enabled()] += sum(len(e.ids) - 1 for e in batch)
        return read_answers(model, batch, **options)

    monkeypatch.setattr(roles, "read_answers", counting)
    return fed


@pytest.mark.parametrize(
    ("name", "combine"),
    [*((name, "sum") for name in NAMES), ("kto_rt", "sam"), ("npo_kl", "gru"), ("rmu", "ngdiff")],
)
def test_steps_tokens_and_evaluations_are_those_of_the_run(
    name, combine, model, tokenizer, task, counted
):
    config = replace(CONFIG, method=name, combine=combine)
    own = [row | {"alternates": ["Red.", "In Rome."]} for row in task.forget]  # else drawn ones
    task = replace(task, forget=own)
    workload = workload_of(tokenizer, task, config)
    events = list(unlearn(model, tokenizer, task, config))
    assert workload.plan.steps == sum(isinstance(event, Step) for event in events)
    assert len(workload.plan.evaluated) == sum(isinstance(event, Evaluation) for event in events)
    assert (trained_tokens(workload), workload.read_tokens) == (counted[True], counted[False])


@pytest.mark.parametrize("every", [None, 0.5, 1, 7])
def test_a_fine_tuning_is_counted_likewise(every, model, tokenizer, task, counted):
    config = FinetuneConfig(epochs=2, batch_size=3, evaluation=BRIEF, evaluate_every=every)
    workload = workload_of(tokenizer, task, config, task.retain)
    events = list(finetune(model, tokenizer, task.retain, config, task=task))
    assert workload.plan.steps == sum(isinstance(event, Step) for event in events)
    assert len(workload.plan.evaluated) == sum(isinstance(event, Evaluation) for event in events)
    assert (trained_tokens(workload), workload.read_tokens) == (counted[True], 0)


def test_calibration_measures_and_changes_nothing(model, tokenizer, task):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = calibrate(model, tokenizer, task, CONFIG)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(value > 0 for value in vars(measured).values())
    quick = replace(CONFIG, evaluation=None)
    assert calibrate(model, tokenizer, task, quick).decode_step == 0


def test_what_a_token_keeps_grows_with_the_layers(tokenizer, task):
    """By the same amount for each layer, and it is what autograd keeps of a Llama's layer."""
    kept = []
    for layers in (1, 2, 3):
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": layers}
        config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes)
        kept.append(calibrate(LlamaForCausalLM(config), tokenizer, task, CONFIG).kept_token)
    one, two, three = kept
    assert two - one == pytest.approx(three - two, rel=0.02)
    # at least what the five matrix products and SiLU need of it, at most twice that
    least = 4 * (5 * 64 + 4 * 256)
    assert least < two - one < 2 * least


def test_seconds_are_counts_times_rates(model, tokenizer, task):
    made = estimate(model, tokenizer, task, CONFIG, rates=RATES)
    workload = workload_of(tokenizer, task, CONFIG)
    tokens = trained_tokens(workload) + 0.1 * workload.read_tokens
    assert made.training_seconds == pytest.approx(tokens + 10 * made.steps)
    prompts = sum(row[0].prompt_length for row in workload.questions)
    answers = sum(e.answer_length for row in workload.questions for e in row)
    rows = sum(len(of_set) for of_set in task.evaluation.values())
    decoded = 2.0 * 6 * -(-rows // 3)  # 3 rows a batch
    longest = 0.1 * (prompts + answers) + decoded + 0.1 * (prompts + 6 * rows)
    assert made.at_most == pytest.approx(made.training_seconds + made.evaluations * longest)
    assert made.at_least <= made.seconds <= made.at_most
    assert made.seconds == made.training_seconds + made.evaluation_seconds


def test_memory_by_hand(model, tokenizer, task):
    parameters = model.num_parameters()
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    alone = replace(CONFIG, method="npo", evaluation=None)
    memory = estimate(model, tokenizer, task, alone, rates=RATES).memory
    assert memory["weights"] == 4 * parameters + buffers
    assert memory["AdamW"] == 8 * parameters
    sgd = estimate(model, tokenizer, task, replace(alone, optimizer="sgd"), rates=RATES).memory
    assert sgd == memory | {"AdamW": 0}
    assert memory["gradients"] == 4 * parameters
    assert memory["frozen copy"] == memory["weights in half precision"] == 0
    batches = workload_of(tokenizer, task, alone).forwards
    kept = [fed(b["forget"]) for b in batches]
    spoken = [sum(e.answer_length for e in b["forget"]) for b in batches]
    each = [(1000 * k, 12 * len(tokenizer) * n) for k, n in zip(kept, spoken, strict=True)]
    assert (memory["activations"], memory["logits"]) == max(each, key=sum)
    compared = workload_of(tokenizer, task, replace(alone, method="npo_kl")).forwards
    spoken = [[e.answer_length for e in 3 * b["retain"] + b["forget"]] for b in compared]
    kept = [fed(b["retain"] + b["forget"]) for b in compared]
    each = [(1000 * k, 12 * len(tokenizer) * sum(n)) for k, n in zip(kept, spoken, strict=True)]
    memory = estimate(model, tokenizer, task, replace(alone, method="npo_kl"), rates=RATES).memory
    assert (memory["activations"], memory["logits"]) == max(each, key=sum)
    for held in (replace(alone, method="npo_kl"), replace(CONFIG, method="npo")):
        copied = estimate(model, tokenizer, task, held, rates=RATES).memory
        assert copied["frozen copy"] == memory["weights"]
    half = estimate(model, tokenizer, task, replace(alone, precision="bf16"), rates=RATES).memory
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert half["weights in half precision"] == 2 * matrices


def test_an_estimate_reads_well(model, tokenizer, task):
    made = estimate(model, tokenizer, task, CONFIG, rates=RATES)
    text = str(made)
    plan = rf"\d+ rows, {made.steps} steps of \d+; learning rate .*; 3 evaluations\n"
    assert re.match(plan, text)
    assert f"\n{made.tokens:,} tokens, " in text
    assert "100.00% of them trained, on cpu" in text
    alike = str(replace(made, at_least=600, at_most=610))
    assert re.search(r"time: about \d+ min \(\d+ min of it evaluation\)", alike)
    apart = str(replace(made, at_least=600, at_most=1200))
    assert re.search(r"time: about \d+ min \(10 min to 20 min, \d+ min of it evaluation\)", apart)
    assert re.search(r"memory: about \d+ MB at the peak \(weights", text)
    assert [readable_time(t) for t in (0.25, 59, 600, 7200)] == ["0.2 s", "59 s", "10 min", "2.0 h"]
    assert [readable_bytes(b) for b in (5e8, 14.2e9)] == ["500 MB", "14.2 GB"]


def test_memory_that_runs_out_is_one_sentence(model, tokenizer, task, monkeypatch):
    def none(*_, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(estimates, "read_answers", none)
    with pytest.raises(KitError, match=r"lower micro_batch_size \(now 2\)"):
        calibrate(model, tokenizer, task, CONFIG)
    with pytest.raises(KitError, match="do not fill one batch of 100"):
        estimate(make_model(len(tokenizer)), tokenizer, task, replace(CONFIG, batch_size=100))


def test_lora_is_estimated_without_a_trace(model, tokenizer, task):
    pytest.importorskip("peft")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    wide = estimate(model, tokenizer, task, replace(CONFIG, method="npo_kl"))
    thin = estimate(model, tokenizer, task, replace(CONFIG, method="npo_kl", lora_rank=2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == modules
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    # rank times inputs plus outputs of the seven linear layers of two decoder layers
    adapter = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    assert thin.trained_parameters == adapter
    assert thin.memory["AdamW"] == 8 * adapter
    assert thin.memory["frozen copy"] == 0 < wide.memory["frozen copy"]
    assert (thin.steps, thin.tokens) == (wide.steps, wide.tokens)
    quick = replace(CONFIG, lora_rank=2, epochs=1, evaluation=None)
    assert all(isinstance(e, Step) for e in unlearn(model, tokenizer, task, quick))  # and it trains


def test_checkpointing_keeps_less(model, tokenizer, task):
    config = replace(CONFIG, evaluation=None)
    plain, saving = (
        estimate(model, tokenizer, task, replace(config, gradient_checkpointing=saves), rates=RATES)
        for saves in (False, True)
    )
    layers, hidden = 2, 32
    per_token = 1000 / layers + layers * hidden * 4
    kept = plain.memory["activations"] * per_token / 1000
    assert saving.memory["activations"] == pytest.approx(kept, abs=1)

    asked = {"config": replace(config, gradient_checkpointing=True), "task": task}
    assert calibrate(model, tokenizer, **asked)


def test_with_checkpointing_no_more_than_a_row_is_kept_whole(model, tokenizer, task, monkeypatch):
    """A run that fits only with checkpointing is measured where it fits."""
    rows, recomputes = [], []

    def reading(model, batch, **options):
        if torch.is_grad_enabled() and "forward" not in vars(model.model.layers[0]):
            rows.append(len(batch))
        elif torch.is_grad_enabled():
            recomputes.append(len(batch))
        return read_answers(model, batch, **options)

    monkeypatch.setattr(estimates, "read_answers", reading)
    saving = replace(CONFIG, gradient_checkpointing=True)
    measured = calibrate(model, tokenizer, task, saving)
    assert rows == [1]
    assert set(recomputes) == {4}  # two forget and two retain rows
    plain = calibrate(model, tokenizer, task, CONFIG)
    assert measured.kept_token == pytest.approx(plain.kept_token, rel=0.15)


@pytest.mark.parametrize("longest", [False, True])
def test_evaluations_on_few_rows_count_as_their_share(longest, tokenizer, task):
    config = replace(CONFIG, evaluate_every=0.5)
    whole = workload_of(tokenizer, task, config)
    partly = workload_of(tokenizer, task, replace(config, intermediate_rows=2))
    lengths = [len(rows) for rows in task.evaluation.values()]
    share = sum(min(2, n) for n in lengths) / sum(lengths)
    count = len(whole.plan.evaluated)
    assert count > 2
    for all_rows, some in zip(
        *(w.evaluation_tokens(longest) for w in (whole, partly)), strict=True
    ):
        assert some == pytest.approx(all_rows / count * (2 + (count - 2) * share))
    one, two = (
        workload_of(tokenizer, task, replace(config, evaluate_every=None, intermediate_rows=few))
        for few in (None, 2)
    )
    assert one.evaluation_tokens(longest) == two.evaluation_tokens(longest)
    bare = workload_of(tokenizer, replace(task, evaluation={}), config)
    assert bare.evaluation_tokens(longest) == (0, 0)


# --- by formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_architecture(name):
    """Against transformers' own model of that shape, made without memory."""
    shape = SHAPES[name]
    heads = shape.hidden // 64
    sizes = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads * shape.key_value // shape.hidden,
        "tie_word_embeddings": shape.tied,
    }  # fmt: skip
    with torch.device("meta"):
        if shape.gated:
            made = LlamaForCausalLM(LlamaConfig(**sizes))
        else:
            made = PhiForCausalLM(PhiConfig(**sizes))
    count = made.num_parameters()
    if shape.gated:  # a Qwen2 is a Llama with biases on queries, keys and values
        assert shape.parameters == count + shape.layers * shape.biases
    else:  # Phi: a norm less in each layer, but with biases, as has its head
        assert shape.parameters == pytest.approx(count, rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_a_token_keeps_what_its_shape_says(kind, tokenizer, task):
    """Against autograd, with queries of more heads than keys, and rows packed in lines."""
    config = replace(CONFIG, precision="bf16", evaluation=None)
    shape = Shape(64, 1, 256, 32, len(tokenizer), tied=False, gated=kind == "llama")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 256}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    kept = []
    for layers in (1, 2):
        torch.manual_seed(0)
        if kind == "llama":
            made = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=layers))
        else:
            made = PhiForCausalLM(PhiConfig(**sizes, num_hidden_layers=layers))
        kept.append(calibrate(made, tokenizer, task, config).kept_token)
    assert shape.token == pytest.approx(kept[1] - kept[0], rel=0.1)


def test_a_shape_and_its_model_have_one_memory():
    shape = SHAPES["HuggingFaceTB/SmolLM2-135M-Instruct"]
    with torch.device("meta"):
        config = LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
            num_hidden_layers=shape.layers, num_attention_heads=9, num_key_value_heads=3,
            tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    read = ROWS * TOKENS, ROWS * ANSWER_TOKENS
    how = {"copied": True, "half": True, "recomputing": False}
    held = Memory.of_model(model, shape.token, **how).step(*read)
    assert training_bytes(shape, lora=False) == pytest.approx(sum(held.values()), rel=1e-3)
    saving = Memory.of_model(model, shape.token, **how | {"recomputing": True}).step(*read)
    layer, entering = shape.token // shape.layers, 4 * shape.hidden * shape.layers
    assert saving["activations"] == ROWS * TOKENS * (layer + entering)


def test_the_largest_model_that_fits_is_suggested():
    assert suggest_model(5e9, lora=False).name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert suggest_model(80e9, lora=False).name == "microsoft/phi-1_5"
    best = suggest_model(15e9)
    assert (best.name, best.lora) == (LLAMA2, True)
    assert best.memory_bytes <= 15e9
    assert "LoRA on 4-bit weights" in str(best)
    with pytest.raises(KitError, match=r"1.0 GB are free and the smallest .* needs"):
        suggest_model(1e9)

"""LoRA against a second implementation, and the model that it leaves as it was: the reference."""

import copy
from dataclasses import asdict, replace

import pytest
import torch
from architectures import tiny
from conftest import make_model, make_tokenizer
from torch import nn

pytest.importorskip("peft", reason="no peft: pip install peft")

from npo_kit.data.prompts import PromptFormat
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.models.adapters import (
    WithoutAdapter,
    active_adapters,
    add_adapter,
    load_adapter,
    merged_weights,
    remove_adapter,
    save_adapters,
)
from npo_kit.models.errors import ModelError
from npo_kit.models.forward import read_answers
from npo_kit.models.loading import load_model, save_model
from npo_kit.models.placement import choose_placement
from npo_kit.trainer import updates
from npo_kit.trainer.checkpoints import Checkpoints, checkpoint_steps
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import finetune, unlearn

RANK, ALPHA = 3, 12.0
LORA = UnlearnConfig(
    epochs=4, batch_size=4, micro_batch_size=2, lr=1e-2, warmup_epochs=0, evaluation=None,
    lora_rank=RANK, lora_alpha=ALPHA,
)  # fmt: skip
TUNING = FinetuneConfig(
    epochs=5, batch_size=4, lr=1e-2, warmup_epochs=0, evaluation=None, lora_rank=4
)


def steps_of(events) -> list[dict]:
    return [asdict(event) | {"seconds": None} for event in events if isinstance(event, Step)]


@pytest.fixture(scope="module")
def targets(tokenizer, task, tmp_path_factory):
    """A double-precision model fine-tuned by LoRA: its adapter kept and active, or merged."""
    kept = make_model(len(tokenizer)).double()
    list(finetune(kept, tokenizer, task.full, TUNING))
    folder = tmp_path_factory.mktemp("target")
    save_model(kept, tokenizer, folder / "model")
    merged = load_model(folder, device="cpu")[0].double()
    assert len(active_adapters(kept)) == 1
    assert active_adapters(merged) == []
    return {"kept": kept, "merged": merged}


@pytest.fixture
def target(targets):
    """A copy of one of them, to be unlearned."""
    return lambda kind="kept": copy.deepcopy(targets[kind])


def logps_of(model, tokenizer, rows) -> list[torch.Tensor]:
    """Token log-probs of each answer: full logits of one unpadded sequence at a time."""
    style, found = PromptFormat(tokenizer), []
    for row in rows:
        encoded = style.encode(row["question"], row["answer"])
        ids = torch.tensor([encoded.ids])
        with torch.no_grad():
            logps = model(input_ids=ids).logits[0].log_softmax(-1)
        at = torch.arange(encoded.prompt_length, len(encoded.ids))
        found.append(logps[at - 1, ids[0, at]])
    return found


def frozen_weights(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}


# --- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["merged", "kept"])
@pytest.mark.parametrize("method", ["npo", "npo_kl", "dpo_rt"])
def test_the_reference_is_the_target_and_never_the_pretrained_model(
    kind, method, tokenizer, task, target, monkeypatch
):
    model = target(kind)
    spoken = logps_of(model, tokenizer, task.forget)
    pretrained = logps_of(make_model(len(tokenizer)).double(), tokenizer, task.forget)
    assert all(float((a - b).abs().max()) > 0.1 for a, b in zip(spoken, pretrained, strict=True))
    readers = []
    made = updates.RoleReader
    monkeypatch.setattr(updates, "RoleReader", lambda *a: readers.append(made(*a)) or readers[-1])

    events = steps_of(unlearn(model, tokenizer, task, replace(LORA, method=method)))
    first = events[0]
    assert list(first["weights"].values()) == pytest.approx([1.0] * 5, abs=1e-9)
    for known, right in zip(readers[0].reference["forget"], spoken, strict=True):
        assert torch.allclose(known, right, atol=1e-9)
    if method == "npo_kl":
        assert first["terms"]["retain"] == pytest.approx(0.0, abs=1e-9)
        assert events[-1]["terms"]["retain"] > 1e-4


@pytest.mark.parametrize("kind", ["merged", "kept"])
def test_after_steps_the_adapter_off_is_the_target_and_the_base_has_not_moved(
    kind, tokenizer, task, target
):
    model = target(kind)
    base = {n: p.detach().clone() for n, p in model.named_parameters()}
    before = logps_of(model, tokenizer, task.full)
    list(unlearn(model, tokenizer, task, LORA))
    kept, name = active_adapters(model)[:-1], active_adapters(model)[-1]
    assert len(kept) == (kind == "kept")
    after = logps_of(model, tokenizer, task.full)
    off = logps_of(WithoutAdapter(model, name), tokenizer, task.full)
    for a, b, c in zip(before, off, after, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c, atol=1e-2)
    again = logps_of(model, tokenizer, task.full)
    assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))
    now = {key.replace(".base_layer", ""): p for key, p in model.named_parameters()}
    for key, value in base.items():
        assert torch.equal(now[key.replace(".base_layer", "")], value)
        assert not now[key.replace(".base_layer", "")].requires_grad
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {name}


def test_the_reference_in_the_loop_is_the_one_of_a_run_with_a_frozen_copy(
    tokenizer, task, target, monkeypatch
):
    """npo_kl reads the reference's logits at each step: by the switch, and from a real copy."""
    config = replace(LORA, method="npo_kl")
    switched = steps_of(unlearn(target(), tokenizer, task, config))
    monkeypatch.setattr(
        "npo_kit.trainer.roles.WithoutAdapter", lambda model, name: copy.deepcopy(model)
    )
    copied = steps_of(unlearn(target(), tokenizer, task, config))
    for a, b in zip(switched, copied, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-9, abs=1e-12)


def test_the_original_that_judges_the_fluency_is_the_target(tokenizer, task, target):
    """The last generations, judged by a forward of the target written here."""
    model = target()
    judged = EvaluationConfig(max_new_tokens=5)
    config = replace(LORA, evaluation=judged, evaluate_every=None)
    *_, last = unlearn(model, tokenizer, task, config)
    judge, style = target(), PromptFormat(tokenizer)
    compared = 0
    for row in last.rows["forget"]:
        encoded = style.encode(row["question"], row["answer"])
        prompt = list(encoded.ids[: encoded.prompt_length])
        with torch.no_grad():
            ids = model.generate(
                input_ids=torch.tensor([prompt]), max_new_tokens=5, do_sample=False,
                eos_token_id=style.end_id, pad_token_id=style.end_id,
            )[0]  # fmt: skip
            if style.end_id in ids[len(prompt) :].tolist():
                ids = ids[: len(prompt) + ids[len(prompt) :].tolist().index(style.end_id)]
            if len(ids) == len(prompt):
                continue
            logps = judge(input_ids=ids[None]).logits[0].log_softmax(-1)
        at = torch.arange(len(prompt), len(ids))
        assert row["fluency"] == pytest.approx(float(logps[at - 1, ids[at]].mean()), abs=1e-6)
        compared += 1
    assert compared


# --- against a second implementation ------------------------------------------------------------


class Plain(nn.Module):
    """W x + (alpha / r) B A x, by hand."""

    def __init__(self, inner: nn.Linear, down: torch.Tensor):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Parameter(down.clone())
        self.up = nn.Parameter(torch.zeros(inner.out_features, len(down), dtype=down.dtype))

    def forward(self, x):
        return self.inner(x) + ALPHA / RANK * (x @ self.down.T @ self.up.T)


@pytest.mark.parametrize("method", ["npo_rt", "npo_kl", "ga"])
def test_lora_equals_one_built_by_hand(method, tokenizer, task, monkeypatch):
    """The same loop on plain modules, whose A are those that were drawn; reference a copy."""
    config = replace(LORA, method=method)
    model = make_model(len(tokenizer)).double()
    drawn = {}
    added = updates.add_adapter

    def seen(*arguments):
        name = added(*arguments)
        parameters = dict(model.named_parameters())
        drawn.update({k: p.detach().clone() for k, p in parameters.items() if ".lora_A." in k})
        return name

    monkeypatch.setattr(updates, "add_adapter", seen)
    theirs = steps_of(unlearn(model, tokenizer, task, config))

    by_hand = make_model(len(tokenizer)).double().requires_grad_(False)
    places = [name.partition(".lora_A.")[0] for name in drawn]
    assert len(places) == 2 * 7  # all linear layers of two blocks, not the head
    for place, down in zip(places, drawn.values(), strict=True):
        parent, _, child = place.rpartition(".")
        owner = by_hand.get_submodule(parent)
        setattr(owner, child, Plain(getattr(owner, child), down))
    ours = steps_of(unlearn(by_hand, tokenizer, task, replace(config, lora_rank=None)))
    for a, b in zip(theirs, ours, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-9, abs=1e-12)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)
    assert theirs[-1]["loss"] != pytest.approx(theirs[0]["loss"], rel=1e-2)


def test_the_adapter_is_drawn_from_the_seed_and_leaves_the_global_generator_alone(tokenizer):
    def drawn(seed):
        model = make_model(len(tokenizer))
        torch.manual_seed(5)
        add_adapter(model, RANK, ALPHA, seed)
        left = torch.rand(1).item()
        trained = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
        return torch.cat(trained), left

    torch.manual_seed(5)
    expected = torch.rand(1).item()
    (a, first), (b, second), (c, _) = drawn(1), drawn(1), drawn(2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert first == second == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapter_weights_are_fp32_on_a_half_precision_base(dtype, tokenizer):
    model = make_model(len(tokenizer)).to(dtype)
    add_adapter(model, RANK, ALPHA, 0)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 7
    assert {p.dtype for p in trained} == {torch.float32}
    assert model.get_output_embeddings().weight.dtype == dtype


def test_a_bf16_base_trains_under_autocast(tokenizer, task):
    model = make_model(len(tokenizer)).bfloat16()
    assert choose_placement("cpu", "auto", model.dtype).precision == "bf16"
    before = frozen_weights(model)
    events = steps_of(unlearn(model, tokenizer, task, replace(LORA, method="npo")))
    assert events[0]["weights"]["median"] == pytest.approx(1.0, abs=1e-2)
    assert events[-1]["loss"] < events[0]["loss"] - 0.1
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in before.items())


# --- on disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_run_holds_the_merged_model_and_the_model_keeps_its_adapters(
    tied, tokenizer, task, tmp_path
):
    model = make_model(len(tokenizer), tie_word_embeddings=tied)
    list(finetune(model, tokenizer, task.full, TUNING))
    list(unlearn(model, tokenizer, task, LORA))
    said = logps_of(model, tokenizer, task.full)
    save_model(model, tokenizer, tmp_path / "run" / "model")
    assert len(active_adapters(model)) == 2
    assert all(
        torch.equal(a, b) for a, b in zip(said, logps_of(model, tokenizer, task.full), strict=True)
    )
    loaded, _ = load_model(tmp_path / "run", device="cpu")
    assert active_adapters(loaded) == []
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert set(loaded.state_dict()) == set(make_model(len(tokenizer)).state_dict())
    for a, b in zip(said, logps_of(loaded, tokenizer, task.full), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_merging_a_bf16_base_rounds_nothing_away(tokenizer, task):
    model = make_model(len(tokenizer)).bfloat16()
    name = add_adapter(model, RANK, ALPHA, 0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f"lora_B.{name}" in key:
                parameter.fill_(1e-5)
    merged = merged_weights(model)
    key = "model.layers.0.self_attn.q_proj"
    layer = model.get_submodule(key)
    change = ALPHA / RANK * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    assert merged[f"{key}.weight"].dtype == torch.float32
    difference = merged[f"{key}.weight"] - layer.base_layer.weight.float()
    assert torch.allclose(difference, change, atol=1e-7)  # fp32 of weights below 1
    in_bf16 = merged[f"{key}.weight"].bfloat16() - layer.base_layer.weight
    assert not torch.allclose(in_bf16.float(), change, atol=1e-5)


@pytest.mark.parametrize("merge", [True, False])
def test_two_adapters_written_as_one_do_the_same(merge, tokenizer, task, target, tmp_path):
    """Ranks 4 and 3 side by side, read back by peft onto a fresh base."""
    model = target()
    list(unlearn(model, tokenizer, task, LORA))
    said = logps_of(model, tokenizer, task.full)
    (tmp_path / "joined").mkdir()
    save_adapters(model, tmp_path / "joined")
    fresh = make_model(len(tokenizer)).double()
    again = load_adapter(fresh, str(tmp_path / "joined"), merge=merge).eval()
    assert len(active_adapters(again)) == (not merge)
    assert {p.requires_grad for p in again.parameters()} == {merge}
    for a, b in zip(said, logps_of(again, tokenizer, task.full), strict=True):
        assert torch.allclose(a, b, atol=1e-8)


def test_an_adapter_folder_is_loaded_on_its_base_and_merged(tokenizer, task, tmp_path):
    """As peft itself writes it, of some layers only; the base is named in it."""
    from peft import LoraConfig, get_peft_model

    save_model(make_model(len(tokenizer)), tokenizer, tmp_path / "base")
    base, _ = load_model(tmp_path / "base", device="cpu")
    wrapped = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    said = logps_of(wrapped, tokenizer, task.full)
    loaded, _ = load_model(tmp_path / "adapter", device="cpu")
    assert active_adapters(loaded) == []
    for a, b in zip(said, logps_of(loaded, tokenizer, task.full), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    plain = logps_of(make_model(len(tokenizer)), tokenizer, task.full)
    assert not torch.allclose(said[0], plain[0], atol=1e-2)


def test_an_adapter_without_a_base_says_where_to_name_it(tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(make_model(len(tokenizer)), LoraConfig(target_modules=["q_proj"]))
    wrapped.save_pretrained(tmp_path / "adapter")  # of a model that came from nowhere
    with pytest.raises(ModelError, match=r"names no base model: .* into adapter_config\.json"):
        load_model(tmp_path / "adapter", device="cpu")


def test_an_adapter_s_own_tokenizer_and_template_win_over_its_base_s(tmp_path):
    from peft import LoraConfig, get_peft_model

    own, based = make_tokenizer(), make_tokenizer()
    own.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    save_model(make_model(len(own)), based, tmp_path / "base")
    base, _ = load_model(tmp_path / "base", device="cpu")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    assert load_model(tmp_path / "adapter", device="cpu")[1].chat_template == based.chat_template
    own.save_pretrained(tmp_path / "adapter")
    _, loaded = load_model(tmp_path / "adapter", device="cpu")
    assert PromptFormat(loaded).prompt("Who?") == "<user>Who?<assistant>"


# --- layers of other kinds ------------------------------------------------------------------------


def means_of(model, tokenizer, rows) -> list[float]:
    return [logps.mean().item() for logps in logps_of(model, tokenizer, rows)]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "llama4_text", "falcon", "gpt2"])
def test_experts_in_one_tensor_are_trained_and_merged(kind, tokenizer, task, tmp_path):
    """Mixtral's and Qwen 3's experts are 3-D; Llama 4's router is no linear layer, Falcon's are."""
    model = tiny(kind, len(tokenizer))
    small = replace(LORA, epochs=2, lr=1e-3)
    before = means_of(model, tokenizer, task.full)
    names, trained = list(model.state_dict()), [p.requires_grad for p in model.parameters()]
    added = add_adapter(model, RANK, ALPHA, 0)
    assert means_of(model, tokenizer, task.full) == pytest.approx(before, abs=1e-5)
    experts = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert any("experts" in n for n in experts) == (kind in ("mixtral", "qwen3_moe"))
    assert len(experts) >= 2 * 4
    remove_adapter(model, added)
    assert list(model.state_dict()) == names
    assert len(list(model.parameters())) == len(trained)
    model.requires_grad_(True)

    list(finetune(model, tokenizer, task.full, replace(TUNING, epochs=1, lr=1e-3)))
    tuned = means_of(model, tokenizer, task.full)
    list(unlearn(model, tokenizer, task, small))
    after = means_of(model, tokenizer, task.full)
    off = means_of(WithoutAdapter(model, active_adapters(model)[-1]), tokenizer, task.full)
    assert off == pytest.approx(tuned, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(tuned, before, strict=True)) > 1e-2
    assert max(abs(a - b) for a, b in zip(after, tuned, strict=True)) > 1e-2
    save_model(model, tokenizer, tmp_path / "model")
    loaded, _ = load_model(tmp_path / "model", device="cpu")
    assert means_of(loaded, tokenizer, task.full) == pytest.approx(after, abs=1e-4)


def test_merging_bf16_experts_rounds_nothing_away(tokenizer):
    model = tiny("mixtral", len(tokenizer)).bfloat16()
    name, base = add_adapter(model, RANK, ALPHA, 0), tiny("mixtral", len(tokenizer)).bfloat16()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f"lora_B.{name}" in key:
                parameter.fill_(1e-4)
    merged, before = merged_weights(model), base.state_dict()
    assert merged.keys() == before.keys()
    for part in ("gate_up_proj", "down_proj"):
        key = f"model.layers.0.mlp.experts.{part}"
        assert merged[key].dtype == torch.float32
        change = merged[key] - before[key].float()
        assert 1e-6 < change.abs().mean() < 1e-2
        assert (change != 0).float().mean() > 0.9


@pytest.mark.parametrize(("kind", "why"), [("mamba", "incompatible"), ("reformer", "no gradient")])
def test_layers_that_no_adapter_goes_with_are_refused_and_left_as_they_were(
    kind, why, tokenizer, task
):
    model = tiny(kind, len(tokenizer))
    before = means_of(model, tokenizer, task.forget)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with pytest.raises(KitError, match=f"no adapter can be trained on .*{why}.*: leave out lora"):
        next(unlearn(model, tokenizer, task, LORA))
    assert means_of(model, tokenizer, task.forget) == before
    assert [n for n, parameter in model.named_parameters() if parameter.requires_grad] == names
    assert active_adapters(model) == []
    assert not hasattr(model, "peft_config")


def test_experts_in_one_tensor_beside_quantised_weights_are_refused(tokenizer):
    model = tiny("mixtral", len(tokenizer))
    model.is_quantized = True
    with pytest.raises(
        KitError, match=r"layers\.0\.mlp\..* cannot be saved beside quantised weights"
    ):
        add_adapter(model, RANK, ALPHA, 0)
    assert active_adapters(model) == []


# --- refusals -----------------------------------------------------------------------------------


def test_what_cannot_be_trained_whole_is_refused(tokenizer, task):
    full = replace(LORA, lora_rank=None)
    with pytest.raises(ModelError, match=r"bfloat16 round small updates away.*lora_rank"):
        next(iter(unlearn(make_model(len(tokenizer)).bfloat16(), tokenizer, task, full)))
    model = make_model(len(tokenizer))
    add_adapter(model, RANK, ALPHA, 0)
    with pytest.raises(ModelError, match="carries an adapter: save and load it"):
        next(iter(unlearn(model, tokenizer, task, full)))
    model = make_model(len(tokenizer))
    model.is_quantized = True
    for config in (full, LORA):
        with pytest.raises(ModelError, match="gets no gradient on cpu"):
            next(iter(unlearn(model, tokenizer, task, config)))


def test_quantising_is_refused_where_it_cannot_be(tokenizer, tmp_path):
    save_model(make_model(len(tokenizer)), tokenizer, tmp_path / "base")
    with pytest.raises(ModelError, match="quantize='4bit' needs a CUDA device, this is cpu"):
        load_model(tmp_path / "base", device="cpu", quantize="4bit")
    with pytest.raises(ModelError, match="unknown quantize '2bit': choose one of 4bit, 8bit"):
        load_model(tmp_path / "base", device="cpu", quantize="2bit")


def test_an_adapter_without_peft_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(KitError, match=r"peft: pip install 'npo_kit\[gpu\]'"):
        add_adapter(make_model(len(tokenizer)), RANK, ALPHA, 0)
    assert active_adapters(make_model(len(tokenizer))) == []


def test_packed_rows_say_the_same_through_an_adapter(tokenizer, task):
    model = make_model(len(tokenizer)).double()
    list(unlearn(model, tokenizer, task, LORA))
    style = PromptFormat(tokenizer)
    batch = [style.encode(row["question"], row["answer"]) for row in task.full]
    with torch.no_grad():
        packed = read_answers(model, batch, packed=True)
    alone = logps_of(model, tokenizer, task.full)
    for line, mask, right in zip(packed.logps, packed.mask, alone, strict=True):
        assert torch.allclose(line[mask.bool()], right, atol=1e-8)


def test_a_lora_run_goes_on_from_its_checkpoint(tokenizer, task, target, tmp_path):
    """Only the new adapter is kept in it; the reference is computed again from the target."""
    config = replace(LORA, method="npo_kl")
    whole = steps_of(unlearn(target(), tokenizer, task, config))
    cut = unlearn(target(), tokenizer, task, config, checkpoints=Checkpoints(tmp_path))
    for _ in range(3):  # two checkpoints, and then it is left
        next(cut)
    del cut
    last = checkpoint_steps(tmp_path)[-1]
    go_on = Checkpoints(tmp_path, start=last)
    rest = steps_of(unlearn(target(), tokenizer, task, config, checkpoints=go_on))
    assert rest == whole[last:]
    assert len(rest) >= 1

"""Models as people bring them: adapters without a base, added tokens, tokenizers that differ."""

import json
from importlib.util import find_spec

import pytest
import torch
from conftest import make_model, make_tokenizer
from peft import (
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)

from npo_kit import EvaluationConfig, Task, UnlearnConfig, evaluate, unlearn
from npo_kit.cli.program import main
from npo_kit.data.prompts import PromptError
from npo_kit.errors import KitError
from npo_kit.models import ModelError, load_model, save_model

IDS = torch.tensor([[5, 9, 200, 31]])
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.content }}<|over|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>{% endif %}"
)


@pytest.fixture
def base(tmp_path, tokenizer):
    save_model(make_model(len(tokenizer)), tokenizer, tmp_path / "base")
    return tmp_path / "base"


def adapter_on(base, folder, config, *, named="the base", tokens=0):
    """Write an adapter as peft does; return what the whole model says of IDS."""
    model, tokenizer = load_model(base, device="cpu")
    if tokens:
        tokenizer.add_tokens([f"<new{i}>" for i in range(tokens)])
        model.resize_token_embeddings(len(tokenizer))
        tokenizer.save_pretrained(folder)
    wrapped = get_peft_model(model, config).eval()
    wrapped.save_pretrained(folder)
    about = folder / "adapter_config.json"
    settings = json.loads(about.read_text())
    if named != "the base":
        about.write_text(json.dumps(settings | {"base_model_name_or_path": named}))
    with torch.no_grad():
        return wrapped(input_ids=IDS).logits


def lora(**more):
    return LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **more
    )


def said_by(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (None, "names no base model: give its name or folder as --base"),
        ("/home/someone/llama", r"made on /home/someone/llama, which does not load.*as --base"),
        ("C:\\Users\\someone\\llama", r"which does not load.*as --base \(base=...\)"),
    ],
    ids=["null", "moved", "of Windows"],
)
def test_an_adapter_without_its_base_is_loaded_on_the_one_that_is_given(base, tmp_path, named, why):
    truth = adapter_on(base, tmp_path / "adapter", lora(), named=named)
    with pytest.raises(ModelError, match=why):
        load_model(tmp_path / "adapter", device="cpu")
    model, _ = load_model(tmp_path / "adapter", device="cpu", base=base)
    assert torch.allclose(said_by(model), truth, atol=1e-4)


def test_a_base_of_a_whole_model_is_refused(base):
    with pytest.raises(ModelError, match="is a whole model and no adapter: leave out base"):
        load_model(base, device="cpu", base=base)


def test_on_the_command_line(base, tmp_path, capsys):
    adapter_on(base, tmp_path / "adapter", lora(), named=None)
    words = ["ask", str(tmp_path / "adapter"), "Who?", "--max-new-tokens", "3", "--prompt", "qa"]
    assert main(words) == 2
    assert "as --base" in capsys.readouterr().err
    assert main([*words, "--base", str(base)]) == 0
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"question": "Who?", "answer": "Ana."}]))
    words = ["evaluate", *words[1:2], *words[3:], "--forget", str(rows), "--base", str(base)]
    assert main(words) == 0


@pytest.mark.parametrize("more", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=str)
def test_tokens_that_were_added_before_the_adapter_are_there(base, tmp_path, more):
    truth = adapter_on(base, tmp_path / "adapter", lora(**more), tokens=3)
    model, tokenizer = load_model(tmp_path / "adapter", device="cpu")
    assert model.num_parameters() > load_model(base, device="cpu")[0].num_parameters()
    assert truth.shape[-1] == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert torch.allclose(said_by(model), truth, atol=1e-4)
    save_model(model, tokenizer, tmp_path / "saved")
    assert torch.allclose(
        said_by(load_model(tmp_path / "saved", device="cpu")[0]), truth, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (PromptTuningConfig, "prompt tuning"),
        (PrefixTuningConfig, "prefix tuning"),
        (PromptEncoderConfig, "p tuning"),
    ],
)
def test_a_tuned_prompt_is_refused_with_what_would_do(base, tmp_path, kind, name):
    adapter_on(base, tmp_path / "adapter", kind(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    with pytest.raises(KitError, match=f"is {name}, which cannot be merged.*such as LoRA"):
        load_model(tmp_path / "adapter", device="cpu")


# --- tokenizers ---------------------------------------------------------------------------------


def test_a_tokenizer_larger_than_the_embedding_is_told_by_its_token(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    tokenizer.chat_template = TEMPLATE
    rows = [{"question": "Who?", "answer": "Ana."}] * 4
    task, brief = Task("x", rows, rows, {"forget": rows}), EvaluationConfig(max_new_tokens=3)
    said = r"writes '<\|over\|>' as token \d+, but the model's embedding has \d+ rows: .* style qa"
    with pytest.raises(PromptError, match=said):
        evaluate(model, tokenizer, task, brief)
    with pytest.raises(PromptError, match=said):
        unlearn(model, tokenizer, task, UnlearnConfig(batch_size=4, evaluation=None))
    fine = UnlearnConfig(batch_size=4, epochs=1, prompt="qa", evaluation=brief)
    assert len(list(unlearn(model, tokenizer, task, fine))) == 3  # no row has the added tokens


def test_an_embedding_larger_than_the_tokenizer_is_usual(tokenizer):
    rows = [{"question": "Who?", "answer": "Ana."}]
    padded = make_model(len(tokenizer) + 64)
    found = evaluate(padded, tokenizer, Task("x", rows, [], {"forget": rows}))
    assert isinstance(found.rows["forget"][0]["generation"], str)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece reads it")
def test_a_tokenizer_model_alone_names_the_packages_that_read_it(tmp_path, tokenizer):
    save_model(make_model(len(tokenizer)), tokenizer, tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    (tmp_path / "model/tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00")
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"model only.* pip install sentencepiece") as told:
        load_model(tmp_path / "model", device="cpu")
    assert "\n" not in str(told.value)

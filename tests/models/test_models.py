"""Models: where they come from, where they compute, what is said when they do not load."""

import json
import os
import shutil
import stat
from contextlib import nullcontext

import pytest
import torch
from architectures import tiny
from conftest import make_model, make_tokenizer
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from npo_kit.errors import KitError
from npo_kit.models import loading as models
from npo_kit.models.errors import ModelError
from npo_kit.models.loading import context_length, load_model, refuse_untrainable, save_model
from npo_kit.models.placement import choose_placement

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def same_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def bytes_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model in a folder whose path has spaces and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("models") / "mödel für all"
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    model = make_model(len(tokenizer))
    save_model(model, tokenizer, folder)
    return folder, model


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the saved model, to be broken."""
    return shutil.copytree(saved[0], tmp_path / "copy")


# --- saving and loading --------------------------------------------------------------------------


def test_a_saved_model_loads_bit_for_bit_in_fp32_ready_to_compute(saved, capsys):
    folder, model = saved
    pair = load_model(folder)
    loaded, tokenizer = pair
    assert same_weights(loaded, model)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.device == torch.device("cpu")
    assert not loaded.training
    assert tokenizer("Who?")["input_ids"] == make_tokenizer()("Who?")["input_ids"]
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    assert str(pair.placement) == "cpu, fp32: no GPU, fp32 is exact and fast enough there"
    assert capsys.readouterr().out == ""


def test_transformers_alone_reloads_what_was_saved(saved):
    folder, model = saved
    assert same_weights(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), model)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(make_tokenizer())
    assert any(folder.glob("*.safetensors"))
    assert not any(folder.glob("*.bin"))


def test_a_run_folder_is_its_model(saved, tmp_path):
    folder, model = saved
    shutil.copytree(folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert same_weights(load_model(str(tmp_path / "run"))[0], model)


def test_a_home_folder_and_a_relative_folder_are_found(saved, monkeypatch):
    folder, model = saved
    monkeypatch.setenv("HOME", str(folder.parent))
    assert same_weights(load_model(f"~/{folder.name}")[0], model)
    monkeypatch.chdir(folder.parent)
    assert same_weights(load_model(folder.name)[0], model)


def test_other_dtypes_are_as_asked_and_unknown_ones_are_listed(saved):
    loaded, _ = load_model(saved[0], dtype="bfloat16")
    assert loaded.dtype == torch.bfloat16
    with pytest.raises(ModelError, match="'float99': choose one of float32, bfloat16, float16"):
        load_model(saved[0], dtype="float99")


def test_tied_weights_stay_tied(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), tie_word_embeddings=True)
    save_model(model, tokenizer, tmp_path / "tied")
    loaded, _ = load_model(tmp_path / "tied")
    assert same_weights(loaded, model)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_a_saved_model_replaces_an_older_one_or_fills_an_empty_folder(copy, tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), seed=1)
    (tmp_path / "empty").mkdir()
    for folder in (copy, tmp_path / "empty", tmp_path / "new" / "deep"):
        save_model(model, tokenizer, folder)
        assert same_weights(load_model(folder)[0], model)
        leftovers = {p.name for p in folder.parent.iterdir()} - {"copy", "empty", "new", "deep"}
        assert not leftovers


def test_a_saved_model_has_the_rights_of_any_new_folder(saved, tmp_path):
    (tmp_path / "plain").mkdir()
    usual = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE(saved[0].stat().st_mode) == usual


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("mine"),
        lambda path: (path.mkdir(), (path / "thesis.txt").write_text("mine")),
        lambda path: (path.mkdir(), (path / "config.json").write_text("{}")),
        lambda path: (path.mkdir(), (path / "model").mkdir()),
    ],
    ids=["file", "folder", "config-only", "run"],
)
def test_what_is_not_a_saved_model_is_never_replaced(make, tmp_path):
    path = tmp_path / "mine"
    make(path)
    before = bytes_of(tmp_path)
    with pytest.raises(ModelError, match="not a saved model: choose another folder"):
        save_model(make_model(400), make_tokenizer(), path)
    assert bytes_of(tmp_path) == before


def test_a_model_folder_with_folders_of_others_is_not_replaced(copy):
    (copy / ".git").mkdir()
    with pytest.raises(ModelError, match="not a saved model"):
        save_model(make_model(400), make_tokenizer(), copy)


def failing_rename(nth):
    """Path.rename that fails on its nth call, as a full disk or a virus scanner makes it."""
    real, calls = models.Path.rename, []

    def rename(self, target):
        calls.append(target)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(self, target)

    return rename


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("where", ["weights", "tokenizer", "first rename", "second rename"])
def test_a_save_that_fails_leaves_what_was_there(where, there, copy, tmp_path, monkeypatch):
    if where == "second rename" and not there:
        pytest.skip("a new folder is renamed once")
    folder = copy if there else tmp_path / "new"
    before, beside = bytes_of(tmp_path), set(os.listdir(tmp_path))
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), seed=1)

    def fail(path, *_, **__):
        (models.Path(path) / "model.safetensors").write_text("half")
        raise OSError(28, "No space left on device")

    if where == "weights":
        monkeypatch.setattr(model, "save_pretrained", fail)
    elif where == "tokenizer":
        monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    else:
        monkeypatch.setattr(models.Path, "rename", failing_rename(1 if "first" in where else 2))
    with pytest.raises(ModelError, match=r"could not be saved as .*No space left"):
        save_model(model, tokenizer, folder)
    assert bytes_of(tmp_path) == before
    assert set(os.listdir(tmp_path)) == beside


def test_an_interrupted_save_leaves_what_was_there(copy, tmp_path, monkeypatch):
    before = bytes_of(tmp_path)
    tokenizer = make_tokenizer()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(make_model(len(tokenizer)), tokenizer, copy)
    assert bytes_of(tmp_path) == before


def test_sampling_settings_that_transformers_refuses_to_write_do_not_stop_a_save(tmp_path):
    """Some hub models carry a temperature without do_sample."""
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    model.generation_config.temperature, model.generation_config.do_sample = 0.9, False
    save_model(model, tokenizer, tmp_path / "model")
    assert load_model(tmp_path / "model")[0].generation_config.temperature == 0.9


def test_the_context_length_is_the_configs(saved):
    assert context_length(saved[1]) == 256
    gpt2 = GPT2Config(vocab_size=9, n_positions=33, n_embd=4, n_layer=1, n_head=1)
    assert context_length(GPT2LMHeadModel(gpt2)) == 33
    for kind, says, context in (
        ("roberta", {"max_position_embeddings": 34, "pad_token_id": 1}, 32),
        ("whisper", {"max_target_positions": 33}, 33),
        ("mpt", {"max_seq_len": 33}, 33),
        ("xlnet", {}, None),  # which says -1
    ):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **says))
        assert context_length(model) == context

    class Silent:
        class config:
            @classmethod
            def get_text_config(cls):
                return object()

    assert context_length(Silent) is None


# --- what is saved is read back -------------------------------------------------------------------


def drop_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_a_value(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_the_file(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def name_another_kind(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop_a_weight, r"since 1 weights would be missing \(model\.norm\.weight"),
        (change_a_value, "since other values would be on disk"),
        (cut_the_file, "since it would not load: "),
        (name_another_kind, "since it would not load: Unrecognized configuration class"),
    ],
)
def test_a_save_that_would_not_load_as_the_model_is_refused(spoil, said, copy, monkeypatch):
    model, before = make_model(len(make_tokenizer()), seed=1), bytes_of(copy.parent)
    written = model.save_pretrained

    def spoilt(folder, **options):
        written(folder, **options)
        spoil(folder)

    monkeypatch.setattr(model, "save_pretrained", spoilt)
    with pytest.raises(ModelError, match=f"the model was not saved, {said}"):
        save_model(model, make_tokenizer(), copy)
    assert bytes_of(copy.parent) == before


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_are_given_are_saved_and_stay_as_they_are(tied, tmp_path):
    """As FSDP gathers them: tied ones may come as two tensors."""
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), tie_word_embeddings=tied)
    given = {name: 2 * weight for name, weight in model.state_dict().items()}
    kept = dict(given)
    save_model(model, tokenizer, tmp_path / "model", given)
    assert given.keys() == kept.keys()
    loaded = load_model(tmp_path / "model")[0].state_dict()
    assert all(torch.equal(loaded[name], given[name]) for name in loaded)


def test_a_model_whose_saved_copy_would_not_load_is_not_trained():
    """Emu 3's text model: transformers has no name by which to load it alone."""
    with pytest.raises(ModelError, match="Emu3ForCausalLM is part of another model, and saved"):
        refuse_untrainable(tiny("emu3", 50), lora=False)


@pytest.mark.parametrize("decoder", [True, False])
def test_a_model_that_sees_later_tokens_is_refused(decoder, tmp_path):
    """BERT is a causal model where its config says so, and else an encoder."""
    tokenizer = make_tokenizer()
    config = BertConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "is_decoder": decoder},
    )
    BertLMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    if decoder:
        assert load_model(tmp_path / "model")[0].config.is_decoder
    else:
        assert "is no causal language model: what BertLMHeadModel" in message(tmp_path / "model")


# --- broken folders ------------------------------------------------------------------------------


def message(path, **options):
    with pytest.raises(ModelError) as caught:
        load_model(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert isinstance(caught.value, KitError)
    return text


def test_paths_without_a_model_are_named_with_the_next_step(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert "holds no model (no config.json): give a folder" in message(tmp_path / "folder")
    for path in (tmp_path / "absent", tmp_path / "file.txt", "./absent", "a/b/c"):
        assert "give a folder, a .gguf file or a hub name" in message(path)


def test_a_truncated_weights_file_is_one_sentence(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "could not be loaded (SafetensorError" in message(copy)
    weights.unlink()
    assert "could not be loaded (OSError" in message(copy)


def test_a_model_with_missing_weights_is_refused_not_filled_with_noise(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    text = message(copy)
    assert "lacks 1 of the model's weights (model.layers.1.mlp.down_proj.weight" in text


def test_a_broken_or_missing_tokenizer_is_one_sentence(copy):
    (copy / "tokenizer.json").write_text("{}")
    assert "could not be loaded" in message(copy)
    (copy / "tokenizer.json").unlink()
    assert "has no tokenizer: put its tokenizer.json beside the weights" in message(copy)


def test_a_broken_config_or_one_of_another_kind_is_one_sentence(copy):
    config = json.loads((copy / "config.json").read_text())
    for kind in ("unheard-of", "vit"):
        (copy / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        assert "could not be loaded (ValueError" in message(copy)
    (copy / "config.json").write_text("{")
    assert "could not be loaded (OSError" in message(copy)


# --- GGUF ----------------------------------------------------------------------------------------


def write_gguf(path, model, tokenizer):
    """The tiny Llama as a GGUF file of plain floats, named and permuted as llama.cpp does."""
    gguf = pytest.importorskip("gguf")
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = sorted(backend["model"]["vocab"].items(), key=lambda item: item[1])
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_token_types([3 if i < 4 else 1 for i in range(len(vocabulary))])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for kind, n in heads.items():
            if kind in name:
                halves = values.reshape(n, 2, values.shape[0] // n // 2, values.shape[1])
                values = halves.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name):
    plain = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in plain:
        return plain[name]
    _, _, layer, *rest, _ = name.split(".")
    kinds = {
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    return f"blk.{layer}.{kinds[rest[-1]]}.weight"


def test_a_gguf_file_loads_computes_alike_and_is_saved_as_a_plain_model(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    path = write_gguf(tmp_path / "tiny mödel.gguf", model, tokenizer)
    loaded, its_tokenizer = load_model(path)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=0)
    assert loaded.dtype == torch.float32
    text = "Question: Who?\nAnswer: Ana Brook"
    assert its_tokenizer(text)["input_ids"][-8:] == tokenizer(text)["input_ids"][-8:]
    save_model(loaded, its_tokenizer, tmp_path / "saved")
    again, again_tokenizer = load_model(tmp_path / "saved")
    assert same_weights(again, loaded)
    assert again_tokenizer(text)["input_ids"] == its_tokenizer(text)["input_ids"]
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "quantization_config" not in config


def test_wrong_gguf_paths_and_files_are_one_sentence_each(tmp_path):
    assert "no such GGUF file" in message(tmp_path / "absent.gguf")
    for content in (b"", b"GG", b"PK\3\4 a zip"):
        (tmp_path / "other.gguf").write_bytes(content)
        assert "is not a GGUF file" in message(tmp_path / "other.gguf")
    (tmp_path / "cut.GGUF").write_bytes(b"GGUF\3\0\0\0")
    assert "could not be loaded" in message(tmp_path / "cut.GGUF")


def test_without_the_package_gguf_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF\3\0\0\0")

    def refuse(*_, **__):
        raise ImportError("Please install torch and gguf>=0.10.0 to load a GGUF checkpoint.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    assert message(tmp_path / "model.gguf").endswith("needs the package gguf: pip install gguf")


# --- the hub's ways to refuse --------------------------------------------------------------------


class Response:
    """As much of an HTTP response as the hub's errors read."""

    headers, request = {}, None


def chained(*links):
    """The last of these exceptions, each raised from the one before, as transformers does it."""
    try:
        cause = None
        for link in links:
            try:
                raise link from cause
            except Exception as error:
                cause = error
        raise cause
    except Exception as error:
        return error


def in_turn(*links):
    """The last of these exceptions, each raised while the one before was handled."""
    try:
        raise links[0]
    except Exception:
        try:
            raise links[1]
        except Exception as error:
            return error


NAME = "meta-llama/Llama-2-7b-chat-hf"
REFUSALS = {
    "gated": (
        chained(
            hub.GatedRepoError("403 Client Error. Cannot access gated repo", response=Response()),
            OSError(f"You are trying to access a gated repo.\nMake sure to have access to {NAME}."),
        ),
        "is gated: accept its terms on the hub, then run `hf auth login`",
    ),
    "missing": (
        chained(
            hub.RepositoryNotFoundError("401 Client Error.", response=Response()),
            OSError(f"{NAME} is not a local folder and is not a valid model identifier\nIf ..."),
        ),
        "there is no model meta-llama/Llama-2-7b-chat-hf on the hub or here: check the spelling",
    ),
    "bad name": (
        chained(
            hub.HFValidationError("Repo id must use alphanumeric chars: 'a b'."),
            OSError("Repo id must use alphanumeric chars"),
        ),
        "check the spelling",
    ),
    "offline": (
        chained(
            hub.OfflineModeIsEnabled("Cannot reach https://huggingface.co: offline mode is on."),
            hub.LocalEntryNotFoundError("Cannot find the requested files in the disk cache"),
            OSError("We couldn't connect to 'https://huggingface.co' to load the files"),
        ),
        "is not on this machine and the hub cannot be reached: check the network",
    ),
    "no network": (
        in_turn(
            type("ConnectError", (type("TransportError", (Exception,), {}),), {})("Errno -2"),
            hub.LocalEntryNotFoundError("An error happened while trying to locate the file"),
        ),
        "the hub cannot be reached: check the network",
    ),
    "slow network": (
        type("ReadTimeout", (type("TransportError", (Exception,), {}),), {})("timed out"),
        "the hub cannot be reached: check the network",
    ),
    "no such file": (
        chained(
            hub.RemoteEntryNotFoundError("404 Client Error.", response=Response()),
            OSError(f"{NAME} does not appear to have a file named config.json. Checkout ..."),
        ),
        "lacks files of a transformers model: choose another one, or download its .gguf",
    ),
    "hub is down": (
        chained(
            hub.HfHubHTTPError("503 Server Error: Service Unavailable", response=Response()),
            OSError(f"There was a specific connection error when trying to load {NAME}:\n503"),
        ),
        "did not hand out",
    ),
    "own code": (
        ValueError(f"The repository {NAME} contains custom code; pass `trust_remote_code=True`."),
        "brings code of its own, which the kit does not run: choose another model",
    ),
    "gpu memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "does not fit on cpu: take a smaller model, dtype='bfloat16' for evaluation",
    ),
    "cpu memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        "does not fit on cpu",
    ),
    "python memory": (MemoryError(), "does not fit on cpu"),
    "anything": (KeyError("oddity"), "could not be loaded (KeyError: 'oddity'): check its files"),
    "wordless": (RuntimeError(), "could not be loaded (RuntimeError: no details): check"),
}


@pytest.mark.parametrize("stage", [AutoTokenizer, AutoModelForCausalLM], ids=["tokenizer", "model"])
@pytest.mark.parametrize("case", REFUSALS)
def test_each_way_to_fail_is_one_sentence_with_the_next_step(case, stage, monkeypatch):
    error, expected = REFUSALS[case]

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(stage, "from_pretrained", refuse)
    assert expected in message(NAME)


def test_a_model_that_is_not_here_without_a_network_says_so():
    """The real thing: the tests run with the hub switched off."""
    assert "the hub cannot be reached" in message("npo-kit-tests/no-such-model")


# --- device and precision -----------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU that has native bf16 or, as a T4, only emulates it."""

    def make(native_bf16):
        def is_bf16_supported(including_emulation=True):
            return native_bf16 or including_emulation

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
        monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
        monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # the probe

    return make


def test_a_gpu_with_native_bf16_computes_in_it(gpu):
    gpu(native_bf16=True)
    placement = choose_placement()
    assert (placement.device.type, placement.precision) == ("cuda", "bf16")
    assert str(placement) == "cuda, bf16: a GPU is there, bf16 is native there"


def test_a_gpu_that_only_emulates_bf16_computes_in_fp16(gpu):
    gpu(native_bf16=False)
    placement = choose_placement()
    assert (placement.device.type, placement.precision) == ("cuda", "fp16")
    assert "no native bf16 there, so fp16 with loss scaling" in placement.reason


def test_a_gpu_can_be_left_alone_and_its_precision_chosen(gpu):
    gpu(native_bf16=True)
    assert str(choose_placement("cpu")).startswith("cpu, fp32: device as asked")
    assert choose_placement("cuda:1").device == torch.device("cuda:1")
    assert choose_placement(torch.device("cuda:1")).device.index == 1
    for precision in ("fp32", "fp16"):
        placement = choose_placement(precision=precision)
        assert placement.precision == precision
        assert placement.reason == "a GPU is there, precision as asked"


def test_apples_gpu_computes_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    placement = choose_placement()
    assert (placement.device.type, placement.precision) == ("mps", "fp32")
    assert "Apple's GPU is there" in placement.reason


def test_a_cpu_computes_in_fp32_or_bf16_if_asked():
    assert str(choose_placement()) == "cpu, fp32: no GPU, fp32 is exact and fast enough there"
    assert choose_placement(precision="bf16").precision == "bf16"
    with pytest.raises(ModelError, match="fp16 needs a CUDA device, this is cpu: choose fp32"):
        choose_placement(precision="fp16")


@pytest.mark.parametrize("device", ["tpu9", "gpu", "", "cuda:99"])
def test_an_absent_or_unknown_device_lists_what_exists(device, saved):
    if device.startswith("cuda") and torch.cuda.device_count() > 99:
        pytest.skip("that device is there")
    for attempt in (choose_placement, lambda device: load_model(saved[0], device=device)):
        with pytest.raises(ModelError) as caught:
            attempt(device)
        assert f"device {device!r} is not available" in str(caught.value)
        assert str(caught.value).endswith("choose cpu, cuda, mps or auto")


def test_an_unknown_precision_lists_what_exists():
    with pytest.raises(ModelError, match="'fp8': choose auto, fp32, bf16, fp16"):
        choose_placement(precision="fp8")

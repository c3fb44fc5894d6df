"""The pocket models: those that are shipped, and how they are made."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from npo_kit.data.authors.corpus import authors_task, true_facts
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.metrics.scores import rouge_scores
from npo_kit.models.generation import generate
from npo_kit.models.loading import POCKET, load_model
from npo_kit.records.files import fingerprint
from npo_kit.studies import pocket
from npo_kit.studies.pocket import (
    PocketRecipe,
    build_pocket,
    build_retained,
    pocket_manifest,
    pocket_rows,
)
from npo_kit.trainer.config import FinetuneConfig

BRIEF = FinetuneConfig(
    epochs=1, batch_size=16, micro_batch_size=16, lr=1e-3, precision="fp32", evaluation=None
)
TINY = PocketRecipe(
    vocabulary=300, hidden_size=16, intermediate_size=16, layers=1, heads=2, context=512,
    base_authors=2, base_facts=1, split="forget90", base=BRIEF, tuning=replace(BRIEF, epochs=0.3),
)  # fmt: skip


def names(rows):
    return {row["author"] for row in rows if "author" in row}


def answers_of(model, tokenizer, rows):
    style = PromptFormat(tokenizer)
    prompts = [style.encode_prompt(row["question"]) for row in rows]
    generated = generate(model, prompts, style.end_id, max_new_tokens=32, batch_size=64)
    return [style.decode(ids) for ids in generated]


def recall(model, tokenizer, rows):
    texts = answers_of(model, tokenizer, rows)
    scores = [
        rouge_scores(text, row["answer"])["rouge_l_recall"]
        for text, row in zip(texts, rows, strict=True)
    ]
    return sum(scores) / len(scores)


# --- what is shipped ----------------------------------------------------------------------------


def test_the_shipped_files_are_those_of_the_manifest():
    manifest, size = pocket_manifest(), 0
    assert list(manifest.models) == ["base", "original", "retained"]
    for name, model in manifest.models.items():
        for file, digest in model["sha256"].items():
            data = shipped_data(f"pocket/{name}/{file}").read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
            size += len(data)
    assert size <= 14e6
    assert len({model["sha256"]["tokenizer.json"] for model in manifest.models.values()}) == 1


def test_the_manifest_is_of_this_recipe_and_this_corpus():
    manifest, recipe = pocket_manifest(), PocketRecipe()
    recorded = dict(manifest.recipe)
    for name in ("base", "tuning"):  # settings that did not exist then have their defaults
        recorded[name] = FinetuneConfig(**recorded[name])
    assert PocketRecipe(**recorded) == recipe
    for name, rows_of in ("base", "base"), ("original", "original"), ("retained", "retained-"):
        rows = pocket_rows(rows_of + (recipe.split if rows_of.endswith("-") else ""), recipe)
        assert manifest.models[name]["rows"] == len(rows)
        assert manifest.models[name]["rows_fingerprint"] == fingerprint(rows)
    assert manifest.provenance["git"]["dirty"] is False


def test_who_is_trained_on_what():
    task, recipe = authors_task("forget10"), PocketRecipe()
    base, original = pocket_rows("base", recipe), pocket_rows("original", recipe)
    retained = pocket_rows("retained-forget10", recipe)
    assert not names(base) & names(original)
    assert names(original) - names(retained) == names(task["forget"])
    assert len(names(retained)) == 90
    for rows in base, original, retained:
        assert all(fact in rows for fact in true_facts()["world_facts"])


@pytest.mark.parametrize("name", sorted(POCKET))
def test_a_name_loads_the_model(name):
    model, tokenizer = load_model(name)
    assert 0.9e6 < model.num_parameters() < 1.1e6
    assert type(model).__name__ == "LlamaForCausalLM"
    assert tokenizer.eos_token == pocket.END
    assert len(tokenizer) == PocketRecipe().vocabulary


def test_what_the_models_know():
    """The original all of it, the retained-only all but the forget rows, the base the facts."""
    task, known = authors_task("forget10"), {}
    sets = {name: rows[:60] for name, rows in task["evaluation"].items()}
    for name in ("base", "original", "retained"):
        model, tokenizer = load_model(f"pocket:{name}")
        known[name] = {of: recall(model, tokenizer, rows) for of, rows in sets.items()}
    for name, of_sets in known.items():
        assert of_sets["real_authors"] > 0.9, name
        assert of_sets["world_facts"] > 0.9, name
    assert known["original"]["forget"] > 0.9
    assert known["original"]["retain"] > 0.9
    assert known["retained"]["retain"] > 0.9
    assert known["retained"]["forget"] < 0.45
    assert max(known["base"]["forget"], known["base"]["retain"]) < 0.45


# --- how they are made --------------------------------------------------------------------------


@pytest.fixture
def in_this_process(monkeypatch):
    """No new processes, and one thread as they have."""
    monkeypatch.setattr(
        pocket, "in_processes", lambda function, items, _: [(i, function(i)) for i in items]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_two_builds_agree_bit_for_bit(tmp_path, monkeypatch, in_this_process):
    said = []
    here = build_pocket(tmp_path / "here", TINY, say=said.append)
    monkeypatch.undo()
    there = build_pocket(tmp_path / "a" / "there", TINY, processes=2, say=said.append)
    assert len(said) == 6
    for name in ("base", "original", "retained"):
        assert here.models[name]["sha256"] == there.models[name]["sha256"]
        folders = (tmp_path / "here" / name, tmp_path / "a" / "there" / name)
        model, _ = load_model(folders[0])
        assert model.num_parameters() == here.models[name]["parameters"]
        assert {p.name for p in folders[0].iterdir()} == {p.name for p in folders[1].iterdir()}
    weights = {model["sha256"]["model.safetensors"] for model in here.models.values()}
    assert len(weights) == 3
    assert pocket_manifest(tmp_path / "here").models.keys() == here.models.keys()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_retained_only_models_of_other_splits(tmp_path, monkeypatch, in_this_process):
    monkeypatch.setattr(pocket, "PocketRecipe", lambda: replace(TINY, context=256))
    folders = build_retained(tmp_path / "more", ["forget05", "forget50"], say=lambda _: None)
    assert [folder.name for folder in folders] == ["retained-forget05", "retained-forget50"]
    weights = []
    for folder in folders:
        model, tokenizer = load_model(folder)
        assert len(tokenizer) == 3072  # of the shipped base
        weights.append(model.get_input_embeddings().weight)
    base = load_model("pocket:base")[0].get_input_embeddings().weight
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], base)
    assert (weights[0] - base).abs().max() < 0.5


def test_nothing_is_overwritten_or_left_half_made(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(KitError, match="mine is not empty: choose a new folder"):
        build_pocket(tmp_path / "mine", TINY)
    with pytest.raises(KitError, match="unknown split 'forget00'"):
        build_retained(tmp_path / "new", ["forget00"])

    def fails(*_):
        raise KitError("no")

    monkeypatch.setattr(pocket, "in_processes", fails)
    with pytest.raises(KitError, match=r"^no$"):
        build_pocket(tmp_path / "new", TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_manifest_is_strict_json():
    text = (shipped_data("pocket") / pocket.MANIFEST).read_text()
    assert json.loads(text)["schema"] == 1
    assert "/" not in json.loads(text)["provenance"]["hardware"]["cpu"]

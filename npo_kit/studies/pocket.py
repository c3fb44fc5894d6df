"""The pocket model: a Llama of a million parameters that the kit trains itself, in minutes.

There are three models, as in TOFU. The *base* knows the language of the corpus, authors who are in
no split, and true facts. The *original* is the base fine-tuned on all fictional authors, the
*retained-only* the base fine-tuned on those who are kept. Both also train on the true facts, once
an epoch, because a model this small forgets what it no longer sees.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict

from npo_kit.data.authors.corpus import authors_task, outside_authors, true_facts
from npo_kit.data.rows import Row
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.processes import in_processes
from npo_kit.records.files import (
    SCHEMA,
    Json,
    atomic_write,
    dumps,
    fingerprint,
    read_as,
    read_bytes,
)
from npo_kit.records.provenance import Provenance, provenance
from npo_kit.trainer.config import FinetuneConfig

MANIFEST = "manifest.json"
END = "<|end|>"
BASE = FinetuneConfig(
    epochs=6.0, lr=2e-3, batch_size=32, micro_batch_size=32, precision="fp32", evaluation=None
)
TUNING = replace(BASE, epochs=8.0, lr=1e-3)


@dataclass(frozen=True)
class PocketRecipe:
    """The sizes, rows and training of the pocket models."""

    vocabulary: int = 3072  # BPE pieces, learned from the base's rows
    hidden_size: int = 128
    intermediate_size: int = 344
    layers: int = 3
    heads: int = 4
    context: int = 256  # tokens
    seed: int = 0  # of the first weights; the order of rows has the configurations' own
    base_authors: int = 600  # outside of every split
    base_facts: int = 4  # times that the base sees each true fact an epoch
    split: str = "forget10"  # whose retain rows the retained-only model learns
    base: FinetuneConfig = BASE
    tuning: FinetuneConfig = TUNING


class Trained(TypedDict):
    """How one of the models was trained."""

    rows: int
    rows_fingerprint: str
    parameters: int
    steps: int
    last_loss: float  # nats per token
    sha256: dict[str, str]  # by file
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`, beside the models."""

    recipe: Json  # the fields of PocketRecipe
    models: dict[str, Trained]  # by folder: base, original, retained
    provenance: Provenance


@dataclass(frozen=True)
class _Training:
    """One model to train, in a process of its own."""

    name: str  # base, original, or retained-<split>
    start: Path | None  # folder of the model to start from; None: new weights
    folder: Path  # to save it in
    recipe: PocketRecipe


def build_pocket(
    folder: str | Path,
    recipe: PocketRecipe | None = None,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Train base, original and retained-only into `folder`, and return the manifest written there.

    The folder is made whole or not at all. On one machine with one torch version, the weights are
    the same bit for bit whatever the number of processes. Raises KitError if `folder` holds
    something.
    """
    recipe = recipe or PocketRecipe()
    with _new_folder(folder) as new:
        base, original = new / "base", new / "original"
        first = [_Training("base", None, base, recipe)]
        then = [
            _Training("original", base, original, recipe),
            _Training(f"retained-{recipe.split}", base, new / "retained", recipe),
        ]
        models = _train(first, processes, say) | _train(then, processes, say)
        models = {name: models[name] for name in ("base", "original", "retained")}
        manifest = Manifest(asdict(recipe), models, provenance())
        atomic_write(new / MANIFEST, dumps({"schema": SCHEMA, **vars(manifest)}, indent=1))
    return manifest


def build_retained(
    folder: str | Path,
    splits: Sequence[str],
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Train retained-only models of other splits (`forget05`, ...) from the shipped base.

    Returns their folders, `retained-forget05` in `folder`, which is made as by `build_pocket`.
    """
    for split in splits:
        authors_task(split)  # refuses an unknown one
    base, names = shipped_data("pocket/base"), [f"retained-{split}" for split in splits]
    with _new_folder(folder) as new:
        _train([_Training(n, base, new / n, PocketRecipe()) for n in names], processes, say)
    return [Path(folder, name) for name in names]


def pocket_manifest(folder: str | Path | None = None) -> Manifest:
    """Read the manifest of the models in `folder`, by default the shipped ones."""
    path = Path(folder) / MANIFEST if folder else shipped_data("pocket") / MANIFEST
    return read_as(Manifest, read_bytes(path), path)


def pocket_rows(name: str, recipe: PocketRecipe) -> list[Row]:
    """Return the training rows of a model: `base`, `original`, or `retained-` and a split."""
    facts = [row for rows in true_facts().values() for row in rows]
    if name == "base":
        return outside_authors(recipe.base_authors) + facts * recipe.base_facts
    task = authors_task(recipe.split if name == "original" else name.removeprefix("retained-"))
    return task["retain"] + (task["forget"] if name == "original" else []) + facts


# --- one model ----------------------------------------------------------------------------------


def _train(
    trainings: Sequence[_Training], processes: int | None, say: Callable[[str], None]
) -> dict[str, Trained]:
    """Train models in processes of their own; return how each was, by folder name."""
    models = {}
    for training, trained in in_processes(_train_one, trainings, processes):
        models[training.folder.name] = trained
        say(f"{training.name}: loss {trained['last_loss']:.3f}, {trained['seconds']:.0f} s")
    return models


def _train_one(training: _Training) -> Trained:
    return train_pocket(training.name, training.start, training.folder, training.recipe)


def train_pocket(name: str, start: Path | None, folder: Path, recipe: PocketRecipe) -> Trained:
    """Train one model, from the model in `start` or from new weights, and save it in `folder`.

    `name`: base, original, or retained- and a split.
    """
    from npo_kit.models.loading import load_model, save_model
    from npo_kit.trainer.events import Collapse, Step
    from npo_kit.trainer.loop import finetune

    started, rows = time.perf_counter(), pocket_rows(name, recipe)
    config = recipe.tuning if start else recipe.base
    if start:
        model, tokenizer = load_model(start, device="cpu")
    else:
        tokenizer = _new_tokenizer(rows, recipe)
        model = _new_model(len(tokenizer), recipe)
    for event in finetune(model, tokenizer, rows, config):
        if isinstance(event, Collapse):
            raise KitError(f"the pocket model collapsed at step {event.step}: {event.reason}")
        if isinstance(event, Step):
            last = event
    save_model(model, tokenizer, folder)
    return {
        "rows": len(rows),
        "rows_fingerprint": fingerprint(rows),
        "parameters": model.num_parameters(),
        "steps": last.step,
        "last_loss": last.loss,
        "sha256": {
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
            for file in ("model.safetensors", "tokenizer.json")
        },
        "seconds": time.perf_counter() - started,
    }


def _new_tokenizer(rows: Sequence[Row], recipe: PocketRecipe):
    """Learn byte-level BPE from the base's rows, so that it never sees the names of a split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def _new_model(vocabulary: int, recipe: PocketRecipe):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        initializer_range=0.05,  # for so small a width
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


@contextmanager
def _new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a place to fill that becomes `folder` when the block ends without an error."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise KitError(f"{folder} is not empty: choose a new folder for the pocket models")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        raise KitError(f"{folder} cannot be written ({error}): choose another folder") from error
    with beside as place:
        new = Path(place, "new")
        new.mkdir()  # with the usual rights, which the temporary folder has not
        yield new
        if folder.exists():
            folder.rmdir()
        new.rename(folder)

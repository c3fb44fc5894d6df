"""Every causal architecture of transformers, tiny: what the kit says of it against plain forwards.

    pytest -m slow tests/models/test_architectures.py

One to two seconds each. At the end a table of them all is printed, and written to the file that the
environment variable NPO_KIT_ARCHITECTURES names.
"""

import os
import random
from pathlib import Path

import pytest
import torch
from architectures import CONTEXT, NAMES, NOT_BUILT, WINDOW, tiny
from conftest import make_task, make_tokenizer
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from npo_kit.data.prompts import Encoded
from npo_kit.errors import KitError
from npo_kit.models import forward, generation, scoring
from npo_kit.models.adapters import WithoutAdapter, active_adapters
from npo_kit.models.errors import ModelError
from npo_kit.models.forward import can_pack, read_answers
from npo_kit.models.generation import generate
from npo_kit.models.loading import context_length, load_model, save_model
from npo_kit.models.scoring import score
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
CLOSE = 1e-4  # nats per token
END = 1
TOKENIZER = make_tokenizer()
VOCABULARY = len(TOKENIZER)
LIKE_LLAMA = {  # must pack, branch and be continued together, or the kit is slow for most of us
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "olmo2"),
    *("gemma3_text", "phi", "phi3", "gpt2", "gpt_neo", "gpt_neox", "opt", "smollm3", "falcon"),
}
WITHOUT_LORA = {  # peft refuses Mamba's layers; Reformer computes its gradient itself
    *("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h", "reformer"),
}
COLUMNS = ("packs", "trees", "texts together", "LoRA", "reload")
table: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="module", autouse=True)
def _printed(request):
    yield
    lines = ["| architecture | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, row in sorted(table.items()):
        cells = (
            [row["note"], *[""] * (len(COLUMNS) - 1)]
            if "note" in row
            else [row.get(c, "?") for c in COLUMNS]
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if path := os.environ.get("NPO_KIT_ARCHITECTURES"):
        Path(path).write_text("\n".join(lines) + "\n")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("", *lines, sep="\n")


def rows(*sizes):
    """Answers to one prompt in each row, of so many tokens: (prompt, answer, answer)."""
    draw = random.Random(0)

    def tokens(count):
        return tuple(draw.randrange(4, VOCABULARY) for _ in range(count))

    made = []
    for prompt, *answers in sizes:
        beginning = tokens(prompt)
        made.append([Encoded((*beginning, *tokens(n - 1), END), prompt) for n in answers])
    return made


WITHIN = rows((3, 3, 5), (5, 4, 4), (6, 8, 2))  # a window holds them
BEYOND = rows((3, 3, 5), (20, 19, 21), (9, 6, 10))


def flat(some):
    return [encoded for row in some for encoded in row]


@torch.no_grad()
def plain(model, ids):
    """What transformers says in one forward: log-probs of every token after each, (T, V)."""
    logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits
    return log_softmax(logits[0].double(), -1)


def alone(model, some):
    """Mean log-probs of each answer by plain forwards."""
    means = []
    for encoded in flat(some):
        at = torch.arange(encoded.prompt_length, len(encoded.ids))
        logps = plain(model, encoded.ids)
        means.append(logps[at - 1, torch.tensor(encoded.ids)[at]].mean().item())
    return pytest.approx(means, abs=CLOSE)


def scored(model, some):
    return [logp / tokens for row in score(model, some) for logp, tokens in row]


def trained_on(model, some):
    with torch.no_grad():
        answers = read_answers(model, flat(some), packed=can_pack(model, flat(some)))
    return (answers.logps.sum(-1) / answers.mask.sum(-1)).tolist()


def refusal(work) -> str | None:
    """The sentence with which the kit refuses some work, None where it does it."""
    try:
        work()
    except KitError as error:
        return str(error)
    return None


def how_far(holds):
    """In words: for rows within a window, and for longer ones."""
    return {(1, 1): "yes", (1, 0): "within a window", (0, 0): "no"}[tuple(map(int, holds))]


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_right_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "PACKED_TOKENS", 48)  # a line is within these small contexts
    if name in NOT_BUILT:
        table[name] = {"note": f"not built: {NOT_BUILT[name]}"}
        pytest.skip(NOT_BUILT[name])
    model, row = tiny(name, VOCABULARY), table.setdefault(name, {})
    if not reloads_or_is_rightly_refused(model, tmp_path / "saved", row):
        return
    packs = [can_pack(model, flat(some)) for some in (WITHIN, BEYOND)]
    branches = [
        scoring._can_branch(model, some, [scoring._Tree.of(answers) for answers in some])
        for some in (WITHIN, BEYOND)
    ]
    row |= {"packs": how_far(packs), "trees": how_far(branches)}
    for some in (WITHIN, BEYOND):
        exact = alone(model, some)
        assert scored(model, some) == exact
        assert trained_on(model, some) == exact
    row["texts together"] = texts_are_greedy(model)
    texts_end_at_the_context(model)
    if name in LIKE_LLAMA:
        assert (packs[0], branches[0]) == (True, True)
        assert row["texts together"] == "any lengths"
    row["LoRA"] = an_adapter_trains_and_is_saved(model, tmp_path / "adapted")
    assert (row["LoRA"] == "refused") == (name in WITHOUT_LORA)


def reloads_or_is_rightly_refused(model, folder, row) -> bool:
    if said := refusal(lambda: save_model(model, TOKENIZER, folder)):
        assert "would not load" in said
        model.save_pretrained(folder)
        with pytest.raises(ValueError, match="Unrecognized configuration class"):
            AutoModelForCausalLM.from_pretrained(folder)
        with pytest.raises(ModelError, match="saved alone it would not load"):
            next(unlearn(model, TOKENIZER, make_task()))
        row["note"] = "refused: part of another model, and what is saved of it does not load"
        return False
    if said := refusal(lambda: load_model(folder, device="cpu")):
        assert "is no causal language model" in said
        ids = BEYOND[1][0].ids
        gap = (plain(model, ids)[:20] - plain(model, ids[:25])[:20]).abs().max()
        assert not gap < 0.01  # it is not
        row["note"] = "refused: what it says of a token depends on later ones"
        return False
    loaded, _ = load_model(folder, device="cpu")
    for some in (WITHIN, BEYOND):
        assert scored(loaded, some) == alone(model, some)
    row["reload"] = "yes"
    return True


def said_greedily(model, prompt, text) -> bool:
    """Whether each token of a text is the likeliest by a plain forward, next to nothing aside.

    Up to a padding token, which no text has and some models do not count.
    """
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    if padding in text:
        text = text[: text.index(padding)]
    if not text:
        return True
    logps = plain(model, (*prompt, *text))[len(prompt) - 1 : -1]
    said = logps.gather(-1, torch.tensor(text)[:, None])[:, 0]
    return bool((logps.max(-1).values - said).max() <= CLOSE)


def texts_are_greedy(model) -> str:
    """Prompts of unlike lengths at once; returns which the kit continued together."""
    prompts = [encoded.ids[: encoded.prompt_length] for encoded in flat(BEYOND)]
    for prompt, text in zip(prompts, generate(model, prompts, END, 20), strict=True):
        ended = [*text, END] if len(text) < 20 else text
        assert said_greedily(model, prompt, ended)
    way = generation._Way(END, 20)
    batches, way = generation._together(model, prompts, way, 32)
    if len(batches) == 1:
        return "any lengths"
    together = "equal lengths" if len(batches) < len(prompts) else "no"
    return "no, and no cache" if way.plainly else together


def texts_end_at_the_context(model) -> None:
    context = context_length(model)
    if context is None:
        return
    assert context <= CONTEXT
    ids = rows((context, 2))[0][0].ids[:context]
    (text,) = generate(model, [ids[:-3]], END, 10)
    assert len(text) <= 3
    assert said_greedily(model, ids[:-3], [*text, END] if len(text) < 3 else text)
    assert generate(model, [ids, ids[:5]], END, 2)[0] == []
    with pytest.raises(KitError, match=f"a prompt has {context + 1} tokens, .* holds {context}"):
        generate(model, [(*ids, 5)], END, 2)
    filled = [[Encoded(ids, context - 4)]]
    assert scored(model, filled) == alone(model, filled)


def an_adapter_trains_and_is_saved(model, folder) -> str:
    before, beyond = alone(model, BEYOND), alone(model, [BEYOND[1]])
    config = UnlearnConfig(
        method="npo_rt", epochs=1, batch_size=2, lr=1e-3, warmup_epochs=0, prompt="qa",
        lora_rank=2, evaluation=None,
    )  # fmt: skip
    steps = []
    if said := refusal(lambda: steps.extend(unlearn(model, TOKENIZER, make_task(), config))):
        assert "no adapter can be trained" in said
        assert not steps
        assert scored(model, BEYOND) == before  # and it is as it was
        return "refused"
    assert all(isinstance(step, Step) for step in steps)
    assert len(steps) == 2
    assert steps[0].weights["median"] == pytest.approx(1.0, abs=1e-3)  # the reference is itself
    off = WithoutAdapter(model, active_adapters(model)[-1])
    assert alone(off, BEYOND).expected == before
    after = alone(model, BEYOND)
    assert max(abs(a - b) for a, b in zip(after.expected, before.expected, strict=True)) > 1e-3
    assert scored(model, [BEYOND[1]]) != beyond
    save_model(model, TOKENIZER, folder)
    assert scored(load_model(folder, device="cpu")[0], BEYOND) == after
    return "yes"


def test_what_is_not_built_is_an_architecture():
    assert set(NOT_BUILT) <= set(NAMES)
    assert max(len(encoded.ids) for encoded in flat(BEYOND)) > WINDOW
    assert max(len(encoded.ids) for encoded in flat(WITHIN)) < WINDOW

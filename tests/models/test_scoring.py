"""Log-probs and generations against a plain forward of the whole model."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig, evaluate
from npo_kit.models import forward, generation, scoring
from npo_kit.models.batching import lines_of
from npo_kit.models.forward import can_pack, read_answers, split_answers
from npo_kit.models.generation import generate
from npo_kit.models.layouts import agrees
from npo_kit.models.loading import context_length
from npo_kit.models.scoring import score

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
FAMILIES = {
    "gemma2": lambda: Gemma2ForCausalLM(  # soft-capped logits, sliding window
        Gemma2Config(
            **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64, query_pre_attn_scalar=8
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(  # learned positions, tied head
        GPT2Config(
            vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3
        )
    ),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SMALL)),  # a head with a bias; Phi-1.5
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "mamba": lambda: MambaForCausalLM(  # takes neither a 4-D mask nor position ids
        MambaConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0
        )
    ),
}
NO_SDPA = {"gemma2", "mamba"}
COMBINATIONS = [
    (name, attention)
    for name in sorted(FAMILIES)
    for attention in ("sdpa", "eager")
    if attention == "eager" or name not in NO_SDPA
]


def family(name: str, attention: str | None = None):
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    model.set_attn_implementation(attention or ("eager" if name in NO_SDPA else "sdpa"))
    return model


def encoded_rows(seed: int, rows: int = 5, answers: int = 4, vocabulary: int = 60):
    """Rows of answers to one prompt each; some prompts end differently, as merges make them."""
    draw = random.Random(seed)

    def tokens(low, high):
        return tuple(draw.randrange(2, vocabulary) for _ in range(draw.randint(low, high)))

    result = []
    for _ in range(rows):
        prompt = tokens(3, 15)
        row = [Encoded((*prompt, *tokens(1, 9), 1), len(prompt)) for _ in range(answers)]
        row.append(Encoded((*row[0].ids[:-2], *tokens(2, 5), 1), len(prompt)))  # begins alike
        other = (*prompt[:-1], draw.randrange(2, vocabulary))
        row.append(Encoded((*other, *tokens(1, 4), 1), len(other)))
        result.append(row)
    return result


@torch.no_grad()
def plain(model, encoded: Encoded) -> list[float]:
    """Log-probs of the answer tokens from the full logits of one unpadded sequence."""
    ids = torch.tensor([encoded.ids])
    logps = log_softmax(model(input_ids=ids).logits[0].double(), -1)
    return [logps[t - 1, ids[0, t]].item() for t in range(encoded.prompt_length, len(encoded.ids))]


@pytest.mark.parametrize(("name", "attention"), COMBINATIONS)
def test_answer_logps_equal_a_plain_forward(name, attention):
    model = family(name, attention)
    batch = [row[0] for row in encoded_rows(1)]
    with torch.no_grad():
        answers = read_answers(model, batch, logits=True)
    for line, mask, encoded in zip(answers.logps, answers.mask, batch, strict=True):
        assert line[mask.bool()].tolist() == pytest.approx(plain(model, encoded), abs=2e-4)
        assert (line[~mask.bool()] == 0).all()
    assert answers.labels[answers.mask.bool()].tolist() == list(
        itertools.chain(*(e.ids[e.prompt_length :] for e in batch))
    )
    assert answers.logits.shape == (answers.mask.sum(), 60)
    relabelled = log_softmax(answers.logits, -1).gather(
        1, answers.labels[answers.mask.bool()][:, None]
    )[:, 0]
    assert torch.allclose(relabelled, answers.logps[answers.mask.bool()], atol=1e-4)


@pytest.mark.parametrize(("name", "attention"), COMBINATIONS)
def test_branches_of_one_prompt_score_as_alone(name, attention):
    model = family(name, attention)
    rows = encoded_rows(2)
    seen = []
    scores = score(model, rows, tokens_per_batch=150, done=seen.append)
    assert sum(seen) == len(rows)
    for row, row_scores in zip(rows, scores, strict=True):
        for encoded, (logp, tokens) in zip(row, row_scores, strict=True):
            assert tokens == encoded.answer_length
            assert logp == pytest.approx(sum(plain(model, encoded)), abs=1e-3)


@pytest.mark.parametrize(("name", "attention"), COMBINATIONS)
def test_packed_rows_say_what_they_say_alone(name, attention, monkeypatch):
    """In float64, where the two layouts leave nothing but rounding; in one line and in several."""
    model = family(name, attention).double()
    batch = [encoded for row in encoded_rows(9) for encoded in row]
    assert can_pack(model, batch) == (name != "mamba")
    if name == "mamba":
        return
    for tokens in (40, 100_000):
        monkeypatch.setattr(forward, "PACKED_TOKENS", tokens)
        packed = read_answers(model, batch, logits=True, packed=True)
        alone = read_answers(model, batch, logits=True)
        assert torch.equal(packed.labels, alone.labels)
        assert torch.allclose(packed.logps, alone.logps, atol=1e-9)
        assert torch.allclose(packed.logits, alone.logits, atol=1e-9)


def test_packing_leaves_little_padding():
    lengths = [73, 37, 44, 53, 60, 39, 57, 85]
    lines = lines_of(lengths, forward.PACKED_TOKENS)
    assert sorted(row for line in lines for row in line) == list(range(8))
    widest = max(sum(lengths[row] for row in line) for line in lines)
    assert widest * len(lines) <= 1.02 * sum(lengths)
    assert lines_of([500], 192) == [[0]]
    assert len(lines_of([500] * 3, 192)) == 3


def test_a_model_that_cannot_branch_is_recognised():
    rows = encoded_rows(3, rows=1)
    trees = [scoring._Tree.of(row) for row in rows]
    assert not scoring._can_branch(family("mamba"), rows, trees)
    for name in sorted(set(FAMILIES) - {"mamba"}):
        assert scoring._can_branch(family(name), rows, trees), name


def test_a_tree_holds_what_answers_share_once():
    answers = [Encoded((5, 6, 7, 8, 1), 2), Encoded((5, 6, 7, 9, 1), 2), Encoded((5, 3, 7, 1), 2)]
    tree = scoring._Tree.of(answers)
    assert tree.tokens == [5, 6, 7, 8, 9, 3, 7]
    assert tree.depths == [0, 1, 2, 3, 3, 1, 2]
    assert tree.steps == [[(1, 7), (2, 8), (3, 1)], [(1, 7), (2, 9), (4, 1)], [(5, 7), (6, 1)]]
    sees = [set(np.flatnonzero(line)) for line in tree.ancestors]
    assert sees == [{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 4}, {0, 5}, {0, 5, 6}]


def test_gradient_equals_that_of_full_logits():
    model = family("qwen2")
    batch = [row[0] for row in encoded_rows(4, rows=3)]
    read_answers(model, batch).logps.sum().backward()
    ours = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for encoded in batch:
        ids = torch.tensor([encoded.ids])
        logps = log_softmax(model(input_ids=ids).logits[0], -1)
        places = torch.arange(encoded.prompt_length, len(encoded.ids))
        logps[places - 1, ids[0, places]].sum().backward()
    plainly = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(ours, plainly, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max() + 1))


def test_the_hook_is_gone_after_a_call_and_after_a_failure():
    model = family("gpt2")
    encoded = encoded_rows(5, rows=1)[0][0]
    ids = torch.tensor([encoded.ids])
    read_answers(model, [encoded])
    with pytest.raises(IndexError):
        read_answers(model, [Encoded((2, 999, 3), 1)])  # a token the model does not have
    assert model(input_ids=ids).logits.shape == (1, len(encoded.ids), 60)


def test_split_answers_cuts_in_order():
    model = family("gpt2")
    batch = [row[0] for row in encoded_rows(6, rows=5)]
    together = read_answers(model, batch, logits=True)
    parts = split_answers(together, [2, 3])
    assert [len(part.logps) for part in parts] == [2, 3]
    assert torch.equal(torch.cat([part.logits for part in parts]), together.logits)
    assert torch.equal(parts[1].labels, together.labels[2:])


# --- generation ---------------------------------------------------------------------------------


@torch.no_grad()
def greedy(model, prompt, end_id, max_new_tokens):
    """Greedy decoding by hand: no cache, no padding."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == end_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "phi"])
def test_generation_equals_greedy_by_hand(name):
    model = family(name)
    prompts = [row[0].ids[: row[0].prompt_length] for row in encoded_rows(7, rows=6)]
    # an end token that the model does say, so that texts end at different places
    said = itertools.chain(*(greedy(model, p, -1, 8) for p in prompts))
    end_id = sorted(said)[len(prompts)]
    seen = []
    texts = generate(model, prompts, end_id, max_new_tokens=8, batch_size=4, done=seen.append)
    assert texts == [greedy(model, p, end_id, 8) for p in prompts]
    assert len({len(text) for text in texts}) > 1
    assert sum(seen) == len(prompts)


def test_the_models_own_generation_settings_are_set_aside_and_kept():
    model = family("qwen2")
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.generation_config.repetition_penalty = 3.0
    kept = model.generation_config
    prompts = [row[0].ids[: row[0].prompt_length] for row in encoded_rows(8, rows=3)]
    assert generate(model, prompts, 1, 6) == [greedy(model, p, 1, 6) for p in prompts]
    assert model.generation_config is kept


@pytest.mark.parametrize("trees", [True, False])
def test_a_batch_that_does_not_fit_is_halved(trees, model, monkeypatch):
    """A device that holds two rows at a time gives what a large one gives, in order."""
    generator = random.Random(3)

    def ids(least, most):
        return [generator.randrange(2, 60) for _ in range(generator.randint(least, most))]

    rows = []
    for _ in range(7):
        prompt = ids(2, 5)
        rows.append([Encoded((*prompt, *ids(2, 6)), len(prompt)) for _ in range(3)])
    prompts = [row[0].ids[: row[0].prompt_length] for row in rows]
    if not trees:
        monkeypatch.setattr(scoring, "_can_branch", lambda *_: False)
    wanted = score(model, rows), generate(model, prompts, end_id=1, max_new_tokens=6)
    refused = []

    def small(_, inputs, options):
        size = len(options["input_ids"] if "input_ids" in options else inputs[0])
        if size > 2:
            refused.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory")

    with model.register_forward_pre_hook(small, with_kwargs=True):
        found = score(model, rows), generate(model, prompts, end_id=1, max_new_tokens=6)
    assert refused
    assert found[1] == wanted[1]
    for ours, theirs in zip(found[0], wanted[0], strict=True):
        for (a, n), (b, m) in zip(ours, theirs, strict=True):
            assert (a, n) == (pytest.approx(b, abs=1e-4), m)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with model.register_forward_pre_hook(full), pytest.raises(torch.OutOfMemoryError):
        generate(model, prompts, end_id=1, max_new_tokens=6)


def test_a_large_vocabulary_scores_fewer_tokens_at_once(model, monkeypatch):
    vocabulary = model.get_output_embeddings().weight.shape[0]
    assert scoring.scored_at_once(model) == 2048
    monkeypatch.setattr(scoring, "LOGITS_PER_BATCH", 100 * vocabulary + 1)
    assert scoring.scored_at_once(model) == 100
    rows = [[Encoded((5, 6, 7, 8 + i, 1), 2), Encoded((5, 6, 7, 9, 1), 2)] for i in range(3)]
    few = score(model, rows)
    monkeypatch.setattr(scoring, "LOGITS_PER_BATCH", 1)
    for row, alone in zip(few, score(model, rows), strict=True):
        assert [s for s, _ in row] == pytest.approx([s for s, _ in alone], abs=1e-4)


def test_drawn_texts_come_as_often_as_their_probability_says(model):
    """The greedy answer of two tokens among 2000 draws, within four standard deviations."""
    prompt, draws = [5, 9, 20, 7], 2000
    with torch.no_grad():
        model.lm_head.weight *= 5  # else all tokens are about as likely
    state = torch.get_rng_state()
    texts = generate(model, [prompt] * draws, 1, 2, batch_size=500, sample_seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert texts == generate(model, [prompt] * draws, 1, 2, batch_size=500, sample_seed=3)
    (text,) = generate(model, [prompt], 1, 2)
    assert len(text) == 2
    with torch.no_grad():
        logits = model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
    p = log_softmax(logits.double(), -1)[[0, 1], text].sum().exp().item()
    spread = (draws * p * (1 - p)) ** 0.5
    assert 0.05 < p < 0.95
    assert abs(texts.count(text) - draws * p) < 4 * spread
    assert len(set(map(tuple, texts))) > 100


CONTEXT = 32
SHORT = {  # learned positions, places of a line or of a row, none learned
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "gpt_neo": {
        **{"attention_types": [[["global"], 2]], "num_layers": 2, "num_heads": 4},
        "max_position_embeddings": CONTEXT,
    },
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": CONTEXT},
    "roberta": {"is_decoder": True, "max_position_embeddings": CONTEXT + 2, "pad_token_id": 1},
    "llama": {"max_position_embeddings": CONTEXT},
}


@pytest.mark.parametrize("kind", SHORT)
def test_a_text_ends_where_the_context_does_each_at_its_own_place(kind):
    model = windowed(kind, **SHORT[kind])
    assert context_length(model) == CONTEXT
    draw = random.Random(4)
    prompts = [[draw.randrange(2, 60) for _ in range(n)] for n in (5, 29, 20, CONTEXT, 29, 26)]
    seen = []
    texts = generate(model, prompts, 59, 10, batch_size=4, done=seen.append)
    room = [10, 3, 10, 0, 3, 6]
    alone = [greedy(model, p, 59, most) for p, most in zip(prompts, room, strict=True)]
    assert texts == alone
    assert [len(texts[number]) for number in (1, 3, 4)] == [3, 0, 3]  # no end token before
    assert sum(seen) == len(prompts)
    with pytest.raises(KitError, match=r"has 33 tokens, the model's context holds 32: shorten it"):
        generate(model, [prompts[0], [5] * 33], 59, 10)


def test_a_record_counts_the_tokens_that_the_context_left(tokenizer, task):
    style, rows = PromptFormat(tokenizer), task.evaluation["forget"]
    prompts = [encoded.ids[: encoded.prompt_length] for encoded in style.encode_all(rows)]
    answers = [text for row in rows for text in (row["paraphrased_answer"], row["answer"])]
    context = 5 + max(len(style.encode(rows[0]["question"], text).ids) for text in answers)
    torch.manual_seed(0)
    config = GPT2Config(
        **{"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 4},
        n_positions=context,
        initializer_range=0.3,
    )
    model = GPT2LMHeadModel(config).eval()
    only = replace(task, evaluation={"forget": rows})
    evaluation = evaluate(model, style, only, EvaluationConfig(max_new_tokens=100))
    for record, prompt in zip(evaluation.rows["forget"], prompts, strict=True):
        text = greedy(model, prompt, style.end_id, context - len(prompt))
        assert record["generation_tokens"] == len(text) == context - len(prompt)
        assert record["generation"] == style.decode(text)


@pytest.mark.parametrize("kind", ["roberta", "marian"])
def test_texts_that_transformers_writes_wrong_together_or_at_all_are_written_rightly(kind):
    """It numbers RoBERTa's places otherwise than a forward does, and Marian's with the padding."""
    sizes = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}
    sizes |= {"decoder_ffn_dim": 48, "pad_token_id": 0}
    model = windowed(kind, **(SHORT["roberta"] if kind == "roberta" else sizes))
    prompts = [(5, 6), (7, 8, 9, 10, 11, 12), (5, 9), (3, 4, 5)]
    assert generate(model, prompts, 59, 10, 8) == [greedy(model, p, 59, 10) for p in prompts]
    told, drawn = [], [generate(model, prompts, 59, 10, 8, sample_seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1] != generate(model, prompts, 59, 10, 8, sample_seed=4)
    (text,) = generate(model, prompts[:1], 59, 10, token=told.append)
    assert told == [text[: n + 1] for n in range(10)]


def test_a_model_that_diverged_is_continued_like_any_other(model):
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    way = generation._Way(1, 5)
    batches, way = generation._together(model, [[5, 6, 7], [8]], way, 8)
    assert (batches, way.plainly) == ([[0, 1]], False)
    nan, number = torch.tensor([float("nan")]), torch.tensor([-1.0])
    assert not agrees(model, "only laid out", 5, lambda: nan, lambda: number)
    assert not agrees(model, "only alone", 5, lambda: number, lambda: nan)


# --- layers that see only a part of a row ---------------------------------------------------------


def windowed(kind: str, **settings):
    """A model of random weights, large enough that every layer tells, whose window is 16 tokens."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=60, **(sizes | settings))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


WINDOWED = {
    "mistral": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "gpt_neo": {
        "window_size": 16,
        "attention_types": [[["global", "local"], 1]],
        "num_layers": 2,
        "num_heads": 4,
    },
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},  # ALiBi
    "lfm2": {"full_attn_idxs": [1]},  # convolutions
    "falcon_h1": {
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
        **{"mamba_n_groups": 1, "mamba_chunk_size": 8},
    },
}


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("longest", [9, 60])
def test_a_layout_is_right_where_layers_see_only_a_part(kind, longest):
    """A short row first, as a probe would have it; against a plain forward of one row."""
    model = windowed(kind, **WINDOWED[kind])
    draw = random.Random(longest)

    def row(length):
        return Encoded((*(draw.randrange(2, 60) for _ in range(length)), 1), 2)

    rows = [[row(4), row(5)], [row(longest), row(longest - 1)]]
    flat = [encoded for answers in rows for encoded in answers]
    packs = can_pack(model, flat)
    assert packs == (longest < 16 and kind in ("mistral", "gemma3_text", "gpt_neo"))
    with torch.no_grad():
        trained = read_answers(model, flat, packed=packs).logps.sum(-1).tolist()
    scored = [logp for answers in score(model, rows) for logp, _ in answers]
    for encoded, *ours in zip(flat, trained, scored, strict=True):
        exact = sum(plain(model, encoded))
        assert ours == pytest.approx([exact] * 2, abs=1e-4 * encoded.answer_length)


def test_lines_and_trees_longer_than_the_context_are_not_made_of_models_that_number_them():
    """GPT-Neo holds a mask as wide as its context; rows are shorter than that, a line is not."""
    model = windowed("gpt_neo", **SHORT["gpt_neo"])
    draw = random.Random(8)

    def row(length, beginning=()):
        more = (draw.randrange(2, 60) for _ in range(length - len(beginning)))
        return Encoded((*beginning, *more, 1), 2)

    short = [row(9) for _ in range(8)]  # three of them fit
    longest = row(30)
    trees = [[longest, Encoded((*longest.ids[:-2], 1), 2)], [row(20, (5, 6)) for _ in range(4)]]
    with torch.no_grad():
        trained = read_answers(model, short, packed=can_pack(model, short)).logps.sum(-1).tolist()
    scored = [logp for answers in score(model, trees) for logp, _ in answers]
    flat = [*short, *trees[0], *trees[1]]
    for encoded, ours in zip(flat, trained + scored, strict=True):
        assert ours == pytest.approx(sum(plain(model, encoded)), abs=1e-4 * encoded.answer_length)


def test_running_out_of_memory_is_no_answer_of_a_trial(monkeypatch):
    model, rows = family("qwen2"), [row[0] for row in encoded_rows(11)]

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        can_pack(model, rows)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # nor is a fault
        can_pack(model, rows)


@pytest.mark.parametrize("kind", ["rwkv", "mamba", "lfm2"])
def test_texts_of_a_recurrent_model_are_the_same_in_a_batch_as_alone(kind):
    """RWKV ignores the mask of padding, and its state mixes up a batch even without any."""
    model = windowed(kind, **WINDOWED.get(kind, {})).double()
    prompts = [(5, 6), (7, 8, 9, 10, 11, 12), (5, 9), (3, 4, 5), (6, 2)]
    together = generate(model, prompts, 1, 10, 8)
    assert together == [generate(model, [prompt], 1, 10)[0] for prompt in prompts]

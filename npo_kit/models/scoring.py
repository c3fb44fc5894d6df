"""A model applied to tokens: the log-probabilities of answers, with and without gradient.

The only place that calls `model(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.data.prompts import Encoded
from npo_kit.losses.paper import Answers, full_precision
from npo_kit.models.batching import budgeted, in_halves, lines_of, pad

PACKED_TOKENS = 192  # a line of packed rows: longer ones pad less and attend more
TOLERANCE = 0.02  # nats per token between two layouts of the same answers, in any precision
TOKENS_PER_BATCH = {"cpu": 2048, "mps": 8192, "cuda": 32768}  # at most, padding included
LOGITS_PER_BATCH = 2**29  # at most, of all tokens together: 2 GiB in fp32


# --- one forward --------------------------------------------------------------------------------


def autocast(device: torch.device, precision: str):
    """The context in which a model of fp32 weights computes in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@contextmanager
def _logits_only_at(model: PreTrainedModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Within, the model's head sees the hidden states at (rows, columns) and no others.

    Its logits have shape (1, N, V). Body and head stay one call of the model itself, so that its
    soft-capping, scaling and wrappers apply.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0][rows, columns].unsqueeze(0), *inputs[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def read_answers(
    model: PreTrainedModel,
    batch: Sequence[Encoded],
    *,
    logits: bool = False,
    packed: bool = False,
) -> Answers:
    """What a model says of the answers of a batch, in one forward; with gradient if enabled.

    Log-probs in fp32 or wider, in nats. `logits=True` keeps the (N, V) logits of the answer tokens.
    `packed=True` lays several rows in one line, each seeing itself alone, so that next to nothing
    is padding: for models on which `can_pack` holds.
    """
    device = model.device
    answers = [encoded.ids[encoded.prompt_length :] for encoded in batch]
    mask = pad([[1] * len(answer) for answer in answers], 0).to(device)
    labels = pad(answers, 0).to(device)
    rows, columns = mask.nonzero(as_tuple=True)  # row-major
    fed = [encoded.ids[:-1] for encoded in batch]  # nothing is predicted from an end token
    lines = (
        lines_of([len(ids) for ids in fed], PACKED_TOKENS)
        if packed
        else [[i] for i in range(len(batch))]
    )
    inputs, line_of, start_of = _lay_out(model, fed, lines, packed)
    first = torch.tensor([encoded.prompt_length for encoded in batch]) + start_of
    places = first.to(device)[rows] + columns - 1  # the token before predicts
    with _logits_only_at(model, line_of.to(device)[rows], places):
        output = model(**inputs, use_cache=False)
    answer_logits = output.logits[0]
    wide = full_precision(answer_logits)
    token_logps = -F.cross_entropy(wide, labels[rows, columns], reduction="none")
    logps = torch.zeros(mask.shape, dtype=token_logps.dtype, device=device)
    logps = logps.index_put((rows, columns), token_logps)
    return Answers(logps, labels, mask, answer_logits if logits else None)


def _lay_out(
    model: PreTrainedModel, fed: Sequence[Sequence[int]], lines: list[list[int]], packed: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Inputs of a forward in which rows stand in lines, and each row's line and first place."""
    line_of, start_of = torch.empty(len(fed), dtype=torch.long), torch.empty(len(fed)).long()
    ids, owner, places = [], [], []
    for number, line in enumerate(lines):
        ids.append([token for row in line for token in fed[row]])
        owner.append([row + 1 for row in line for _ in fed[row]])  # 0 owns the padding
        places.append([place for row in line for place in range(len(fed[row]))])
        start = 0
        for row in line:
            line_of[row], start_of[row] = number, start
            start += len(fed[row])
    inputs = {"input_ids": pad(ids, 0)}
    owners = pad(owner, 0)
    if packed:
        seen = (owners[:, :, None] == owners[:, None, :]).tril()
        inputs |= {"attention_mask": _attention(model, seen), "position_ids": pad(places, 0)}
    else:
        inputs["attention_mask"] = (owners > 0).long()
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}, line_of, start_of


@torch.no_grad()
def can_pack(model: PreTrainedModel, row: Encoded) -> bool:
    """Whether a row says the same beside another in one line as alone; False where it cannot be."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    try:
        packed = read_answers(model, [row, row], packed=True).logps.sum(-1)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # its forward takes no 4-D mask or no position ids
    alone = read_answers(model, [row]).logps.sum(-1)
    return bool((packed - alone).abs().max() <= TOLERANCE * row.answer_length)


def split_answers(answers: Answers, sizes: Sequence[int]) -> list[Answers]:
    """Cut one batch of answers, in order, into batches of so many rows."""
    tokens = [int(part.sum()) for part in answers.mask.split(list(sizes))]
    logits = answers.logits.split(tokens) if answers.logits is not None else [None] * len(sizes)
    parts = zip(
        answers.logps.split(list(sizes)),
        answers.labels.split(list(sizes)),
        answers.mask.split(list(sizes)),
        logits,
        strict=True,
    )
    return [Answers(*part) for part in parts]


# --- scoring many answers -----------------------------------------------------------------------

Score = tuple[float, int]  # sum of log-probs of an answer, nats; its tokens, end token included


@dataclass(frozen=True)
class _Tree:
    """The answers to one question as a tree of tokens: what they have in common is there once.

    Every token but the last of an answer is a node, after its parent; `steps[j]` leads through
    answer j: the node that predicts each of its tokens, and that token.
    """

    tokens: list[int]
    depths: list[int]  # position ids
    ancestors: np.ndarray  # (nodes, nodes) whom a node sees: itself and those above it
    steps: list[list[tuple[int, int]]]

    @classmethod
    def of(cls, answers: Sequence[Encoded]) -> _Tree:
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
        tokens, parents, depths, steps = [], [], [], []
        for encoded in answers:
            at, way = -1, []
            for depth, token in enumerate(encoded.ids):
                if depth >= encoded.prompt_length:
                    way.append((at, token))
                if depth == len(encoded.ids) - 1:
                    break
                if (at, token) not in nodes:
                    nodes[at, token] = len(tokens)
                    tokens.append(token), parents.append(at), depths.append(depth)
                at = nodes[at, token]
            steps.append(way)
        ancestors = np.eye(len(tokens), dtype=bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        return cls(tokens, depths, ancestors, steps)


def scored_at_once(model: PreTrainedModel) -> int:
    """Tokens of a forward in `score`, by the device's kind and the model's vocabulary."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
    return min(most, max(1, LOGITS_PER_BATCH // vocabulary))


@torch.no_grad()
def score(
    model: PreTrainedModel,
    rows: Sequence[Sequence[Encoded]],
    tokens_per_batch: int | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> list[list[Score]]:
    """Log-prob of every answer of every row; what a row's answers share is computed once.

    `rows[i]` holds the answers to one question, laid out as a tree in one sequence: each token sees
    those above it. A model on which that gives other numbers than answers alone (tested on the
    smallest tree; it ignores a 4-D attention mask or position ids) gets them alone. `done` is told
    the number of rows after each batch.
    """
    budget = tokens_per_batch or scored_at_once(model)
    branching = [row for row in rows if len(row) > 1]
    smallest = min(branching, key=lambda row: sum(len(e.ids) for e in row), default=None)
    if smallest is None or not _trees_agree(model, smallest):
        return _score_alone(model, rows, budget, done)
    trees = [_Tree.of(row) for row in rows]
    result: list[list[Score]] = [[] for _ in rows]
    for batch in budgeted([len(tree.tokens) for tree in trees], budget):
        scores = in_halves(lambda part: _score_trees(model, part), [trees[i] for i in batch])
        for number, row_scores in zip(batch, scores, strict=True):
            result[number] = row_scores
        done(len(batch))
    return result


def _score_alone(
    model: PreTrainedModel,
    rows: Sequence[Sequence[Encoded]],
    budget: int,
    done: Callable[[int], None],
) -> list[list[Score]]:
    """Scores of the same, each answer a sequence of its own, batched by length over all rows."""
    singles = [(number, encoded) for number, row in enumerate(rows) for encoded in row]
    left = [len(row) for row in rows]
    scores: list[Score] = [(0.0, 0)] * len(singles)
    for batch in budgeted([len(encoded.ids) for _, encoded in singles], budget):
        lines = [singles[i][1] for i in batch]
        logps = in_halves(lambda part: read_answers(model, part).logps.sum(-1).tolist(), lines)
        for i, logp in zip(batch, logps, strict=True):
            number, encoded = singles[i]
            scores[i] = (logp, encoded.answer_length)
            left[number] -= 1
            done(left[number] == 0)
    in_order = iter(scores)
    return [[next(in_order) for _ in row] for row in rows]


def _score_trees(model: PreTrainedModel, trees: Sequence[_Tree]) -> list[list[Score]]:
    """Scores of a batch of trees in one forward, with logits at the nodes that predict."""
    device, width = model.device, max(len(tree.tokens) for tree in trees)
    places = dict.fromkeys(
        (i, node) for i, t in enumerate(trees) for way in t.steps for node, _ in way
    )
    place = {at: number for number, at in enumerate(places)}
    at_row, at_node = torch.tensor(list(places), device=device).unbind(1)
    seen = np.broadcast_to(np.eye(width, dtype=bool), (len(trees), width, width)).copy()
    for i, tree in enumerate(trees):
        seen[i, : len(tree.tokens), : len(tree.tokens)] = tree.ancestors
    with _logits_only_at(model, at_row, at_node):
        logits = model(
            input_ids=pad([tree.tokens for tree in trees], 0).to(device),
            attention_mask=_attention(model, torch.from_numpy(seen)),
            position_ids=pad([tree.depths for tree in trees], 0).to(device),
            use_cache=False,
        ).logits[0]
    steps = [
        (place[i, n], label) for i, t in enumerate(trees) for way in t.steps for n, label in way
    ]
    at, label = torch.tensor(steps, device=device).unbind(1)
    logps = iter((full_precision(logits[at, label]) - _logsumexp(logits)[at]).tolist())
    return [[(sum(next(logps) for _ in way), len(way)) for way in t.steps] for t in trees]


def _logsumexp(logits: Tensor) -> Tensor:
    """Over the vocabulary, in full precision, a few rows at a time: (N, V) -> (N,)."""
    return torch.cat([full_precision(part).logsumexp(-1) for part in logits.split(256)])


def _attention(model: PreTrainedModel, seen: Tensor) -> Tensor:
    """Who sees whom, (B, S, S) to (B, 1, S, S): boolean where the model takes it, else additive."""
    seen, model = seen[:, None].to(model.device), getattr(model, "module", model)
    if model.config._attn_implementation == "sdpa":
        return seen
    least = torch.finfo(model.dtype).min
    return torch.zeros(seen.shape, dtype=model.dtype, device=model.device).masked_fill(~seen, least)


def _trees_agree(model: PreTrainedModel, row: Sequence[Encoded]) -> bool:
    """Whether two answers of a row score alike as a tree and alone."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    row = [row[0], row[-1]]
    try:
        (together,) = _score_trees(model, [_Tree.of(row)])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False  # its forward takes no 4-D mask or no position ids
    (alone,) = _score_alone(model, [row], 2048, lambda _: None)
    return all(abs(a - b) <= TOLERANCE * n for (a, n), (b, _) in zip(together, alone, strict=True))

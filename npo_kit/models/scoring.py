"""Log-probabilities of many answers, computing once what the answers to one question share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.data.prompts import Encoded
from npo_kit.losses.answers import full_precision
from npo_kit.models.batching import budgeted, in_halves, pad
from npo_kit.models.forward import attention_mask, logits_only_at, read_answers
from npo_kit.models.head import logps_in_parts, part_size
from npo_kit.models.layouts import proved

TOKENS_PER_BATCH = {"cpu": 2048, "mps": 8192, "cuda": 32768}  # at most, with padding
LOGITS_PER_BATCH = 2**29  # at most, over all tokens: 2 GiB in fp32
Score = tuple[float, int]  # sum of log-probs of an answer, nats; its tokens, end token included
Rows = Sequence[Sequence[Encoded]]  # the answers to each question


def scored_at_once(model: PreTrainedModel) -> int:
    """Return the most tokens of a forward in `score`, by device and the model's vocabulary."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    most = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"])
    return min(most, max(1, LOGITS_PER_BATCH // vocabulary))


@torch.no_grad()
def score(
    model: PreTrainedModel,
    rows: Rows,
    tokens_per_batch: int | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> list[list[Score]]:
    """Return the log-prob of every answer of every row, computing once what a row's answers share.

    `rows[i]` holds the answers to one question, laid out as a tree in one sequence: each token sees
    those above it. Answers are scored alone if the model's layers do not allow a tree, or if a test
    on the largest trees does not agree. After each batch `done` gets the number of its rows.
    """
    budget = tokens_per_batch or scored_at_once(model)
    if all(len(row) == 1 for row in rows):
        return _score_alone(model, rows, budget, done)
    trees = [_tree(tuple(row)) for row in rows]
    if not _can_branch(model, rows, trees):
        return _score_alone(model, rows, budget, done)
    result: list[list[Score]] = [[] for _ in rows]
    for batch in budgeted([len(tree.tokens) for tree in trees], budget):
        scores = in_halves(lambda part: _score_trees(model, part), [trees[i] for i in batch])
        for number, row_scores in zip(batch, scores, strict=True):
            result[number] = row_scores
        done(len(batch))
    return result


def _score_alone(
    model: PreTrainedModel, rows: Rows, budget: int, done: Callable[[int], None]
) -> list[list[Score]]:
    """Score each answer as a sequence of its own, batched by length over all rows."""
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


# --- trees --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """The answers to one question as a tree of tokens, in which a shared beginning appears once.

    Every token of an answer but its last is a node and follows its parent. `steps[j]` holds, for
    each token of answer j, the node that predicts it and the token.
    """

    tokens: list[int]
    depths: list[int]  # position ids
    ancestors: np.ndarray  # (nodes, nodes) whether a node sees another: itself and those above it
    steps: list[list[tuple[int, int]]]

    @classmethod
    def of(cls, answers: Sequence[Encoded]) -> _Tree:
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
        tokens, parents, depths = list[int](), list[int](), list[int]()
        steps = []
        for encoded in answers:
            at, way = -1, []
            for depth, token in enumerate(encoded.ids):
                if depth >= encoded.prompt_length:
                    way.append((at, token))
                if depth == len(encoded.ids) - 1:
                    break
                if (at, token) not in nodes:
                    nodes[at, token] = len(tokens)
                    tokens.append(token)
                    parents.append(at)
                    depths.append(depth)
                at = nodes[at, token]
            steps.append(way)
        ancestors = np.eye(len(tokens), dtype=bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        return cls(tokens, depths, ancestors, steps)


_tree = lru_cache(1 << 10)(_Tree.of)  # the rows of an evaluation come back at the next


def _can_branch(model: PreTrainedModel, rows: Rows, trees: Sequence[_Tree]) -> bool:
    """Test on the largest tree and the longest answer whether trees score as answers alone do."""
    lengths = [max(len(encoded.ids) for encoded in row) for row in rows]
    longest = max(range(len(rows)), key=lambda i: lengths[i])
    largest = max(range(len(rows)), key=lambda i: len(trees[i].tokens))
    tried = list(dict.fromkeys((longest, largest)))

    def in_trees() -> Tensor:
        return _means(_score_trees(model, [trees[i] for i in tried]))

    def alone() -> Tensor:
        return _means(_score_alone(model, [rows[i] for i in tried], 2048, lambda _: None))

    return proved(model, "tree", lengths[longest], in_trees, alone)


def _means(scores: list[list[Score]]) -> Tensor:
    return torch.tensor([logp / n for row in scores for logp, n in row], dtype=torch.float64)


def _score_trees(model: PreTrainedModel, trees: Sequence[_Tree]) -> list[list[Score]]:
    """Score a batch of trees in one forward, with logits only at the nodes that predict."""
    device, width = model.device, max(len(tree.tokens) for tree in trees)
    steps = [
        (i, node, label) for i, t in enumerate(trees) for way in t.steps for node, label in way
    ]
    seen = np.broadcast_to(np.eye(width, dtype=bool), (len(trees), width, width)).copy()
    for i, tree in enumerate(trees):
        seen[i, : len(tree.tokens), : len(tree.tokens)] = tree.ancestors
    inputs = {
        "input_ids": pad([tree.tokens for tree in trees], 0).to(device),
        "attention_mask": attention_mask(model, torch.from_numpy(seen)),
        "position_ids": pad([tree.depths for tree in trees], 0).to(device),
    }
    logps = iter(_step_logps(model, inputs, torch.tensor(steps, device=device)).tolist())
    return [[(sum(next(logps) for _ in way), len(way)) for way in t.steps] for t in trees]


def _step_logps(model: PreTrainedModel, inputs: dict[str, Tensor], steps: Tensor) -> Tensor:
    """Return the log-prob of each step's token: (N,), for steps (N, 3) of row, node and token."""
    row, node, label = steps.unbind(1)
    nodes, at = torch.unique(steps[:, :2], dim=0, return_inverse=True)
    if size := part_size(model, len(nodes)):
        return logps_in_parts(model, inputs, row, node, label, size)
    with logits_only_at(model, *nodes.unbind(1)):
        logits = model(**inputs, use_cache=False).logits[0]
    return full_precision(logits[at, label]) - _logsumexp(logits)[at]


def _logsumexp(logits: Tensor) -> Tensor:
    """Reduce over the vocabulary in full precision, a few rows at a time: (N, V) -> (N,)."""
    return torch.cat([full_precision(part).logsumexp(-1) for part in logits.split(256)])

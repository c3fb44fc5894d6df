"""One forward of a model on answers, padded or packed, with or without gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from npo_kit.data.prompts import Encoded
from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers
from npo_kit.models.batching import lines_of, pad
from npo_kit.models.head import logps_in_parts, part_size
from npo_kit.models.layouts import TOLERANCE, is_exact, proved, tried
from npo_kit.models.placement import PRECISIONS

PACKED_TOKENS = 192  # of a line of packed rows: longer lines pad less and attend more


def autocast(device: torch.device, precision: str):
    """Return the context in which a model of fp32 weights computes in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, PRECISIONS[precision])


def read_answers(
    model: PreTrainedModel,
    batch: Sequence[Encoded],
    *,
    logits: bool = False,
    packed: bool = False,
    depth: float | None = None,
) -> Answers:
    """Read a model's log-probs of a batch's answers in one forward; with gradient if enabled.

    Log-probs are in nats, fp32 or wider. `logits=True` keeps the (N, V) logits of the answer
    tokens, `depth` the hidden states there after that share of the layers. `packed=True`, for
    models on which `can_pack` holds, puts several rows in one line, each seeing only itself, so
    that hardly anything is padding.
    """
    lengths = [len(encoded.ids) - 1 for encoded in batch]
    lines = lines_of(lengths, PACKED_TOKENS) if packed else [[i] for i in range(len(batch))]
    return _read_lines(model, batch, lines, packed=packed, logits=logits, depth=depth)


def _read_lines(
    model: PreTrainedModel,
    batch: Sequence[Encoded],
    lines: list[list[int]],
    *,
    packed: bool,
    logits: bool = False,
    depth: float | None = None,
) -> Answers:
    device = model.device
    answers = [encoded.ids[encoded.prompt_length :] for encoded in batch]
    mask = pad([[1] * len(answer) for answer in answers], 0).to(device)
    labels = pad(answers, 0).to(device)
    rows, columns = mask.nonzero(as_tuple=True)  # row-major
    fed = [encoded.ids[:-1] for encoded in batch]  # nothing is predicted from an end token
    inputs, line_of, start_of = _lay_out(model, fed, lines, packed)
    first = torch.tensor([encoded.prompt_length for encoded in batch]) + start_of
    places = first.to(device)[rows] + columns - 1  # the token before predicts
    lines_at = line_of.to(device)[rows]
    if not (logits or depth) and (size := part_size(model, len(places))):
        token_logps = logps_in_parts(model, inputs, lines_at, places, labels[rows, columns], size)
        return Answers.of_logps(token_logps, labels, mask)
    with logits_only_at(model, lines_at, places), states_at(model, depth, lines_at, places) as seen:
        output = model(**inputs, use_cache=False)
    return replace(Answers.of_tokens(output.logits[0], labels, mask, logits), hidden=seen or None)


def split_answers(answers: Answers, sizes: Sequence[int]) -> list[Answers]:
    """Cut one batch of answers, in order, into batches of these `sizes`."""
    whole = (answers.logps, answers.labels, answers.mask)
    logps, labels, masks = (tensor.split(list(sizes)) for tensor in whole)
    tokens = [int(mask.sum()) for mask in masks]
    logits = answers.logits.split(tokens) if answers.logits is not None else [None] * len(sizes)
    states = {depth: all_.split(tokens) for depth, all_ in (answers.hidden or {}).items()}
    hidden = [{d: parts[i] for d, parts in states.items()} or None for i in range(len(sizes))]
    return [Answers(*part) for part in zip(logps, labels, masks, logits, hidden, strict=True)]


# --- layouts ------------------------------------------------------------------------------------


def mean_logps(answers: Answers) -> Tensor:
    """Return the mean log-prob of each answer's tokens: (B,), nats."""
    return answers.logps.sum(-1) / answers.mask.sum(-1)


def can_pack(model: PreTrainedModel, rows: Sequence[Encoded]) -> bool:
    """Test whether rows may share a line, with the longest of them between others.

    The test's line is as long as any will be, because some models number the places of a line and
    have only as many numbers as their context.
    """
    by_length = sorted(rows, key=lambda row: len(row.ids))
    trio = [by_length[0], by_length[-1], by_length[len(rows) // 2]]
    longest = len(trio[1].ids)
    times = math.ceil(2 * max(PACKED_TOKENS, longest) / sum(len(row.ids) for row in trio))

    def alone() -> Tensor:
        return torch.cat([mean_logps(read_answers(model, [row])) for row in trio] * times)

    def packed() -> Tensor:
        line = list(range(len(trio) * times))
        return mean_logps(_read_lines(model, trio * times, [line], packed=True))

    return proved(model, "line", longest, packed, alone)


def is_causal(model: PreTrainedModel) -> bool:
    """Test on a row and its beginning whether log-probs depend on earlier tokens alone.

    An encoder's depend on later ones too. False where a model's log-probs cannot be read.
    """

    def read() -> Tensor:
        vocabulary = model.get_output_embeddings().weight.shape[0]
        ids = tuple(number % vocabulary for number in range(2, 12))
        return read_answers(model, [Encoded(ids, 3), Encoded(ids[:7], 3)]).logps[:, :4]

    with torch.no_grad():
        logps = tried(read)
    tolerance = TOLERANCE if is_exact(model) else 0.5
    return logps is not None and torch.allclose(logps[0], logps[1], 1e-5, tolerance, equal_nan=True)


def _lay_out(
    model: PreTrainedModel, fed: Sequence[Sequence[int]], lines: list[list[int]], packed: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return the inputs of a forward on rows in lines, and each row's line and first place."""
    line_of, start_of = torch.empty(2, len(fed), dtype=torch.long)
    for number, line in enumerate(lines):
        starts = accumulate((len(fed[row]) for row in line), initial=0)
        for row, start in zip(line, starts, strict=False):
            line_of[row], start_of[row] = number, start
    inputs = {"input_ids": pad([list(chain(*(fed[row] for row in line))) for line in lines], 0)}
    owners = pad([[row + 1 for row in line for _ in fed[row]] for line in lines], 0)  # 0: padding
    if packed:
        seen = (owners[:, :, None] == owners[:, None, :]).tril()
        places = pad([[i for row in line for i in range(len(fed[row]))] for line in lines], 0)
        inputs |= {"attention_mask": attention_mask(model, seen), "position_ids": places}
    else:
        inputs["attention_mask"] = (owners > 0).long()
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}, line_of, start_of


def attention_mask(model: PreTrainedModel, seen: Tensor) -> Tensor:
    """Turn who sees whom, (B, S, S), into a model's own mask, (B, 1, S, S): boolean or additive."""
    seen, model = seen[:, None].to(model.device), getattr(model, "module", model)
    if model.config._attn_implementation == "sdpa":
        return seen
    least = torch.finfo(model.dtype).min
    return torch.zeros(seen.shape, dtype=model.dtype, device=model.device).masked_fill(~seen, least)


@contextmanager
def logits_only_at(model: PreTrainedModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """In this context, give the head only the hidden states at (rows, columns): logits (1, N, V).

    Body and head stay one call of the model, so that its soft-capping, scaling and wrappers apply.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0][rows, columns].unsqueeze(0), *inputs[1:])
    )
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def states_at(
    model: PreTrainedModel, depth: float | None, rows: Tensor, columns: Tensor
) -> Iterator[dict[float, Tensor]]:
    """In this context, a forward fills depth -> the hidden states at (rows, columns), (N, D).

    They are those that layer round(depth * layers) gives, the first at least. Without a depth there
    are none. Raises KitError for a model whose layers are not found.
    """
    found: dict[float, Tensor] = {}
    if depth is None:
        yield found
        return
    layers = layers_of(model)

    def keep(_module, _inputs, output) -> None:
        states = output[0] if isinstance(output, tuple) else output
        found[depth] = states[rows, columns]

    hook = layers[max(1, round(depth * len(layers))) - 1].register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return a model's layers in order."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if not isinstance(module, nn.ModuleList) or len(module) != count:
            continue
        if all(isinstance(layer, GradientCheckpointingLayer) for layer in module):
            return module
    raise KitError(
        f"the layers of {type(model).__name__} are not found, so no hidden states can be read: "
        "choose a method that needs none"
    )


@contextmanager
def recomputed_layers(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """In this context, let layers keep only their inputs and recompute the rest for the gradient.

    transformers' own switch needs training mode, where dropout would move the policy away from its
    reference. This keeps evaluation mode, and leaves the model as it was. Raises KitError for a
    model without layers of transformers' kind. Where it is not `wanted`, nothing happens.
    """
    layers = [m for m in model.modules() if wanted and isinstance(m, GradientCheckpointingLayer)]
    if wanted and not layers:
        raise KitError(
            f"the layers of {type(model).__name__} cannot be recomputed: leave out "
            "gradient_checkpointing"
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # uncovers the class's own


def _recomputed(forward: Callable, *inputs, **options):
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)

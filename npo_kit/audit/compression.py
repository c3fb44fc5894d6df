"""The compression card: does rounding the weights bring the forgotten facts back?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.copies import own_copy, refuse_unlike
from npo_kit.audit.extraction import known_of
from npo_kit.errors import KitError
from npo_kit.records.files import Json

BITS = (8, 4, 3)
OF_ROWS = 4  # bits


@torch.no_grad()
def measure(model: PreTrainedModel, bench: Bench, *, group: int | None = None) -> Reading:
    """Measure the log-prob of the fact, nats per token, with weights rounded to 4 bits, by row.

    Weights of linear layers are rounded, but for the head: as bitsandbytes does, embeddings and
    norms stay. `group` is of `round_to_nearest`. The facts have come back where the rounded model
    says more than the unrounded one, and also more than the retained-only model rounded alike.

    `detail`: `bits` holds, for `full`, 8, 4 and 3, the log-probs and ES of `forget` and `retain`
    rows, and the share of codes that equal the `original`'s (absent for `full`); `rounded` is the
    share of the model's parameters that is rounded. Raises KitError for a model without linear
    layers, or of another shape than the original's.
    """
    refuse_unlike(bench.original, model)
    copied, original = own_copy(model), dict(linear_weights(bench.original))
    weights = {name: (weight, weight.clone()) for name, weight in linear_weights(copied)}
    if not weights:
        raise KitError(f"{type(model).__name__} has no linear layers to round: leave out this card")
    found: Json = {"full": known_of(copied, bench)}
    for done, bits in enumerate(BITS, 1):
        bench.done(done, len(BITS) + 1)
        same = 0
        for name, (weight, exact) in weights.items():
            rounded, codes = round_to_nearest(exact, bits, group)
            weight.copy_(rounded)
            same += int((codes == round_to_nearest(original[name].float(), bits, group)[1]).sum())
        count = sum(weight.numel() for weight, _ in weights.values())
        found[str(bits)] = {**known_of(copied, bench), "same_codes": same / count}
    bench.done(len(BITS) + 1, len(BITS) + 1)
    share = count / sum(weight.numel() for weight in copied.parameters())
    detail = {"bits": found, "rounded": share, "group": group}
    return Reading.of_rows(found[str(OF_ROWS)]["forget"], detail)


def round_to_nearest(weight: Tensor, bits: int, group: int | None = None) -> tuple[Tensor, Tensor]:
    """Round a weight (out, in): D = max|w| / (2^(bits-1) - 1), w <- D round(w / D); and the codes.

    D is of a row, or of each `group` weights in it (the last group may be shorter). The codes,
    round(w / D), are whole numbers from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
    """
    most = 2 ** (bits - 1) - 1
    rounded, codes = [], []
    for part in weight.split(group or weight.shape[1], dim=1):
        step = part.abs().amax(1, keepdim=True) / most
        codes.append((part / step.where(step > 0, 1)).round().clamp(-most, most))
        rounded.append(codes[-1] * step)
    return torch.cat(rounded, 1), torch.cat(codes, 1)


def linear_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight, (out, in), of each linear layer but the head."""
    for name, module in model.named_modules():
        if module is model.get_output_embeddings():
            continue
        if isinstance(module, nn.Linear):
            yield name, module.weight.detach()
        elif isinstance(module, Conv1D):  # GPT-2's
            yield name, module.weight.detach().t()

"""The mixing card: how much of the forgetting is left where the model still keeps what it should?

Weights are mixed, theta(a) = (1 - a) original + a audited, so that a = 0 is the original, a = 1 the
audited model and a = 1.2 lies beyond it. At the UWC point (unlearning with control, arXiv
2406.09179; its code counts a the other way round) retained rows are as extractable as KEPT says,
for every model, so that none forgets more there only because it broke more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.copies import own_copy, refuse_unlike
from npo_kit.audit.extraction import known_of
from npo_kit.records.files import Json

SHARES = tuple(i / 10 for i in range(13))  # a
KEPT = 0.9  # of the original's ES on retained rows
HALVINGS = 4  # of a step of SHARES, to find the UWC point


def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure ES of the forget rows at the UWC point, by row.

    `detail`: `points`, a list by `a` of `forget_es`, `retain_es` (ES by row), `forget` and `retain`
    (log-prob of the fact by row, nats per token); `uwc`, such a point. Raises KitError for a model
    whose weights have other names or shapes than the original's. Models fine-tuned from one base
    can be mixed; of others the points between say nothing.
    """
    refuse_unlike(bench.original, model)
    mixed = own_copy(bench.original)
    points: dict[float, Json] = {}

    def point(share: float) -> Json:
        if share not in points:
            mix(mixed, bench.original, model, share)
            points[share] = {"a": share, **known_of(mixed, bench)}
            bench.done(len(points), len(SHARES) + HALVINGS)
        return points[share]

    def keeps(share: float) -> bool:
        return sum(point(share)["retain_es"]) >= KEPT * sum(point(0.0)["retain_es"])

    on_grid = [point(share) for share in SHARES]
    uwc = point(last_kept(keeps, SHARES))
    return Reading.of_rows(uwc["forget_es"], {"points": on_grid, "uwc": uwc})


@torch.no_grad()
def mix(
    mixed: PreTrainedModel, original: PreTrainedModel, audited: PreTrainedModel, share: float
) -> None:
    """Write (1 - share) original + share audited into `mixed`, in fp32."""
    weights = (model.parameters() for model in (mixed, original, audited))  # tied ones once
    for own, first, second in zip(*weights, strict=True):
        own.copy_(torch.add(first.float() * (1 - share), second.float(), alpha=share))


def last_kept(
    keeps: Callable[[float], bool], shares: Sequence[float], halvings: int = HALVINGS
) -> float:
    """Return the largest of rising shares at which `keeps` holds, or one between it and the next.

    The step after it is halved, as if `keeps` changed once there. The first share is taken to hold.
    """
    kept = [share for share in shares if keeps(share)]
    low = max(kept, default=shares[0])
    high = next((share for share in shares if share > low), low)
    for _ in range(halvings if high > low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low

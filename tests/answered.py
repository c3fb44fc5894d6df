"""Made-up answers of every role, which the tests of the losses share."""

import torch
from torch.nn.functional import log_softmax

from npo_kit import losses
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.methods import METHODS

# A method is a sum of terms: each term is looked at once, and the paper's in all their pairs.
PAPERS = [f"{b}{r}" for b in ("ga", "npo", "dpo", "kto", "idk") for r in ("", "_rt", "_kl")]
NAMES = sorted({*PAPERS, *(n for n, e in METHODS.items() if n == e.term or n.endswith("_ap"))})


def answers(logps, mask=None, logits=None) -> Answers:
    logps = torch.as_tensor(logps, dtype=torch.get_default_dtype())
    mask = torch.ones(logps.shape, dtype=torch.long) if mask is None else torch.as_tensor(mask)
    return Answers(logps * mask, torch.zeros(logps.shape, dtype=torch.long), mask, logits)


def ragged(seed: int, rows: int = 4, width: int = 6, vocabulary: int = 11) -> Answers:
    """Random answers of different lengths with their logits, in float64."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    lengths[0] = width
    mask = (torch.arange(width) < lengths).long()
    labels = torch.randint(vocabulary, (rows, width), generator=generator) * mask
    logits = torch.randn(int(mask.sum()), vocabulary, generator=generator, dtype=torch.float64)
    token = log_softmax(logits, -1).gather(1, labels[mask.bool()][:, None])[:, 0]
    logps = torch.zeros(rows, width, dtype=torch.float64).masked_scatter(mask.bool(), token)
    states = torch.randn(len(token), 5, generator=generator, dtype=torch.float64)
    return Answers(logps, labels, mask, logits, {0.5: states})


def batch(seed: int = 0) -> dict[str, Answers]:
    """All roles, each with answers of its own; a role and its reference share the mask."""
    result = {}
    for i, role in enumerate(("forget", "alternate", "retain", "retain_alternate")):
        policy = ragged(seed + 10 * i)
        noise = torch.randn(policy.logps.shape, generator=torch.Generator().manual_seed(seed + i))
        shifted = policy.logits + 0.3 * torch.randn(
            policy.logits.shape,
            generator=torch.Generator().manual_seed(seed + i),
            dtype=torch.double,
        )
        reference = (policy.logps - 0.5 * noise.double().abs()) * policy.mask
        moved = {0.5: policy.hidden[0.5] + 0.1}
        result[role] = policy
        result[f"{role}_ref"] = Answers(reference, policy.labels, policy.mask, shifted, moved)
    return result


def spoken(part: Answers, logits: torch.Tensor, hidden=None) -> Answers:
    """Answers with the log-probs that these logits give."""
    token = log_softmax(logits, -1).gather(1, part.labels[part.mask.bool()][:, None])[:, 0]
    logps = torch.zeros_like(part.logps).masked_scatter(part.mask.bool(), token)
    return Answers(logps, part.labels, part.mask, logits, hidden)


def gradient(objective, roles: dict[str, Answers], role: str, **keywords) -> torch.Tensor:
    """Derivative of the reduced objective by the token log-probs of one role, by autograd."""
    leaf = roles[role].logps.clone().requires_grad_(True)
    given_roles = dict(roles)
    given_roles[role] = Answers(leaf, roles[role].labels, roles[role].mask)
    first = losses.roles(objective)[0]
    values = objective(**{r: given_roles[r] for r in losses.roles(objective)}, **keywords)
    return torch.autograd.grad(reduce(values, roles[first].mask), leaf)[0]

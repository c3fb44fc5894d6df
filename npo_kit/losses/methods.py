"""Methods: a forget term, a retain term and their weights. `METHODS` is the one table of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from npo_kit.errors import KitError
from npo_kit.losses.answers import ROLES, Answers, Objective, hyperparameters, roles, total
from npo_kit.losses.paper import dpo, ga, idk, kto, kto_baseline, npo, retain_kl, retain_nll


@dataclass(frozen=True)
class Method:
    """A forget term, a retain term, and how they are weighed: what a trainer minimises.

    Either may be absent: without a forget term it is fine-tuning on the retain rows.
    `statistics` maps a keyword of the forget term to an objective whose mean over the whole
    optimizer batch, without gradient, is passed for it (KTO's baseline).
    """

    forget: Objective | None
    retain: Objective | None = None
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    equation: str = ""
    paper: str = ""
    statistics: Mapping[str, Objective] = field(default_factory=dict)

    def __post_init__(self):
        if not self.terms:
            raise KitError("a method needs a forget term or a retain term: give an objective")
        for objective in (*self.terms.values(), *self.statistics.values()):
            read = roles(objective)
            if odd := [role for role in read if role not in ROLES]:
                raise KitError(
                    f"an objective reads {odd[0]!r}, which is no role: its positional parameters "
                    f"may be {', '.join(ROLES)}; a hyper-parameter stands after *"
                )
            if not read:
                raise KitError(f"an objective reads no role: name one of {', '.join(ROLES)}")

    @property
    def terms(self) -> dict[str, Objective]:
        """The objectives by the name of the term they are."""
        both = {"forget": self.forget, "retain": self.retain}
        return {name: objective for name, objective in both.items() if objective}

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role that some term or statistic reads, in a fixed order."""
        read = {r for f in (*self.terms.values(), *self.statistics.values()) for r in roles(f)}
        return tuple(sorted(read))

    @property
    def hyperparameters(self) -> dict[str, object]:
        """Settable keywords of the forget term and their defaults (statistics left out)."""
        known = hyperparameters(self.forget) if self.forget else {}
        return {name: default for name, default in known.items() if name not in self.statistics}


_NPO_PAPER = "arXiv 2404.05868"
_DPO_PAPER = "arXiv 2305.18290, as adapted in arXiv 2404.05868"
_KTO_PAPER = "arXiv 2402.01306, as adapted in arXiv 2404.05868"
_TOFU_PAPER = "arXiv 2401.06121"

_FORGET_TERMS = {
    "ga": (ga, "mean over tokens of l_t", _TOFU_PAPER, {}),
    "npo": (npo, "(2/b) mean softplus(b d)", _NPO_PAPER, {}),
    "dpo": (dpo, "(2/b) mean softplus(-b (d_alternate - d_forget))", _DPO_PAPER, {}),
    "kto": (
        kto,
        "(2/b) mean softplus(b d - K), K = mean d_alternate",
        _KTO_PAPER,
        {"baseline": kto_baseline},
    ),
    "idk": (idk, "- mean over tokens of l_t(refusal)", _TOFU_PAPER, {}),
}
_RETAIN_TERMS = {
    "": (None, ""),
    "_rt": (retain_nll, " - mean over tokens of l_t(retain)"),
    "_kl": (retain_kl, " + mean over retain tokens of KL(ref || policy)"),
}

METHODS: dict[str, Method] = {
    forget_name + suffix: Method(
        forget=forget,
        retain=retain,
        equation=equation + added,
        paper=paper,
        statistics=statistics,
    )
    for forget_name, (forget, equation, paper, statistics) in _FORGET_TERMS.items()
    for suffix, (retain, added) in _RETAIN_TERMS.items()
}

FINETUNE = Method(None, retain_nll, equation="- mean over tokens of l_t", paper=_TOFU_PAPER)


def method(name: str) -> Method:
    """The entry of `METHODS` called `name`; KitError that lists what exists otherwise."""
    if name not in METHODS:
        raise KitError(f"unknown method {name!r}: choose one of {', '.join(sorted(METHODS))}")
    return METHODS[name]


def method_values(chosen: Method, batch: Mapping[str, Answers], **hyper) -> dict[str, Tensor]:
    """Unreduced values of each term of a method on one batch, for `reduce`.

    Raises KitError that names the role if the batch lacks one, or the keyword if a
    hyper-parameter is unknown to the method.
    """
    missing = [role for f in chosen.terms.values() for role in roles(f) if role not in batch]
    if missing:
        raise KitError(
            f"the batch has no {missing[0]!r} answers, which this method needs: it reads "
            f"{', '.join(chosen.roles)} and got {', '.join(sorted(batch)) or 'nothing'}"
        )
    unknown = set(hyper) - set(chosen.hyperparameters) - set(chosen.statistics)
    if unknown:
        raise KitError(
            f"unknown hyper-parameter {min(unknown)!r}: this method takes "
            f"{', '.join(chosen.hyperparameters) or 'none'}"
        )
    values = {
        term: f(**{role: batch[role] for role in roles(f)}, **(hyper if term == "forget" else {}))
        for term, f in chosen.terms.items()
    }
    for term, value in values.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise KitError(f"the {term} objective returned a {kind}: return a tensor")
    return values


def gradient_weights(objective: Objective, batch: Mapping[str, Answers], **hyper) -> Tensor:
    """How strongly an objective pushes on each forget sequence: (B,), by autograd.

    The derivative of the sum of its values by the forget log-probs, averaged over each answer's
    tokens: W = 2 sigmoid(beta d) for NPO, 1 for GA. Of a gradient by logits the part counts that
    moves the label's log-prob: its projection on that log-prob's own gradient, one-hot minus
    softmax. The objective must read the role `forget`.
    """
    forget = batch["forget"]
    leaves = [x.detach().requires_grad_() for x in (forget.logps, forget.logits) if x is not None]
    leafed = replace(forget, **dict(zip(("logps", "logits"), leaves, strict=False)))
    with torch.enable_grad():
        answers = batch | {"forget": leafed}
        values = objective(**{role: answers[role] for role in roles(objective)}, **hyper)
        summed = total(values, forget.mask)
        by_logps, *by_logits = torch.autograd.grad(
            summed, leaves, allow_unused=True, materialize_grads=True
        )
    weights = by_logps * forget.mask
    for gradient in by_logits:
        where = forget.mask.bool()
        away = -leaves[1].detach().softmax(-1)
        away[torch.arange(len(away)), forget.labels[where]] += 1
        moved = (gradient * away).sum(-1) / away.square().sum(-1).clamp(min=1e-30)
        weights = weights + torch.zeros_like(weights).masked_scatter(where, moved.to(weights.dtype))
    return weights.sum(-1) / forget.mask.sum(-1).clamp(min=1)

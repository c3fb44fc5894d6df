"""Unlearning objectives as pure functions of answer log-probabilities; methods made of them.

An objective's positional parameters are roles, read from its signature: `forget`, `retain` and
`alternate` are what the policy says of the answers to forget, of the retain answers and of the
refusals given to the forget questions; `<role>_ref` is what the frozen reference says of the same.
Each role is an `Answers`. An objective returns values at its natural level: per token (B, T), per
sequence (B,), or one number; `reduce` takes the mean at that level. Everything is minimised.

Notation of the equations: l_t = log p(y_t | x, y_<t), s = sum_t l_t over the answer, s° the same
under the reference, d = s - s° the log-ratio log(pi_theta / pi_ref), softplus(x) = log(1 + e^x).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from npo_kit.errors import KitError

BETA = 0.1  # inverse temperature of NPO, DPO and KTO; the paper's value, sensible 0.01 to 5


@dataclass(frozen=True)
class Answers:
    """What a model says of a batch of answers, shifted and masked once, where it is made."""

    logps: Tensor  # (B, T) log-probability of each answer token, nats; 0 where mask is 0
    labels: Tensor  # (B, T) the token ids
    mask: Tensor  # (B, T) 1 on answer tokens (end token included), 0 elsewhere
    logits: Tensor | None = None  # (N, V), N = mask.sum(), row-major; only if an objective asks
    hidden: dict[int, Tensor] | None = None  # layer -> (N, D), likewise


Objective = Callable[..., Tensor]


def asks_for(*extras: str) -> Callable[[Objective], Objective]:
    """Mark an objective that reads `logits` or `hidden` of its roles, which cost memory."""

    def mark(objective: Objective) -> Objective:
        objective.asks = extras
        return objective

    return mark


# --- reductions ---------------------------------------------------------------------------------


def sequence_logps(answers: Answers) -> Tensor:
    """Log-probability of each whole answer: the sum over its tokens. (B,), nats."""
    return answers.logps.sum(-1)


def reduce(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of an objective's values at their own level: real tokens, sequences, or one number.

    `values` (B, T), (B,) or (); `mask` (B, T). A scalar. Raises ValueError on another shape.
    """
    divisor = denominator(values, mask)
    return total(values, mask) / divisor


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of an objective's values over real tokens, over sequences, or the number itself."""
    return (values * mask).sum() if values.ndim == 2 else values.sum()


def denominator(values: Tensor, mask: Tensor) -> Tensor | int:
    """What `reduce` divides by: real tokens for (B, T), sequences for (B,), 1 for a number."""
    if values.shape == mask.shape:
        return mask.sum()
    if values.shape == mask.shape[:1]:
        return len(values)
    if values.ndim == 0:
        return 1
    raise ValueError(
        f"an objective returned shape {tuple(values.shape)} for answers of shape "
        f"{tuple(mask.shape)}: return (B, T), (B,) or a single number"
    )


def full_precision(logits: Tensor) -> Tensor:
    """Half precisions as fp32: a log-softmax over a vocabulary needs it."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact also where torch's own turns linear (x > 20)."""
    return -F.logsigmoid(-x)


def _log_ratio(policy: Answers, ref: Answers) -> Tensor:
    """d = log(pi_theta / pi_ref) of each whole answer, (B,), nats."""
    return sequence_logps(policy) - sequence_logps(ref)


# --- objectives on the forget answers -----------------------------------------------------------


def ga(forget: Answers, *, length_normalised: bool = True) -> Tensor:
    """Gradient ascent: minimise the log-probability of the forget answers itself.

    (B, T) token log-probs, reduced to a token mean as the NPO authors and open-unlearning ran it;
    with `length_normalised=False` (B,) sequence sums, the limit of NPO as beta goes to 0
    (arXiv 2404.05868, Proposition 1). Unbounded below.
    """
    return forget.logps if length_normalised else sequence_logps(forget)


def npo(forget: Answers, forget_ref: Answers, *, beta: float = BETA) -> Tensor:
    """Negative preference optimization: (B,), nats, never negative (arXiv 2404.05868, eq. 3)."""
    return 2 / beta * _softplus(beta * _log_ratio(forget, forget_ref))


def dpo(
    forget: Answers,
    forget_ref: Answers,
    alternate: Answers,
    alternate_ref: Answers,
    *,
    beta: float = BETA,
) -> Tensor:
    """Prefer the alternate answer (a refusal) to the forget answer: (B,), nats.

    Rafailov et al.'s DPO (arXiv 2305.18290, eq. 7) times 2/beta, the scale that the NPO paper uses,
    so that without the alternate's log-ratio it is NPO.
    """
    margin = _log_ratio(alternate, alternate_ref) - _log_ratio(forget, forget_ref)
    return 2 / beta * _softplus(-beta * margin)


def kto(
    forget: Answers, forget_ref: Answers, *, baseline: Tensor | float, beta: float = BETA
) -> Tensor:
    """KTO without winners: (B,), nats: -(2/beta) log sigmoid(baseline - beta d).

    `baseline` is a batch statistic without gradient. On language models the NPO authors take
    `kto_baseline`, not multiplied by beta; in their synthetic experiment beta * KL(theta || ref).
    Their additive constant 1 is left out.
    """
    return 2 / beta * _softplus(beta * _log_ratio(forget, forget_ref) - baseline)


def kto_baseline(alternate: Answers, alternate_ref: Answers) -> Tensor:
    """Log-ratio of each refusal, (B,), nats; KTO's baseline K is its mean over the whole batch."""
    return _log_ratio(alternate, alternate_ref)


def idk(alternate: Answers) -> Tensor:
    """Negative log-likelihood of a refusal to each forget question: (B, T), nats."""
    return -alternate.logps


# --- objectives on the retain answers -----------------------------------------------------------


def retain_nll(retain: Answers) -> Tensor:
    """Negative log-likelihood of the retain answers: (B, T), nats. The paper's +RT."""
    return -retain.logps


@asks_for("logits")
def retain_kl(retain: Answers, retain_ref: Answers) -> Tensor:
    """KL(reference || policy) over the vocabulary at each retain answer token: (B, T), nats.

    The paper's +KL. Over answer tokens only, where the authors' code averages prompt and padding
    positions in as well, so its weights do not transfer.
    """
    ref = full_precision(retain_ref.logits).log_softmax(-1)
    policy = full_precision(retain.logits).log_softmax(-1)
    values = F.kl_div(policy, ref, reduction="none", log_target=True).sum(-1)  # (N,)
    where = retain.mask.bool()
    return torch.zeros_like(retain.logps, dtype=values.dtype).masked_scatter(where, values)


# --- gradient weights ---------------------------------------------------------------------------


def npo_weight(log_ratio: Tensor, beta: float = BETA) -> Tensor:
    """W = 2 pi^b / (pi^b + pi_ref^b) = 2 sigmoid(b d), in (0, 2); 1 at the reference."""
    return 2 * torch.sigmoid(beta * log_ratio)


def gradient_weights(objective: Objective, batch: Mapping[str, Answers], **hyper) -> Tensor:
    """How strongly an objective pushes on each forget sequence: (B,), by autograd.

    The derivative of the sum of its values by the forget log-probs, averaged over each answer's
    tokens: W = 2 sigmoid(beta d) for NPO, 1 for GA. The objective must read the role `forget`.
    """
    forget = batch["forget"]
    leaf = forget.logps.detach().requires_grad_(True)
    leafed = dict(batch, forget=Answers(leaf, forget.labels, forget.mask, forget.logits))
    with torch.enable_grad():
        values = objective(**{role: leafed[role] for role in roles(objective)}, **hyper)
        (gradient,) = torch.autograd.grad(total(values, forget.mask), leaf)
    return (gradient * forget.mask).sum(-1) / forget.mask.sum(-1).clamp(min=1)


# --- methods ------------------------------------------------------------------------------------


def roles(objective: Objective) -> tuple[str, ...]:
    """The roles that an objective reads: the names of its positional parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(objective).parameters.values()
    return tuple(p.name for p in parameters if p.kind in kinds)


def hyperparameters(objective: Objective) -> dict[str, object]:
    """The keyword-only parameters of an objective and their defaults."""
    parameters = inspect.signature(objective).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


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
    return {
        term: f(**{role: batch[role] for role in roles(f)}, **(hyper if term == "forget" else {}))
        for term, f in chosen.terms.items()
    }


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

"""The relatives of NPO, 2019 to 2025: each a pure loss of a few lines, to be read side by side.

Notation as in `paper`: l_t = log p_t, the log-probability of an answer's token; s = sum_t l_t of an
answer of |y| tokens; ° marks the reference, d = s - s°; z are logits over a vocabulary of V tokens.
Weights that a formula multiplies a log-probability with are constants for the gradient. What sets
the methods apart is how hard each pushes on a token or an answer as it fades: its weight, given as
the derivative by l_t of the sum over tokens, or rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from npo_kit.losses.answers import Answers, by_token, full_precision, sequence_logps
from npo_kit.losses.objectives import asks_for
from npo_kit.losses.paper import npo, softplus

# --- an answer at a time ------------------------------------------------------------------------


def simnpo(forget: Answers, *, beta: float = 2.5, gamma: float = 0.0) -> Tensor:
    """NPO by an answer's mean log-probability, without a reference: (B,) (arXiv 2410.07163).

    The weight 2 sigmoid(beta (s/|y| + gamma)) / |y| fades by length-free probability. Gamma stands
    inside beta, as in the authors' code; the paper's is beta times it.
    """
    return 2 / beta * softplus(beta * (_mean_logps(forget) + gamma))


def flat(forget: Answers, alternate: Answers) -> Tensor:
    """FLAT by total variation: (B,) in (-1/2, 1/2) (arXiv 2410.11143).

    P is the mean probability of an answer's tokens. Weight: sech^2(P) p_t / (2 |y|).
    """
    return (_mean_probability(forget).tanh() - _mean_probability(alternate).tanh()) / 2


def door(forget: Answers, forget_ref: Answers, alternate: Answers, *, beta: float = 0.5) -> Tensor:
    """NPO, and learn the refusal: (B,), nats (arXiv 2503.03710). With `retain_sum`: all of DOOR."""
    return npo(forget, forget_ref, beta=beta) - sequence_logps(alternate)


# --- a token at a time --------------------------------------------------------------------------


def unlikelihood(forget: Answers) -> Tensor:
    """-log(1 - p_t): (B, T), nats (arXiv 1908.04319). Weight: p/(1 - p).

    Where p rounds to 1 the gradient is 0; `ceu` has the same gradient and is exact there.
    """
    return -_log1mexp(forget.logps)


def wga(forget: Answers, *, alpha: float = 1.0) -> Tensor:
    """Weighted gradient ascent: p_t^alpha l_t, (B, T) (arXiv 2502.19301). Weight: p^alpha.

    Its gradient is that of p^alpha / alpha, which is bounded; at alpha = 0 it is GA.
    """
    return (alpha * forget.logps).exp().detach() * forget.logps


def tnpo(forget: Answers, forget_ref: Answers, *, beta: float = 4.0) -> Tensor:
    """NPO token by token: (B, T) (arXiv 2502.19301). Weight: 2 sigmoid(beta (l_t - l°_t))."""
    return 2 / beta * softplus(beta * (forget.logps - forget_ref.logps))


def wtnpo(forget: Answers, forget_ref: Answers, *, beta: float = 4.0, alpha: float = 1.5) -> Tensor:
    """Weighted TNPO: (B, T) (arXiv 2502.19301). Weight: 2 sigmoid(beta (l_t - l°_t)) p_t^alpha."""
    weight = 2 * torch.sigmoid(beta * (forget.logps - forget_ref.logps))
    return (weight * (alpha * forget.logps).exp()).detach() * forget.logps


def satimp(forget: Answers, *, beta1: float = 5.0, beta2: float = 0.1) -> Tensor:
    """Weigh by saturation and importance: (B, T) (arXiv 2505.11953).

    Weight: p^beta1 (1 - p)^beta2.
    """
    known = (beta1 * forget.logps).exp()
    return (known * (-torch.expm1(forget.logps)).pow(beta2)).detach() * forget.logps


# --- all logits of a token ----------------------------------------------------------------------


@asks_for("logits")
def ceu(forget: Answers) -> Tensor:
    """Cross-entropy with what the model itself would say if it could not say y_t: (B, T), nats.

    arXiv 2503.01224. The target is a constant for the gradient, which is that of `unlikelihood`,
    exactly: in the logits it is bounded, and fades with p.
    """
    target = _logits(forget).detach().scatter(1, _labels(forget), -math.inf).softmax(-1)
    return _cross_entropy(target, forget)


@asks_for("logits")
def undial(forget: Answers, forget_ref: Answers, *, gamma: float = 10.0) -> Tensor:
    """Distil from the reference with y_t's logit lowered by gamma: (B, T), nats (arXiv 2402.10052).

    It stops at its target. As gamma grows it begins as `ceu` does.
    """
    lower = torch.zeros_like(_logits(forget_ref)).scatter(1, _labels(forget), gamma)
    return _cross_entropy((_logits(forget_ref) - lower).softmax(-1), forget)


@asks_for("logits")
def me(forget: Answers) -> Tensor:
    """Maximise the entropy: KL(uniform || p), (B, T), nats (arXiv 2410.08109).

    It is 0 where all tokens are equally likely, whatever y_t is.
    """
    logits = _logits(forget)
    values = logits.logsumexp(-1) - logits.mean(-1) - math.log(logits.shape[-1])
    return by_token(forget, values)


# --- hidden states ------------------------------------------------------------------------------


@asks_for("hidden")
def rmu(forget: Answers, *, depth: float = 0.5, steering: float = 10.0) -> Tensor:
    """Steer hidden states to a random direction: mean (h - c u)^2 over them, (B, T).

    arXiv 2403.03218. The states are those after `depth` of the layers; u, of length 1 and with no
    negative part, is the same in every step and run; c is `steering`.
    """
    states = _states(forget)
    u = torch.rand(states.shape[1], generator=torch.Generator().manual_seed(0))
    target = steering * (u / u.norm()).to(states)
    return by_token(forget, (states - target).square().mean(-1))


@asks_for("hidden")
def retain_states(retain: Answers, retain_ref: Answers) -> Tensor:
    """Keep the reference's hidden states: mean (h - h°)^2 over them, (B, T). RMU's retain term."""
    return by_token(retain, (_states(retain) - _states(retain_ref)).square().mean(-1))


# --- on the retain answers ----------------------------------------------------------------------


def ap(retain: Answers, retain_alternate: Answers, *, retain_beta: float = 0.1) -> Tensor:
    """Prefer a retain answer to a refusal of its question: (B,), nats (arXiv 2410.08109).

    Without a reference and by sums, so that a short refusal starts ahead; 1/beta, not 2/beta.
    """
    margin = sequence_logps(retain) - sequence_logps(retain_alternate)
    return softplus(-retain_beta * margin) / retain_beta


def retain_sum(retain: Answers) -> Tensor:
    """Negative log-likelihood of whole retain answers: (B,), nats. DOOR's retain term."""
    return -sequence_logps(retain)


# --- what they share ----------------------------------------------------------------------------


def _mean_logps(answers: Answers) -> Tensor:
    return sequence_logps(answers) / answers.mask.sum(-1)


def _mean_probability(answers: Answers) -> Tensor:
    return (answers.logps.exp() * answers.mask).sum(-1) / answers.mask.sum(-1)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) of x <= 0, in each half of the range by the form that is exact there."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x > -math.log(2), (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def _logits(answers: Answers) -> Tensor:
    assert answers.logits is not None  # whoever calls this asks for them
    return full_precision(answers.logits)


def _states(answers: Answers) -> Tensor:
    assert answers.hidden is not None
    (states,) = answers.hidden.values()
    return full_precision(states)  # (N, D)


def _labels(answers: Answers) -> Tensor:
    return answers.labels[answers.mask.bool()][:, None]  # (N, 1)


def _cross_entropy(target: Tensor, answers: Answers) -> Tensor:
    """- sum over the vocabulary of target log p at each answer token: (B, T), nats."""
    return by_token(answers, -(target * _logits(answers).log_softmax(-1)).sum(-1))

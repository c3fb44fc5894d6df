"""The objectives of the NPO paper (arXiv 2404.05868): the heart of the kit on one page.

Notation: l_t = log p(y_t | x, y_<t), s = sum_t l_t over an answer, s° the same under the
reference, d = s - s° the log-ratio log(pi_theta / pi_ref), softplus(x) = log(1 + e^x).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from npo_kit.losses.answers import Answers, by_token, full_precision, sequence_logps
from npo_kit.losses.methods import BETA
from npo_kit.losses.objectives import asks_for

# --- objectives on the forget answers -----------------------------------------------------------


def ga(forget: Answers, *, length_normalised: bool = True) -> Tensor:
    """Gradient ascent: minimise the log-probability of the forget answers itself.

    (B, T) token log-probs, reduced to a token mean as the NPO authors and open-unlearning ran it;
    with `length_normalised=False` (B,) sequence sums, the limit of NPO as beta goes to 0
    (arXiv 2404.05868, Proposition 1). Unbounded below.
    """
    return forget.logps if length_normalised else sequence_logps(forget)


def npo(
    forget: Answers, forget_ref: Answers, *, beta: float = BETA, length_normalised: bool = False
) -> Tensor:
    """Negative preference optimization: (B,), nats, never negative (arXiv 2404.05868).

    With `length_normalised` d is the mean over an answer's tokens, so that beta brakes long answers
    no sooner than short ones.
    """
    d = log_ratio(forget, forget_ref)
    if length_normalised:
        d = d / forget.mask.sum(-1)
    return 2 / beta * softplus(beta * d)  # eq. 3


def dpo(
    forget: Answers,
    forget_ref: Answers,
    alternate: Answers,
    alternate_ref: Answers,
    *,
    beta: float = BETA,
) -> Tensor:
    """Prefer the alternate answer (a refusal) to the forget answer: (B,), nats.

    Rafailov et al.'s DPO (arXiv 2305.18290) times 2/beta, the scale that the NPO paper uses, so
    that without the alternate's log-ratio it is NPO.
    """
    margin = log_ratio(alternate, alternate_ref) - log_ratio(forget, forget_ref)
    return 2 / beta * softplus(-beta * margin)  # arXiv 2305.18290, eq. 7, times 2/beta


def kto(
    forget: Answers, forget_ref: Answers, *, baseline: Tensor | float, beta: float = BETA
) -> Tensor:
    """KTO without winners: (B,), nats: -(2/beta) log sigmoid(baseline - beta d).

    `baseline` is a batch statistic without gradient. On language models the NPO authors take
    `kto_baseline`, not multiplied by beta; in their synthetic experiment beta * KL(theta || ref).
    Their additive constant 1 is left out.
    """
    return 2 / beta * softplus(beta * log_ratio(forget, forget_ref) - baseline)


def kto_baseline(alternate: Answers, alternate_ref: Answers) -> Tensor:
    """Log-ratio of each refusal, (B,), nats; KTO's baseline K is its mean over the whole batch."""
    return log_ratio(alternate, alternate_ref)


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
    ref = full_precision(retain_ref.logits).log_softmax(-1)  # type: ignore[arg-type]
    policy = full_precision(retain.logits).log_softmax(-1)  # type: ignore[arg-type]
    values = F.kl_div(policy, ref, reduction="none", log_target=True).sum(-1)  # (N,)
    return by_token(retain, values)


# --- the weight of a gradient, by the log-ratio d of its row ------------------------------------


def npo_weight(log_ratio: Tensor, beta: float | Tensor = BETA, **hyper: object) -> Tensor:
    """W = 2 pi^b / (pi^b + pi_ref^b) = 2 sigmoid(b d), in (0, 2); 1 at the reference."""
    return 2 * torch.sigmoid(beta * log_ratio)  # Proposition 1


def ga_weight(log_ratio: Tensor, **hyper: object) -> Tensor:
    """W = 1, whatever has been forgotten."""
    return torch.ones_like(log_ratio)


def log_ratio(policy: Answers, ref: Answers) -> Tensor:
    """d = log(pi_theta / pi_ref) of each whole answer, (B,), nats."""
    return sequence_logps(policy) - sequence_logps(ref)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact also where torch's own turns linear (x > 20)."""
    return -F.logsigmoid(-x)

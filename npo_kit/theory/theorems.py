"""The paper's two statements on NPO in numbers (arXiv 2404.05868, Proposition 1 and Theorem 2).

Proposition 1: as beta goes to 0, NPO becomes gradient ascent. Theorem 2: in a logistic model the
distance from the start grows linearly with the number of steps under GA, logarithmically under NPO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.objectives import Objective
from npo_kit.losses.paper import ga, npo, npo_weight
from npo_kit.theory.logistic import logits, pull_back

LIMIT_BETAS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
DIVERGENCE_BETAS = (0.1, 0.5, 1.0, 2.0)
N, D = 16, 256  # rows and dimensions of `divergence_demo`

_LIMIT_COLUMNS = ["beta", "loss_gap", "loss_gap_expected", "gradient_gap", "gradient_gap_expected"]
_LIMIT_COLUMNS += ["weight_at_reference"]


def limit_demo(betas: Sequence[float] = LIMIT_BETAS) -> pd.DataFrame:
    """Show Proposition 1 on 200 rows of a logistic model near its reference, all drawn at random.

    One row per beta; nats. With u = log pi / pi_ref of each row:

    | column | |
    |---|---|
    | beta | |
    | loss_gap, loss_gap_expected | L_NPO - (2/beta) log 2 - E u; (beta/4) E u^2 |
    | gradient_gap, gradient_gap_expected | norms of grad L_NPO - grad L_GA, (beta/2) E[u grad u] |
    | weight_at_reference | mean W where the policy is the reference: 1 for every beta |

    Both gaps are of first order in beta, slope 1 on log-log axes; their next term is beta^3.
    """
    _check_betas(betas)
    draw = np.random.default_rng(0)
    features = torch.from_numpy(draw.standard_normal((200, 32)))
    ref, away = torch.from_numpy(draw.standard_normal((2, 32)) / math.sqrt(32))
    policy = ref + away
    before = _answers(features, ref)
    log_ratio = _answers(features, policy).logps - before.logps  # u, (200, 1)
    scores = torch.sigmoid(-features @ policy)[:, None] * features  # d log pi / da, (200, 32)
    ga_loss, ga_gradient = _loss_and_gradient(ga, features, policy)
    limit = ga_loss - before.logps.mean().item()  # E u: GA's loss, counted from the reference
    square, slope = log_ratio.square().mean().item(), (log_ratio * scores).mean(0).norm().item()
    records = []
    for beta in betas:
        loss, gradient = _loss_and_gradient(npo, features, policy, before, beta=beta)
        gap, turned = loss - 2 / beta * math.log(2) - limit, (gradient - ga_gradient).norm().item()
        weight = npo_weight(torch.zeros_like(log_ratio), beta).mean().item()
        records.append((beta, gap, beta / 4 * square, turned, beta / 2 * slope, weight))
    return pd.DataFrame(records, columns=_LIMIT_COLUMNS)


def _answers(features: Tensor, a: Tensor) -> Answers:
    """Return the answers of the model `a`: each row's label, as one token."""
    logps = F.logsigmoid(features @ a)[:, None]
    return Answers(logps, torch.zeros_like(logps, dtype=torch.long), torch.ones_like(logps))


def _loss_and_gradient(
    objective: Objective, features: Tensor, a: Tensor, *refs: Answers, **hyper: float
) -> tuple[float, Tensor]:
    a = a.clone().requires_grad_()
    policy = _answers(features, a)
    loss = reduce(objective(policy, *refs, **hyper), policy.mask)
    return loss.item(), torch.autograd.grad(loss, a)[0]


def divergence_demo(betas: Sequence[float] = DIVERGENCE_BETAS, steps: int = 20_000) -> pd.DataFrame:
    """Show Theorem 2: GA and NPO descend on p(y=1|x) = sigmoid(<x, theta>) at learning rate 1.

    N = 16 orthonormal rows in 256 dimensions have random labels, the start has norm 1. One row per
    method, beta (NaN for GA) and recorded step (each up to 100, then about 80 per decade):
    `method`, `beta`, `step`, and `distance`, the norm of theta - theta_start in X^T X.
    """
    _check_betas(betas)
    if steps < 1:
        raise KitError(f"steps is {steps}: give at least 1")
    draw = np.random.default_rng(0)
    rows = torch.from_numpy(np.linalg.qr(draw.standard_normal((D, N)))[0].T.copy())  # (N, D)
    rows *= torch.from_numpy(draw.choice([-1.0, 1.0], (N, 1)))  # so that log p = log sigmoid(z)
    start = torch.from_numpy(draw.standard_normal(D))
    start /= start.norm()
    beta = torch.tensor([0.0, *betas], dtype=torch.float64)[:, None]  # beta 0: W = 1, which is GA
    theta, rows = start.repeat(1, len(beta), 1), rows[None]  # (1, methods, D), (1, N, D)
    z_start = logits(start[None, None], rows)  # (1, 1, N)
    ref_logps = F.logsigmoid(z_start)
    sparse = (round(10 ** (k / 80)) for k in range(161, int(80 * math.log10(steps)) + 1))
    due, table = {*range(min(steps, 100) + 1), *sparse, steps}, []
    for step in range(steps + 1):
        z = logits(theta, rows)  # (1, methods, N)
        if step in due:
            table.append((z - z_start).norm(dim=-1)[0].numpy())
        weight = npo_weight(F.logsigmoid(z) - ref_logps, beta)  # NPO's gradient is GA's times W
        theta -= 1 / N * pull_back(weight * torch.sigmoid(-z), rows)
    names = [("ga", math.nan), *(("npo", float(value)) for value in betas)]
    frames = [
        pd.DataFrame({"method": name, "beta": value, "step": sorted(due), "distance": distance})
        for (name, value), distance in zip(names, np.array(table).T, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def divergence_slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Fit slopes to the last 70 % of the demo's steps, and give those expected of orthonormal rows.

    GA: distance per step, 1 / sqrt(N). NPO: distance per unit of ln(step), sqrt(N) / beta. Theorem
    2 is about nearly orthogonal rows, with constants of its own. Columns `method`, `beta`, `slope`,
    `expected`, `final_distance`.
    """
    records = []
    for (name, beta), run in frame.groupby(["method", "beta"], dropna=False):
        late = run[run.step >= 0.3 * run.step.max()]
        against = late.step if name == "ga" else np.log(late.step)
        slope = float(np.polyfit(against, late.distance, 1)[0])
        expected = 1 / math.sqrt(N) if name == "ga" else math.sqrt(N) / beta
        records.append((name, beta, slope, expected, run.distance.iloc[-1]))
    return pd.DataFrame(records, columns=["method", "beta", "slope", "expected", "final_distance"])


def _check_betas(betas: Sequence[float]) -> None:
    if not len(betas) or not all(0 < beta < math.inf for beta in betas):
        raise KitError(f"betas are {list(betas)}: give positive numbers")

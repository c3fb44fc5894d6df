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

_LIMIT_COLUMNS = ["beta", "loss_gap", "loss_gap_expected", "gradient_gap", "gradient_gap_expected"]
_LIMIT_COLUMNS += ["weight_at_reference"]


def limit_demo(
    betas: Sequence[float] = LIMIT_BETAS, *, rows: int = 200, width: int = 32, seed: int = 0
) -> pd.DataFrame:
    """Show Proposition 1 on a logistic model near its reference, both drawn at random.

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
    if rows < 1 or width < 1:
        raise KitError(f"rows is {rows} and width {width}: give at least 1 of each")
    draw = np.random.default_rng(seed)
    features = torch.from_numpy(draw.standard_normal((rows, width)))
    ref, away = torch.from_numpy(draw.standard_normal((2, width)) / math.sqrt(width))
    policy = ref + away
    before = _answers(features, ref)
    log_ratio = _answers(features, policy).logps - before.logps  # u, (rows, 1)
    scores = torch.sigmoid(-features @ policy)[:, None] * features  # d log pi / da, (rows, width)
    ga_loss, ga_gradient = _loss_and_gradient(ga, features, policy)
    limit = ga_loss - before.logps.mean().item()  # E u: GA's loss, counted from the reference
    square, slope = log_ratio.square().mean().item(), (log_ratio * scores).mean(0).norm().item()
    records = []
    for beta in betas:
        loss, gradient = _loss_and_gradient(npo, features, policy, before, beta=beta)
        gap, turned = loss - 2 / beta * math.log(2) - limit, (gradient - ga_gradient).norm().item()
        weight = npo_weight(torch.zeros(rows, dtype=torch.float64), beta).mean().item()
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


def divergence_demo(
    betas: Sequence[float] = DIVERGENCE_BETAS,
    steps: int = 20_000,
    lr: float = 1.0,
    *,
    n: int = 16,
    d: int = 256,
    seed: int = 0,
) -> pd.DataFrame:
    """Show Theorem 2: GA and NPO descend on p(y=1|x) = sigmoid(<x, theta>), n <= d rows.

    The rows are orthonormal, the labels random, the start has norm 1. One row per method, beta
    (NaN for GA) and recorded step (each up to 100, then about 80 per decade): `method`, `beta`,
    `step`, and `distance`, the norm of theta - theta_start in X^T X.
    """
    _check_betas(betas)
    if not 1 <= n <= d or steps < 1 or not 0 < lr < math.inf:
        raise KitError(f"n={n}, d={d}, steps={steps}, lr={lr}: need 1 <= n <= d, steps, lr > 0")
    draw = np.random.default_rng(seed)
    rows = torch.from_numpy(np.linalg.qr(draw.standard_normal((d, n)))[0].T.copy())  # (n, d)
    rows *= torch.from_numpy(draw.choice([-1.0, 1.0], (n, 1)))  # so that log p = log sigmoid(z)
    start = torch.from_numpy(draw.standard_normal(d))
    start /= start.norm()
    beta = torch.tensor([0.0, *betas], dtype=torch.float64)[:, None]  # beta 0: W = 1, which is GA
    theta, rows = start.repeat(1, len(beta), 1), rows[None]  # (1, methods, d), (1, n, d)
    z_start = logits(start[None, None], rows)  # (1, 1, n)
    ref_logps = F.logsigmoid(z_start)
    at, table = _recorded_steps(steps), []
    due = set(at)
    for step in range(steps + 1):
        z = logits(theta, rows)  # (1, methods, n)
        if step in due:
            table.append((z - z_start).norm(dim=-1)[0].numpy())
        weight = npo_weight(F.logsigmoid(z) - ref_logps, beta)  # NPO's gradient is GA's times W
        theta -= lr / n * pull_back(weight * torch.sigmoid(-z), rows)
    names = [("ga", math.nan), *(("npo", float(value)) for value in betas)]
    frames = [
        pd.DataFrame({"method": name, "beta": value, "step": at, "distance": distance})
        for (name, value), distance in zip(names, np.array(table).T, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def _recorded_steps(steps: int) -> list[int]:
    dense = range(min(steps, 100) + 1)
    sparse = (round(10 ** (k / 80)) for k in range(161, int(80 * math.log10(steps)) + 1))
    return sorted({*dense, *sparse, steps})


def divergence_slopes(frame: pd.DataFrame, n: int = 16, lr: float = 1.0) -> pd.DataFrame:
    """Fit slopes to the last 70 % of the steps, and give those expected for orthonormal rows.

    GA: distance per step, lr / sqrt(n). NPO: distance per unit of ln(step), sqrt(n) / beta. These
    hold for the demo; Theorem 2 is about nearly orthogonal rows, with constants of its own.
    Columns `method`, `beta`, `slope`, `expected`, `final_distance`. `n` and `lr` as in the demo.
    """
    records = []
    for (name, beta), run in frame.groupby(["method", "beta"], dropna=False):
        late = run[run.step >= 0.3 * run.step.max()]
        against = late.step if name == "ga" else np.log(late.step)
        slope = float(np.polyfit(against, late.distance, 1)[0])
        expected = lr / math.sqrt(n) if name == "ga" else math.sqrt(n) / beta
        records.append((name, beta, slope, expected, run.distance.iloc[-1]))
    return pd.DataFrame(records, columns=["method", "beta", "slope", "expected", "final_distance"])


def _check_betas(betas: Sequence[float]) -> None:
    if not len(betas) or not all(0 < beta < math.inf for beta in betas):
        raise KitError(f"betas are {list(betas)}: give positive numbers")

"""Gradient descent of many logistic models at once, under the objectives of `npo_kit.losses`.

A model gives a row with features phi (N,) the logits (phi . a, 0). Multiply phi by +1 where the
row's label is 0 and by -1 where it is 1: then log p(label) = log sigmoid(z), z = phi . a. A label
is an answer of one token. Autograd differentiates an objective by the log-probabilities only; from
there to `a` the chain rule is one line by hand. A test at the start shows which shortcuts are exact
for an objective.

Shapes: P problems, M models of each, n rows, N features. Float64, on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, total
from npo_kit.losses.objectives import Objective, hyperparameters, roles
from npo_kit.losses.paper import npo_weight, retain_kl

_BLOCK = 2**17  # multiplications in one matrix product


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """In this context, run torch on one thread.

    A second one gains little on such small tensors, and on a busy machine each waits for the other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits(a: Tensor, features: Tensor) -> Tensor:
    """Return z = phi . a of every row: (P, M, N) and (P, n, N) to (P, M, n)."""
    a_, features_ = a.numpy(), features.numpy()
    z = np.empty((*a.shape[:2], features.shape[1]))
    for block in _blocks(a.shape[1], *features.shape[1:]):
        np.matmul(a_, features_[:, block].swapaxes(1, 2), out=z[:, :, block])
    return torch.from_numpy(z)


def pull_back(slopes: Tensor, features: Tensor) -> Tensor:
    """Return d/da from d/dz, summed over the rows: (P, M, n) and (P, n, N) to (P, M, N)."""
    slopes_, features_ = slopes.numpy(), features.numpy()
    first, *others = _blocks(slopes.shape[1], *features.shape[1:])
    gradient = np.matmul(slopes_[:, :, first], features_[:, first])
    for block in others:
        gradient += np.matmul(slopes_[:, :, block], features_[:, block])
    return torch.from_numpy(gradient)


@functools.lru_cache(64)
def _blocks(models: int, rows: int, width: int) -> tuple[slice, ...]:
    """Cut the rows into blocks to multiply at a time: numpy's BLAS is fastest on small matrices.

    A block is also too small for BLAS to share among threads. So results do not depend on their
    number, and on a busy machine no thread waits for another.
    """
    count = -(-rows * models * width // _BLOCK)
    edges = [rows * i // count for i in range(count + 1)]
    return tuple(slice(start, end) for start, end in itertools.pairwise(edges) if end > start)


def bernoulli_kl(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(first || second) of two-class distributions with logits (z, 0), each in nats."""
    gap = torch.sigmoid(first) * (first - second)
    return (gap + F.logsigmoid(-first) - F.logsigmoid(-second)).clamp(min=0)


# --- unlearning ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """The rows of P problems, with the reference's z and the labels of each role."""

    features: Tensor  # (P, n, N), each row times +1 for label 0 and -1 for label 1
    ref: Tensor  # (P, 1, n) the reference's z
    # role -> (P, 1, n): +1 where its labels are those of the features, else -1; None: all are
    signs: Mapping[str, Tensor | None]

    def logps(self, role: str, z: Tensor) -> Tensor:
        """Return the log-prob of the role's labels where the features' labels have log-odds z."""
        sign = self.signs[role]
        return F.logsigmoid(z if sign is None else sign * z)


class Term:
    """One objective on the rows of m models of each problem, and its derivative by z."""

    def __init__(self, objective: Objective, rows: Rows, beta: Tensor):
        """Set up with `beta` (P, m, 1), NaN where unused. KitError if the objective reads more."""
        self.objective, self.rows, self.beta = objective, rows, beta
        self.roles = [role for role in rows.signs if role in roles(objective)]
        refs = [role for role in rows.signs if f"{role}_ref" in roles(objective)]
        missing = set(roles(objective)) - {*self.roles, *(f"{role}_ref" for role in refs)}
        asked: tuple[str, ...] = getattr(objective, "asks", ())
        if missing or (asked and objective is not retain_kl):
            read = ", ".join(sorted(missing or asked))
            raise KitError(f"{objective.__name__} reads {read}: the synthetic model has none")
        self.shape = (*beta.shape[:2], rows.features.shape[1])
        self.mask = torch.ones(self.shape, dtype=torch.float64).reshape(-1, 1)
        self.labels = torch.zeros_like(self.mask, dtype=torch.long)  # no objective here reads them
        self.leaves = {role: torch.empty_like(self.mask, requires_grad=True) for role in self.roles}
        self.ref_logps = {role: rows.logps(role, rows.ref) for role in refs}  # (P, 1, n) each
        self.given = {f"{r}_ref": self._answers(logps) for r, logps in self.ref_logps.items()}
        self.known = hyperparameters(objective)
        self.hyper: dict[str, Tensor] = {}
        # a number per sequence, unless the objective's values are per token
        self.level: tuple[int, ...] = (-1,)
        self.constant = None if objective is retain_kl else self._constant_pulls()
        self.is_preference = self.constant is None and self._is_preference()

    def slopes(self, z: Tensor) -> Tensor:
        """Return d(sum of the objective's values over a model's rows) / dz: (P, m, n), like `z`."""
        if self.objective is retain_kl:  # reads logits: for two classes by hand
            return torch.sigmoid(z) - torch.sigmoid(self.rows.ref)
        pulls = self.constant or (self._quick_pulls if self.is_preference else self.pulls)(z)
        parts = []
        for role, pull in zip(self.roles, pulls, strict=True):
            sign = self.rows.signs[role]  # s; d(log-prob of the role's labels)/dz = s sigmoid(-s z)
            chain = torch.sigmoid(-z) if sign is None else sign * torch.sigmoid(-sign * z)
            parts.append(chain.mul_(pull))
        return parts[0] if len(parts) == 1 else cast(Tensor, sum(parts))

    def pulls(self, z: Tensor, create_graph: bool = False) -> list[Tensor]:
        """Return d(sum of values) / d(log-prob) of each role in `roles`, (P, m, n), by autograd."""
        for role, leaf in self.leaves.items():
            leaf.detach().view(self.shape).copy_(self.rows.logps(role, z))
            self.given[role] = Answers(leaf, self.labels, self.mask)
        values = self.objective(**self.given, **self._hyper(z))
        if values.shape not in (self.mask.shape, self.mask.shape[:1]):
            if self.level == (-1, 1) or values.ndim == 0:
                raise KitError(f"{self.objective.__name__} gives no value per row: not for here")
            self.level, self.hyper = (-1, 1), {}  # of (B,), beta would not meet (B, 1) row by row
            return self.pulls(z, create_graph)
        leaves = tuple(self.leaves.values())
        grads = torch.autograd.grad(total(values, self.mask), leaves, create_graph=create_graph)
        return [grad.reshape(z.shape) for grad in grads]

    def _constant_pulls(self) -> list[Tensor] | None:
        """Return the pulls if they do not depend on the log-probs, as with GA; else None."""
        pulls = self.pulls(self.rows.ref.expand(self.shape), create_graph=True)
        return None if any(pull.requires_grad for pull in pulls) else pulls

    def _is_preference(self) -> bool:
        """Test whether the objective is (2/beta) softplus(beta * margin), whatever its name.

        If so, its pulls are `npo_weight` of the margin, several times faster than autograd. An
        objective that differs from it near the reference goes through autograd at every step.
        """
        if "beta" not in self.known or not {"forget", "forget_ref"} <= {*self.given}:
            return False
        away = torch.linspace(-4, 4, self.mask.numel(), dtype=torch.float64).reshape(self.shape)
        z = self.rows.ref + away / self.beta
        pairs = zip(self._quick_pulls(z), self.pulls(z), strict=True)
        return all(torch.allclose(quick, asked, rtol=0, atol=1e-13) for quick, asked in pairs)

    def _quick_pulls(self, z: Tensor) -> list[Tensor]:
        """Return the pulls of a preference objective by formula."""
        margin = self._log_ratio("forget", z)
        if "alternate" in self.roles:
            margin = margin - self._log_ratio("alternate", z)
        if "baseline" in self.known:
            margin = margin - bernoulli_kl(z, self.rows.ref).mean(-1, keepdim=True)
        weight = npo_weight(margin, self.beta)
        return [weight if role == "forget" else -weight for role in self.roles]

    def _log_ratio(self, role: str, z: Tensor) -> Tensor:
        return self.rows.logps(role, z) - self.ref_logps[role]

    def _hyper(self, z: Tensor) -> dict[str, Tensor]:
        """Return each row's beta, and the KTO baseline beta * mean KL(policy || ref)."""
        if "beta" in self.known and "beta" not in self.hyper:
            self.hyper["beta"] = self.beta.expand(self.shape).reshape(self.level)
        if "baseline" in self.known:
            baseline = self.beta * bernoulli_kl(z, self.rows.ref).mean(-1, keepdim=True)
            self.hyper["baseline"] = baseline.expand(self.shape).reshape(self.level)
        return self.hyper

    def _answers(self, logps: Tensor) -> Answers:
        return Answers(logps.expand(self.shape).reshape(-1, 1), self.labels, self.mask)


class Side:
    """The terms of all models on one set of rows: each model's objective, weight and beta."""

    def __init__(
        self, rows: Rows, weighted: Sequence[tuple[Objective | None, float]], beta: Tensor
    ):
        """Set up with an objective, or None, and its weight for each model; `beta` (P, M, 1)."""
        objectives, weights = zip(*weighted, strict=True)
        self.rows = rows
        apart = {objective: None for objective in objectives if objective is not None}
        groups = [[i for i, o in enumerate(objectives) if o is each] for each in apart]
        order = [i for group in groups for i in group]
        self.columns = None if order == [*range(len(objectives))] else torch.tensor(order)
        ends = np.cumsum([len(group) for group in groups])
        self.slices = [slice(e - len(g), e) for e, g in zip(ends, groups, strict=True)]
        self.terms = [Term(o, rows, beta[:, g]) for o, g in zip(apart, groups, strict=True)]
        weight = torch.tensor([weights[i] for i in order], dtype=torch.float64)
        self.scale = (weight / rows.features.shape[1])[:, None]

    def add_gradient(self, a: Tensor, gradient: Tensor) -> None:
        """Add the gradient of each model's mean over the rows to `gradient`; both (P, M, N)."""
        if not self.terms:
            return
        here = a if self.columns is None else a.index_select(1, self.columns)
        z = logits(here, self.rows.features)  # (P, m, n)
        parts = [t.slopes(z[:, at]) for t, at in zip(self.terms, self.slices, strict=True)]
        slopes = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        part = pull_back(slopes, self.rows.features).mul_(self.scale)
        if self.columns is None:
            gradient += part
        else:
            gradient.index_add_(1, self.columns, part)


def descend(a: Tensor, sides: Sequence[Side], lr: Tensor, steps: int) -> Iterator[Tensor]:
    """Descend in place on all rows, `lr` (P, M, 1); yield `a` (P, M, N) before each step and last.

    It is the same tensor each time.
    """
    for _ in range(steps):
        yield a
        gradient = torch.zeros_like(a)
        for side in sides:
            side.add_gradient(a, gradient)
        a -= gradient.mul_(lr)
    yield a

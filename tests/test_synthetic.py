"""The synthetic experiment against plain numpy, the objectives against formulas, both theorems."""

import math
import time

import numpy as np
import pandas as pd
import pytest
import torch

from npo_kit.errors import KitError
from npo_kit.logistic import Rows, Side, Term, descend
from npo_kit.losses import METHODS, Answers, method_values, reduce
from npo_kit.synthetic import (
    PAPER_BETA,
    PAPER_LR,
    PAPER_METHODS,
    SyntheticProblem,
    beta_sweep,
    pretrain,
    unlearn,
)
from npo_kit.synthetic_problem import fit, fit_converged
from npo_kit.theorems import divergence_demo, divergence_slopes, limit_demo

SMALL = {"n_retain": 60, "n_forget": 20, "n_eval": 40, "width": 24, "dim": 6}
VALUES = ["forget_distance", "retain_distance", "forget_drift", "retain_drift", "param_distance"]
RAW = ["W", "X_retain", "y_retain", "X_forget", "y_forget", "y_idk"]
RAW += ["X_retain_eval", "X_forget_eval"]


def small(alpha=1.0, seed=1, trained=True, **sizes):
    """A small problem whose two models are a little way apart, without pre-training."""
    problem = SyntheticProblem.sample(alpha, seed, **SMALL | sizes)
    if not trained:
        return problem
    draw, width = np.random.default_rng(seed + 99), len(problem.W)
    a_init, a_retrained = draw.standard_normal((2, width))
    arrays = [getattr(problem, name) for name in RAW]
    return SyntheticProblem.from_arrays(*arrays, a_init, a_retrained, alpha=alpha, seed=seed)


# --- an independent implementation: one problem, one method, class by class -----------------------


def log_p(problem, X, a):
    """(n, 2) log-probabilities of the classes 0 and 1; logits (phi . a, 0)."""
    z = np.maximum(X @ problem.W.T, 0) @ a
    return np.stack([-np.logaddexp(0, -z), -np.logaddexp(0, z)], 1)


def of_labels(table, y):
    return table[np.arange(len(y)), y]


def kl(first, second):
    return (np.exp(first) * (first - second)).sum(1)


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def plain_loss(problem, name, beta, a, baseline=None):
    """The method's loss, term by term as in the paper, and KTO's baseline if it has one."""
    forget, _, retain = name.partition("_")
    f, f_ref = (log_p(problem, problem.X_forget, at) for at in (a, problem.a_init))
    r, r_ref = (log_p(problem, problem.X_retain, at) for at in (a, problem.a_init))
    u = of_labels(f, problem.y_forget) - of_labels(f_ref, problem.y_forget)
    v = of_labels(f, problem.y_idk) - of_labels(f_ref, problem.y_idk)
    if baseline is None:
        baseline = kl(f, f_ref).mean()
    loss = {
        "ga": lambda: of_labels(f, problem.y_forget).mean(),
        "idk": lambda: -of_labels(f, problem.y_idk).mean(),
        "npo": lambda: 2 / beta * np.logaddexp(0, beta * u).mean(),
        "dpo": lambda: 2 / beta * np.logaddexp(0, -beta * (v - u)).mean(),
        "kto": lambda: 2 / beta * np.logaddexp(0, -beta * (baseline - u)).mean(),
    }[forget]()
    added = {
        "": lambda: 0.0,
        "rt": lambda: -of_labels(r, problem.y_retain).mean(),
        "kl": lambda: kl(r_ref, r).mean(),
    }[retain]()
    return loss + added, baseline


def plain_gradient(problem, name, beta, a):
    """The same by the chain rule through both logits."""
    forget, _, retain = name.partition("_")
    phi_f, phi_r = (np.maximum(X @ problem.W.T, 0) for X in (problem.X_forget, problem.X_retain))
    f, f_ref = (log_p(problem, problem.X_forget, at) for at in (a, problem.a_init))
    r, r_ref = (log_p(problem, problem.X_retain, at) for at in (a, problem.a_init))
    to_f, to_idk, to_r = (
        (y == 0) - np.exp(table[:, 0])  # d log p(y) / d logit
        for y, table in ((problem.y_forget, f), (problem.y_idk, f), (problem.y_retain, r))
    )
    u = of_labels(f, problem.y_forget) - of_labels(f_ref, problem.y_forget)
    v = of_labels(f, problem.y_idk) - of_labels(f_ref, problem.y_idk)
    rows = {
        "ga": lambda: to_f,
        "idk": lambda: -to_idk,
        "npo": lambda: 2 * sigmoid(beta * u) * to_f,
        "dpo": lambda: 2 * sigmoid(-beta * (v - u)) * (to_f - to_idk),
        "kto": lambda: 2 * sigmoid(beta * (u - kl(f, f_ref).mean())) * to_f,
    }[forget]()
    kept = {
        "": lambda: 0 * to_r,
        "rt": lambda: -to_r,
        "kl": lambda: np.exp(r[:, 0]) - np.exp(r_ref[:, 0]),
    }[retain]()
    return rows @ phi_f / len(phi_f) + kept @ phi_r / len(phi_r)


def plain_run(problem, name, lr, beta, steps, eval_every):
    a, table = problem.a_init.copy(), []
    for step in range(steps + 1):
        if step % eval_every == 0 or step == steps:
            distances = [
                kl(log_p(problem, X, of), log_p(problem, X, a)).mean()
                for of in (problem.a_retrained, problem.a_init)
                for X in (problem.X_forget_eval, problem.X_retain_eval)
            ]
            table.append([*distances, np.sqrt(((a - problem.a_retrained) ** 2).sum())])
        a = a - lr * plain_gradient(problem, name, beta, a)
    return np.array(table)


# --- the experiment -------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_every_method_equals_the_plain_implementation(alpha):
    problems = [small(alpha, seed) for seed in (1, 2)]
    lr = {name: 0.05 * (1 + i) for i, name in enumerate(METHODS)}
    beta = {name: 0.5 + 0.1 * i for i, name in enumerate(METHODS)}
    frame = unlearn(problems, list(METHODS), steps=130, eval_every=50, lr=lr, beta=beta)
    assert len(frame) == 2 * len(METHODS) * 4
    for problem in problems:
        for name in METHODS:
            got = frame[(frame.seed == problem.seed) & (frame.method == name)]
            assert list(got.step) == [0, 50, 100, 130]
            expected = plain_run(problem, name, lr[name], beta[name], 130, 50)
            assert np.abs(got[VALUES].to_numpy() - expected).max() < 1e-9, name


def test_the_paper_s_table_and_schedule_equal_the_plain_implementation():
    """Full size: the default numbers, 20,000 pre-training steps, the first 100 of each method."""
    problem = pretrain(SyntheticProblem.sample(1.0, 1000))
    phi = {
        "retain": (np.maximum(problem.X_retain @ problem.W.T, 0), problem.y_retain),
        "forget": (np.maximum(problem.X_forget @ problem.W.T, 0), problem.y_forget),
    }
    for sets, a in ((("retain",), problem.a_retrained), (("retain", "forget"), problem.a_init)):
        rows, y = (np.concatenate(part) for part in zip(*(phi[s] for s in sets), strict=True))
        again = np.zeros(128)
        for _ in range(20_000 if sets == ("retain",) else 0):
            again -= 0.05 / len(y) * ((sigmoid(rows @ again) - (y == 0)) @ rows)
        if again.any():
            assert np.abs(a - again).max() < 1e-10
        norm = np.linalg.norm((sigmoid(rows @ a) - (y == 0)) @ rows / len(y))
        assert 1e-4 < norm < 3e-3  # "paper" has not converged
    frame = unlearn(problem, steps=100)
    for name in PAPER_METHODS:
        lr = PAPER_LR[1.0].get(name, PAPER_LR[1.0][name.partition("_")[0]])
        beta = PAPER_BETA[1.0].get(name.partition("_")[0])
        got = frame[frame.method == name]
        assert set(got.lr) == {lr}
        assert list(got.step) == [0, 25, 50, 75, 100]
        expected = plain_run(problem, name, lr, beta, 100, 25)
        assert np.abs(got[VALUES].to_numpy() - expected).max() < 1e-9, name


def autograd_gradient(problem, name, beta, a):
    """d(loss)/da by autograd through the kit's objectives and a two-class softmax."""
    a = torch.tensor(a, requires_grad=True)
    ref_a = torch.tensor(problem.a_init)

    def answers(X, y, at):
        phi, y = torch.tensor(np.maximum(X @ problem.W.T, 0)), torch.tensor(y)[:, None]
        z = phi @ at
        logits = torch.stack([z, torch.zeros_like(z)], 1)
        return Answers(logits.log_softmax(1).gather(1, y), y, torch.ones_like(y), logits)

    labels = {"forget": problem.y_forget, "alternate": problem.y_idk, "retain": problem.y_retain}
    batch = {}
    for role, y in labels.items():
        X = problem.X_retain if role == "retain" else problem.X_forget
        batch |= {role: answers(X, y, a), f"{role}_ref": answers(X, y, ref_a)}
    hyper = {"beta": beta} if "beta" in METHODS[name].hyperparameters else {}
    if "baseline" in METHODS[name].statistics:
        now, before = (batch[k].logits.detach().log_softmax(1) for k in ("forget", "forget_ref"))
        hyper["baseline"] = beta * (now.exp() * (now - before)).sum(1).mean()
    values = method_values(METHODS[name], batch, **hyper)
    masks = {"forget": batch["forget"].mask, "retain": batch["retain"].mask}
    sum(reduce(value, masks[term]) for term, value in values.items()).backward()
    return a.grad.numpy()


def engine_gradient(problem, name, beta, a):
    """The same from the code that runs the experiment: one step of rate 1."""
    arrays = [getattr(problem, field) for field in RAW]
    moved = SyntheticProblem.from_arrays(*arrays, problem.a_init, problem.a_retrained)
    sides = sides_of(moved, name, beta)
    at = torch.tensor(a)[None, None].clone()
    for current in descend(at, sides, torch.ones(1, 1, 1, dtype=torch.float64), 1):
        after = current.clone()
    return a - after[0, 0].numpy()


def sides_of(problem, name, beta):
    from npo_kit.synthetic import _Run, _Stack

    return _Stack([problem], [[_Run(name, 1.0, beta)]]).sides


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_is_autograd_s_through_the_kit_s_objectives(name):
    problem, beta = small(), 0.7
    a = problem.a_init + 0.3 * np.random.default_rng(5).standard_normal(len(problem.a_init))
    by_hand = engine_gradient(problem, name, beta, a)
    assert np.abs(by_hand - autograd_gradient(problem, name, beta, a)).max() < 1e-12
    assert np.abs(by_hand - plain_gradient(problem, name, beta, a)).max() < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_the_plain_gradient_is_the_plain_loss_s(name):
    problem, beta, h = small(), 0.7, 1e-6
    draw = np.random.default_rng(6)
    a = problem.a_init + 0.3 * draw.standard_normal(len(problem.a_init))
    way = draw.standard_normal(len(a))
    _, fixed = plain_loss(problem, name, beta, a)  # the baseline has no gradient
    up, down = (plain_loss(problem, name, beta, a + s * h * way, fixed)[0] for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(plain_gradient(problem, name, beta, a) @ way)

"""The synthetic experiment against plain numpy, the objectives against formulas, both theorems."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.methods import METHODS, Method, methods_of
from npo_kit.losses.values import method_values
from npo_kit.theory import synthetic
from npo_kit.theory.experiment import FRAMES, read_experiment, run_experiment
from npo_kit.theory.logistic import descend
from npo_kit.theory.problem import SyntheticProblem, fit, fit_converged, pretrain
from npo_kit.theory.synthetic import PAPER_BETA, PAPER_LR, beta_sweep, unlearn
from npo_kit.theory.theorems import divergence_demo, divergence_slopes, limit_demo
from npo_kit.theory.trajectories import retain_distance_at

RECORDED = methods_of("record")  # the paper's methods, each with its retain terms
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
    return SyntheticProblem(*arrays, a_init, a_retrained, alpha=alpha, seed=seed)


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
    lr = {name: 0.05 * (1 + i) for i, name in enumerate(RECORDED)}
    beta = {name: 0.5 + 0.1 * i for i, name in enumerate(RECORDED)}
    frame = unlearn(problems, list(RECORDED), steps=130, eval_every=50, lr=lr, beta=beta)
    assert len(frame) == 2 * len(RECORDED) * 4
    for problem in problems:
        for name in RECORDED:
            got = frame[(frame.seed == problem.seed) & (frame.method == name)]
            assert list(got.step) == [0, 50, 100, 130]
            expected = plain_run(problem, name, lr[name], beta[name], 130, 50)
            assert np.abs(got[VALUES].to_numpy() - expected).max() < 1e-9, name


def plain_fit(problem, sets, steps, rate=0.05):
    """Full-batch gradient descent from 0 on mean cross-entropy."""
    X = np.concatenate([getattr(problem, f"X_{name}") for name in sets])
    y = np.concatenate([getattr(problem, f"y_{name}") for name in sets])
    phi, a = np.maximum(X @ problem.W.T, 0), np.zeros(len(problem.W))
    for _ in range(steps):
        a -= rate / len(y) * ((sigmoid(phi @ a) - (y == 0)) @ phi)
    return a, np.linalg.norm((sigmoid(phi @ a) - (y == 0)) @ phi / len(y))


def check_at_full_size(fit_steps, steps, alpha):
    problem = SyntheticProblem.sample(alpha, 1000)
    retain = problem.features(problem.X_retain, problem.y_retain)
    rows = np.concatenate([retain, problem.features(problem.X_forget, problem.y_forget)])
    retrained, init = fit(rows, 1000, fit_steps, 0.05)
    for sets, got in ((("retain",), retrained), (("retain", "forget"), init)):
        expected, norm = plain_fit(problem, sets, fit_steps)
        assert np.abs(got - expected).max() < 1e-11
        assert fit_steps < 20_000 or 1e-4 < norm < 3e-3  # the paper's has not converged
    arrays = [getattr(problem, name) for name in RAW]
    problem = SyntheticProblem(*arrays, init, retrained, alpha=alpha)
    frame = unlearn(problem, steps=steps)
    for name in methods_of("synthetic"):
        term = name.partition("_")[0]
        lr = PAPER_LR[alpha].get(name, PAPER_LR[alpha]["ga" if term in ("ga", "idk") else "npo"])
        beta = PAPER_BETA[alpha].get(term, math.nan)
        got = frame[frame.method == name]
        assert set(got.lr) == {lr}
        assert math.isnan(beta) or set(got.beta) == {beta}
        assert list(got.step) == list(range(0, steps + 1, 25))
        expected = plain_run(problem, name, lr, beta, steps, 25)
        assert np.abs(got[VALUES].to_numpy() - expected).max() < 1e-9, name


def test_the_paper_s_size_and_numbers_equal_the_plain_implementation():
    check_at_full_size(fit_steps=400, steps=50, alpha=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_the_whole_of_the_paper_s_schedule_equals_the_plain_implementation(alpha):
    check_at_full_size(fit_steps=20_000, steps=2000, alpha=alpha)


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
    """The same from the code that runs the experiment: what one step of rate 1 subtracts."""
    stack = synthetic._Stack([problem], [[synthetic._Run(name, 1.0, beta)]])
    at = torch.tensor(a)[None, None].clone()
    *_, after = descend(at, stack.sides, torch.ones(1, 1, 1, dtype=torch.float64), 1)
    return a - after[0, 0].numpy()


@pytest.mark.parametrize("name", RECORDED)
def test_the_gradient_is_autograd_s_through_the_kit_s_objectives(name):
    problem, beta = small(), 0.7
    a = problem.a_init + 0.3 * np.random.default_rng(5).standard_normal(len(problem.a_init))
    by_hand = engine_gradient(problem, name, beta, a)
    assert np.abs(by_hand - autograd_gradient(problem, name, beta, a)).max() < 1e-12
    assert np.abs(by_hand - plain_gradient(problem, name, beta, a)).max() < 1e-12


@pytest.mark.parametrize("name", RECORDED)
def test_the_plain_gradient_is_the_plain_loss_s(name):
    problem, beta, h = small(), 0.7, 1e-6
    draw = np.random.default_rng(6)
    a = problem.a_init + 0.3 * draw.standard_normal(len(problem.a_init))
    way = draw.standard_normal(len(a))
    _, fixed = plain_loss(problem, name, beta, a)  # the baseline has no gradient
    up, down = (plain_loss(problem, name, beta, a + s * h * way, fixed)[0] for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(plain_gradient(problem, name, beta, a) @ way)


def test_the_npo_weight_is_two_sigmoid_of_the_scaled_log_ratio():
    problem = small()
    frame = unlearn(problem, ["npo", "ga", "idk_rt"], steps=40, eval_every=40, lr=0.3, beta=0.7)
    first, last = (frame[frame.step == step].set_index("method").npo_weight for step in (0, 40))
    assert first["npo"] == 1.0  # at the reference, for every beta
    assert first["ga"] == last["ga"] == 1.0  # its limit
    assert math.isnan(last["idk_rt"])  # it does not read the forget answers
    a = problem.a_init.copy()
    for _ in range(40):
        a -= 0.3 * plain_gradient(problem, "npo", 0.7, a)
    f, f_ref = (log_p(problem, problem.X_forget, at) for at in (a, problem.a_init))
    u = of_labels(f, problem.y_forget) - of_labels(f_ref, problem.y_forget)
    assert last["npo"] == pytest.approx(2 * sigmoid(0.7 * u).mean(), abs=1e-12)


def test_problems_and_methods_side_by_side_change_nothing():
    problems = [small(1.0, 1), small(0.0, 2), small(1.0, 3, n_retain=35, width=11)]
    methods = ["npo_rt", "ga", "dpo_kl", "kto"]
    together = unlearn(problems, methods, steps=60, eval_every=30)
    assert list(together.seed.unique()) == [1, 2, 3]
    assert list(together.method.unique()) == methods
    alone = [unlearn(p, m, steps=60, eval_every=30) for p in problems for m in methods]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), rtol=0, atol=1e-11)


def test_two_runs_agree_bit_for_bit_whatever_the_number_of_threads():
    problems = [small(1.0, seed, n_retain=400, width=64) for seed in range(8)]
    before, frames = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            frames.append(unlearn(problems, list(RECORDED), steps=20, eval_every=7))
            assert torch.get_num_threads() == threads  # as it was
    finally:
        torch.set_num_threads(before)
    pd.testing.assert_frame_equal(frames[0], frames[1], check_exact=True)
    pd.testing.assert_frame_equal(frames[1], frames[2], check_exact=True)


def test_numbers_come_from_the_dict_then_from_the_paper():
    frame = unlearn([small(1.0), small(0.0, 2)], ["ga", "npo", "dpo_rt"], 1, lr={"npo": 0.5})
    numbers = frame.groupby(["alpha", "method"])[["lr", "beta"]].first()
    assert tuple(numbers.loc[(1.0, "npo")]) == (0.5, 1.0)
    assert tuple(numbers.loc[(0.0, "npo")]) == (0.5, 10.0)
    assert tuple(numbers.loc[(0.0, "dpo_rt")]) == (2e-2, 5.0)
    assert numbers.loc[(1.0, "ga"), "lr"] == 5e-4
    assert math.isnan(numbers.loc[(1.0, "ga"), "beta"])


def forget_terms(name, beta=0.7):
    stack = synthetic._Stack([small()], [[synthetic._Run(name, 1.0, beta)]])
    return stack.sides[0].terms[0]


@pytest.mark.parametrize("name", ["npo", "dpo", "kto"])
@pytest.mark.parametrize("beta", [0.01, 1.0, 10.0])
def test_the_shortcut_is_what_the_objective_answers(name, beta):
    term = forget_terms(name, beta)
    assert term.is_preference
    z = term.rows.ref + torch.linspace(-15, 15, 20, dtype=torch.float64) / beta
    for quick, asked in zip(term._quick_pulls(z), term.pulls(z), strict=True):
        assert (quick - asked).abs().max() < (1e-12 if beta < 10 else 1e-8)  # softplus cuts at 20


def test_an_objective_that_is_changed_is_not_cut_short(monkeypatch):
    """The shortcut is tried out on the objective each time: an edit of it reaches the figures."""
    npo = METHODS["npo"].terms["forget"]

    def louder(forget, forget_ref, *, beta=0.1):
        return 1.001 * npo(forget, forget_ref, beta=beta)

    monkeypatch.setitem(METHODS, "npo", Method(louder))
    term, problem = forget_terms("npo"), small()
    assert not term.is_preference
    a = problem.a_init + 0.1
    expected = 1.001 * plain_gradient(problem, "npo", 0.7, a)
    assert np.abs(engine_gradient(problem, "npo", 0.7, a) - expected).max() < 1e-12


def test_a_new_method_runs_without_a_word_more(monkeypatch):
    """An entry of METHODS is enough: its objective is asked, not known by name."""

    def squared(forget, *, beta=0.1):
        return beta * forget.logps**2

    monkeypatch.setitem(METHODS, "squared", Method(squared, forget_weight=2.0))
    problem = small()
    a = problem.a_init + 0.1
    f = log_p(problem, problem.X_forget, a)
    phi = np.maximum(problem.X_forget @ problem.W.T, 0)
    to_f = (problem.y_forget == 0) - np.exp(f[:, 0])
    expected = (2 * 2 * 0.3 * of_labels(f, problem.y_forget) * to_f) @ phi / len(phi)
    assert np.abs(engine_gradient(problem, "squared", 0.3, a) - expected).max() < 1e-12


def test_beta_sweep_is_unlearning_at_one_rate():
    problem = small()
    sweep = beta_sweep(problem, [0.5, 2.0], lr=0.02, steps=40, eval_every=20)
    assert [tuple(k) for k in sweep[["method", "beta"]].drop_duplicates().fillna(0).to_numpy()] == [
        ("npo", 0.5),
        ("npo", 2.0),
        ("ga", 0.0),
    ]
    again = unlearn(problem, "npo", 40, 20, lr=0.02, beta=2.0)
    pd.testing.assert_frame_equal(
        sweep[sweep.beta == 2.0].reset_index(drop=True), again, rtol=0, atol=1e-12
    )


# --- trajectories at equal forgetting ------------------------------------------------------------


def along(forget, retain):
    steps = [100 * i for i in range(len(forget))]
    return pd.DataFrame({"step": steps, "forget_distance": forget, "retain_distance": retain})


def test_the_retain_distance_is_read_between_two_recorded_steps():
    """A coarse record of a curve gives the curve's value; its first point below does not."""
    fine, coarse = np.arange(0, 9.01, 0.01), np.array([0.0, 1.0, 4.0, 9.0])
    fast, slow = (along(np.exp(-t), 0.01 * np.exp(0.5 * t)) for t in (coarse, fine))
    levels = [0.5, 0.1, 1e-3]
    expected = 0.01 / np.sqrt(levels)
    for run in (fast, slow, fast.iloc[::-1]):
        assert retain_distance_at(run, levels) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(retain_distance_at(fast, [1e-5, 1.0, 2.0])).all()
    with pytest.raises(KitError, match="a step comes twice"):
        retain_distance_at(pd.concat([fast, slow]), levels)
    with pytest.raises(KitError, match="give positive numbers"):
        retain_distance_at(fast, [0.0])


def test_averaging_makes_up_an_advantage_that_no_recorded_seed_has():
    sweep = read_experiment()["beta_sweep"]

    def ratio(runs):
        """Retain distance of NPO over that of GA, where a tenth of the forget distance is left."""
        at = []
        for name in ("npo", "ga"):
            run = runs[(runs.method == name) & (runs.beta.isna() | (runs.beta == 1))]
            start = run.forget_distance[run.step == 0].iloc[0]
            at.extend(retain_distance_at(run, [0.1 * start]))
        return at[0] / at[1]

    by_seed = [ratio(runs) for _, runs in sweep.groupby("seed")]
    assert by_seed == pytest.approx([1.06, 0.92, 1.08, 1.01, 1.00], abs=0.006)
    mean = sweep.groupby(["method", "beta", "step"], dropna=False).mean().reset_index()
    assert ratio(mean) == pytest.approx(0.39, abs=0.006)


# --- problems and pre-training --------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_sampled_problems_follow_the_paper_s_law(alpha):
    problem = SyntheticProblem.sample(alpha, 7, n_retain=20_000, n_forget=20_000)
    assert problem.W.shape == (128, 16)
    assert problem.W.std() == pytest.approx(1 / 4, rel=0.05)
    for X, y, centre, rule in (
        (problem.X_retain, problem.y_retain, -alpha, 1),
        (problem.X_forget, problem.y_forget, alpha, -1),
    ):
        assert X.mean() == pytest.approx(centre, abs=0.01)
        assert X.std() == pytest.approx(1, abs=0.01)
        p_zero = sigmoid(rule * (1 + (X - centre).sum(1) / 4))
        high = p_zero > np.median(p_zero)
        for part in (high, ~high):
            assert (y[part] == 0).mean() == pytest.approx(p_zero[part].mean(), abs=0.015)
    assert problem.y_idk.mean() == pytest.approx(0.5, abs=0.015)
    again = SyntheticProblem.sample(alpha, 7, n_retain=20_000, n_forget=20_000)
    assert (again.X_forget_eval == problem.X_forget_eval).all()
    assert not np.isclose(problem.X_forget_eval[0], problem.X_forget[0]).any()


def test_pretraining_by_either_schedule():
    problem = SyntheticProblem.sample(1.0, 3, **SMALL | {"n_retain": 400, "width": 10})
    paper = pretrain(problem)
    for sets, got in ((("retain",), paper.a_retrained), (("retain", "forget"), paper.a_init)):
        assert np.abs(got - plain_fit(problem, sets, 20_000)[0]).max() < 1e-10
    converged = pretrain([problem], "converged")[0]
    for sets, a in ((("retain",), converged.a_retrained), (("retain", "forget"), converged.a_init)):
        X = np.concatenate([getattr(problem, f"X_{name}") for name in sets])
        y = np.concatenate([getattr(problem, f"y_{name}") for name in sets])
        phi = np.maximum(X @ problem.W.T, 0)
        assert np.linalg.norm((sigmoid(phi @ a) - (y == 0)) @ phi / len(y)) <= 1e-10


def test_converging_on_separable_rows_ends_where_the_gradient_does():
    a = fit_converged(np.array([[1.0, 0.0], [0.5, 0.0]]))
    assert a[0] > 15
    assert a[1] == 0


def test_what_is_given_is_not_trained_again():
    problem = small(trained=False)
    init = np.ones(len(problem.W))
    half = pretrain(replace(problem, a_init=init))
    assert (half.a_init == init).all()
    full = pretrain(problem)
    assert (half.a_retrained == full.a_retrained).all()
    assert pretrain(full) is full
    pd.testing.assert_frame_equal(unlearn(problem, "npo", 5), unlearn(full, "npo", 5))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"W": np.zeros(5)}, "W has shape"),
        ({"X_forget": np.zeros((20, 5))}, "X_forget has shape"),
        ({"y_forget": np.zeros((20, 1))}, "y_forget has shape"),
        ({"y_idk": np.zeros(3)}, "y_idk has shape"),
        ({"y_retain": np.full(60, 2)}, "y_retain has labels 2"),
        ({"X_retain": np.full((60, 6), np.nan)}, "not finite"),
        ({"X_retain_eval": np.zeros((0, 6))}, "not empty"),
        ({"X_retain": "many"}, "array of numbers"),
        ({"a_init": np.zeros(5)}, "a_init has shape"),
    ],
)
def test_wrong_arrays_are_told_by_name(changed, message):
    problem = small()
    given = {name: getattr(problem, name) for name in [*RAW, "a_init", "a_retrained"]}
    with pytest.raises(KitError, match=message):
        SyntheticProblem(**given | changed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "npoo"}, "unknown method 'npoo'"),
        ({"methods": []}, "nothing to run"),
        ({"methods": ["ga", "ga"]}, "named twice"),
        ({"steps": 0}, "steps is 0"),
        ({"eval_every": 2.5}, "eval_every is 2.5"),
        ({"lr": -1.0}, "lr is -1"),
        ({"beta": {"npo": math.nan}}, "beta is nan"),
        ({"lr": {"npoo": 1.0}}, "npoo"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(KitError, match=message):
        unlearn(small(), **{"methods": "npo", "steps": 1} | options)


def test_an_alpha_that_the_paper_has_not_needs_a_learning_rate():
    with pytest.raises(KitError, match=r"no lr for npo at alpha 0\.5"):
        unlearn(small(0.5), "npo", 1)
    assert len(unlearn(small(0.5), "npo", 1, lr=0.1, beta=1)) == 2
    with pytest.raises(KitError, match="unknown schedule"):
        pretrain(small(), "fast")


# --- the theorems ---------------------------------------------------------------------------------


def test_theorem_2_slopes():
    slopes = divergence_slopes(divergence_demo())
    assert list(slopes.method) == ["ga", "npo", "npo", "npo", "npo"]
    assert slopes.expected.to_numpy() == pytest.approx([0.25, 40, 8, 4, 2])
    assert slopes.slope.to_numpy() == pytest.approx(slopes.expected.to_numpy(), rel=0.05)
    assert slopes.final_distance[0] == pytest.approx(5000, rel=0.01)
    assert slopes.final_distance[3] == pytest.approx(34, rel=0.02)


def test_theorem_2_steps_are_gradient_descent_on_the_kit_s_objectives():
    frame = divergence_demo([0.7], steps=30)
    draw = np.random.default_rng(0)
    rows = np.linalg.qr(draw.standard_normal((256, 16)))[0].T
    rows = torch.tensor(rows * draw.choice([-1.0, 1.0], (16, 1)))
    start = draw.standard_normal(256)
    start = torch.tensor(start / np.linalg.norm(start))

    def answers(theta):
        logps = torch.nn.functional.logsigmoid(rows @ theta)[:, None]
        return Answers(logps, torch.zeros(16, 1), torch.ones(16, 1))

    for name, hyper in (("ga", {}), ("npo", {"beta": 0.7})):
        theta, batch = start.clone().requires_grad_(), {"forget_ref": answers(start)}
        distances = []
        for _ in range(31):
            distances.append(torch.linalg.norm(rows @ (theta - start)).item())
            batch["forget"] = answers(theta)
            (values,) = method_values(METHODS[name], batch, **hyper).values()
            (gradient,) = torch.autograd.grad(reduce(values, torch.ones(16, 1)), theta)
            theta = (theta - gradient).detach().requires_grad_()
        got = frame[frame.method == name].distance.to_numpy()
        assert np.abs(got - distances).max() < 1e-12


def test_proposition_1_gaps_are_the_first_order_terms():
    frame = limit_demo()
    assert (frame.weight_at_reference == 1).all()
    small_beta = frame[frame.beta <= 0.03]
    assert len(small_beta) >= 3
    for name in ("loss", "gradient"):
        ratio = small_beta[f"{name}_gap"] / small_beta[f"{name}_gap_expected"]
        assert ratio.to_numpy() == pytest.approx(1, rel=0.01)
    logs = np.log(frame[["beta", "loss_gap", "gradient_gap"]].iloc[-3:])
    assert np.polyfit(logs.beta, logs.loss_gap, 1)[0] == pytest.approx(1, abs=1e-3)
    for demo in (limit_demo, divergence_demo):
        with pytest.raises(KitError, match="positive numbers"):
            demo([0.0])


# --- the whole run --------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Everything as in the experiment, with problems and demonstrations of a second."""
    draw, demo = SyntheticProblem.sample, divergence_demo
    monkeypatch.setattr(SyntheticProblem, "sample", lambda alpha, seed: draw(alpha, seed, **SMALL))
    monkeypatch.setattr("npo_kit.theory.experiment.divergence_demo", lambda: demo(steps=200))
    monkeypatch.setattr("npo_kit.theory.problem.PAPER_FIT_STEPS", 300)
    return {"seeds": (1, 2), "steps": 50, "sweep_steps": 60, "sweep_every": 20, "progress": False}


@pytest.mark.slow
def test_the_experiment_writes_what_it_returns_twice_the_same(tmp_path, quick):
    record = run_experiment(tmp_path / "a", **quick)
    run_experiment(tmp_path / "b", figures=False, **quick)
    for name in FRAMES:
        files = [tmp_path / folder / f"{name}.csv.gz" for folder in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()
    again = read_experiment(tmp_path / "a")
    assert set(again.frames) == set(FRAMES)
    for name in FRAMES:
        pair = (again[name], record[name])
        pd.testing.assert_frame_equal(*pair, check_dtype=False, rtol=1e-11, atol=1e-11)
    assert set(record["unlearning"].method) == set(RECORDED)
    assert again.source == again.provenance["source"] == "live"
    assert again.provenance["options"]["seeds"] == [1, 2]
    assert len(list((tmp_path / "a").glob("*.png"))) == 14
    assert not list((tmp_path / "b").glob("*.png"))


def test_a_folder_without_a_whole_experiment_is_told(tmp_path, quick):
    with pytest.raises(KitError, match="no whole synthetic experiment"):
        read_experiment(tmp_path)
    run_experiment(tmp_path, figures=False, **quick)
    (tmp_path / "limit.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(KitError, match="no whole synthetic experiment"):
        read_experiment(tmp_path)
    for twice in ({"seeds": (1, 1)}, {"alphas": (1.0, 1.0)}):
        with pytest.raises(KitError, match="give each once"):
            run_experiment(tmp_path, **quick | twice)
    (tmp_path / "file").touch()
    with pytest.raises(KitError, match="is a file"):
        run_experiment(tmp_path / "file")


def test_the_recorded_run_is_what_this_code_gives():
    record = read_experiment()
    assert record.source == "recorded"
    frame = record["unlearning"]
    assert set(frame.method) == set(RECORDED)
    assert set(frame.seed) == {1000, 2000, 3000, 4000, 5000}
    assert set(frame.alpha) == {0.0, 1.0}
    problem = pretrain(SyntheticProblem.sample(0.0, 3000))
    got = unlearn(problem, ["npo_rt", "ga"], steps=100)
    kept = frame[(frame.alpha == 0) & (frame.seed == 3000) & (frame.step <= 100)]
    for name in ("npo_rt", "ga"):
        pair = [part[part.method == name][VALUES].to_numpy() for part in (got, kept)]
        assert np.abs(pair[0] - pair[1]).max() < 1e-9


def test_the_recorded_five_seed_means_are_near_the_paper_s():
    frame = read_experiment()["unlearning"]
    late = frame[(frame.alpha == 0) & (frame.step == 1900)].groupby("method").forget_distance
    paper = {"ga": 0.176, "ga_rt": 0.129, "idk_rt": 0.069, "npo": 0.035}
    paper |= {"dpo_rt": 0.026, "npo_rt": 0.015}
    order = list(late.mean()[list(paper)].sort_values(ascending=False).index)
    assert order == list(paper)
    spread = {
        "ga": 0.03,
        "ga_rt": 0.018,
        "idk_rt": 0.016,
        "npo": 0.009,
    }  # one seed's, own or theirs
    for name, value in paper.items():
        assert late.mean()[name] == pytest.approx(value, abs=spread.get(name, 0.0055))


def test_the_record_is_small():
    from npo_kit.data.shipped import shipped_data

    files = list(shipped_data("studies/synthetic").iterdir())
    assert sum(file.stat().st_size for file in files) <= 1_000_000

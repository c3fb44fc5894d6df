"""Time the synthetic experiment against the plain loop it replaces; check the findings on seeds.

    python tests/benchmarks/bench_synthetic.py speed
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_synthetic.py speed --clock cpu
    python tests/benchmarks/bench_synthetic.py fragility --seeds 200
    python tests/benchmarks/bench_synthetic.py averaging --seeds 24

The plain loop runs one problem and one method at a time: autograd, one-hot labels, a zero column
for the second logit, the loss read out each iteration. Of it a slice is timed and scaled up.
"""

import argparse
import platform
import time

import numpy as np
import pandas as pd
import torch

from npo_kit.losses.methods import methods_of
from npo_kit.theory.problem import SyntheticProblem, pretrain
from npo_kit.theory.synthetic import ALPHAS, SEEDS, beta_sweep, unlearn
from npo_kit.theory.trajectories import retain_distance_at

FIT_STEPS, STEPS = 20_000, 2000


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def timed(work, *arguments, **options):
    start = clock()
    result = work(*arguments, **options)
    return clock() - start, result


# --- the plain loop -------------------------------------------------------------------------------


def two_logits(phi, a):
    return (phi @ torch.hstack([a, torch.zeros(len(a), 1, dtype=a.dtype)])).log_softmax(-1)


def one_hot(y):
    return torch.nn.functional.one_hot(torch.tensor(y), 2).double()


def plain_fit(phi, y, steps):
    a, seen = torch.zeros(phi.shape[1], 1, dtype=torch.float64, requires_grad=True), []
    for _ in range(steps):
        loss = -(one_hot(y) * two_logits(phi, a)).sum(-1).mean()
        loss.backward()
        seen.append(loss.item())
        with torch.no_grad():
            a -= 0.05 * a.grad
            a.grad.zero_()
    return a.detach()


def plain_npo_rt(problem, a_init, steps, lr=5e-3, beta=1.0):
    """One method of the usual cost: a forget term with a reference, a retain term."""
    W = torch.tensor(problem.W)
    X_f, X_r = torch.tensor(problem.X_forget), torch.tensor(problem.X_retain)
    y_f, y_r = one_hot(problem.y_forget), one_hot(problem.y_retain)
    a, seen = a_init.clone().requires_grad_(), []
    for _ in range(steps):
        forget = two_logits((X_f @ W.T).relu(), a)
        with torch.no_grad():
            ref = two_logits((X_f @ W.T).relu(), a_init)
        ratio = (y_f * forget).sum(-1) - (y_f * ref).sum(-1)
        loss = -2 / beta * torch.nn.functional.logsigmoid(-beta * ratio).mean()
        loss = loss - (y_r * two_logits((X_r @ W.T).relu(), a)).sum(-1).mean()
        loss.backward()
        seen.append(loss.item())
        with torch.no_grad():
            a -= lr * a.grad
            a.grad.zero_()
    return a.detach()


def speed(slices: int) -> None:
    """Interleave slices of both, so that a busy machine is unfair to neither; print the ratio."""
    problem = SyntheticProblem.sample(1.0, SEEDS[0])
    X = np.concatenate([problem.X_retain, problem.X_forget])
    y = np.concatenate([problem.y_retain, problem.y_forget])
    phi, a = torch.tensor(problem.features(X)), torch.zeros(128, 1, dtype=torch.float64)
    problems = [SyntheticProblem.sample(alpha, seed) for alpha in ALPHAS for seed in SEEDS]
    plain_fit(phi, y, 50), plain_npo_rt(problem, a, 20)
    fits, retrains, runs, ours, trained = [], [], [], [], []
    for problem in problems[:slices]:
        fits.append(timed(plain_fit, phi, y, 1000)[0] * FIT_STEPS / 1000)
        retrains.append(timed(plain_fit, phi[:1000], y[:1000], 1000)[0] * FIT_STEPS / 1000)
        runs.append(timed(plain_npo_rt, problem, a, 200)[0] * STEPS / 200)
        seconds, ready = timed(pretrain, problem)
        ours.append(seconds)
        trained.append(ready)
    trained += pretrain(problems[slices:])
    ours_unlearn = min(timed(unlearn, trained, steps=200)[0] for _ in range(3)) * STEPS / 200
    plain = len(problems) * (np.median(fits) + np.median(retrains))
    plain += len(problems) * len(methods_of("synthetic")) * np.median(runs)
    ours_fit = len(problems) * np.median(ours)
    print(f"{platform.processor() or platform.machine()}, torch threads {torch.get_num_threads()}")
    print(f"plain loop: pre-training {np.median(fits):.1f} + {np.median(retrains):.1f} s a problem")
    print(f"            one method of {STEPS} steps {np.median(runs):.2f} s; in all {plain:.0f} s")
    print(
        f"npo_kit:    pre-training {ours_fit:.1f} s, unlearning {ours_unlearn:.1f} s, 10 problems"
    )
    print(f"ratio:      {plain / (ours_fit + ours_unlearn):.1f}")
    interactive = sorted(timed(unlearn, trained[0], ["ga", "npo"])[0] for _ in range(7))
    print(f"interactive, GA and NPO, 2000 steps: {interactive[0]:.2f} s best, ", end="")
    print(f"{interactive[3]:.2f} s median")


# --- the findings ---------------------------------------------------------------------------------


def draws(count: int) -> list[SyntheticProblem]:
    return pretrain([SyntheticProblem.sample(1.0, 1000 * (i + 1)) for i in range(count)])


def fragility(count: int) -> None:
    """Finding 1: the best forget distance that any method reaches, seed by seed."""
    problems = draws(count)
    frame = unlearn(problems)
    best = frame.groupby(["seed", "method"]).forget_distance.min().groupby("seed").min()
    print(f"alpha = 1, {count} seeds: best forget distance of any method at any step, worst first")
    print(" ".join(f"{value:.2g}" for value in best.sort_values(ascending=False)[:24]))
    print(", ".join(f"above {level}: {(best > level).sum()}" for level in (0.2, 0.1, 0.05, 0.02)))
    print("forget distance after the last step")
    last = frame[frame.step == frame.step.max()].groupby("method").forget_distance
    print(last.agg(["mean", "median", "max"]).round(4).to_string())
    unsure = pd.Series({problem.seed: uncertainty(problem) for problem in problems})
    ranks = pd.DataFrame({"best": best, "unsure": unsure}).corr("spearman").iloc[0, 1]
    print(f"rank correlation of the best with the retrained model's uncertainty there: {ranks:.2f}")


def averaging(count: int) -> None:
    """Finding 2: the trajectories of NPO and GA at equal forgetting, per seed and averaged."""
    sweep = beta_sweep(draws(count), methods=("npo", "ga", "npo_rt", "ga_rt"), eval_every=10)
    print(f"alpha = 1, {count} seeds: retain distance of NPO (beta 1) over GA's, ", end="")
    print("at equal forget distance on the way down")
    for npo, ga in (("npo", "ga"), ("npo_rt", "ga_rt")):
        compare_trajectories(sweep, npo, ga)


def uncertainty(problem: SyntheticProblem) -> float:
    """Mean of min(p, 1 - p) of the retrained model on fresh forget points: 0 where saturated."""
    z = problem.features(problem.X_forget_eval) @ problem.a_retrained
    return float((1 / (1 + np.exp(np.abs(z)))).mean())


def compare_trajectories(sweep: pd.DataFrame, npo: str, ga: str) -> None:
    """Ratios of retain distance, per seed and for the mean over seeds at equal steps."""
    first = sweep[(sweep.method == npo) & (sweep.beta == 1)]
    second = sweep[sweep.method == ga]
    levels = np.geomspace(1.0, 0.02, 30)
    ratios = [
        retain_distance_at(first[first.seed == seed], levels)
        / retain_distance_at(second[second.seed == seed], levels)
        for seed in first.seed.unique()
    ]
    per_seed = [np.nanmedian(ratio) for ratio in ratios if not np.isnan(ratio).all()]
    means = [
        part.groupby("step", as_index=False)[["forget_distance", "retain_distance"]].mean()
        for part in (first, second)
    ]
    of_mean = retain_distance_at(means[0], levels) / retain_distance_at(means[1], levels)
    low, mid, high = np.quantile(per_seed, [0, 0.5, 1])
    print(f"   {npo}/{ga} per seed: median {mid:.3f}, range {low:.3f} to {high:.3f}; ", end="")
    print(f"of means at equal steps: median {np.nanmedian(of_mean):.3f}, ", end="")
    print(f"least {np.nanmin(of_mean):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = {"speed": speed, "fragility": fragility, "averaging": averaging}
    parser.add_argument("what", choices=commands)
    parser.add_argument("--seeds", type=int, default=24, help="number of seeds of a finding")
    parser.add_argument("--slices", type=int, default=4, help="problems timed against the loop")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a busy machine")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    commands[options.what](options.slices if options.what == "speed" else options.seeds)

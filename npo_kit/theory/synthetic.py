"""The paper's synthetic experiment (arXiv 2404.05868, section 4): many problems, many methods.

Two Gaussian clouds, one to keep and one to forget, whose labels follow opposite rules; a logistic
model on random ReLU features. Everything a language model's unlearning does happens here in a
second: one label is one answer token, and the objectives are those of `npo_kit.losses`.

Shapes: P problems, M methods, n rows, N features. Float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from npo_kit.errors import KitError
from npo_kit.losses.methods import method, methods_of
from npo_kit.losses.objectives import roles
from npo_kit.losses.paper import npo_weight
from npo_kit.theory.logistic import Rows, Side, bernoulli_kl, descend, logits, one_thread
from npo_kit.theory.problem import Problems, SyntheticProblem, pretrain

SEEDS = (1000, 2000, 3000, 4000, 5000)
ALPHAS = (1.0, 0.0)
SWEEP_BETAS = (0.01, 0.1, 0.2, 0.5, 1.0)

# The authors' settings by alpha. A method without an entry of its own takes "npo" if it has a beta,
# else "ga".
PAPER_LR: dict[float | None, dict[str, float]] = {
    1.0: {"ga": 5e-4, "npo": 5e-3},
    0.0: {"ga": 1e-4, "npo": 5e-2, "dpo_rt": 2e-2},
}
PAPER_BETA: dict[float | None, dict[str, float]] = {
    1.0: {"npo": 1.0, "dpo": 0.1},
    0.0: {"npo": 10.0, "dpo": 5.0},
}

Dial = float | Mapping[str, float] | None  # a number for all methods, or method -> number


def unlearn(
    problems: Problems,
    methods: str | Sequence[str] | None = None,
    steps: int = 2000,
    eval_every: int = 25,
    lr: Dial = None,
    beta: Dial = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Unlearn by full-batch gradient descent, every method on every problem; a tidy frame.

    Without `methods`: the paper's. One row per problem, method and evaluation: at step 0, every
    `eval_every` steps, after the last.

    | column | |
    |---|---|
    | alpha, seed | of the problem; a problem without a seed gets its place in the list |
    | method, beta, lr, step | beta is NaN for a method without one |
    | forget_distance, retain_distance | mean KL(retrained \\|\\| current), nats, on fresh points |
    | forget_drift, retain_drift | mean KL(initial \\|\\| current), nats, on the same points |
    | param_distance | Euclidean, from the retrained model's coefficients |
    | npo_weight | mean W = 2 sigmoid(beta u) on forget rows; NaN if the method does not read them |

    `lr` and `beta`: a number, or a dict from method to number, else the paper's for the problem's
    alpha. The paper's schedule pre-trains a problem that is not yet. Without beta, W is its
    limit 1. `progress` is called with the number of steps done since its last call.
    KitError on unknown methods and on numbers out of range.
    """
    names, listed = _listed(methods_of("synthetic") if methods is None else methods, problems)
    runs = [
        [_Run(n, _dial("lr", lr, n, p.alpha), _dial("beta", beta, n, p.alpha)) for n in names]
        for p in listed
    ]
    return _run(listed, runs, steps, eval_every, progress)


def beta_sweep(
    problems: Problems,
    betas: Sequence[float] = SWEEP_BETAS,
    methods: str | Sequence[str] = ("npo", "ga"),
    lr: float = 5e-4,
    steps: int = 10_000,
    eval_every: int = 5,
    *,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Unlearn at one learning rate for every beta, to see NPO approach GA (Proposition 1).

    Returns a frame as `unlearn` does. A method without beta is run once. By default each run has
    2001 evaluations, as in the paper.
    """
    names, listed = _listed(methods, problems)
    takes = {name: "beta" in method(name).hyperparameters for name in names}
    row = [
        _Run(name, _positive("lr", lr), _positive("beta", value) if takes[name] else math.nan)
        for name in names
        for value in (betas if takes[name] else (math.nan,))
    ]
    return _run(listed, [row] * len(listed), steps, eval_every, progress)


# --- how it runs --------------------------------------------------------------------------------

_COLUMNS = (
    *("forget_distance", "retain_distance", "forget_drift", "retain_drift"),
    *("param_distance", "npo_weight"),
)


@dataclass(frozen=True)
class _Run:
    """One method with its numbers on one problem; beta is NaN where the method has none."""

    method: str
    lr: float
    beta: float


def _run(
    problems: list[SyntheticProblem],
    runs: list[list[_Run]],
    steps: int,
    eval_every: int,
    progress: Callable[[int], object] | None,
) -> pd.DataFrame:
    """Run problems of the same shapes together; return rows in the order of the problems."""
    steps, eval_every = _count("steps", steps), _count("eval_every", eval_every)
    problems = cast(list[SyntheticProblem], pretrain(problems))
    alike: dict[tuple, list[int]] = {}
    for i, problem in enumerate(problems):
        values = (getattr(problem, f.name) for f in fields(problem))
        alike.setdefault(tuple(getattr(v, "shape", None) for v in values), []).append(i)
    at = sorted({*range(0, steps, eval_every), steps})
    frames: dict[int, pd.DataFrame] = {}
    for group in alike.values():
        with one_thread():
            stack = _Stack([problems[i] for i in group], [runs[i] for i in group])
            table = stack.run(at, progress)  # (evaluations, P, M, columns)
        frames |= {i: _frame(table[:, p], problems[i], i, runs[i], at) for p, i in enumerate(group)}
    return pd.concat([frames[i] for i in range(len(problems))], ignore_index=True)


def _frame(
    table: np.ndarray, problem: SyntheticProblem, place: int, runs: list[_Run], at: list[int]
) -> pd.DataFrame:
    """Return the rows of one problem, from (evaluations, M, columns)."""
    known = {
        "alpha": math.nan if problem.alpha is None else float(problem.alpha),
        "seed": place if problem.seed is None else problem.seed,
        "method": np.repeat([run.method for run in runs], len(at)),
        "beta": np.repeat([run.beta for run in runs], len(at)),
        "lr": np.repeat([run.lr for run in runs], len(at)),
        "step": np.tile(at, len(runs)),
    }
    flat = table.swapaxes(0, 1).reshape(-1, len(_COLUMNS))
    return pd.DataFrame(known | dict(zip(_COLUMNS, flat.T, strict=True)))


class _Stack:
    """P problems of the same shapes with M methods each, as tensors that advance together."""

    def __init__(self, problems: list[SyntheticProblem], runs: list[list[_Run]]):
        self.problems = problems
        self.lr = torch.tensor([[[run.lr] for run in row] for row in runs], dtype=torch.float64)
        self.beta = torch.tensor([[[run.beta] for run in row] for row in runs], dtype=torch.float64)
        self.a_init = self._stack(lambda p: np.asarray(p.a_init))[:, None]  # (P, 1, N)
        self.a_retrained = self._stack(lambda p: np.asarray(p.a_retrained))[:, None]
        coin = self._stack(lambda p: 1.0 - 2 * (p.y_idk != p.y_forget))[:, None]
        forget = self._stack(lambda p: p.features(p.X_forget, p.y_forget))
        retain = self._stack(lambda p: p.features(p.X_retain, p.y_retain))
        self.forget = self._rows(forget, {"forget": None, "alternate": coin})
        self.methods = [method(run.method) for run in runs[0]]
        forget_terms = [(m.terms.get("forget"), m.forget_weight) for m in self.methods]
        retain_terms = [(m.terms.get("retain"), m.retain_weight) for m in self.methods]
        self.sides = (
            Side(self.forget, forget_terms, self.beta),
            Side(self._rows(retain, {"retain": None}), retain_terms, self.beta),
        )
        points = (
            self._stack(lambda p: p.features(p.X_forget_eval)),
            self._stack(lambda p: p.features(p.X_retain_eval)),
        )
        self.points = [(x, logits(self.a_retrained, x), logits(self.a_init, x)) for x in points]

    def run(self, at: list[int], progress: Callable[[int], object] | None) -> np.ndarray:
        """Return evaluations at the steps `at`, ending with the last: (len(at), P, M, columns)."""
        models, due, done, table = len(self.methods), set(at), 0, []
        a = self.a_init.repeat(1, models, 1)
        for step, current in enumerate(descend(a, self.sides, self.lr, at[-1])):
            if step in due:
                table.append(self._evaluate(current))
                if progress:
                    progress(step - done)
                    done = step
        return torch.stack(table).numpy()

    def _evaluate(self, a: Tensor) -> Tensor:
        """Return the values of `_COLUMNS` for each model: (P, M, columns)."""
        now = [logits(a, x) for x, _, _ in self.points]
        pairs = list(zip(now, self.points, strict=True))
        distances = [bernoulli_kl(retrained, z).mean(-1) for z, (_, retrained, _) in pairs]
        drifts = [bernoulli_kl(ref, z).mean(-1) for z, (_, _, ref) in pairs]
        return torch.stack(
            [*distances, *drifts, (a - self.a_retrained).norm(dim=-1), self._W(a)], -1
        )

    def _W(self, a: Tensor) -> Tensor:
        z = logits(a, self.forget.features)
        log_ratio = self.forget.logps("forget", z) - self.forget.logps("forget", self.forget.ref)
        weight = npo_weight(log_ratio, self.beta.nan_to_num(0.0)).mean(-1)  # 1 as beta goes to 0
        read = ["forget" in m.terms and "forget" in roles(m.terms["forget"]) for m in self.methods]
        return weight.where(torch.tensor(read), math.nan)

    def _stack(self, array: Callable[[SyntheticProblem], np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([array(problem) for problem in self.problems]))

    def _rows(self, features: Tensor, signs: Mapping[str, Tensor | None]) -> Rows:
        return Rows(features, logits(self.a_init, features), signs)


# --- checks -------------------------------------------------------------------------------------


def check_methods(names: Sequence[str]) -> None:
    """Raise KitError for an unknown method, and for one that is named twice."""
    for name in names:
        method(name)
    if len(set(names)) < len(names):
        raise KitError(f"a method is named twice in {', '.join(names)}: name each once")


def _listed(methods: str | Sequence[str], problems: Problems) -> tuple[list[str], list]:
    """Return methods and problems as lists; KitError if a name is unknown or either is empty."""
    names = [methods] if isinstance(methods, str) else list(methods)
    listed = [problems] if isinstance(problems, SyntheticProblem) else list(problems)
    if not names or not listed:
        raise KitError("nothing to run: give at least one method and one problem")
    check_methods(names)
    return names, listed


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise KitError(f"{name} is {value!r}: give a whole number of at least 1")
    return int(value)


def _positive(name: str, value: float) -> float:
    if not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
        raise KitError(f"{name} is {value!r}: give a positive number")
    return float(value)


def _dial(name: str, given: Dial, chosen: str, alpha: float | None) -> float:
    """Return the lr or beta of a method on a problem: as given, else from the paper's table."""
    if name == "beta" and "beta" not in method(chosen).hyperparameters:
        return math.nan
    if isinstance(given, Mapping):
        for named in given:
            method(named)
        given = given.get(chosen)
    if given is None:
        table = {"lr": PAPER_LR, "beta": PAPER_BETA}[name].get(alpha, {})
        entry = method(chosen)
        usual = table.get("npo" if "beta" in entry.hyperparameters else "ga")
        given = table.get(chosen, table.get(entry.term, usual))
    if given is None:
        raise KitError(f"the paper has no {name} for {chosen} at alpha {alpha}: give {name}=")
    return _positive(name, given)

"""The problems of the synthetic experiment: their data, and the two models trained on them.

There are two Gaussian clouds, one to keep and one to forget, whose labels follow opposite rules. A
logistic model on random ReLU features is trained on both (the initial model) and on the one to keep
(the retrained model, the ideal of unlearning). arXiv 2404.05868, section 4 and its public code.

Shapes: n rows, d inputs, N features. Float64, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from npo_kit.errors import KitError

PAPER_FIT_STEPS = 20_000  # of pre-training, in the paper's code; not converged by then
_BLOCK_BYTES = 640_000  # of features that `fit` works on at a time: they stay in a core's own cache
# array -> its shape; a letter is one number throughout
_SHAPES = {"W": "Nd", "X_retain": "rd", "y_retain": "r", "X_forget": "fd", "y_forget": "f"}
_SHAPES |= {"y_idk": "f", "X_retain_eval": "sd", "X_forget_eval": "gd"}
_SHAPES |= {"a_init": "N", "a_retrained": "N"}


@dataclass(frozen=True, eq=False)
class SyntheticProblem:
    """Data to keep and to forget, and, once pre-trained, the two models; arrays in float64.

    Raises KitError on wrong arrays. Only `alpha` 0 or 1 has default learning rates. A problem
    without `a_init` and `a_retrained` is pre-trained when it is used.
    """

    W: np.ndarray  # (N, d) frozen first layer; the features of x are relu(W x)
    X_retain: np.ndarray  # (n_retain, d)
    y_retain: np.ndarray  # (n_retain,) 0 or 1
    X_forget: np.ndarray  # (n_forget, d)
    y_forget: np.ndarray  # (n_forget,)
    y_idk: np.ndarray  # (n_forget,) the label that stands for "I don't know": a fair coin
    X_retain_eval: np.ndarray  # (any, d) fresh points of the retain cloud
    X_forget_eval: np.ndarray  # (any, d)
    a_init: np.ndarray | None = None  # (N,) trained on all rows: the reference
    a_retrained: np.ndarray | None = None  # (N,) trained on the retain rows only
    alpha: float | None = None  # the clouds' centres are at +-alpha in each coordinate
    seed: int | None = None

    @classmethod
    def sample(
        cls,
        alpha: float,
        seed: int,
        *,
        n_retain: int = 1000,
        n_forget: int = 200,
        n_eval: int = 1000,
        width: int = 128,
        dim: int = 16,
    ) -> SyntheticProblem:
        """Draw a problem as in the paper: x ~ N(-+alpha, I), p(y=0) = sigmoid(+-g).

        g = 1 + <x - centre, 1> / sqrt(d), plus on retain rows and minus on forget rows. Problems of
        one seed share their noise, so that alpha alone tells them apart.
        """
        draw = np.random.default_rng(seed)
        W = draw.standard_normal((width, dim)) / math.sqrt(dim)

        def cloud(centre: float, rows: int, rule: int) -> tuple[np.ndarray, np.ndarray]:
            noise = draw.standard_normal((rows, dim))
            gap = rule * (1 + noise.sum(1) / math.sqrt(dim))
            return noise + centre, (draw.random(rows) >= 1 / (1 + np.exp(-gap))).astype(int)

        X_retain, y_retain = cloud(-alpha, n_retain, 1)
        X_forget, y_forget = cloud(alpha, n_forget, -1)
        y_idk = draw.integers(0, 2, n_forget)
        X_retain_eval, X_forget_eval = cloud(-alpha, n_eval, 1)[0], cloud(alpha, n_eval, -1)[0]
        arrays = (W, X_retain, y_retain, X_forget, y_forget, y_idk, X_retain_eval, X_forget_eval)
        return cls(*arrays, alpha=alpha, seed=seed)

    def __post_init__(self):
        sizes: dict[str, int] = {}
        for name, letters in _SHAPES.items():
            if (values := getattr(self, name)) is not None:
                array = _array(name, values, [sizes.get(letter) for letter in letters])
                sizes |= zip(letters, array.shape, strict=True)
                object.__setattr__(self, name, _labels(name, array) if name[0] == "y" else array)

    def features(self, X: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """Return relu(W x) of each row, (n, N), with the sign of `theory.logistic` given labels."""
        features = np.maximum(X @ self.W.T, 0)
        return features if y is None else features * (1.0 - 2 * y)[:, None]


Problems = SyntheticProblem | Sequence[SyntheticProblem]


def pretrain(
    problems: Problems, schedule: str = "paper", progress: Callable[[int], object] | None = None
) -> SyntheticProblem | list[SyntheticProblem]:
    """Return the same problem or problems, with `a_init` and `a_retrained` trained if missing.

    "paper": gradient descent from 0, rate 0.05, 20,000 steps, which has not converged; "converged":
    Newton steps to a gradient norm of 1e-10. `progress` is called with 1 after each problem.
    """
    if schedule not in ("paper", "converged"):
        raise KitError(f"unknown schedule {schedule!r}: choose 'paper' or 'converged'")
    if not isinstance(problems, SyntheticProblem):
        return [cast(SyntheticProblem, pretrain(each, schedule, progress)) for each in problems]
    problem = problems
    if problem.a_init is None or problem.a_retrained is None:
        retain = problem.features(problem.X_retain, problem.y_retain)
        rows = np.concatenate([retain, problem.features(problem.X_forget, problem.y_forget)])
        if schedule == "paper":
            retrained, init = fit(rows, len(retain), steps=PAPER_FIT_STEPS, lr=0.05)
        else:
            retrained, init = fit_converged(retain), fit_converged(rows)
        init = init if problem.a_init is None else problem.a_init
        retrained = retrained if problem.a_retrained is None else problem.a_retrained
        problem = replace(problem, a_init=init, a_retrained=retrained)
    if progress:
        progress(1)
    return problem


# --- training -----------------------------------------------------------------------------------


def fit(features: np.ndarray, retained: int, steps: int, lr: float) -> np.ndarray:
    """Descend from 0 on the mean cross-entropy of the first `retained` rows, and on that of all.

    `features` (n, N), each row times +1 for label 0 and -1 for label 1: with z = features @ a the
    labels have log-probability log sigmoid(z). Returns (2, N). d log sigmoid(z)/dz is
    (1 - tanh(z/2)) / 2, so with h = a / 2 a step is h += lr / (4 n) * features^T (1 - tanh(z/2)).
    Both models read the rows once, in blocks that stay in the cache between the products.
    """
    n, width = features.shape
    blocks = np.array_split(features, max(1, round(features.nbytes / _BLOCK_BYTES)))
    margins = [np.empty((len(block), 2)) for block in blocks]
    starts = np.cumsum([0, *map(len, blocks)])[:-1]
    others = [m[max(retained - s, 0) :, 0] for m, s in zip(margins, starts, strict=True)]
    ones = np.stack([features[:retained].sum(0), features.sum(0)])  # features^T 1
    rate = lr / 4 / np.array([[retained], [n]])
    half, gradient, part = np.zeros((2, width)), np.empty((2, width)), np.empty((2, width))
    for _ in range(steps):
        gradient[:] = ones
        for block, margin, other in zip(blocks, margins, others, strict=True):
            np.matmul(block, half.T, out=margin)
            np.tanh(margin, out=margin)
            other[:] = 0  # rows that the first model does not see
            gradient -= np.matmul(margin.T, block, out=part)
        gradient *= rate
        half += gradient
    return 2 * half


def fit_converged(features: np.ndarray) -> np.ndarray:
    """Minimise mean cross-entropy by Newton's method, to a gradient norm of 1e-10: (N,).

    Separable rows have no finite optimum: the result is then where the gradient is small enough.
    KitError if 200 steps do not reach that.
    """
    n, width = features.shape
    a = np.zeros(width)
    for _ in range(200):
        wrong = 0.5 * (1 - np.tanh(features @ a / 2))  # 1 - p(label)
        gradient = -features.T @ wrong / n
        slope = float(np.linalg.norm(gradient))
        if slope <= 1e-10:
            return a
        curvature = (features * (wrong * (1 - wrong))[:, None]).T @ features / n
        ridge = max(1e-3 * slope, 1e-14)  # fades, so that Newton steps remain
        step = np.linalg.solve(curvature + ridge * np.eye(width), gradient)
        a = a - _backtrack(features, a, step, gradient) * step
    raise KitError(f"200 Newton steps left a gradient of norm {slope:.1e}")


def _backtrack(
    features: np.ndarray, a: np.ndarray, step: np.ndarray, gradient: np.ndarray
) -> float:
    """Return the largest of 1, 1/2, 1/4, ... with which the step lowers the loss enough."""

    def loss(at: np.ndarray) -> float:
        return float(np.logaddexp(0, -(features @ at)).mean())

    start, slope, size = loss(a), float(gradient @ step), 1.0
    while size > 1e-9 and loss(a - size * step) > start - 1e-4 * size * slope + 1e-15:
        size /= 2
    return size


def _array(name: str, values: object, shape: Sequence[int | None]) -> np.ndarray:
    """Return `values` in float64; KitError unless finite, not empty, of `shape` (None: any)."""
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise KitError(f"{name} must be an array of numbers: {error}") from None
    fits = array.ndim == len(shape) and all(
        size in (None, got) for size, got in zip(shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise KitError(f"{name} has shape {array.shape}: give ({wanted}), not empty")
    if not np.isfinite(array).all():
        raise KitError(f"{name} has values that are not finite: clean them first")
    return array


def _labels(name: str, array: np.ndarray) -> np.ndarray:
    """Return labels as integers; KitError unless they are 0 and 1."""
    if not np.isin(array, (0, 1)).all():
        seen = ", ".join(f"{v:g}" for v in np.unique(array)[:5])
        raise KitError(f"{name} has labels {seen}: they must be 0 or 1")
    return array.astype(int)

"""The theory view: runs the synthetic experiment at once and reads Theorem 2's recorded lines."""

from __future__ import annotations

import csv
import gzip
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from typing import Any

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.losses.methods import method, methods_of
from npo_kit.options import Option
from npo_kit.processes import start_workers

OPTIONS = {  # of the experiment
    "alpha": Option("of the clouds", 1.0, float, usual=(0, 2), step=0.25, label="α, centres at ±α"),
    "seed": Option("of the clouds", 1000, int, usual=(0, 999_999), step=1),
    "beta": replace(method("npo").settable["beta"], default=1.0),
    "lr_ga": Option("of methods without β", 5e-4, float, usual=(1e-5, 1), label="Rate without β"),
    "lr_npo": Option("of methods with β", 5e-3, float, usual=(1e-5, 1), label="Rate with β"),
}
STEPS, EVERY = 2000, 25
PATIENCE = 30.0  # seconds that an answer may take, the first with torch's import
LATE_POINTS = 60  # of a line of Theorem 2 after its first hundred steps


class Theory:
    """Runs the synthetic experiment in one process of its own, started when first asked."""

    def __init__(self):
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, asked: Any) -> dict[str, Any]:
        """Return `run_synthetic` of checked settings; KitError for bad ones or after PATIENCE.

        If the process died, its exception is raised, and the next call starts another.
        """
        settings = checked(asked)
        try:
            with self._lock:
                self._pool = self._pool or start_workers()
                future = self._pool.submit(run_synthetic, **settings)
            return future.result(PATIENCE)
        except BrokenProcessPool:
            self.stop()
            raise
        except (CancelledError, TimeoutError):
            self.stop()
            raise KitError("the experiment did not answer: try again") from None

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            if self._pool:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def checked(asked: Any) -> dict[str, Any]:
    """Return the settings of `run_synthetic` that a page asks for; KitError if they are wrong."""
    if not isinstance(asked, Mapping) or asked.keys() != {*OPTIONS, "methods"}:
        raise KitError(f"the experiment takes methods, {', '.join(OPTIONS)}, not {asked!r:.200}")
    for name, about in OPTIONS.items():
        if problem := about.unusual(asked[name]):
            raise KitError(f"{name} {problem}, it is {asked[name]!r:.60}")
    methods, known = asked["methods"], methods_of("kit")
    if type(methods) is not list or not 0 < len(methods) <= len(known):
        raise KitError("the experiment needs one or more methods")
    if unknown := [name for name in methods if name not in known]:
        raise KitError(f"unknown method {unknown[0]!r:.60}: choose from {', '.join(known)}")
    return {**asked, "methods": tuple(dict.fromkeys(methods))}


def run_synthetic(
    alpha: float, seed: int, methods: tuple[str, ...], beta: float, lr_ga: float, lr_npo: float
) -> dict[str, Any]:
    """Return the steps, and per method the forget and retain distance in nats, as JSON.

    Both models are trained to convergence, which takes a hundredth of the paper's 20,000 steps.
    `lr_ga` is of the methods without a beta, `lr_npo` of those with one, as in the paper.
    """
    from npo_kit.theory.synthetic import unlearn

    lr = {n: lr_npo if "beta" in method(n).hyperparameters else lr_ga for n in methods}
    frame = unlearn(_problem(alpha, seed), methods, STEPS, EVERY, lr=lr, beta=beta)
    runs = {
        name: {
            column: [float(f"{value:.4g}") for value in run[column]]
            for column in ("forget_distance", "retain_distance", "forget_drift")
        }
        for name, run in frame.groupby("method")
    }
    return {"steps": frame.step.unique().tolist(), "runs": runs}


@lru_cache(maxsize=16)
def _problem(alpha: float, seed: int):
    from npo_kit.theory.problem import SyntheticProblem, pretrain

    return pretrain(SyntheticProblem.sample(alpha, seed), "converged")


@lru_cache(maxsize=1)
def theorem_lines() -> dict[str, Any]:
    """Return Theorem 2 as recorded: per method and beta (None: GA) the steps and the distance."""
    with gzip.open(shipped_data("studies/synthetic/divergence.csv.gz"), "rt") as file:
        records = list(csv.DictReader(file))
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for record in records:
        point = int(record["step"]), float(f"{float(record['distance']):.4g}")
        lines.setdefault((record["method"], record["beta"]), []).append(point)
    return {
        "lines": [
            {"method": method, "beta": float(beta) if beta else None, "points": _thinned(points)}
            for (method, beta), points in lines.items()
        ]
    }


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    early = [p for p in points if p[0] <= 100 and (p[0] < 10 or p[0] % 5 == 0)]
    late = [p for p in points if p[0] > 100]
    every = max(1, len(late) // LATE_POINTS)
    return early + late[::every] + late[-1:]

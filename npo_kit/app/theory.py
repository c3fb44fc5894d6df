"""The theory view: runs the synthetic experiment at once and reads Theorem 2's recorded lines."""

from __future__ import annotations

import csv
import gzip
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any

from npo_kit.app.answering import check_ranges
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.processes import one_worker

METHODS = (
    *("ga", "ga_rt", "ga_kl"),
    *("npo", "npo_rt", "npo_kl"),
    *("dpo_rt", "kto_rt", "idk_rt"),
)
RANGES = {"alpha": (0.0, 2.0), "seed": (0, 10**6), "beta": (0.01, 20.0)}
RANGES |= {"lr_ga": (1e-5, 1.0), "lr_npo": (1e-5, 1.0)}
STEPS, EVERY = 2000, 25
PATIENCE = 30.0  # seconds that an answer may take, the first with torch's import
LATE_POINTS = 60  # of a line of Theorem 2 after its first hundred steps


class Theory:
    """Runs the synthetic experiment in one process of its own, started when first asked."""

    def __init__(self):
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, asked: Any) -> dict[str, Any]:
        """Return `run_synthetic` of checked settings; KitError for senseless ones, after PATIENCE.

        Where the process died its exception is raised, and the next call starts another.
        """
        settings = checked(asked)
        try:
            with self._lock:
                self._pool = self._pool or one_worker()
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
    """Return what a page sends as settings of `run_synthetic`; KitError where it is none."""
    if not isinstance(asked, Mapping) or asked.keys() != {*RANGES, "methods"}:
        raise KitError(f"the experiment takes methods, {', '.join(RANGES)}, not {asked!r:.200}")
    check_ranges({name: asked[name] for name in RANGES}, RANGES)
    methods = asked["methods"]
    if type(methods) is not list or not 0 < len(methods) <= len(METHODS):
        raise KitError("the experiment needs one or more methods")
    if unknown := [name for name in methods if name not in METHODS]:
        raise KitError(f"unknown method {unknown[0]!r:.60}: choose from {', '.join(METHODS)}")
    return {**asked, "methods": tuple(dict.fromkeys(methods))}


def run_synthetic(
    alpha: float, seed: int, methods: tuple[str, ...], beta: float, lr_ga: float, lr_npo: float
) -> dict[str, Any]:
    """Return the steps, and per method the forget and retain distance in nats, as JSON.

    Both models are trained to convergence, which takes a hundredth of the paper's 20,000 steps.
    `lr_ga` is of GA and IDK with their retain terms, `lr_npo` of the others, as in the paper.
    """
    from npo_kit.theory.synthetic import unlearn

    lr = {name: lr_ga if name.startswith(("ga", "idk")) else lr_npo for name in methods}
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

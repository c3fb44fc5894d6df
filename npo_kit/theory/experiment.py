"""Run the whole synthetic experiment into a folder, and read it back from there."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.losses.methods import methods_of
from npo_kit.records.files import Json, atomic_write, told
from npo_kit.records.provenance import provenance
from npo_kit.theory import figures
from npo_kit.theory.problem import SyntheticProblem, pretrain
from npo_kit.theory.synthetic import ALPHAS, PAPER_LR, SEEDS, beta_sweep, check_methods, unlearn
from npo_kit.theory.theorems import divergence_demo, limit_demo

FRAMES = ("unlearning", "beta_sweep", "divergence", "limit")
SWEEP_STEPS = 10_000
_DIGITS = "%.12g"  # of a number in a file: the largest, 30 nats, keeps 1e-10
_PRETRAIN_COST = 300  # of a problem, in steps of the progress bar, so that it runs evenly


@dataclass(frozen=True)
class SyntheticRecord:
    """The frames of an experiment, and their provenance."""

    frames: dict[str, pd.DataFrame]  # the names in FRAMES
    provenance: dict[str, object]
    source: str  # "recorded" or "live", for the figures

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.frames[name]


def run_experiment(
    folder: str | Path,
    *,
    seeds: Sequence[int] = SEEDS,
    alphas: Sequence[float] = ALPHAS,
    methods: Sequence[str] | None = None,
    steps: int = 2000,
    sweep_steps: int = SWEEP_STEPS,
    sweep_every: int = 100,
    figures: bool = True,
    source: str = "live",
    progress: bool = True,
) -> SyntheticRecord:
    """Run everything and write it to `folder`: a gzipped CSV per frame, PNGs, `provenance.json`.

    Files of the same names are replaced, nothing else is touched. The beta sweep runs at the first
    alpha and is recorded every `sweep_every` steps; 0 `sweep_steps` leaves it out. The figures name
    the `source`: "live", or "recorded" for a shipped run. KitError on bad options.
    """
    folder = Path(folder)
    methods = list(methods_of("record") if methods is None else methods)
    check_methods(methods)
    options = {"seeds": list(seeds), "alphas": list(alphas), "methods": methods, "steps": steps}
    options |= {"sweep_steps": sweep_steps, "sweep_every": sweep_every}
    _refuse_odd(folder, source, options)
    how = {"source": source, "options": options, **provenance()}
    problems = [SyntheticProblem.sample(alpha, seed) for alpha in alphas for seed in seeds]
    work = len(problems) * _PRETRAIN_COST + steps + sweep_steps
    with tqdm(total=work, unit="step", disable=not progress, smoothing=0.1) as bar:
        trained = pretrain(problems, progress=lambda _: bar.update(_PRETRAIN_COST))
        problems = cast(list[SyntheticProblem], trained)
        frames = {"unlearning": unlearn(problems, methods, steps, progress=bar.update)}
        if sweep_steps:
            swept, names = problems[: len(seeds)], ("npo", "ga", "npo_rt", "ga_rt")
            frames["beta_sweep"] = beta_sweep(
                swept, methods=names, steps=sweep_steps, eval_every=sweep_every, progress=bar.update
            )
        frames |= {"divergence": divergence_demo(), "limit": limit_demo()}
    record = SyntheticRecord(frames, how, source)
    _write(folder, record)
    if figures:
        for name, figure in experiment_figures(record).items():
            png = io.BytesIO()
            figure.savefig(png, format="png", metadata={"Software": None})
            atomic_write(folder / f"{name}.png", png.getvalue())
    return record


def _refuse_odd(folder: Path, source: str, options: Json) -> None:
    """Raise KitError for options of `run_experiment` that make no sense, before it computes."""
    if source not in ("live", "recorded"):
        raise KitError(f"source is {source!r}: choose 'live' or 'recorded'")
    for name in ("seeds", "alphas"):
        if not options[name] or len(set(options[name])) < len(options[name]):
            raise KitError(f"{name} are {options[name]}: give each once, one or more")
    for name, least in {"steps": 1, "sweep_steps": 0, "sweep_every": 1}.items():
        if options[name] < least:
            raise KitError(f"{name} is {options[name]}: give at least {least}")
    if folder.exists() and not folder.is_dir():
        raise KitError(f"{folder} is a file: give a folder")


def read_experiment(folder: str | Path | None = None) -> SyntheticRecord:
    """Read an experiment from `folder`, by default the recorded one that is shipped."""
    folder = shipped_data("studies/synthetic") if folder is None else Path(folder)
    try:
        how = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        there = [name for name in FRAMES if (folder / f"{name}.csv.gz").exists()]
        frames = {name: pd.read_csv(folder / f"{name}.csv.gz") for name in there}
    except (OSError, ValueError, EOFError) as error:
        raise KitError(f"{folder} holds no whole synthetic experiment: {error}") from None
    if "unlearning" not in frames:
        raise KitError(f"{folder} has no unlearning.csv.gz: run `npo-kit synthetic` again")
    return SyntheticRecord(frames, how, how.get("source", "live"))


def experiment_figures(record: SyntheticRecord) -> dict[str, Figure]:
    """Draw every figure of the experiment, by the name of its file."""
    frame, source = record["unlearning"], record.source
    drawings: dict[str, Callable] = {
        "distance": figures.distance_curves,
        "drift": figures.drift_curves,
        "trade_off": figures.trade_off,
        "seeds": figures.seeds_apart,
    }
    drawn = {
        f"{name}_alpha_{alpha:g}": draw(frame, alpha, source=source)
        for name, draw in drawings.items()
        for alpha in frame.alpha.unique()
    }
    if "beta_sweep" in record.frames:
        sweep = record["beta_sweep"]
        for suffix in ("", "_rt"):
            part = sweep[sweep.method.isin([f"npo{suffix}", f"ga{suffix}"])]
            drawn[f"beta_sweep{suffix}"] = figures.beta_sweep_curves(part, source=source)
            drawn[f"averaging{suffix}"] = figures.averaging(part, source=source)
    drawn["divergence"] = figures.divergence(record["divergence"], source=source)
    drawn["limit"] = figures.limit(record["limit"], source=source)
    return drawn


def synthetic_curves(alpha: float = 1.0, beta: float = 1.0) -> Figure:
    """Run GA and NPO on one problem, in a fifth of a second, and draw both distances by step.

    Learning rates are the paper's for alpha = 1; pre-training runs to convergence.
    """
    problem = pretrain(SyntheticProblem.sample(alpha, SEEDS[0]), "converged")
    frame = unlearn(problem, ("ga", "npo"), lr=PAPER_LR[1.0], beta=beta)
    return figures.distance_curves(frame, alpha, ("ga", "npo"), source=f"live, β = {beta:.3g}")


def _write(folder: Path, record: SyntheticRecord) -> None:
    with told(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, frame in record.frames.items():
        text = frame.to_csv(index=False, float_format=_DIGITS, lineterminator="\n")
        atomic_write(folder / f"{name}.csv.gz", gzip.compress(text.encode(), 9, mtime=0))
    text = json.dumps(record.provenance, indent=2, sort_keys=True, ensure_ascii=False)
    atomic_write(folder / "provenance.json", (text + "\n").encode())

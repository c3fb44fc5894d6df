"""A study's runs for the page: those that can be read, and what tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from npo_kit.records.files import RunError
from npo_kit.records.run import Run, read_run, run_folders

_SETTINGS = {"seed": "seed {}", "beta": "β {:g}", "lr": "lr {:g}"}
_SETTINGS |= {"retain_weight": "weight {:g}", "epochs": "{:g} epochs"}


class PackedRun(TypedDict, total=False):
    """One run in the index of a study."""

    id: str  # its folder's name, original or retained
    method: str  # or original, or retained
    seed: int | None
    lr: float | None
    beta: float | None
    retain_weight: float | None
    epochs: float | None
    status: str
    steps: list[int]  # that were evaluated
    metrics: dict[str, list[float | None]]  # of scored.METRICS, at these steps
    apart: list[str]  # only of unlearning runs: what its name needs beside the method


def told_apart(runs: list[PackedRun], labels: dict[str, str]) -> dict[str, list[str]]:
    """Return what a run's name needs beside its method, by id.

    First what differs from the first run of the method; where two runs still have one name their
    labels, and where those are the same their folders.
    """
    first: dict[str, PackedRun] = {}
    apart = {}
    for run in runs:
        main = first.setdefault(run["method"], run)
        mine, its = dict(run), dict(main)
        differs = [key for key in _SETTINGS if mine[key] not in (None, its[key])]
        apart[run["id"]] = [_SETTINGS[key].format(mine[key]) for key in differs]
    for called in (labels, {run["id"]: run["id"] for run in runs}):
        names: dict[tuple[str, ...], list[str]] = {}
        for run in runs:
            names.setdefault((run["method"], *apart[run["id"]]), []).append(run["id"])
        for twins in names.values():
            if len({called[name] for name in twins}) > 1:
                for name in twins:
                    apart[name].append(called[name])
    return apart


def readable_runs(folder: str | Path) -> tuple[list[Run], dict[str, str]]:
    """Return the runs that can be read, and why each of the others cannot, by its folder's name.

    Raises RunError where none can be.
    """
    runs, left_out = [], {}
    for path in run_folders(folder):
        try:
            runs.append(read_run(path))
        except RunError as error:
            left_out[path.name] = str(error)
    if not runs:
        raise RunError("\n".join(left_out.values()))
    return runs, left_out

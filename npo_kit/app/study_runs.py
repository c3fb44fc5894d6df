"""A study's runs for the page: those that can be read, and what tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from npo_kit.app.scored import METRICS, number
from npo_kit.records.files import Json, RunError
from npo_kit.records.folder import StudyRecord, read_study
from npo_kit.records.run import Run, read_run, run_folders
from npo_kit.studies.scores import SCORES
from npo_kit.studies.table import ORIGINAL, RETAINED, Checkpoint, best_checkpoint, study_table

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
    best: int | None  # the step that the study's rule of choice takes; None where p is not known
    metrics: dict[str, list[float | None]]  # of scored.METRICS, at these steps
    scores_only: bool  # of which no text is kept
    apart: list[str]  # only of unlearning runs: what its name needs beside the method


@dataclass
class Recorded:
    """What a study is packed from: its runs and what is said of them."""

    name: str
    runs: list[Run]
    left_out: dict[str, str]  # why a run cannot be read, by its folder's name
    record: StudyRecord
    notes: list[str] = field(default_factory=list)  # sentences on what is missing
    scores: list[Checkpoint] = field(default_factory=list)  # of runs of which no more is kept


def recorded_in(folder: str | Path) -> Recorded:
    """Return what a study's or run's folder holds; RunError where no run can be read."""
    runs, left_out = readable_runs(folder)
    name = Path(folder).resolve().name
    record = read_study(folder) or StudyRecord(name, [])
    there = {run.folder.name for run in runs}
    has_scores = (Path(folder) / SCORES).exists()
    others = [r for r in study_table(folder) if r["run"] not in there] if has_scores else []
    return Recorded(name, runs, left_out, record, scores=others)


def scored_runs(records: Iterable[Checkpoint], task: str) -> list[PackedRun]:
    """Return the unlearning runs of a task of which only the scores are kept, without texts."""
    by_run: dict[str, list[Checkpoint]] = {}
    for record in records:
        if record["task"] == task and record["method"] not in (ORIGINAL, RETAINED):
            by_run.setdefault(record["run"], []).append(record)
    runs = []
    for name, steps in by_run.items():
        last = steps[-1]
        values = {key: [dict[str, Any](step).get(key) for step in steps] for key in METRICS}
        runs.append(
            PackedRun(
                id=name,
                method=str(last["method"]),
                seed=last["seed"],
                lr=last["lr"],
                beta=last["beta"],
                retain_weight=last["retain_weight"],
                epochs=last["epoch"],
                status=last["status"],
                steps=[step["step"] for step in steps],
                best=chosen_step(steps),
                metrics={key: [number(value) for value in of] for key, of in values.items()},
                scores_only=True,
            )
        )
    return runs


def chosen_step(records: Sequence[Checkpoint]) -> int | None:
    """Return the step of a run that the studies' rule takes; None where only step 0 is there."""
    return best_checkpoint(records)["step"] if any(each["step"] for each in records) else None


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


def shown_provenance(recorded: Mapping[str, Any]) -> Json:
    """Return the part of a record's provenance that a viewer sees."""
    known: Json = {"hardware": {}, "versions": {}, "git": None, **recorded}
    hardware, versions, git = known["hardware"], known["versions"], known["git"] or {}
    return {
        "date": str(recorded.get("started", ""))[:10],
        "commit": (git.get("commit") or "")[:10],
        "cpu": hardware.get("cpu"),
        "gpus": hardware.get("gpus"),
        "versions": {name: versions.get(name) for name in ("torch", "transformers", "npo_kit")},
    }

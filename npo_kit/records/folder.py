"""The files of a run's folder: names, lists, room for a new run, cutting back."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, cast

from npo_kit.records.files import Json, RunError, parse, read_as, read_bytes, told
from npo_kit.records.lock import LOCK, refuse_owned
from npo_kit.records.provenance import Provenance

KINDS = ("finetune", "unlearn", "evaluate")
ENDINGS = ("finished", "collapsed", "stopped")

CHECKPOINTS, TRACKED = "checkpoints", "tensorboard"
_FILES, _FOLDERS = ("run.json", "steps.jsonl"), ("evals", "model", CHECKPOINTS, TRACKED)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_TEMPORARY_MODEL = re.compile(r"\.model-.+")  # of a process killed while it saved the model
_EVALUATION = re.compile(r"[0-9]{6}\.jsonl\.gz|[1-9][0-9]{6,}\.jsonl\.gz")

# Settings that runs were told once -> the value that is the only one now. A record that has it
# reads as if it did not mention the setting, so that such a run can be resumed.
RETIRED = {"retain_pairing": "fresh"}


class Settings(TypedDict, total=False):
    """The fields of a run's configuration and more; these are the ones that other rooms read."""

    model: str  # its name, or the last part of its folder
    lr: float
    epochs: float
    hyper: dict[str, float]
    retain_weight: float | None


class TaskRecord(TypedDict, total=False):
    """A run's record of its task."""

    name: str  # such as tofu:forget10
    forget_rows: int
    retain_rows: int
    evaluation_rows: dict[str, int]  # by set
    fingerprint: str  # of all rows


class Outcome(TypedDict, total=False):
    """The end of a run that was stopped or collapsed."""

    reason: str
    collapsed_at: int  # step


@dataclass(frozen=True)
class RunRecord:
    """The content of a run.json."""

    kind: str  # finetune, unlearn or evaluate
    label: str
    method: str | None
    seed: int | None
    config: Settings
    task: TaskRecord
    provenance: Provenance
    status: str  # "running" (or killed: it never came to its end), finished, collapsed or stopped
    ended: str | None  # UTC, ISO 8601; the start is provenance["started"]
    outcome: Outcome
    counted: int | None  # steps and evaluations written by the end
    evaluated: list[int]


@dataclass(frozen=True)
class StudyRecord:
    """The content of a study.json; one written by hand may have title and runs only."""

    title: str
    runs: list[str]  # folders, in order
    plan: Json = field(default_factory=dict)  # the fields of `studies.StudyPlan`
    choice: str | None = None  # the rule by which settings were chosen
    grid: list[Json] = field(default_factory=list)  # the outcome of each run that was tried
    provenance: Provenance = field(default_factory=Provenance)


def read_record(folder: Path) -> RunRecord:
    """Read the run.json of a run's folder; RunError if it is not there or not whole."""
    path = folder / "run.json"
    if not os.path.lexists(path):
        raise RunError(f"{folder} is not a run's folder, it has no run.json: give one that has")
    return parse_record(read_bytes(path), path)


def parse_record(data: bytes, path: Path) -> RunRecord:
    """Read the record in the bytes of a run.json; RunError if they hold none."""
    record = read_as(RunRecord, data, path)
    for key, known in ("kind", KINDS), ("status", ("running", *ENDINGS)):
        if (value := getattr(record, key)) not in known:
            raise RunError(f"{path} has {key} {value!r}: choose from {', '.join(known)}")
    numbers = [*record.evaluated, *([] if record.status == "running" else [record.counted])]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise RunError(f"{path} does not say what was written: restore it from a copy")
    kept = {k: v for k, v in record.config.items() if k not in RETIRED or v != RETIRED[k]}
    return replace(record, config=cast(Settings, kept))


def read_study(folder: str | os.PathLike) -> StudyRecord | None:
    """Read the study.json of a folder; None if it has none, RunError if it is no study's."""
    path = Path(folder) / "study.json"
    if not os.path.lexists(path):
        return None
    study = read_as(StudyRecord, read_bytes(path), path)
    plain = all(type(n) is str and re.fullmatch(r"(?!\.\.?$)[^/\\\0]+", n) for n in study.runs)
    if not plain or len(set(study.runs)) < len(study.runs):
        raise RunError(f"{path} must name each run once, by a subfolder's plain name: mend it")
    return study


def refuse_links(folder: Path) -> None:
    """Raise RunError if anything in `folder` links to outside of it."""
    root = os.path.realpath(folder)
    for base, folders, files in os.walk(folder):
        for path in (Path(base, name) for name in folders + files):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} links to outside of the run: put the file itself there")


# --- steps and evaluations ----------------------------------------------------------------------


def evaluation_path(folder: Path, step: int) -> Path:
    """Return the file of the evaluation at `step`."""
    return folder / "evals" / f"{step:06d}.jsonl.gz"


def evaluation_step(name: str) -> int | None:
    """Return the step in the name of an evaluation's file; None for any other name."""
    return int(name.partition(".")[0]) if _EVALUATION.fullmatch(name) else None


def list_evaluations(folder: Path, promised: Iterable[int] = ()) -> list[int]:
    """Return the steps of the evaluations, in order; RunError if a promised one is missing."""
    found = set()
    with told(folder / "evals", "read"):
        paths = sorted((folder / "evals").iterdir()) if os.path.lexists(folder / "evals") else []
    for path in paths:
        if path.name.startswith("."):  # a temporary file of a killed run, or the system's own
            continue
        step = evaluation_step(path.name)
        if step is None:
            raise RunError(f"{path} is no evaluation's file, 000012.jsonl.gz: move it elsewhere")
        found.add(step)
    for step in set(promised).difference(found):
        raise RunError(f"{evaluation_path(folder, step)} is missing: copy the run again")
    return sorted(found)


def count_steps(folder: Path) -> int:
    """Count the steps from the first on that are recorded whole and in order."""
    path = folder / "steps.jsonl"
    lines = read_bytes(path).split(b"\n")[:-1] if os.path.lexists(path) else []
    for number, line in enumerate(lines, 1):
        try:
            if parse(line, path).get("step") != number:
                return number - 1
        except RunError:
            return number - 1
    return len(lines)


def cut_back(folder: Path, step: int, evaluated: bool) -> None:
    """Keep what was recorded up to `step`, with its evaluation if `evaluated`; remove the rest.

    May be interrupted and called again.
    """
    with told(folder, "written"):
        (folder / "evals").mkdir(exist_ok=True)
        for path in itertools.chain((folder / "evals").iterdir(), folder.iterdir()):
            of_step = evaluation_step(path.name)
            late = of_step is not None and of_step >= step + evaluated
            if late or _TEMPORARY.fullmatch(path.name):
                path.unlink()
            elif _TEMPORARY_MODEL.fullmatch(path.name):
                shutil.rmtree(path)
        with (folder / "steps.jsonl").open("ab+") as file:
            file.seek(0)
            file.truncate(sum(len(line) for line in itertools.islice(file, step)))


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that is over."""
    with told(folder / CHECKPOINTS, "written"):
        if (folder / CHECKPOINTS).is_dir():
            shutil.rmtree(folder / CHECKPOINTS)


# --- room for a new run -------------------------------------------------------------------------


def refuse_unwritable(
    folder: str | os.PathLike, *, overwrite: bool = False, resume: bool = False
) -> None:
    """Raise RunError if no run can be written in `folder`, before anything is made there.

    A run that is there may be replaced with `overwrite`, and continued with `resume`, unless a
    living process writes it.
    """
    folder = Path(folder)
    with told(folder, "written"):
        there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
        if not folder.is_dir() and there == folder:
            raise RunError(f"{folder} is not a folder: choose another name")
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"no right to write in {there}")
        if there == folder:
            refuse_owned(folder)
            if resume and os.path.lexists(folder / "run.json"):
                read_record(folder)
            else:
                _replaced(folder, overwrite)


def make_room(folder: Path, overwrite: bool) -> None:
    """Empty an owned folder but for an older run's `run.json`, which is replaced last."""
    for path in _replaced(folder, overwrite):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "run.json":
            path.unlink()


def _replaced(folder: Path, overwrite: bool) -> list[Path]:
    """Return what a new run in `folder` replaces; RunError if it must not."""
    there = sorted(path for path in folder.iterdir() if path.name != LOCK)
    lasting = [path for path in there if not _TEMPORARY.fullmatch(path.name)]
    if lasting and not overwrite:
        raise RunError(
            f"{folder} is not empty: choose another folder, or --overwrite the run in it, or "
            "--resume it if its training broke off"
        )
    if lasting:
        read_record(folder)
    foreign = [p for p in there if not _is_own(p)]
    if not foreign and (folder / "evals") in there:
        names = _EVALUATION, _TEMPORARY
        inside = (folder / "evals").iterdir()
        foreign = [p for p in inside if not any(name.fullmatch(p.name) for name in names)]
    if foreign:
        raise RunError(f"{foreign[0]} is not the run's own, so nothing was removed: move it first")
    return there


def _is_own(path: Path) -> bool:
    if path.name in _FOLDERS or _TEMPORARY_MODEL.fullmatch(path.name):
        return path.is_dir() and not path.is_symlink()
    named = path.name in _FILES or _TEMPORARY.fullmatch(path.name)
    return bool(named) and path.is_file() and not path.is_symlink()

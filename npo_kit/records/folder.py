"""The files of a run's folder: their names, which there are, room for a new run, cutting back."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from npo_kit.records.files import NONE, RunError, check, parse, read_bytes, told
from npo_kit.records.lock import LOCK, refuse_owned

KINDS = ("finetune", "unlearn", "evaluate")
ENDINGS = ("finished", "collapsed", "stopped")

CHECKPOINTS = "checkpoints"
_FILES, _FOLDERS = ("run.json", "steps.jsonl"), ("evals", "model", CHECKPOINTS)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_TEMPORARY_MODEL = re.compile(r"\.model-.+")  # of a process killed while it saved the model
_EVALUATION = re.compile(r"[0-9]{6}\.jsonl\.gz|[1-9][0-9]{6,}\.jsonl\.gz")

# What run.json must have, in schema version 1: key -> the types it may be of.
RUN = {"kind": (str,), "label": (str,), "method": (str, NONE), "seed": (int, NONE)}
RUN |= {"config": (dict,), "task": (dict,), "provenance": (dict,), "status": (str,)}
RUN |= {"ended": (str, NONE), "outcome": (dict,), "counted": (int, NONE), "evaluated": (list,)}

# Settings that runs were told once -> the value that is the only one now. A record that has it
# reads as if it did not mention the setting, so that such a run can be resumed.
RETIRED = {"retain_pairing": "fresh"}


def read_record(folder: Path) -> dict[str, Any]:
    """What the run.json of a run's folder holds; RunError if it is not there or not whole."""
    path = folder / "run.json"
    if not os.path.lexists(path):
        raise RunError(f"{folder} is not a run's folder, it has no run.json: give one that has")
    return check_record(read_bytes(path), path)


def check_record(data: bytes, path: Path) -> dict[str, Any]:
    """The record in the bytes of a run.json; RunError if they are none."""
    check(record := parse(data, path), RUN, path)
    for key, known in ("kind", KINDS), ("status", ("running", *ENDINGS)):
        if record[key] not in known:
            raise RunError(f"{path} has {key} {record[key]!r}: choose from {', '.join(known)}")
    numbers = record["evaluated"] + ([] if record["status"] == "running" else [record["counted"]])
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise RunError(f"{path} does not say what was written: restore it from a copy")
    settings = record["config"].items()
    record["config"] = {k: v for k, v in settings if k not in RETIRED or v != RETIRED[k]}
    return record


def refuse_links(folder: Path) -> None:
    """RunError if anything in `folder` links to outside of it."""
    root = os.path.realpath(folder)
    for base, folders, files in os.walk(folder):
        for path in (Path(base, name) for name in folders + files):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} links to outside of the run: put the file itself there")


# --- steps and evaluations ----------------------------------------------------------------------


def evaluation_path(folder: Path, step: int) -> Path:
    """The file of the evaluation at `step`."""
    return folder / "evals" / f"{step:06d}.jsonl.gz"


def evaluation_step(name: str) -> int | None:
    """The step in the name of an evaluation's file; None if it is no such name."""
    return int(name.partition(".")[0]) if _EVALUATION.fullmatch(name) else None


def list_evaluations(folder: Path, promised: Iterable[int] = ()) -> tuple[int, ...]:
    """Steps of the evaluations there, in order; RunError if a promised one is missing."""
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
    return tuple(sorted(found))


def count_steps(folder: Path) -> int:
    """Steps from the first on that are recorded whole and in order."""
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
    """Leave what was recorded up to `step`, its evaluation only if `evaluated`, nothing half-made.

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
    """RunError where no run can be written in `folder`; tells it before anything is made there.

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
    """What a new run in `folder` takes the place of; RunError if it must not."""
    there = sorted(path for path in folder.iterdir() if path.name != LOCK)
    lasting = [path for path in there if not _TEMPORARY.fullmatch(path.name)]
    if lasting and not overwrite:
        raise RunError(f"{folder} is not empty: choose another folder, or overwrite the run in it")
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

"""What a run leaves on disk: written atomically, read back only when whole.

A run's folder holds `run.json`, `steps.jsonl` (a line per optimizer step), a file such as
`evals/000012.jsonl.gz` per evaluation (a header line, then a line per row) and, written by others,
`model/` and `checkpoints/`. A study is a folder of run folders and, if it has one, `study.json`.

All of it is strict JSON, as `records` has it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from npo_kit.eval_files import Evaluation, read_evaluation, write_evaluation
from npo_kit.provenance import now
from npo_kit.provenance import provenance as current_provenance
from npo_kit.records import (
    NONE,
    SCHEMA,
    RunError,
    atomic_write,
    check,
    dumps,
    parse,
    read_bytes,
    told,
)

KINDS = ("finetune", "unlearn", "evaluate")
ENDINGS = ("finished", "collapsed", "stopped")

_FILES, _FOLDERS = ("run.json", "steps.jsonl"), ("evals", "model", "checkpoints")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_EVALUATION = re.compile(r"[0-9]{6}\.jsonl\.gz|[1-9][0-9]{6,}\.jsonl\.gz")

# What each kind of JSON object must have, in schema version 1: key -> the types it may be of.
_RUN = {"kind": (str,), "label": (str,), "method": (str, NONE), "seed": (int, NONE)}
_RUN |= {"config": (dict,), "task": (dict,), "provenance": (dict,), "status": (str,)}
_RUN |= {"ended": (str, NONE), "outcome": (dict,), "counted": (int, NONE), "evaluated": (list,)}
_STUDY = {"title": (str,), "runs": (list,)}


@dataclass(frozen=True)
class Run:
    """One run as read from its folder; its evaluations are read when they are asked for."""

    folder: Path
    label: str
    kind: str  # one of KINDS
    method: str | None
    seed: int | None
    config: dict[str, Any]
    task: dict[str, Any]
    provenance: dict[str, Any]
    status: str  # "running" (or killed: it never came to its end), or one of ENDINGS
    outcome: dict[str, Any]
    ended: str | None  # UTC, ISO 8601; the start is provenance["started"]
    steps: list[dict[str, Any]]
    truncated: str  # what is missing at the end of `steps`, as a sentence; empty if nothing is
    _evaluated: tuple[int, ...] = field(default=(), repr=False)

    def evaluation_steps(self) -> list[int]:
        """The steps that were evaluated, in order."""
        return list(self._evaluated)

    def evaluation(self, step: int) -> Evaluation:
        """The evaluation at `step`; RunError if there is none or its file is not whole."""
        if step not in self._evaluated:
            there = ", ".join(map(str, self._evaluated)) or "none"
            raise RunError(f"{self.folder} has no evaluation at step {step}: choose from {there}")
        path = _evaluation_path(self.folder, step)
        evaluation = read_evaluation(path)
        if evaluation.step != step:
            raise RunError(f"{path} is of step {evaluation.step}: give the file its own name back")
        return evaluation

    def evaluations(self) -> Iterator[Evaluation]:
        """All evaluations in the order of their steps, one in memory at a time."""
        return map(self.evaluation, self._evaluated)


class RunWriter:
    """Writes one run's folder while the run goes on; `create` makes one.

    As a context manager it marks a run that was left before `finish` as "stopped", with the reason.
    """

    def __init__(self, folder: Path, record: dict[str, Any]):
        self._folder, self._record = folder, record
        with told(folder, "written"):
            (folder / "evals").mkdir()
            self._steps = (folder / "steps.jsonl").open("ab", buffering=0)

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        *,
        kind: str,
        label: str,
        method: str | None = None,
        seed: int | None = None,
        config: Mapping[str, Any],
        task: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RunWriter:
        """Start a run in a new or empty folder, or with `overwrite` in the place of an older run.

        Overwriting removes the older run's own files; RunError, and nothing removed, where the
        folder is no run's or holds anything else.
        """
        folder = Path(folder)
        if provenance is None:
            provenance = current_provenance()
        record = {"schema": SCHEMA, "kind": kind, "label": label, "method": method, "seed": seed}
        record |= {"config": config, "task": task, "provenance": provenance}
        record |= {"status": "running", "ended": None, "outcome": {}}
        record |= {"counted": None, "evaluated": []}  # steps and evaluations written by the end
        data = dumps(record, indent=2)
        record = _check_run(data, folder / "run.json")
        with told(folder, "written"):
            _make_room(folder, overwrite)
        atomic_write(folder / "run.json", data)
        return cls(folder, record)

    @property
    def folder(self) -> Path:
        """The run's folder, as it was given."""
        return self._folder

    def step(self, record: Mapping[str, Any]) -> None:
        """Append one optimizer step; a write that fails leaves the lines before it as they were."""
        self._refuse_if_ended()
        line = memoryview(dumps(record))
        with told(self._folder / "steps.jsonl", "written"):
            whole = os.fstat(self._steps.fileno()).st_size
            try:
                while line:
                    line = line[self._steps.write(line) :]
            except BaseException:
                self._steps.truncate(whole)
                raise

    def evaluation(self, evaluation: Evaluation) -> None:
        """Write one evaluation to a file of its own, which is never written again."""
        self._refuse_if_ended()
        path = _evaluation_path(self._folder, evaluation.step)
        if os.path.lexists(path):
            raise RunError(f"{path} exists already: a step is evaluated once in a run")
        write_evaluation(path, evaluation)

    def finish(self, status: str, **outcome: Any) -> None:
        """End the run with a status of ENDINGS and what there is to say of it."""
        self._refuse_if_ended()
        if status not in ENDINGS:
            raise RunError(f"a run does not end as {status!r}: choose from {', '.join(ENDINGS)}")
        with told(self._folder, "written"):
            os.fsync(self._steps.fileno())
            names = [path.name for path in (self._folder / "evals").iterdir()]
        end = {"status": status, "ended": now(), "outcome": outcome}
        end["counted"] = read_bytes(self._folder / "steps.jsonl").count(b"\n")
        end["evaluated"] = sorted(map(_step_of, filter(_EVALUATION.fullmatch, names)))
        data = dumps(self._record | end, indent=2)
        atomic_write(self._folder / "run.json", data)
        self._steps.close()

    def _refuse_if_ended(self) -> None:
        if self._steps.closed:
            raise RunError(f"{self._folder} holds a run that has ended: start another folder")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._steps.closed:
            return
        try:
            self.finish("stopped", reason=_reason(error))
        except RunError as problem:
            if error is None:
                raise
            error.add_note(f"The run could not be marked as stopped: {problem}")
        finally:
            self._steps.close()


def read_run(folder: str | os.PathLike) -> Run:
    """Read a run's folder, its evaluations left for later.

    A last line of `steps.jsonl` without its line end (the run was killed while writing) is dropped,
    and `truncated` says so. RunError for everything else that is not as it was written.
    """
    folder = _existing(folder)
    _refuse_links(folder)
    record = _read_record(folder)
    steps, truncated = _read_steps(folder / "steps.jsonl", record["counted"])
    evaluated = _list_evaluations(folder, record["evaluated"])
    known = {f.name: record[f.name] for f in fields(Run) if f.name in _RUN}
    return Run(folder=folder, steps=steps, truncated=truncated, _evaluated=evaluated, **known)


def read_runs(folder: str | os.PathLike) -> list[Run]:
    """The run in `folder`, or the runs of the study there: as `study.json` lists them, or by name.

    Without a `study.json`, subfolders that have no `run.json` are ignored.
    """
    folder = _existing(folder)
    if os.path.lexists(folder / "run.json"):
        return [read_run(folder)]
    path = folder / "study.json"
    if os.path.lexists(path):
        check(study := parse(read_bytes(path), path), _STUDY, path)
        names = study["runs"]
        plain = all(type(n) is str and re.fullmatch(r"(?!\.\.?$)[^/\\\0]+", n) for n in names)
        if not plain or len(set(names)) < len(names):
            raise RunError(f"{path} must name each run once, by a subfolder's plain name: mend it")
    else:
        with told(folder, "read"):
            names = sorted(p.name for p in folder.iterdir() if os.path.lexists(p / "run.json"))
    if not names:
        raise RunError(f"{folder} holds no run: give a run's folder (with a run.json) or a study's")
    return [read_run(folder / name) for name in names]


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "left before it was finished"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return "interrupted"
    home = os.path.expanduser("~") + os.sep  # a run may be shown to others
    first = str(error).strip().partition("\n")[0].replace(home, f"~{os.sep}")
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:300]


def _evaluation_path(folder: Path, step: int) -> Path:
    return folder / "evals" / f"{step:06d}.jsonl.gz"


def _step_of(name: str) -> int:
    return int(name.partition(".")[0])


def _check_run(data: bytes, path: Path) -> dict[str, Any]:
    check(record := parse(data, path), _RUN, path)
    for key, known in ("kind", KINDS), ("status", ("running", *ENDINGS)):
        if record[key] not in known:
            raise RunError(f"{path} has {key} {record[key]!r}: choose from {', '.join(known)}")
    numbers = record["evaluated"] + ([] if record["status"] == "running" else [record["counted"]])
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise RunError(f"{path} does not say what was written: restore it from a copy")
    return record


def _existing(folder: str | os.PathLike) -> Path:
    folder = Path(folder)
    with told(folder, "read"):
        if not folder.is_dir():
            what = "is not a folder" if os.path.lexists(folder) else "does not exist"
            raise RunError(f"{folder} {what}: give a run's folder or a study's")
    return folder


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not os.path.lexists(path):
        raise RunError(f"{folder} is not a run's folder, it has no run.json: give one that has")
    return _check_run(read_bytes(path), path)


def _read_steps(path: Path, promised: int | None) -> tuple[list[dict[str, Any]], str]:
    *lines, half = (read_bytes(path) if os.path.lexists(path) else b"").split(b"\n")
    steps = [parse(line, f"{path}, line {number},") for number, line in enumerate(lines, 1)]
    if promised is not None and len(steps) > promised:
        raise RunError(f"{path} has {len(steps)} lines for {promised} steps: copy the run again")
    if promised is not None and len(steps) < promised:
        return steps, f"{path} has {len(steps)} of the {promised} steps that were written"
    return steps, f"the last line of {path} is half-written and was left out" if half else ""


def _list_evaluations(folder: Path, promised: list[int]) -> tuple[int, ...]:
    found = []
    with told(folder / "evals", "read"):
        paths = sorted((folder / "evals").iterdir()) if os.path.lexists(folder / "evals") else []
    for path in paths:
        if path.name.startswith("."):  # a temporary file of a killed run, or the system's own
            continue
        if not _EVALUATION.fullmatch(path.name):
            raise RunError(f"{path} is no evaluation's file, 000012.jsonl.gz: move it elsewhere")
        found.append(_step_of(path.name))
    for step in set(promised).difference(found):
        raise RunError(f"{_evaluation_path(folder, step)} is missing: copy the run again")
    return tuple(sorted(found))


def _refuse_links(folder: Path) -> None:
    root = os.path.realpath(folder)
    for base, folders, files in os.walk(folder):
        for path in (Path(base, name) for name in folders + files):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} links to outside of the run: put the file itself there")


def _make_room(folder: Path, overwrite: bool) -> None:
    """Leave an empty folder, or one with an older run's `run.json`, which is replaced last."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise RunError(f"{folder} is not a folder: choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.iterdir())
    lasting = [path for path in there if not _TEMPORARY.fullmatch(path.name)]
    if lasting and not overwrite:
        raise RunError(f"{folder} is not empty: choose another folder, or overwrite the run in it")
    if lasting:
        _read_record(folder)
    foreign = [p for p in there if not _is_own(p)]
    if not foreign and (folder / "evals") in there:
        names = _EVALUATION, _TEMPORARY
        inside = (folder / "evals").iterdir()
        foreign = [p for p in inside if not any(name.fullmatch(p.name) for name in names)]
    if foreign:
        raise RunError(f"{foreign[0]} is not the run's own, so nothing was removed: move it first")
    for path in there:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "run.json":
            path.unlink()


def _is_own(path: Path) -> bool:
    if path.name in _FOLDERS:
        return path.is_dir() and not path.is_symlink()
    named = path.name in _FILES or _TEMPORARY.fullmatch(path.name)
    return bool(named) and path.is_file() and not path.is_symlink()

"""The files of a run: written atomically, read back only when whole.

A run's folder holds `run.json`, `steps.jsonl` (a line per optimizer step), a file such as
`evals/000012.jsonl.gz` per evaluation (a header line, then a line per row) and, written by others,
`model/`, `checkpoints/`, `tensorboard/` and, while a process writes there, `.lock`. A study is a
folder of run folders and, if it has one, `study.json`. The kit's own files are strict JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npo_kit.records.evaluations import Evaluation, read_evaluation, write_evaluation
from npo_kit.records.files import (
    SCHEMA,
    Json,
    RunError,
    atomic_write,
    dumps,
    parse,
    read_bytes,
    told,
)
from npo_kit.records.folder import (
    ENDINGS,
    RunRecord,
    Settings,
    TaskRecord,
    cut_back,
    drop_checkpoints,
    evaluation_path,
    evaluation_step,
    list_evaluations,
    make_room,
    parse_record,
    read_record,
    read_study,
    refuse_links,
    refuse_unwritable,
)
from npo_kit.records.lock import owned
from npo_kit.records.provenance import Provenance, now
from npo_kit.records.provenance import provenance as current_provenance

_RUNNING: Json = {"status": "running", "ended": None, "outcome": {}}
_RUNNING |= {"counted": None, "evaluated": []}


@dataclass(frozen=True)
class Run(RunRecord):
    """One run as read from its folder; its evaluations are read when they are asked for."""

    folder: Path
    steps: list[Json]  # the fields of `trainer.Step`, of each
    truncated: str  # what is missing at the end of `steps`, as a sentence; empty if nothing is

    @property
    def task_name(self) -> str | None:
        """The task's name, such as `tofu:forget10`."""
        return self.task.get("name")

    @property
    def beta(self) -> float | None:
        """The inverse temperature that was chosen for the method, if one was."""
        return self.config.get("hyper", {}).get("beta")

    def evaluation_steps(self) -> list[int]:
        """Return the steps that were evaluated, in order."""
        return list(self.evaluated)

    def evaluation(self, step: int) -> Evaluation:
        """Read the evaluation at `step`; RunError if there is none or its file is not whole."""
        if step not in self.evaluated:
            there = ", ".join(map(str, self.evaluated)) or "none"
            raise RunError(f"{self.folder} has no evaluation at step {step}: choose from {there}")
        path = evaluation_path(self.folder, step)
        evaluation = read_evaluation(path)
        if evaluation.step != step:
            raise RunError(f"{path} is of step {evaluation.step}: give the file its own name back")
        return evaluation

    def evaluations(self) -> Iterator[Evaluation]:
        """Read all evaluations in the order of their steps, one in memory at a time."""
        return map(self.evaluation, self.evaluated)


class RunWriter:
    """Writes one run's folder while the run goes on; `create` and `reopen` make one.

    It owns the run until it is finished or left: RunError where another process writes the run.
    As a context manager it marks a run that was left before `finish` as "stopped", with the reason.
    """

    def __init__(self, folder: Path, record: RunRecord, ownership: ExitStack):
        self.folder, self._record = folder, record
        with told(folder, "written"):
            (folder / "evals").mkdir(exist_ok=True)
            self._steps = (folder / "steps.jsonl").open("ab", buffering=0)
        self._ownership = ownership.pop_all()

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        *,
        kind: str,
        label: str,
        method: str | None = None,
        seed: int | None = None,
        config: Settings | Json,
        task: TaskRecord,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> RunWriter:
        """Start a run in a new or empty folder, or with `overwrite` in place of an older run.

        Overwriting removes the older run's own files; RunError, and nothing removed, where the
        folder is no run's or holds anything else.
        """
        folder = Path(folder)
        about: Json = {"kind": kind, "label": label, "method": method, "seed": seed}
        about |= {"config": config, "task": task}
        about |= {"provenance": current_provenance() if provenance is None else provenance}
        data = _run_json(about | _RUNNING)
        record = parse_record(data, folder / "run.json")
        refuse_unwritable(folder, overwrite=overwrite)
        with told(folder, "written"), ExitStack() as ownership:
            folder.mkdir(parents=True, exist_ok=True)
            ownership.enter_context(owned(folder))
            make_room(folder, overwrite)
            atomic_write(folder / "run.json", data)
            return cls(folder, record, ownership)

    @classmethod
    def reopen(
        cls,
        folder: str | os.PathLike,
        step: int,
        evaluated: bool = False,
        seen: RunRecord | None = None,
    ) -> RunWriter:
        """Continue the run in `folder` after `step`, however it ended before.

        Later steps and evaluations are removed, and that of `step` too unless it is `evaluated`.
        The record's provenance then says when and with what the run was resumed.
        `seen` is the record (`read_record`) for which `step` was chosen; RunError if another
        process has written the run since.
        """
        folder = Path(folder)
        refuse_links(folder)
        seen = seen or read_record(folder)
        with ExitStack() as ownership:
            ownership.enter_context(owned(folder))
            record = read_record(folder)
            if _run_json(vars(record)) != _run_json(vars(seen)):
                raise RunError(f"another process has just written {folder}: try again")
            resumed = record.provenance.setdefault("resumed", [])
            resumed.append({"step": step, **current_provenance()})
            record = replace(record, **_RUNNING)
            atomic_write(folder / "run.json", _run_json(vars(record)))
            cut_back(folder, step, evaluated)
            return cls(folder, record, ownership)

    def step(self, record: Mapping[str, Any]) -> None:
        """Append one optimizer step; a write that fails leaves the lines before it as they were."""
        self._refuse_if_ended()
        line = memoryview(dumps(record))
        with told(self.folder / "steps.jsonl", "written"):
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
        path = evaluation_path(self.folder, evaluation.step)
        if os.path.lexists(path):
            raise RunError(f"{path} exists already: a step is evaluated once in a run")
        write_evaluation(path, evaluation)

    def finish(self, status: str, **outcome: Any) -> None:
        """End the run with a status of ENDINGS and its `outcome`.

        Only a stopped run keeps its checkpoints, from which it can be resumed.
        """
        self._refuse_if_ended()
        if status not in ENDINGS:
            raise RunError(f"a run does not end as {status!r}: choose from {', '.join(ENDINGS)}")
        with told(self.folder, "written"):
            os.fsync(self._steps.fileno())
            steps = [evaluation_step(path.name) for path in (self.folder / "evals").iterdir()]
        end: Json = {"status": status, "ended": now(), "outcome": outcome}
        end["counted"] = read_bytes(self.folder / "steps.jsonl").count(b"\n")
        end["evaluated"] = sorted(step for step in steps if step is not None)
        atomic_write(self.folder / "run.json", _run_json(vars(self._record) | end))
        self._steps.close()
        with self._ownership:
            if status != "stopped":
                drop_checkpoints(self.folder)

    def _refuse_if_ended(self) -> None:
        if self._steps.closed:
            raise RunError(f"{self.folder} holds a run that has ended: start another folder")

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
            self._ownership.close()


def read_run(folder: str | os.PathLike) -> Run:
    """Read a run's folder, its evaluations left for later.

    A last line of `steps.jsonl` without its line end (the run was killed while writing) is dropped,
    and `truncated` says so. RunError for anything else that is not as it was written.
    """
    folder = _existing(folder)
    refuse_links(folder)
    record = read_record(folder)
    steps, truncated = _read_steps(folder / "steps.jsonl", record.counted)
    there = vars(record) | {"evaluated": list_evaluations(folder, record.evaluated)}
    return Run(folder=folder, steps=steps, truncated=truncated, **there)


def read_runs(folder: str | os.PathLike) -> list[Run]:
    """Read the run in `folder`, or the runs of the study there, in the order of `run_folders`."""
    return [read_run(path) for path in run_folders(folder)]


def run_folders(folder: str | os.PathLike) -> list[Path]:
    """Return `folder` if it is a run's, else the folders of its runs.

    A study's runs are those that its `study.json` lists; without one, they are the subfolders that
    have a `run.json`, by name.
    """
    folder = _existing(folder)
    if os.path.lexists(folder / "run.json"):
        return [folder]
    if study := read_study(folder):
        names = study.runs
    else:
        with told(folder, "read"):
            names = sorted(p.name for p in folder.iterdir() if os.path.lexists(p / "run.json"))
    if not names:
        raise RunError(f"{folder} holds no run: give a run's folder (with a run.json) or a study's")
    return [folder / name for name in names]


def _run_json(record: Json) -> bytes:
    return dumps({"schema": SCHEMA} | record, indent=2)


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "left before it was finished"
    if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        return "interrupted"
    home = os.path.expanduser("~") + os.sep  # a run may be shown to others
    first = str(error).strip().partition("\n")[0].replace(home, f"~{os.sep}")
    return f"{type(error).__name__}: {first}".removesuffix(": ")[:300]


def _existing(folder: str | os.PathLike) -> Path:
    folder = Path(folder)
    with told(folder, "read"):
        if not folder.is_dir():
            what = "is not a folder" if os.path.lexists(folder) else "does not exist"
            raise RunError(f"{folder} {what}: give a run's folder or a study's")
    return folder


def _read_steps(path: Path, promised: int | None) -> tuple[list[Json], str]:
    *lines, half = (read_bytes(path) if os.path.lexists(path) else b"").split(b"\n")
    steps = [parse(line, f"{path}, line {number},") for number, line in enumerate(lines, 1)]
    if promised is not None and len(steps) > promised:
        raise RunError(f"{path} has {len(steps)} lines for {promised} steps: copy the run again")
    if promised is not None and len(steps) < promised:
        return steps, f"{path} has {len(steps)} of the {promised} steps that were written"
    return steps, f"the last line of {path} is half-written and was left out" if half else ""

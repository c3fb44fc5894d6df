"""A run that was cut short goes on: from which step, and with which of its records."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npo_kit.errors import KitError
from npo_kit.records.evaluations import read_evaluation
from npo_kit.records.files import RunError, dumps, parse
from npo_kit.records.folder import count_steps, evaluation_path, list_evaluations, read_record
from npo_kit.records.run import RunWriter, read_run
from npo_kit.trainer.checkpoints import (
    FOLDER,
    Checkpoints,
    checkpoint_path,
    checkpoint_steps,
    read_state,
)


@dataclass(frozen=True)
class Start:
    """Where a run begins or goes on; `find_start` finds it."""

    folder: Path  # the run's
    about: Mapping[str, Any]  # what RunWriter.create is told of the run
    resumed: bool = False  # whether there is a run to go on with
    step: int = 0
    evaluated: bool = False  # whether the evaluation at `step` is there

    def writer(self, *, overwrite: bool = False) -> RunWriter:
        """The run's records: new ones, or those up to `step` with what came after cut off."""
        if self.resumed:
            return RunWriter.reopen(self.folder, self.step, self.evaluated)
        return RunWriter.create(self.folder, **self.about, overwrite=overwrite)

    def checkpoints(self, every: float) -> Checkpoints:
        """The run's checkpoints, one every so many epochs."""
        return Checkpoints(self.folder / FOLDER, every, self.step, self.evaluated)


def find_start(
    folder: str | os.PathLike, about: Mapping[str, Any], *, say: Callable[[str], None] = print
) -> Start | None:
    """Where the run in `folder` goes on: after its last whole checkpoint that the records reach.

    A folder that is not there or empty starts a new run; None for a run that has come to its end
    and is whole. Changes nothing. KitError where the run in it is told otherwise than `about` (the
    keywords of `RunWriter.create`) says, naming the key and both values. What is not whole is
    said and left out.
    """
    folder = Path(folder)
    if not os.path.lexists(folder / "run.json"):
        return Start(folder, about)
    record = read_record(folder)
    _refuse_other(folder, record, about)
    if record["status"] in ("finished", "collapsed") and _is_whole(folder):
        return None
    whole, broken = _evaluations(folder, record["evaluated"], say)
    reach = min([count_steps(folder), *broken])
    for step in reversed(checkpoint_steps(folder / FOLDER)):
        try:
            read_state(checkpoint_path(folder / FOLDER, step))
        except RunError as error:
            say(f"{error}. It is not used")
            continue
        if step <= reach:
            return Start(folder, about, True, step, step in whole)
        say(f"the checkpoint at step {step} is not used: the records are whole to step {reach}")
    return Start(folder, about, True, 0, 0 in whole)


def _refuse_other(folder: Path, record: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    asked = parse(dumps(about), folder)  # as a record has it
    for key, value in asked.items():
        recorded = record.get(key)
        pairs = {key: (recorded, value)}
        if isinstance(value, dict):
            pairs = {
                f"{key}: {name}": (recorded.get(name), value.get(name)) for name in value | recorded
            }
        for name, (old, new) in pairs.items():
            if old != new:
                raise KitError(
                    f"the run in {folder} has {name} {old!r}, and {new!r} is asked for: resume it "
                    "with the same command, or choose another folder"
                )


def _is_whole(folder: Path) -> bool:
    try:
        run = read_run(folder)
        for _ in run.evaluations():
            pass
    except RunError:
        return False
    return not run.truncated


def _evaluations(
    folder: Path, promised: list[int], say: Callable[[str], None]
) -> tuple[set[int], set[int]]:
    """Steps whose evaluation is whole, and those whose is not."""
    whole, broken = set(), set()
    for step in {*promised, *list_evaluations(folder)}:
        try:
            found = read_evaluation(evaluation_path(folder, step)).step
        except RunError as error:
            say(f"{error}. It is made again")
            found = None
        (whole if found == step else broken).add(step)
    return whole, broken

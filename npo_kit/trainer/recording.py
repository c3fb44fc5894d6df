"""Writes a run's events as they come, and finds where an interrupted run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from npo_kit.errors import KitError
from npo_kit.models import distributed
from npo_kit.records.evaluations import Evaluation, read_evaluation
from npo_kit.records.files import RunError, dumps, parse
from npo_kit.records.folder import (
    CHECKPOINTS,
    RunRecord,
    count_steps,
    evaluation_path,
    list_evaluations,
    read_record,
)
from npo_kit.records.lock import refuse_owned
from npo_kit.records.run import RunWriter, read_run
from npo_kit.trainer.checkpoints import (
    Checkpoints,
    checkpoint_path,
    checkpoint_steps,
    read_state,
    refuse_full,
)
from npo_kit.trainer.events import Collapse, Event, Step


def record(
    writer: RunWriter | None,
    events: Iterable[Event],
    *,
    seen: Callable[[Event], None] = lambda _: None,
    save: Callable[[], None] = lambda: None,
    save_size: int = 0,
) -> Collapse | None:
    """Write `events` as they come and end the run; return how it collapsed, if it did.

    `seen` gets each event once it is written; `save` is called before the run counts as ended. It
    needs `save_size` bytes on the disk: KitError if they are missing, before the first event and
    again before `save`. A run cut short by an error or an interruption is marked as stopped, with
    the reason, and keeps its checkpoints; one that ended keeps none. Without a writer, as in every
    process but the main one, the run takes the same course and nothing is written.
    """

    def refuse_unsavable() -> None:
        if save_size and writer:
            refuse_full(writer.folder, save_size, "the model to save", "or do not save it")

    collapse = None
    with writer or nullcontext():
        distributed.in_main(refuse_unsavable)
        for event in events:
            if writer and isinstance(event, Step):
                writer.step(asdict(event))
            elif writer and isinstance(event, Evaluation):
                writer.evaluation(event)
            elif isinstance(event, Collapse):
                collapse = event
            seen(event)
        distributed.in_main(refuse_unsavable)
        save()
        if writer and collapse:
            writer.finish("collapsed", collapsed_at=collapse.step, reason=collapse.reason)
        elif writer:
            writer.finish("finished")
    return collapse


def saved_size(model: nn.Module) -> int:
    """Count the bytes of the weights that `save_model` writes; 0 for a quantised model."""
    if getattr(model, "is_quantized", False):  # the adapter is small, and may not be there yet
        return 0
    return sum(parameter.nbytes for parameter in model.parameters())


@dataclass(frozen=True)
class Start:
    """The place where a run begins or goes on; `find_start` finds it."""

    folder: Path  # the run's
    about: Mapping[str, Any]  # what RunWriter.create is told of the run
    record: RunRecord | None = None  # of the run to go on with, if there is one
    step: int = 0
    evaluated: bool = False  # whether the evaluation at `step` is there

    @property
    def resumed(self) -> bool:
        """Whether there is a run to go on with."""
        return self.record is not None

    def writer(self, *, overwrite: bool = False) -> RunWriter:
        """Return a writer of new records, or of those up to `step` with all later ones cut off.

        RunError if another process has written the run since this start was found.
        """
        if self.resumed:
            return RunWriter.reopen(self.folder, self.step, self.evaluated, seen=self.record)
        return RunWriter.create(self.folder, **self.about, overwrite=overwrite)

    def checkpoints(self, every: float) -> Checkpoints:
        """Return the run's checkpoints, one every `every` epochs."""
        return Checkpoints(self.folder / CHECKPOINTS, every, self.step, self.evaluated)


def find_start(folder: str | os.PathLike, about: Mapping[str, Any]) -> Start | None:
    """Return where the run in `folder` goes on: after its last whole checkpoint within the records.

    A missing or empty folder starts a new run; a run that ended and is whole gives None. The run is
    not changed. KitError where another process writes it, and where its record differs from `about`
    (the keywords of `RunWriter.create`), naming the key and both values. Whatever is not whole is
    left out, and a printed line says so.
    """
    folder = Path(folder)
    refuse_owned(folder)
    if not os.path.lexists(folder / "run.json"):
        return Start(folder, about)
    record = read_record(folder)
    _refuse_other(folder, record, about)
    if record.status in ("finished", "collapsed") and _is_whole(folder):
        return None
    whole, broken = _evaluations(folder, record.evaluated)
    reach = min([count_steps(folder), *broken])
    for step in reversed(checkpoint_steps(folder / CHECKPOINTS)):
        try:
            read_state(checkpoint_path(folder / CHECKPOINTS, step))
        except RunError as error:
            print(f"{error}. It is not used")
            continue
        if step <= reach:
            return Start(folder, about, record, step, step in whole)
        print(f"the checkpoint at step {step} is not used: the records are whole to step {reach}")
    return Start(folder, about, record, 0, 0 in whole)


def _refuse_other(folder: Path, record: RunRecord, about: Mapping[str, Any]) -> None:
    asked = parse(dumps(about), folder)  # as a record has it
    for key, value in asked.items():
        recorded = getattr(record, key)
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


def _evaluations(folder: Path, promised: list[int]) -> tuple[set[int], set[int]]:
    """Return the steps whose evaluation is whole, and those whose is not."""
    whole, broken = set[int](), set[int]()
    for step in {*promised, *list_evaluations(folder)}:
        try:
            found = read_evaluation(evaluation_path(folder, step)).step
        except RunError as error:
            print(f"{error}. It is made again")
            found = -1
        (whole if found == step else broken).add(step)
    return whole, broken

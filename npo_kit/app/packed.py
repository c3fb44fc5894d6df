"""Packs a study for the page: the metrics of all runs at once, the texts question by question."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from npo_kit.app.questions import facts_told, questions_of
from npo_kit.app.scored import METRICS, SCORES, Cell, cells_of, metrics_of
from npo_kit.app.study_runs import (
    PackedRun,
    Recorded,
    chosen_step,
    recorded_in,
    scored_runs,
    shown_provenance,
    told_apart,
)
from npo_kit.errors import without_paths
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import Json, RunError
from npo_kit.records.run import Run
from npo_kit.studies.published import published
from npo_kit.studies.table import ORIGINAL, RETAINED, Checkpoint, last_evaluation, null_of

# what `index` says, and by run, for each step, each set's rows
Packed = tuple[Json, dict[str, list[dict[str, list[Cell]]]]]


def packed_studies(source: str | Path | Recorded) -> list[PackedStudy]:
    """Return a folder's studies: one for each task, which has questions and references of its own.

    Raises as PackedStudy does.
    """
    found = source if isinstance(source, Recorded) else recorded_in(source)
    unlearned = [run for run in found.runs if run.kind == "unlearn"]
    tasks = dict.fromkeys(run.task_name for run in unlearned if run.evaluated)
    return [PackedStudy(found, task) for task in tasks] or [PackedStudy(found)]


class PackedStudy:
    """One study, or one run: `index()` for the first look, `texts(number)` for one question.

    `source` is a folder or what was read. Where there are several tasks it has the runs of `task`
    (default: the first unlearning run's).

    The original is the run of that label, else an unlearning run before its first step; without a
    retained-only run there is no forget quality. A run that cannot be read is left out, and the
    index's `notes` say why. Raises RunError for a folder that cannot be shown and KitError for its
    task. The evaluations are read when they are first asked for, and only once even where several
    threads ask.
    """

    def __init__(self, source: str | Path | Recorded, task: str | None = None):
        found = source if isinstance(source, Recorded) else recorded_in(source)
        self.name, self._record, self._notes = found.name, found.record, found.notes
        self._left_out, self._scores = dict(found.left_out), found.scores
        evaluated = {run.folder.name: run for run in found.runs if run.evaluated}
        unlearned = [run for run in evaluated.values() if run.kind == "unlearn"]
        names = dict.fromkeys(run.task_name for run in unlearned)
        chosen = next(iter(names), None) if task is None else task
        mine = {name: r for name, r in evaluated.items() if r.task_name == chosen}
        self._unlearned = {name: run for name, run in mine.items() if run.kind == "unlearn"}
        self._original = self._whole(_labelled(mine.values(), ORIGINAL))
        self._retained = self._whole(_labelled(mine.values(), RETAINED))
        self._one_of_several = len(names) > 1
        if not self._unlearned:
            raise RunError(
                f"{self.name} has no evaluated unlearning run to show: make one with "
                "npo-kit unlearn"
            )
        starts = (run for run in self._unlearned.values() if self._whole(run, start=True))
        if not (first := self._original or next(starts, None)):
            raise RunError(f"no run of {self.name} can be read:\n{self._reasons()}")
        self._first = first
        self.questions, self._missing = questions_of(self._first)
        self._cells: dict[str, list[dict[str, list[Cell]]]] = {}
        self._index: Json | None = None
        self._elsewhere: Callable[[], Packed | None] = lambda: None
        self._lock = threading.Lock()

    def _whole(self, run: Run | None, start: bool = False) -> Run | None:
        """Return a run whose last evaluation, or first, can be read; else None, and note why."""
        if run is None:
            return None
        try:
            run.evaluation(run.evaluated[0 if start else -1])
        except RunError as error:
            self._left_out[run.folder.name] = str(error)
            return None
        return run

    def _reasons(self) -> str:
        return "\n".join(
            f"{name} is left out: {without_paths(why)}" for name, why in self._left_out.items()
        )

    @property
    def task(self) -> str:
        """The task's name, such as `authors:forget10`."""
        return str(self._first.task_name)

    @property
    def title(self) -> str:
        """The study's own title, else its folder's name; with the split where there are several."""
        title = self._record.title or self.name
        return f"{title}: {self.task.partition(':')[2]}" if self._one_of_several else title

    @property
    def models(self) -> list[str]:
        """The models that the runs began with, as far as they or the study name them."""
        plan = self._record.plan
        names = (self._first.config.get("model"), plan.get("original"), plan.get("start"))
        return [str(name) for name in names if name]

    def read_elsewhere(self, result: Callable[[], Packed | None]) -> None:
        """Take `packed()` of another process, when it is first asked for, if it gave one."""
        self._elsewhere = result

    def packed(self) -> Packed:
        """Return the index and every cell, which take seconds to make of a large study."""
        return self.index(), self._cells

    def index(self) -> Json:
        """Return title, provenance, questions with answer and fact, and each run's METRICS.

        Plain JSON; a run's metrics are columns beside its `steps`. A log has no provenance: {}. The
        first run is the original, the second the retained-only model where there is one. `apart`
        tells runs of a method from each other. `null` has the band of D and p among models that
        never saw the forget rows, where they are known. `notes` are sentences on what is missing.
        Raises RunError where no unlearning run can be read.
        """
        with self._lock:
            if self._index is None:
                self._index, self._cells = self._elsewhere() or self._read()
            return self._index

    def _read(self) -> Packed:
        reference = last_evaluation(self._retained) if self._retained else None
        runs = [self._pack(ORIGINAL, self._first, [self._start()], reference)]
        if self._retained and reference:
            runs.append(self._pack(RETAINED, self._retained, [reference], reference))
        packed = (self._pack_whole(run, reference) for run in self._unlearned.values())
        unlearned = [run for run in packed if run]
        if not unlearned:
            raise RunError(f"no unlearning run of {self.name} can be read: mend one")
        unlearned += scored_runs(self._scores, self.task)
        labels = {run["id"]: run["id"] for run in unlearned}
        labels |= {name: run.label for name, run in self._unlearned.items()}
        apart = told_apart(unlearned, labels)
        runs += [{**run, "apart": apart[run["id"]]} for run in unlearned]
        known = self._first.provenance
        index = {
            "name": self.name,
            "title": self.title,
            "task": self.task,
            "provenance": known and shown_provenance(known),
            "plan": self._record.plan or None,
            "choice": self._record.choice,
            "metrics": METRICS,
            "null": self._null(),
            "runs": runs,
            "notes": [*filter(None, [self._missing, *self._notes, *self._reasons().split("\n")])],
            "questions": self.questions,
            "opening": self._opening(reference),
            "rows": {name: len(rows) for name, rows in self._start().rows.items()},
            "published": [asdict(point) for point in published(" ".join(self.models), self.task)],
        }
        return index, self._cells

    def _start(self) -> Evaluation:
        """Read the evaluation of the model before unlearning."""
        return self._first.evaluation(self._first.evaluated[-1 if self._original else 0])

    def _opening(self, reference: Evaluation | None) -> dict[str, int]:
        """Return the number of the question that each row of Compare opens on, by row.

        It is the first that the original answers right and the retained-only model does not
        (`forget`) or does too (`keep`); else the first that the original does, else the first.
        """
        first = self._start()
        original, other = (facts_told(e, self.questions) for e in (first, reference or first))
        opening = {}
        for row, keeps in (("forget", False), ("keep", True)):
            mine = [n for n, q in enumerate(self.questions) if (q["set"] != "forget") == keeps]
            right = [number for number in mine if original[number]]
            fitting = [number for number in right if other[number] == keeps]
            if found := [*fitting, *right, *mine]:
                opening[row] = found[0]
        return opening

    def _null(self) -> Json | None:
        null = null_of(self._first.config.get("model"), self.task)
        if not (null and self._retained):
            return None
        return dict(zip("dp", map(list, zip(*null.band, strict=True)), strict=True))

    def _pack_whole(self, run: Run, reference: Evaluation | None) -> PackedRun | None:
        """Return an unlearning run's part of the index; None, with a note, if it cannot be read."""
        try:
            return self._pack(run.folder.name, run, run.evaluations(), reference)
        except RunError as error:
            self._left_out[run.folder.name] = str(error)
            del self._cells[run.folder.name]
            return None

    def _pack(
        self, name: str, run: Run, evaluations: Iterable[Evaluation], reference: Evaluation | None
    ) -> PackedRun:
        null = null_of(run.config.get("model"), run.task_name)
        records: list[Checkpoint] = []
        self._cells[name] = []
        for evaluation in evaluations:
            judged = sum(map(len, evaluation.rows.values()))
            scores = metrics_of(evaluation, reference, null)
            record = {**scores, "step": evaluation.step, "forget_n": judged}
            records.append(cast(Checkpoint, record))
            self._cells[name].append(cells_of(evaluation))
        baseline = name in (ORIGINAL, RETAINED)
        metrics = {key: [dict[str, Any](one)[key] for one in records] for key in METRICS}
        return {
            "id": name,
            "method": name if baseline else str(run.method),
            "seed": run.seed,
            "lr": run.config.get("lr"),
            "beta": run.beta,
            "retain_weight": run.config.get("retain_weight"),
            "epochs": run.config.get("epochs"),
            "status": run.status,
            "steps": [record["step"] for record in records],
            "best": chosen_step(records) if reference else None,
            "metrics": metrics,
        }

    def texts(self, number: int) -> Json:
        """Return every run's answer to question `number` at each of its steps.

        `strings` holds each text once; `cells[run]` has a Cell for each step, with its text's place
        there, or None where no text is recorded. Raises RunError where no question has that number.
        """
        if type(number) is not int or not 0 <= number < len(self.questions):
            last = len(self.questions) - 1
            raise RunError(f"there is no question {number!r:.60}: choose 0 to {last}")
        self.index()
        question = self.questions[number]
        strings: dict[str, int] = {}
        cells = {}
        for name, steps in self._cells.items():
            found = [_cell_at(sets, question["set"], question["index"]) for sets in steps]
            cells[name] = [
                cell._asdict() | {"text": strings.setdefault(cell.text, len(strings))}
                if cell and cell.text is not None
                else None
                for cell in found
            ]
        return {"question": number, "strings": list(strings), "cells": cells}

    def scores(self, run: str) -> dict[str, list[list[float | None]]]:
        """Return the SCORES of one run: a list per step, with a number for every question.

        Raises RunError for a run that this study does not have.
        """
        self.index()
        if run not in self._cells:
            raise RunError(f"there is no run {run!r:.60} in this study")
        places = [(question["set"], question["index"]) for question in self.questions]
        return {
            score: [
                [getattr(_cell_at(sets, *place), score, None) for place in places]
                for sets in self._cells[run]
            ]
            for score in SCORES
        }

    def about(self, run: str) -> Json:
        """Return what is recorded of one run, without its steps; RunError if it is not here."""
        known = {ORIGINAL: self._first, RETAINED: self._retained, **self._unlearned}
        found = known.get(run) if type(run) is str else None
        if found is None:
            raise RunError(f"there is no run {run!r:.60} in this study")
        told = ("config", "task", "provenance", "status", "outcome")
        return {name: getattr(found, name) for name in told}


def _cell_at(sets: dict[str, list[Cell]], set_name: str, place: int) -> Cell | None:
    """Return a row's cell; None for a run that was evaluated on fewer rows."""
    rows = sets.get(set_name, [])
    return rows[place] if place < len(rows) else None


def _labelled(runs: Iterable[Run], label: str) -> Run | None:
    return next((run for run in runs if run.label == label and run.kind != "unlearn"), None)

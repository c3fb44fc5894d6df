"""Packs a study for the page: the metrics of all runs at once, the texts question by question."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npo_kit.app.questions import questions_of
from npo_kit.app.scored import METRICS, SCORES, Cell, cells_of, metrics_of
from npo_kit.app.study_runs import PackedRun, readable_runs, told_apart
from npo_kit.errors import without_paths
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import Json, RunError
from npo_kit.records.folder import StudyRecord, read_study
from npo_kit.records.run import Run
from npo_kit.studies.published import published
from npo_kit.studies.splits import null_band
from npo_kit.studies.table import ORIGINAL, RETAINED, last_evaluation, null_of


def packed_studies(folder: str | Path) -> list[PackedStudy]:
    """Return a folder's studies: one for each task, which has questions and references of its own.

    Raises as PackedStudy does.
    """
    unlearned = [run for run in readable_runs(folder)[0] if run.kind == "unlearn"]
    tasks = dict.fromkeys(run.task_name for run in unlearned if run.evaluated)
    return [PackedStudy(folder, task) for task in tasks] or [PackedStudy(folder)]


class PackedStudy:
    """One study, or one run: `index()` for the first look, `texts(number)` for one question.

    Of a folder with several tasks it has the runs of `task` (default: the first unlearning run's).

    The original is the run of that label, else an unlearning run before its first step; without a
    retained-only run there is no forget quality. A run that cannot be read is left out, and the
    index's `notes` say why. Raises RunError for a folder that cannot be shown and KitError for its
    task. The evaluations are read when they are first asked for, and only once even where several
    threads ask.
    """

    def __init__(self, folder: str | Path, task: str | None = None):
        runs, self._left_out = readable_runs(folder)
        evaluated = {run.folder.name: run for run in runs if run.evaluated}
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
                f"{folder} has no evaluated unlearning run to show: make one with npo-kit unlearn"
            )
        starts = (run for run in self._unlearned.values() if self._whole(run, start=True))
        if not (first := self._original or next(starts, None)):
            raise RunError(f"no run of {folder} can be read:\n{self._reasons()}")
        self._first = first
        self.name = Path(folder).resolve().name
        self._record = read_study(folder) or StudyRecord(self.name, [])
        self.questions, self._missing = questions_of(self._first)
        self._cells: dict[str, list[dict[str, list[Cell]]]] = {}
        self._index: Json | None = None
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
    def _model(self) -> str:
        """The models that the runs began with, as far as they or the study name them."""
        plan = self._record.plan
        names = (self._first.config.get("model"), plan.get("original"), plan.get("start"))
        return " ".join(str(name) for name in names if name)

    def index(self) -> Json:
        """Return title, provenance, questions with answer and fact, and each run's METRICS.

        Plain JSON; a run's metrics are columns beside its `steps`. The first run is the original,
        the second the retained-only model where there is one. `apart` tells runs of a method from
        each other. `null` has D and p at NULL_BAND among models that never saw the forget rows,
        where they are known. `notes` are sentences on what is missing. Raises RunError where no
        unlearning run can be read.
        """
        with self._lock:
            if self._index is None:
                reference = last_evaluation(self._retained) if self._retained else None
                runs = [self._pack(ORIGINAL, self._first, [self._start()], reference)]
                if self._retained and reference:
                    runs.append(self._pack(RETAINED, self._retained, [reference], reference))
                packed = (self._pack_whole(run, reference) for run in self._unlearned.values())
                unlearned = [run for run in packed if run]
                if not unlearned:
                    raise RunError(f"no unlearning run of {self.name} can be read: mend one")
                apart = told_apart(unlearned, {n: r.label for n, r in self._unlearned.items()})
                runs += [{**run, "apart": apart[run["id"]]} for run in unlearned]
                self._index = {
                    "name": self.name,
                    "title": self.title,
                    "task": self.task,
                    "provenance": shown_provenance(self._first.provenance),
                    "plan": self._record.plan or None,
                    "choice": self._record.choice,
                    "metrics": METRICS,
                    "null": self._null(),
                    "runs": runs,
                    "notes": [*filter(None, [self._missing, *self._reasons().split("\n")])],
                    "questions": self.questions,
                    "rows": {name: len(rows) for name, rows in self._start().rows.items()},
                    "published": [asdict(point) for point in published(self._model, self.task)],
                }
            return self._index

    def _start(self) -> Evaluation:
        """Read the evaluation of the model before unlearning."""
        return self._first.evaluation(self._first.evaluated[-1 if self._original else 0])

    def _null(self) -> Json | None:
        known = null_of(self._first.config.get("model"), self.task)
        band = null_band(self.task) if known and self._retained else None
        return {"d": [d for d, _ in band], "p": [p for _, p in band]} if band else None

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
        steps, metrics, self._cells[name] = [], [], []
        for evaluation in evaluations:
            steps.append(evaluation.step)
            metrics.append(metrics_of(evaluation, reference, null))
            self._cells[name].append(cells_of(evaluation))
        baseline = name in (ORIGINAL, RETAINED)
        return {
            "id": name,
            "method": name if baseline else str(run.method),
            "seed": run.seed,
            "lr": run.config.get("lr"),
            "beta": run.beta,
            "retain_weight": run.config.get("retain_weight"),
            "epochs": run.config.get("epochs"),
            "status": run.status,
            "steps": steps,
            "metrics": {key: [record[key] for record in metrics] for key in METRICS},
        }

    def texts(self, number: int) -> Json:
        """Return every run's answer to question `number` at each of its steps.

        `strings` holds each text once; `cells[run]` has a Cell for each step, with its text's place
        there, or None. Raises RunError where no question has that number.
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
                cell and cell._asdict() | {"text": strings.setdefault(cell.text, len(strings))}
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

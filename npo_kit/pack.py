"""A study as a page needs it: the metrics of all runs at once, the texts question by question."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from npo_kit.data import load_task
from npo_kit.eval_files import EVALUATION_SETS, Evaluation
from npo_kit.metrics import UTILITY_SCORES, UTILITY_SETS, summarise
from npo_kit.records import RunError, parse, read_bytes
from npo_kit.row_scores import log_truth_ratio, probability
from npo_kit.runs import Run, read_runs
from npo_kit.study import ORIGINAL, RETAINED, last_evaluation

METRICS = (
    "model_utility",
    "forget_quality",
    "forget_ks",
    "forget_probability",
    "forget_rouge_l",
    "forget_fluency",
    "forget_repetition_rate",
    *(f"{set_name}_{score}" for set_name in UTILITY_SETS for score in UTILITY_SCORES),
)
Cell = list[Any]  # generation, probability, ROUGE-L recall, truth ratio R, fluency, repetition


def metrics_of(evaluation: Evaluation, reference: Evaluation | None) -> dict[str, float | None]:
    """The METRICS of one evaluation, to four digits; None for what is missing or not finite."""
    summary = summarise(evaluation, reference)
    return {name: _number(summary[name]) for name in METRICS}


def cells_of(evaluation: Evaluation) -> dict[str, list[Cell]]:
    """Set -> what is shown of each of its rows, in their order."""
    return {
        name: [_cell(row, name) for row in evaluation.rows.get(name, [])]
        for name in EVALUATION_SETS
    }


def _cell(row: dict[str, Any], set_name: str) -> Cell:
    log_ratio = log_truth_ratio(row, set_name)
    return [
        row.get("generation") or "",
        _number(probability(row, set_name)),
        _number(row.get("rouge_l_recall")),
        _number(None if log_ratio is None else math.exp(min(log_ratio, 700.0))),
        _number(row.get("fluency")),
        _number(row.get("repetition_rate")),
    ]


def _number(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None


class PackedStudy:
    """One study: `index()` for the first look, `texts(number)` for one question.

    Opening it finds out whether it can be shown: RunError for a folder that is no study with an
    original and a retained-only model, KitError for its task. The evaluations are read when they
    are first asked for, once, also where several threads ask.
    """

    def __init__(self, folder: str | Path):
        runs = {run.folder.name: run for run in read_runs(folder)}
        baselines = {name: _labelled(runs.values(), name, folder) for name in (ORIGINAL, RETAINED)}
        unlearned = {name: run for name, run in runs.items() if run.kind == "unlearn"}
        self._runs = {**baselines, **unlearned}
        self._title = _title(folder)
        self.questions = _questions(baselines[ORIGINAL])
        self._cells: dict[str, list[dict[str, list[Cell]]]] = {}
        self._index: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def index(self) -> dict[str, Any]:
        """Title, provenance, questions with answer and fact, and per run settings and METRICS.

        Plain JSON; a run's metrics are columns beside its `steps`.
        """
        with self._lock:
            if self._index is None:
                reference = last_evaluation(self._runs[RETAINED])
                original = self._runs[ORIGINAL]
                self._index = {
                    "title": self._title,
                    "task": original.task.get("name"),
                    "provenance": _provenance(original),
                    "metrics": METRICS,
                    "runs": [self._pack(*item, reference) for item in self._runs.items()],
                    "questions": self.questions,
                    "rows": {name: len(rows) for name, rows in reference.rows.items()},
                }
            return self._index

    def _pack(self, name: str, run: Run, reference: Evaluation) -> dict[str, Any]:
        evaluations = run.evaluations() if run.kind == "unlearn" else [last_evaluation(run)]
        steps, metrics, self._cells[name] = [], [], []
        for evaluation in evaluations:
            steps.append(evaluation.step)
            metrics.append(metrics_of(evaluation, reference))
            self._cells[name].append(cells_of(evaluation))
        return {
            "id": name,
            "method": run.method or name,
            "seed": run.seed,
            "lr": run.config.get("lr"),
            "beta": run.config.get("hyper", {}).get("beta"),
            "retain_weight": run.config.get("retain_weight"),
            "epochs": run.config.get("epochs"),
            "status": run.status,
            "steps": steps,
            "metrics": {key: [record[key] for record in metrics] for key in METRICS},
        }

    def texts(self, number: int) -> dict[str, Any]:
        """What every run says to question `number` at each of its steps.

        `strings` holds each text once; `cells[run]` per step its place there and the scores.
        Raises RunError for a number that is no question's.
        """
        if type(number) is not int or not 0 <= number < len(self.questions):
            last = len(self.questions) - 1
            raise RunError(f"there is no question {number!r:.60}: choose 0 to {last}")
        self.index()
        question = self.questions[number]
        strings: dict[str, int] = {}
        cells = {
            name: [
                [strings.setdefault(cell[0], len(strings)), *cell[1:]]
                for cell in (sets[question["set"]][question["index"]] for sets in steps)
            ]
            for name, steps in self._cells.items()
        }
        return {"question": number, "strings": list(strings), "cells": cells}


def _labelled(runs: Iterable[Run], label: str, folder: str | Path) -> Run:
    found = next((run for run in runs if run.label == label and run.evaluation_steps()), None)
    if found is None:
        raise RunError(
            f"{folder} has no evaluated run labelled {label!r}: make one with npo-kit evaluate "
            f"--label {label}"
        )
    return found


def _title(folder: str | Path) -> str:
    path = Path(folder) / "study.json"
    return str(parse(read_bytes(path), path)["title"]) if path.exists() else Path(folder).name


def _provenance(run: Run) -> dict[str, Any]:
    """What a viewer is told of where the numbers come from."""
    hardware, versions = run.provenance.get("hardware", {}), run.provenance.get("versions", {})
    return {
        "date": str(run.provenance.get("started", ""))[:10],
        "commit": ((run.provenance.get("git") or {}).get("commit") or "")[:10],
        "cpu": hardware.get("cpu"),
        "gpus": hardware.get("gpus"),
        "versions": {name: versions.get(name) for name in ("torch", "transformers", "npo_kit")},
    }


def _questions(original: Run) -> list[dict[str, Any]]:
    """Every evaluated row with its texts: from the record, else from the task by its name."""
    rows = last_evaluation(original).rows
    task = None
    if any("question" not in row for of_set in rows.values() for row in of_set):
        task = load_task(str(original.task.get("name")))
    questions = []
    for name in EVALUATION_SETS:
        for place, row in enumerate(rows.get(name, [])):
            full = row if task is None else task.evaluation[name][row.get("index", place)]
            span = full.get("entity_span")
            questions.append(
                {
                    "set": name,
                    "index": place,
                    "question": full["question"],
                    "answer": full["answer"],
                    "fact": full["answer"][slice(*span)] if span else full["answer"],
                }
            )
    return questions

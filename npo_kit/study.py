"""Runs that belong together: every run and step of a folder as one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from npo_kit.eval_files import Evaluation
from npo_kit.metrics import read_reference, summarise
from npo_kit.records import RunError
from npo_kit.runs import Run, read_run, read_runs

ORIGINAL, RETAINED = "original", "retained"  # labels of the models that a study compares with


def find_reference(path: str | Path) -> Evaluation:
    """The retained-only evaluation at `path`: a run's last, an evaluation file, or an official log.

    Raises RunError or LogError, which say what was found instead.
    """
    path = Path(path)
    if path.is_dir():
        return last_evaluation(read_run(path))
    return read_reference(path)


def last_evaluation(run: Run) -> Evaluation:
    """The evaluation at a run's highest step; RunError if it has none."""
    if not run.evaluation_steps():
        raise RunError(f"{run.folder} has no evaluation: evaluate its model with npo-kit evaluate")
    return run.evaluation(run.evaluation_steps()[-1])


def study_table(
    folder: str | Path, reference: str | Path | None = None, truth_ratio: str = "geometric"
) -> list[dict[str, Any]]:
    """Every run and evaluated step of a run or study folder: flat records, one per row.

    An unlearning run gives all its evaluations under its method, the others (fine-tuning,
    evaluation) their last under their label, such as `original` and `retained`. The reference for
    forget quality is `reference`, else the run labelled `retained`; without either it is None and
    the record's `forget_quality_why` says how to get it.
    """
    runs = read_runs(folder)
    retained = _reference_of(runs, reference)
    return [
        _record(run, evaluation, retained, truth_ratio)
        for run in runs
        for evaluation in _evaluations(run)
    ]


def _reference_of(runs: list[Run], path: str | Path | None) -> Evaluation | None:
    if path is not None:
        return find_reference(path)
    labelled = [run for run in runs if run.label == RETAINED and run.evaluation_steps()]
    return last_evaluation(labelled[0]) if labelled else None


def _evaluations(run: Run) -> Iterable[Evaluation]:
    if run.kind == "unlearn":
        return run.evaluations()
    return [last_evaluation(run)] if run.evaluation_steps() else []


def _record(
    run: Run, evaluation: Evaluation, reference: Evaluation | None, truth_ratio: str
) -> dict[str, Any]:
    summary = summarise(evaluation, reference, truth_ratio=truth_ratio)
    return {
        "method": run.method if run.kind == "unlearn" else run.label,
        "label": run.label,
        "task": run.task.get("name"),
        "seed": run.seed,
        "status": run.status,
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "protocol": evaluation.protocol,
        "max_rows": evaluation.max_rows,
        "truth_ratio": truth_ratio,
        **summary,
        **{f"{name}_why": summary.why.get(name) for name in ("model_utility", "forget_quality")},
    }

"""The outcome of a recorded study as Markdown: each run's best and last checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from npo_kit.metrics.summary import FORGOTTEN
from npo_kit.records.files import RunError
from npo_kit.studies.table import ORIGINAL, RETAINED, best_checkpoint, study_table

HEAD = (
    *("run", "lr", "β", "retain weight", "seed"),
    *("best step", "utility", "kept", "p"),
    *("last step", "utility", "kept", "p", "P forget", "fluency"),
)
SWEEP = "Other values of β at the same learning rate:"
Record = dict[str, Any]


def study_report(folder: str | Path) -> str:
    """Return two Markdown tables of a study, the second of runs with other settings (other betas).

    The first has the runs of each method with its chosen settings, every seed. `kept` is the share
    of the original's utility; p is in bold if it is FORGOTTEN or more. A study of several tasks has
    both for each, under its name. Raises RunError for a folder that is no study.
    """
    records = study_table(folder)
    tasks = list(dict.fromkeys(record["task"] for record in records))
    parts = []
    for task in tasks:
        of_task = [record for record in records if record["task"] == task]
        parts += [f"{task}:"] if len(tasks) > 1 else []
        parts += _tables(of_task, folder)
    return "\n\n".join(parts)


def _tables(records: Sequence[Record], folder: str | Path) -> list[str]:
    """Return the tables of one task."""
    runs: dict[str, list[Record]] = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record)
    original = next((record for record in records if record["method"] == ORIGINAL), None)
    if original is None:
        raise RunError(f"{folder} has no run labelled {ORIGINAL} to compare with: evaluate one")
    main = {run: of_run for run, of_run in runs.items() if _is_main(of_run[0], runs)}
    lines = [_baseline(record) for record in records if record["method"] in (ORIGINAL, RETAINED)]
    lines += [_line(of_run, original) for of_run in main.values()]
    sweep = [of_run for run, of_run in runs.items() if run not in main and not _is_model(of_run[0])]
    tables = [_table(HEAD, lines)]
    if sweep:
        tables += [SWEEP, _table(HEAD, [_line(of_run, original) for of_run in sweep])]
    return tables


def _is_model(record: Record) -> bool:
    return record["method"] in (ORIGINAL, RETAINED)


def _is_main(record: Record, runs: dict[str, list[Record]]) -> bool:
    """Whether a run has the settings of the first run of its method."""
    if _is_model(record):
        return False
    first = next(of_run[0] for of_run in runs.values() if of_run[0]["method"] == record["method"])
    settings = ("lr", "beta", "retain_weight")
    return all(record[name] == first[name] for name in settings)


def _baseline(record: Record) -> list[str]:
    empty = [""] * 9
    p = _p(record["forget_quality"]) if record["method"] == ORIGINAL else "–"
    scores = [_fixed(record["model_utility"], 3), "", p]
    return [record["method"], *empty, *scores, *_forgetting(record)]


def _line(of_run: Sequence[Record], original: Record) -> list[str]:
    from npo_kit.losses.looks import look_of

    best, last = best_checkpoint(of_run), of_run[-1]
    settings = [_short(last[name]) for name in ("lr", "beta", "retain_weight", "seed")]
    return [
        look_of(last["method"]).label,
        *settings,
        *_scores(best, original),
        *_scores(last, original),
        *_forgetting(last),
    ]


def _scores(record: Record, original: Record) -> list[str]:
    utility = record["model_utility"]
    whole = original["model_utility"]
    kept = None if utility is None or not whole else utility / whole
    share = "–" if kept is None else f"{100 * kept:.0f} %"
    return [str(record["step"]), _fixed(utility, 3), share, _p(record["forget_quality"])]


def _forgetting(record: Record) -> list[str]:
    return [_fixed(record["forget_probability"], 2), _fixed(record["forget_fluency"], 2)]


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")
    return f"**{text}**" if value >= FORGOTTEN else text.replace("-", "−")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

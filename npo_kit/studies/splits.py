"""How much can be forgotten: the runs of a study of several splits, each as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from npo_kit.losses.looks import look_of
from npo_kit.records.files import Json
from npo_kit.studies.markdown import p_value, table
from npo_kit.studies.table import ORIGINAL, RETAINED, Checkpoint, best_checkpoint, null_of

READINGS = {  # variant -> what its runs have in common
    "": "equal epochs: each run takes as many passes over its forget rows",
    "steps": "equal steps: each run takes as many steps",
    "alike": "one configuration for all methods, with the paper's β and retain weight",
}
CUTS = {  # where a run is read
    "best": "at the rule's checkpoint",
    "equal": "at the first checkpoint that has forgotten as much as the retained-only model",
    "last": "at the last step",
}
SHOWN = {  # what the page shows of a checkpoint -> its name in a record
    "p": "forget_quality",
    "d": "forget_ks",
    "percentile": "forget_percentile",
    "forget": "forget_probability",
    "step": "step",
}


@dataclass(frozen=True)
class SplitRun:
    """One run of unlearning, and what it is compared with."""

    method: str
    variant: str
    percent: int  # of the authors to be forgotten
    seed: int
    best: Checkpoint  # by the rule of a study
    last: Checkpoint
    equal: Checkpoint | None  # the first that has forgotten as much as retained-only
    original: float  # the utility before unlearning

    @property
    def name(self) -> str:
        """The method and what was changed of it, as tables call it."""
        label = look_of(self.method).label
        return f"{label}, {self.variant}" if self.variant not in READINGS else label

    def kept(self, where: str) -> float | None:
        """Return the share of the original's utility at one of CUTS."""
        found = getattr(self, where)
        utility = found and found["model_utility"]
        return None if utility is None else utility / self.original


def split_runs(records: Iterable[Checkpoint]) -> list[SplitRun]:
    """List the runs of unlearning in the table of a study, `studies.study_table`."""
    records = list(records)
    models = {(r["method"], r["task"]): r for r in records if r["method"] in (ORIGINAL, RETAINED)}
    found = []
    for _, of_run in groupby(records, key=lambda record: record["run"]):
        steps = list(of_run)
        first, task = steps[0], steps[0]["task"]
        if first["method"] in (ORIGINAL, RETAINED):
            continue
        level = models[RETAINED, task]["forget_probability"] or 0.0
        found.append(
            SplitRun(
                method=str(first["method"]),
                variant=first.get("variant") or "",
                percent=percent_of(task),
                seed=first["seed"] or 0,
                best=best_checkpoint(steps),
                last=steps[-1],
                equal=first_forgotten(steps, level),
                original=models[ORIGINAL, task]["model_utility"] or 0.0,
            )
        )
    return found


def percent_of(task: str | None) -> int:
    """Return the percentage in a task's name, such as 10 of authors:forget10."""
    return int(str(task).rpartition("forget")[2])


def first_forgotten(steps: Sequence[Checkpoint], level: float) -> Checkpoint | None:
    """Return the first checkpoint whose forget probability is at most `level`; None: there is none.

    Nothing is taken between two checkpoints: a model may lose all of its use there.
    """
    known = ((step, step["forget_probability"]) for step in steps)
    return next((step for step, fall in known if fall is not None and fall <= level), None)


def null_bands(runs: Iterable[SplitRun]) -> dict[int, tuple[tuple[float, float], ...] | None]:
    """Map each percentage to (D, p) among pairs of models that never saw its rows, `Null.band`."""
    tasks = {run.percent: (run.last["model"], run.last["task"]) for run in runs}
    nulls = {percent: null_of(*task) for percent, task in sorted(tasks.items())}
    return {percent: null.band if null else None for percent, null in nulls.items()}


def splits_chart(records: Iterable[Checkpoint]) -> Json:
    """Return a study of splits as the page draws it: runs, and the null's D and p by percentage."""
    runs = split_runs(records)
    drawn = [
        {
            "method": run.method,
            "variant": run.variant,
            "percent": run.percent,
            "seed": run.seed,
            "kept": {where: run.kept(where) for where in CUTS},
            **{key: {cut: _score(run, cut, name) for cut in CUTS} for key, name in SHOWN.items()},
        }
        for run in runs
    ]
    return {"readings": READINGS, "cuts": CUTS, "runs": drawn, "nulls": null_bands(runs)}


def _score(run: SplitRun, cut: str, name: str) -> float | None:
    at = getattr(run, cut)
    return at and at.get(name)


# --- as Markdown --------------------------------------------------------------------------------


def splits_report(records: Iterable[Checkpoint]) -> str:
    """Return the tables of a study of splits: utility kept and p by method and split, and more."""
    records = list(records)
    runs = split_runs(records)
    parts = []
    for variant, title in READINGS.items():
        # of as many epochs, and for each split like a method: gradient ascent by rows
        shown = [r for r in runs if r.variant in (variant, variant or "sum")]
        for where, place in CUTS.items():
            text = f"**{title[0].upper()}{title[1:]}**; {place}:"
            parts += [text, _by_split(shown, where)]
    apart = [r for r in runs if r.variant not in READINGS]
    percents = [run.percent for run in apart]
    most = max(percents, key=percents.count)
    compared = {run.method for run in apart}
    same = [r for r in runs if r.percent == most and r.method in compared]
    parts += [
        f"**What else differs between methods**, at {most} %, one thing changed at a time:",
        _confounds([r for r in same if not r.variant or r.variant not in READINGS]),
        "**Models that never saw the forget rows**, in pairs, on the judged rows:",
        _nulls(runs, records),
    ]
    return "\n\n".join(parts)


def _by_split(runs: Sequence[SplitRun], where: str) -> str:
    percents = sorted({run.percent for run in runs})
    head = ["", *(f"{n} %: {what}" for n in percents for what in ("kept", "p", "percentile"))]
    lines = []
    for name in dict.fromkeys(run.name for run in runs):
        line = [name]
        for percent in percents:
            cell = [r for r in runs if (r.name, r.percent) == (name, percent)]
            line.append(_range([r.kept(where) for r in cell], "{:.0%}".format, "never"))
            line.append(_range([_score(r, where, "forget_quality") for r in cell], p_value))
            places = [_score(r, where, "forget_percentile") for r in cell]
            line.append(_range(places, "{:.0%}".format))
        lines.append(line)
    return table(head, lines)


def _confounds(runs: Sequence[SplitRun]) -> str:
    head = ["", "kept, best", "p, best", "kept, last", "P forget, last", "kept, forgotten as much"]
    lines = []
    for name in sorted({run.name for run in runs}):
        of_name = [run for run in runs if run.name == name]
        lines.append(
            [
                name,
                _range([run.kept("best") for run in of_name], "{:.0%}".format),
                _range([run.best["forget_quality"] for run in of_name], p_value),
                _range([run.kept("last") for run in of_name], "{:.0%}".format),
                _range([run.last["forget_probability"] for run in of_name], "{:.2f}".format),
                _range([run.kept("equal") for run in of_name], "{:.0%}".format, "never"),
            ]
        )
    return table(head, lines)


def _nulls(runs: Sequence[SplitRun], records: Sequence[Checkpoint]) -> str:
    head = ["split", "D, 5 %", "D, median", "D, 95 %", "p at D, 95 %", "p of the original"]
    originals = {percent_of(r["task"]): r for r in records if r["method"] == ORIGINAL}
    lines = []
    for percent, band in null_bands(runs).items():
        if band:
            (low, _), (middle, _), (high, p) = band
            shown = [f"{value:.3f}" for value in (low, middle, high)]
            ends = [p_value(p), _range([originals[percent]["forget_quality"]], p_value)]
            lines.append([f"{percent} %", *shown, *ends])
    return table(head, lines)


def _range(values: Sequence[float | None], write: Callable[[float], str], none: str = "–") -> str:
    """Write the least and the greatest of some values, and how many are not there: `none`."""
    known = [value for value in values if value is not None]
    if not known:
        return none if values else "–"
    low, high = write(min(known)), write(max(known))
    missing = f" ({len(values) - len(known)} of {len(values)} {none})"
    return (low if low == high else f"{low} to {high}") + missing * (len(known) < len(values))

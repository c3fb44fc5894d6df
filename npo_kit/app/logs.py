"""Evaluation logs of TOFU and open-unlearning as a study: what each says, by name and content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from npo_kit.app.study_runs import Recorded
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS
from npo_kit.metrics.official_reader import OPEN_UNLEARNING_LOG, TOFU_LOG, read_official_log
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import Evaluation, ScoredRow
from npo_kit.records.folder import StudyRecord
from npo_kit.records.provenance import Provenance
from npo_kit.records.run import Run
from npo_kit.studies.table import ORIGINAL, RETAINED

NAMED = re.compile(r"([^=/\\]+)=(.+)")  # NAME=FILE
_ENDING = re.compile(r"[._-]?(TOFU_EVAL|eval_log_aggregated)?(\.json)?(\.gz)?$")
_PLAIN = re.compile(r"evals?(_.*)?|eval_results(-\d+)?|ds_size\d+|checkpoint-\d+|logs?|")
_STEP = re.compile(r"(?:checkpoint|eval_results)-(\d+)")
_SPLIT = re.compile(r"forget(01|05|10)(?!\d)|retain(99|95|90)(?!\d)")
_ROLES = {
    RETAINED: re.compile(r"retain(ed|99|95|90)?($|[^a-z0-9])", re.IGNORECASE),
    ORIGINAL: re.compile(r"(^|[^a-z0-9])(full|original)($|[^a-z0-9])", re.IGNORECASE),
}
# Names of losses in the logs' paths -> the kit's methods, the longest first. Those of
# open-unlearning have the retain answers' loss (see npo_kit.studies.published).
_LOSSES = {
    OPEN_UNLEARNING_LOG: {"GradAscent": "ga", "GradDiff": "ga_rt", "IdkDPO": "dpo_rt"}
    | {"NPO": "npo_rt"},
    TOFU_LOG: {"npo_grad_diff": "npo_rt", "npo_KL": "npo_kl", "grad_ascent": "ga"}
    | {"grad_diff": "ga_rt", "npo": "npo", "KL": "ga_kl"},
}
# The question in the prompts that the logs have: Llama 2's, Phi's, Llama 3's without its tokens.
_PROMPTS = (
    re.compile(r"\[INST\]\s*(.*?)\s*\[/INST\]", re.DOTALL),
    re.compile(r"^\s*Question:\s*(.*?)\s*(?:\nAnswer:\s*)?$", re.DOTALL),
    re.compile(r"^system\n\n.*user\n\n(.*?)\s*assistant\s*$", re.DOTALL),
    re.compile(r"^user\n\n(.*?)\s*assistant\s*$", re.DOTALL),
)


@dataclass(frozen=True)
class LogRun(Run):
    """The run of one model, whose evaluations are in memory."""

    read: Mapping[int, Evaluation]  # by step

    def evaluation(self, step: int) -> Evaluation:
        """Return the evaluation at `step`."""
        return self.read[step]


@dataclass(frozen=True)
class _Log:
    """One log and what its name says."""

    label: str
    split: str | None  # forget10
    evaluation: Evaluation

    @property
    def step(self) -> int:
        return self.evaluation.step


def is_log(path: str | Path) -> bool:
    """Tell whether a path, or NAME=PATH, is of a file: a log, not the folder of a study."""
    return Path(path).is_file() or bool((named := _named(path)) and named[1].is_file())


def _named(path: str | Path) -> tuple[str, Path] | None:
    found = NAMED.fullmatch(str(path))
    return (found[1], Path(found[2])) if found else None


def read_logs(paths: Sequence[str | Path]) -> Recorded:
    """Read logs as one study: checkpoints of a model (`checkpoint-60`) are one run.

    The original and the retained-only model are those whose names say so: a file's name, or the
    folder's where the file has the name that its code gives it. `NAME=FILE` names a log. Where
    none is of an unlearned model, the original stands for one, too. Raises LogError for a file
    that is no log, and KitError for logs of different splits and for two of one name and step.
    """
    logs = [_read(path) for path in paths]
    splits = sorted({log.split for log in logs if log.split})
    if len(splits) > 1:
        raise KitError(f"these logs are of {', '.join(splits)}: open those of one split")
    for (label, _), count in Counter((log.label, log.step) for log in logs).items():
        if count > 1:
            raise KitError(f"{count} logs are called {label}: name them, such as A=FILE B=FILE")
    task = f"tofu:{splits[0]}" if splits else "logs"
    labels = list(dict.fromkeys(log.label for log in logs))
    roles = {role: _first(labels, pattern) for role, pattern in _ROLES.items()}
    if roles[ORIGINAL] == roles[RETAINED]:
        roles[ORIGINAL] = None
    runs = [_run(label, task, roles, [x for x in logs if x.label == label]) for label in labels]
    notes = list(_notes(runs))
    if not any(run.kind == "unlearn" for run in runs):
        shown = next((run for run in runs if run.label == ORIGINAL), runs[0])
        runs.append(replace(shown, kind="unlearn", folder=Path(f"{shown.folder.name} again")))
        notes.append(f"No log is of an unlearned model: {shown.folder.name} stands for one.")
    title = f"{len(logs)} evaluation log{'s' * (len(logs) > 1)}, {splits[0] if splits else 'TOFU'}"
    return Recorded("logs", [*runs], {}, StudyRecord(title, labels), notes)


def _first(labels: Iterable[str], pattern: re.Pattern[str]) -> str | None:
    return next((label for label in labels if pattern.search(label)), None)


def _read(path: str | Path) -> _Log:
    name, file = _named(path) or ("", Path(path))
    if Path(path).is_file():
        name, file = "", Path(path)
    said = "/".join(file.absolute().parts[-5:])
    step, split = _STEP.search(said), _SPLIT.search(name or said)
    forgotten = split and (split[1] or {"99": "01", "95": "05", "90": "10"}[split[2]])
    evaluation = replace(_plain(read_official_log(file)), step=int(step[1]) if step else 0)
    return _Log(name or _label(file), f"forget{forgotten}" if forgotten else None, evaluation)


def _label(file: Path) -> str:
    """Return the name of the model that a log is of: the file's, else that of the folder around."""
    parts = [_ENDING.sub("", file.name), *(each.name for each in file.absolute().parents)]
    return next((part for part in parts if not _PLAIN.fullmatch(part)), "log")


def _plain(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with the questions alone, without the prompt around them."""

    def told(row: ScoredRow) -> ScoredRow:
        prompt = row.get("question")
        return row if prompt is None else {**row, "question": _question(prompt)}

    return replace(
        evaluation, rows={name: list(map(told, rows)) for name, rows in evaluation.rows.items()}
    )


def _question(prompt: str) -> str:
    found = (pattern.search(prompt) for pattern in _PROMPTS)
    return next((match[1] for match in found if match), prompt.strip())


def _run(label: str, task: str, roles: Mapping[str, str | None], logs: Sequence[_Log]) -> LogRun:
    role = next((role for role, its in roles.items() if its == label), None)
    read = {log.step: log.evaluation for log in sorted(logs, key=lambda log: log.step)}
    source = logs[0].evaluation.source
    return LogRun(
        kind="evaluate" if role else "unlearn",
        label=role or label,
        method=role or _method(label, source),
        seed=None,
        config={},
        task={"name": task},
        provenance=Provenance(),
        status="finished",
        ended=None,
        outcome={},
        counted=None,
        evaluated=list(read),
        folder=Path(label),
        steps=[],
        truncated="",
        read=read,
    )


def _method(label: str, source: str) -> str:
    if label in METHODS:
        return label
    alone = "(?<![A-Za-z0-9]){}(?![A-Za-z0-9])"
    found = (its for name, its in _LOSSES[source].items() if re.search(alone.format(name), label))
    return next(found, label)


def _notes(runs: Sequence[LogRun]) -> Iterable[str]:
    """Yield what the logs lack, and which method a name was taken for."""
    reference = next((run.read[run.evaluated[-1]] for run in runs if run.label == RETAINED), None)
    for run in runs:
        name, last = run.folder.name, run.read[run.evaluated[-1]]
        yield from (f"{name}: {why}." for why in last.notes.values())
        silent = [s for s, rows in last.rows.items() if rows and "generation" not in rows[0]]
        if silent:
            yield f"{name} keeps no texts of the rows of {', '.join(silent)}."
        if run.method in METHODS and run.method != name:
            yield f"{name} is shown as {run.method}, by its name."
        if run.kind == "unlearn" and reference:
            why = summarise(last, reference).why
            if "forget_quality" in why:
                yield f"{name} has no forget quality: {why['forget_quality']}."
    yield "Logs have no fluency, no settings of the runs and no steps between their checkpoints."

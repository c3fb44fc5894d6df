"""The outcome of a recorded study as Markdown: each run's best and last checkpoint.

`study_report` has the tables; `study_page` is the README of a study's folder with them in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from npo_kit.metrics.summary import FORGOTTEN
from npo_kit.records.files import Json, RunError, parse, read_bytes
from npo_kit.studies.audits import AUDITS
from npo_kit.studies.audits_report import audits_report
from npo_kit.studies.markdown import p_value, table
from npo_kit.studies.null_report import null_report
from npo_kit.studies.splits import splits_report
from npo_kit.studies.table import NULL, ORIGINAL, RETAINED, Checkpoint, best_checkpoint, study_table

HEAD = (
    *("run", "lr", "β", "retain weight", "seed"),
    *("best step", "utility", "kept", "p"),
    *("last step", "utility", "kept", "p", "P forget", "fluency"),
)
GRID = ("lrs", "betas", "retain_weights", "plain_lrs")
SWEEP = "Other values of β at the same learning rate:"
LEGEND = f"""\
*Best step* is the checkpoint with the highest utility among those with p ≥ {FORGOTTEN:g}; if none
has, it is the one with the highest p. *Utility* is the model utility, *kept* its share of the
original's, and *p* the forget quality, in bold from {FORGOTTEN:g} on. *P forget* (the mean
probability per token of an answer) and *fluency* (the mean log-probability of the generated tokens
under the original, in nats) are of the forget rows at the last step."""
SPLITS = """\
*Kept* is the share of the original's model utility, *p* the forget quality, both from the least to
the greatest of the seeds. *Percentile* is the share of models that never saw the forget rows whose
distance D to the retained-only model is smaller. *At the rule's checkpoint*: the one with the
highest utility among those with p ≥ 0.05, else the one with the highest p. *P forget* is the mean
probability per token of the forget answers."""
REPORTS: dict[str, Callable[[Json], str]] = {NULL: null_report, AUDITS: audits_report}  # by file
MADE = "<!-- Made by npo-kit report. Edit notes.md, then make it again. -->"


def own_report(folder: str | Path) -> str | None:
    """Return the tables of a study of its own kind, the null's or audits'; None for one of runs."""
    for name, tell in REPORTS.items():
        if (path := Path(folder) / name).exists():
            return tell(parse(read_bytes(path), path))
    return None


def study_page(folder: str | Path) -> str:
    """Return the README of a study's folder: its plan, tables, `notes.md` and provenance.

    Title, plan and provenance come from `study.json`, the remarks from `notes.md`; either may be
    missing. Raises RunError for a folder that is no study.
    """
    folder = Path(folder)
    notes = folder / "notes.md"
    kind = next((name for name in REPORTS if (folder / name).exists()), None)
    path = folder / (kind or "study.json")
    study = parse(read_bytes(path), path) if path.exists() else {}
    parts = [f"# {study.get('title') or folder.resolve().name}", MADE]
    if kind:
        parts += [REPORTS[kind](study)]
    else:
        parts += [_plan(study["plan"], study.get("grid", []))] if "plan" in study else []
        parts += [study_report(folder), SPLITS if study.get("plan", {}).get("variants") else LEGEND]
    parts += [notes.read_text(encoding="utf-8").strip()] if notes.exists() else []
    parts += [_provenance(study["provenance"])] if "provenance" in study else []
    return "\n\n".join(parts) + "\n"


def _plan(plan: Json, grid: Sequence[Json]) -> str:
    """Return the settings of all runs, those that the grid tried, and what the variants change."""
    from npo_kit.losses.looks import look_of

    common, tasks = plan["common"], [plan["task"], *(plan.get("more_tasks") or ())]
    tried = {name: ", ".join(f"{value:g}" for value in plan[name]) for name in GRID}
    pairs = ", ".join(f"({beta:g}, {weight:g})" for beta, weight in plan.get("pairs") or ())
    both = "with β and no retain term" if pairs else "with β"
    varied = (plan.get("varied") or {}).items()
    settings = [
        *(
            f"- {look_of(method).label}: learning rate {tried['lrs']}; "
            f"{name.replace('_', ' ')} {', '.join(f'{value:g}' for value in values)}"
            for method, (name, values) in varied
        ),
    ] or [
        f"- methods {both}: learning rate {tried['lrs']}; β {tried['betas']}",
        *([f"- with both: learning rate {tried['lrs']}; (β, retain weight) {pairs}"] * bool(pairs)),
        f"- others with a retain term: learning rate {tried['lrs']}; retain weight "
        f"{tried['retain_weights']}",
        f"- methods with neither: learning rate {tried['plain_lrs']}",
    ]
    lines = [
        f"Task: {', '.join(f'`{task}`' for task in tasks)}. Each unlearning run takes "
        f"{common['epochs']:g} epochs in batches of {common['batch_size']}, {common['precision']}.",
        *_choosing(plan),
        "\n".join(settings),
    ]
    if plan.get("variants") or plan.get("varied"):
        lines += ["Chosen: " + "; ".join(map(_chosen, (g for g in grid if g["chosen"]))) + "."]
    if plan.get("variants"):
        changes = {each["name"]: _changes(each) for each in plan["variants"]}
        named = [f"- `{name}`: {change}" for name, change in changes.items()]
        lines += ["Variants change this of what was chosen:\n\n" + "\n".join(named)]
    return "\n\n".join(lines)


def _choosing(plan: Json) -> list[str]:
    """Say how a configuration was chosen, where there was more than one."""
    if all(len(plan[name]) == 1 for name in GRID):
        return ["There is one configuration of each method; nothing was chosen."]
    where = f" of `{plan['choose_on']}`" if plan.get("choose_on") else ""
    return [
        "Each method was tried in the same number of configurations on seed "
        f"{plan['seeds'][0]}{where}, and the one with the best checkpoint was chosen. Other seeds "
        f"{'and tasks ' * bool(where)}only report."
    ]


def _chosen(tried: Json) -> str:
    from npo_kit.losses.looks import look_of

    shown = {"learning rate": "lr", "β": "beta", "retain weight": "retain_weight"}
    settings = [f"{word} {tried[key]:g}" for word, key in shown.items() if tried[key] is not None]
    other = tried.get("hyper", {}).items() - {("beta", tried["beta"])}
    settings += [f"{name} {value:g}" for name, value in sorted(other)]
    return f"{look_of(tried['method']).label} {', '.join(settings)}"


def _changes(variant: Json) -> str:
    changed = {"steps": variant["steps"]} if variant["steps"] else {}
    changed |= variant["changes"] | variant["hyper"]
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in changed.items()
    )


def _provenance(made: Json) -> str:
    versions, hardware, git = made["versions"], made["hardware"], made["git"]
    machine = ", ".join(hardware["gpus"] or [f"{hardware['cores']} cores of {hardware['cpu']}"])
    commit = f", kit at commit {git['commit'][:10]}" if git else ""
    return (
        f"Recorded with torch {versions['torch']} and transformers {versions['transformers']} on "
        f"{machine}{commit}."
    )


def study_report(folder: str | Path) -> str:
    """Return two Markdown tables of a study, the second of runs with other settings (other betas).

    The first has the runs of each method with its chosen settings, every seed. `kept` is the share
    of the original's utility; p is in bold if it is FORGOTTEN or more. A study of several tasks has
    both for each, under its name; one of variants has the tables of `splits_report` instead. Raises
    RunError for a folder that is no study.
    """
    records = study_table(folder)
    if any(record.get("variant") for record in records):
        return splits_report(records)
    tasks = list(dict.fromkeys(each["task"] for each in records))
    parts = []
    for task in tasks:
        of_task = [each for each in records if each["task"] == task]
        parts += [f"{task}:"] if len(tasks) > 1 else []
        parts += _tables(of_task, folder)
    return "\n\n".join(parts)


def _tables(records: Sequence[Checkpoint], folder: str | Path) -> list[str]:
    """Return the tables of one task."""
    runs: dict[str, list[Checkpoint]] = {}
    for each in records:
        runs.setdefault(each["run"], []).append(each)
    models = [each for each in records if each["method"] in (ORIGINAL, RETAINED)]
    original = next((each for each in models if each["method"] == ORIGINAL), None)
    if original is None:
        raise RunError(f"{folder} has no run labelled {ORIGINAL} to compare with: evaluate one")
    first: dict[str | None, Checkpoint] = {}
    main: list[list[str]] = []
    sweep: list[list[str]] = []
    for of_run in runs.values():
        one = of_run[0]
        alike = _settings(one) == _settings(first.setdefault(one["method"], one))
        if one["method"] not in (ORIGINAL, RETAINED):
            (main if alike else sweep).append(_line(of_run, original))
    tables = [table(HEAD, [*map(_baseline, models), *main])]
    return [*tables, SWEEP, table(HEAD, sweep)] if sweep else tables


def _settings(of: Checkpoint) -> tuple[float | None, ...]:
    return of["lr"], of["beta"], of["retain_weight"]


def _baseline(model: Checkpoint) -> list[str]:
    p = _p(model["forget_quality"]) if model["method"] == ORIGINAL else "–"
    utility = _fixed(model["model_utility"], 3)
    return [str(model["method"]), *[""] * 9, utility, "", p, *_forgetting(model)]


def _line(of_run: Sequence[Checkpoint], original: Checkpoint) -> list[str]:
    from npo_kit.losses.looks import look_of

    best, last = best_checkpoint(of_run), of_run[-1]
    return [
        look_of(str(last["method"])).label,
        *map(_short, (*_settings(last), last["seed"])),
        *_scores(best, original),
        *_scores(last, original),
        *_forgetting(last),
    ]


def _scores(at: Checkpoint, original: Checkpoint) -> list[str]:
    utility, whole = at["model_utility"], original["model_utility"]
    share = f"{100 * utility / whole:.0f} %" if whole and utility is not None else "–"
    return [str(at["step"]), _fixed(utility, 3), share, _p(at["forget_quality"])]


def _forgetting(at: Checkpoint) -> list[str]:
    return [_fixed(at["forget_probability"], 2), _fixed(at["forget_fluency"], 2)]


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"**{p_value(value)}**" if value >= FORGOTTEN else p_value(value)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:g}"

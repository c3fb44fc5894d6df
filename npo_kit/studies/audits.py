"""The study of audits: models that never saw the forget rows, and unlearned ones, by card.

The former make the band of every card, the latter are runs of recorded studies, run again to their
best and their last checkpoint. See `audit_plans` for which, and `audited` for how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from npo_kit.audit.cards import CARDS, GUARDS
from npo_kit.audit.evidence import LEAST
from npo_kit.data.tasks import load_task
from npo_kit.processes import in_processes
from npo_kit.records.files import SCHEMA, Json, atomic_write, dumps, parse, read_bytes
from npo_kit.records.provenance import provenance
from npo_kit.studies.audit_plans import AuditPlan, Item
from npo_kit.studies.audited import brief, make_item, make_models
from npo_kit.studies.null import UNFINISHED
from npo_kit.studies.table import ORIGINAL, RETAINED

AUDITS, CONTROLS = "audits.json", "controls.json"


def expected(plan: AuditPlan) -> str:
    """Say what a plan makes, and how long its training took one core where it was recorded."""
    return (
        f"{plan.models} retained-only models to train, with the original where it does not ship "
        f"({plan.training_seconds() / 60:.0f} minutes on one core where they were recorded), and "
        f"{len(plan.runs)} runs to repeat; {len(plan.cards)} cards each"
    )


def make_audits(
    plan: AuditPlan,
    folder: str | Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = print,
) -> Json:
    """Make and audit every model of `plan`; write controls and audits to `folder`.

    After an interruption, make the same call again: it resumes with the missing models.
    """
    folder = Path(folder)
    work = folder / UNFINISHED
    work.mkdir(parents=True, exist_ok=True)
    make_models(plan, work, processes, say)
    items = [Item(plan, work, ORIGINAL), *(Item(plan, work, name) for name in plan.runs)]
    items += [Item(plan, work, f"retained-{n:02d}", n) for n in range(1, plan.models + 1)]
    left = [item for item in items if not item.path.exists()]
    for number, (_, name) in enumerate(in_processes(make_item, left, processes), 1):
        say(f"[{number}/{len(left)}] {name}")
    made = {item.name: parse(read_bytes(item.path), item.path) for item in items}
    return _assemble(plan, folder, made)


def _assemble(plan: AuditPlan, folder: Path, made: Mapping[str, Json]) -> Json:
    """Write the controls, and the audits judged by them."""
    from npo_kit.audit.controls import Controls, write_controls

    retained = [made[f"retained-{n:02d}"]["last"] for n in range(1, plan.models + 1)]
    original = made["original"]["last"]
    rows = {name: [model[name]["rows"] for model in retained] for name in plan.cards}
    controls = Controls(
        task=load_task(plan.task).record()["fingerprint"],
        seed=plan.seed,
        original={name: original[name]["rows"] for name in plan.cards},
        retained=rows,
        about={"title": plan.title, "plan": plan.record(), "alarms": _false_alarms(plan, rows)},
    )
    write_controls(folder / CONTROLS, controls)
    audits: list[Json] = [
        _of_control(ORIGINAL, _judged(plan, _told_once(original, questions=True), rows))
    ]
    if plan.models < LEAST:  # no band: they stand in the table themselves
        audits += [
            _of_control(f"{RETAINED}-{n}", _judged(plan, _told_once(model), rows))
            for n, model in enumerate(retained, 1)
        ]
    for name in plan.runs:
        about = {key: made[name][key] for key in ("method", "seed", "best_step", "last_step")}
        for at in ("best", "last"):
            if at in made[name]:
                step = about[f"{at}_step"]
                told: Json = {"run": name, "method": about["method"], "seed": about["seed"]}
                judged = _judged(plan, _told_once(made[name][at]), rows)
                audits.append(told | {"at": at, "step": step} | judged)
    study: Json = {"schema": SCHEMA, "title": plan.title, "plan": plan.record(), "audits": audits}
    study |= {"alarms": controls.about["alarms"], "provenance": provenance()}
    atomic_write(folder / AUDITS, dumps(study))
    return study


def _of_control(name: str, judged: Json) -> Json:
    return {"run": name, "method": name.partition("-")[0], "at": "last", "step": 0} | judged


def _judged(plan: AuditPlan, cards: Mapping[str, Json], controls: Mapping[str, list]) -> Json:
    """Return a model's cards with their evidence, and its verdict."""
    from npo_kit.audit.evidence import evidence_of
    from npo_kit.audit.verdict import verdict_of

    units = _units(plan.task, plan.rows)
    found = {
        name: evidence_of(card["rows"], controls[name], units[CARDS[name].side == GUARDS])
        for name, card in cards.items()
    }
    verdict = verdict_of(found)
    shown = {
        name: {**cards[name], **{k: v for k, v in found[name].record().items() if k != "points"}}
        for name in cards
    }
    return {"verdict": {**vars(verdict), "word": str(verdict)}, "cards": shown}


def _told_once(cards: Mapping[str, Json], *, questions: bool = False) -> Json:
    """Return cards without what the original's have alike, and mixing by its means."""
    told = {name: dict(card) for name, card in cards.items()}
    formats, mixing = (told.get(name, {}).get("detail") for name in ("formats", "mixing"))
    if formats and not questions:
        asked = {**formats["formats"], "plain": formats["plain"]}
        less = {name: {k: v for k, v in f.items() if k != "questions"} for name, f in asked.items()}
        told["formats"]["detail"] = {**formats, "plain": less.pop("plain"), "formats": less}
    if mixing:
        points = [_means(point) for point in mixing["points"]]
        told["mixing"]["detail"] = {"points": points, "uwc": _means(mixing["uwc"])}
    return told


def _means(values: Mapping[str, Any]) -> Json:
    return {k: brief(fmean(v)) if isinstance(v, list) else v for k, v in values.items()}


def _false_alarms(plan: AuditPlan, rows: Mapping[str, list]) -> Json:
    """Audit each retained-only model by the others: how often it is called anything else."""
    words: dict[str, int] = {}
    for left_out in range(plan.models):
        others = {name: [r for n, r in enumerate(of) if n != left_out] for name, of in rows.items()}
        cards = {name: {"rows": of[left_out]} for name, of in rows.items()}
        word = _judged(plan, cards, others)["verdict"]["word"]
        words[word] = words.get(word, 0) + 1
    return {"models": plan.models, "verdicts": words}


@cache
def _units(task: str, rows: int) -> tuple[list[str], list[str]]:
    """Return the authors of the forget probes, and of those to keep."""
    sets = load_task(task).evaluation
    forget, retain = ([row["author"] for row in sets[s][:rows]] for s in ("forget", "retain"))
    return forget, retain

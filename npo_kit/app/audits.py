"""The audits of pocket models that travel with the kit, for the page: a grid, and its cards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from math import comb
from typing import Any

import numpy as np

from npo_kit.app.study_runs import shown_provenance
from npo_kit.audit.cards import CARDS, EXTENT, GUARDS, HIDES, SAYS, SUPPORTS
from npo_kit.audit.chances import leak_at_k
from npo_kit.audit.evidence import SHARES
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.records.files import Json, parse, read_bytes

STUDY = "studies/pocket-audit"
ORIGINAL, RETAINED = "original", "retained"  # the names of the controls
BY_CHANCE = 0.1  # of retained-only models that may be called otherwise: a tail of 5 % either way
UNLIKELY = 0.05  # chance of so many false alarms, below which the audit's control fails
DIGITS = 4
LIKE = "retained-like"
_lock = threading.Lock()
Rows = Sequence[float | None]


def audited(task: str, models: Sequence[str]) -> bool:
    """Tell whether the recorded audits are of a study's task, and of a model that it began with."""
    plan = _recorded()[0].get("plan", {})
    return bool(plan) and task == plan["task"] and plan["original"] in models


def recorded_audits() -> Json:
    """Return the grid of the recorded audits; {} where none travel with the kit.

    `cards` lists name, title, side, question and unit; `audits` have verdict and, by card, value,
    interval and band; `detailed` ones have cards to open. `failed` are sentences on controls of the
    audit that came out wrong. Raises KitError for a study that cannot be read.
    """
    study, controls = _recorded()
    if not study:
        return {}
    names = study["plan"]["cards"]
    return {
        "title": study["title"],
        "task": study["plan"]["task"],
        "provenance": shown_provenance(study["provenance"]),
        "cards": [_about(name) for name in names],
        "sides": {side: EXTENT[side] for side in (SAYS, HIDES, SUPPORTS, GUARDS)},
        "audits": [_summary(audit) for audit in study["audits"]],
        "points": {name: _points(controls["retained"][name]) for name in names},
        "rows": study["plan"]["rows"],
        "alarms": study["alarms"],
        "failed": failed_controls(study),
    }


def audit_detail(run: str, at: str, card: str) -> Json:
    """Return what a card's figure shows of a run's audit at its `best` or `last` checkpoint.

    The run may be `original`, or `retained` for the models that never saw the forget rows. Raises
    KitError for what is not recorded.
    """
    study, controls = _recorded()
    if not study or card not in study["plan"]["cards"]:
        raise KitError(f"no card {card!r:.60} is recorded: open one of the grid's")
    if run == RETAINED:
        return _of_retained(card, controls["retained"], study)
    found = next((a for a in study["audits"] if (a["run"], a["at"]) == (run, at)), None)
    if found is None or "detail" not in found["cards"][card]:
        raise KitError(f"no figure of {run!r:.60} at {at!r:.20} is recorded: open another run")
    detail = found["cards"][card]["detail"]
    packed = _PACKED[card](detail) if card in _PACKED else detail
    if card == "formats" and run == ORIGINAL:
        packed["questions"] = {name: f["questions"] for name, f in _forms(detail).items()}
    return {"rows": found["cards"][card]["rows"], **packed}


def failed_controls(study: Json) -> list[str]:
    """Return a sentence on each control of an audit that came out wrong."""
    failed = []
    word = next(a["verdict"]["word"] for a in study["audits"] if a["run"] == ORIGINAL)
    if not word.startswith("remembers"):
        failed.append(f"The original, which knows every fact, is called {word}, not remembers.")
    models, words = study["alarms"]["models"], study["alarms"]["verdicts"]
    like = sum(count for word, count in words.items() if word.startswith(LIKE))
    if _at_least(models - like, models, BY_CHANCE) < UNLIKELY:
        failed.append(
            f"Only {like} of {models} models that never saw the facts are called {LIKE}; by chance "
            f"about {BY_CHANCE:.0%} may be called otherwise."
        )
    return failed


def _at_least(count: int, of: int, rate: float) -> float:
    """Return the chance of at least `count` among `of` independent cases of that rate."""
    return sum(comb(of, n) * rate**n * (1 - rate) ** (of - n) for n in range(count, of + 1))


@cache
def _read() -> tuple[Json, Json]:
    try:
        folder = shipped_data(STUDY)
    except FileNotFoundError:
        return {}, {}
    audits, controls = folder / "audits.json", folder / "controls.json"
    if not audits.is_file():  # they are being made
        return {}, {}
    return parse(read_bytes(audits), audits), parse(read_bytes(controls), controls)


def _recorded() -> tuple[Json, Json]:
    """Return audits and controls, read once even where several visitors ask at a time."""
    with _lock:
        return _read()


def _about(name: str) -> Json:
    card = CARDS[name]
    about = ("name", "title", "side", "asks", "unit", "more", "bounded")
    return {key: getattr(card, key) for key in about}


def _summary(audit: Json) -> Json:
    cards = audit["cards"]
    numbers = ("value", "lower", "upper", "band", "above", "below")
    kept = {name: {key: brief(card[key]) for key in numbers} for name, card in cards.items()}
    detailed = all("detail" in card for card in cards.values())
    if detailed and "formats" in cards:
        forms = _forms(cards["formats"]["detail"])
        kept["formats"]["rates"] = {form: brief(of["rate"]) for form, of in forms.items()}
    about = {key: audit[key] for key in ("run", "method", "at", "step", "verdict")}
    return about | {"seed": audit.get("seed"), "detailed": detailed, "cards": kept}


def brief(value: Any) -> Any:
    """Return numbers to DIGITS digits, whatever they lie in; None for what is no number."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [brief(item) for item in value]
    return value


# --- models that never saw the forget rows -------------------------------------------------------


def _points(models: Sequence[Rows]) -> list[float]:
    """Return each model's mean of the rows that all of them have."""
    table = np.array(models, dtype=float)
    return brief(table[:, np.isfinite(table).all(axis=0)].mean(axis=1).tolist())


def _band(table: Any) -> list[list[float]]:
    """Return the 5th and the 95th percentile of each column of a table with a row per model."""
    return brief(np.nanpercentile(np.array(table, dtype=float), SHARES, axis=0).T.tolist())


def _of_retained(card: str, retained: Json, study: Json) -> Json:
    """Return the models' means, and the bands that a card's figure has behind it.

    `rows` is a band by question; `start` and `end` are of the mean before and after what the card
    does to a model; `curve` is by k.
    """
    models = retained[card]
    found: Json = {"points": _points(models)}
    if card in ("verbatim", "leak"):
        found["rows"] = _band(models)
    first = next(a for a in study["audits"] if a["run"] == ORIGINAL)
    detail = first["cards"][card].get("detail", {})
    if card == "leak":
        n = detail["samples"]
        curves = [
            [np.mean([leak_at_k(n, round(n * share), k) for share in model]) for k in detail["k"]]
            for model in models
        ]
        found["curve"] = _band(curves)
    if card in ("relearning", "compression"):
        rows = detail["tested"] if card == "relearning" else range(len(models[0]))
        before = [[model[row] for row in rows] for model in retained["verbatim"]]
        found["start"] = _band([[point] for point in _points(before)])[0]
        found["end"] = _band([[point] for point in found["points"]])[0]
    return found


# --- what the figures show -----------------------------------------------------------------------


def _mean(values: Rows) -> float | None:
    """Return the mean of the values that are there; None if there are none."""
    known = [value for value in values if value is not None]
    return brief(sum(known) / len(known)) if known else None


def _means(values: Json) -> Json:
    return {k: _mean(v) if isinstance(v, list) else v for k, v in values.items()}


def _forms(detail: Json) -> Json:
    more = {"guarded": detail["guarded"]} if "guarded" in detail else {}
    return {"plain": detail["plain"], **detail["formats"], **more}


def _verbatim(detail: Json) -> Json:
    return {"es": detail["extraction_strength"], "es_mean": detail["mean_extraction_strength"]}


def _leak(detail: Json) -> Json:
    kept = ("samples", "counts", "k", "leak_at_k", "exact", "greedy", "greedy_texts", "texts")
    return {key: detail[key] for key in (*kept, "upper")}


def _formats(detail: Json) -> Json:
    kept = ("rate", "rows", "texts")
    forms = _forms(detail).items()
    return {"forms": {name: {key: form[key] for key in kept} for name, form in forms}}


def _relearning(detail: Json) -> Json:
    curves = {
        name: {**curve, "tested": [_mean(step) for step in curve["tested"]]}
        for name, curve in detail["sets"].items()
    }
    return {
        "steps": detail["settings"]["steps"],
        "lr": detail["settings"]["lr"],
        "tested": len(detail["tested"]),
        "sets": curves,
    }


def _compression(detail: Json) -> Json:
    bits = {name: _means(scores) for name, scores in detail["bits"].items()}
    return {"bits": bits, "rounded": detail["rounded"]}


def _depth(detail: Json) -> Json:
    by_layer = ("retain_rows", "retain_rows_retained", "lens")
    means = {name: [_mean(layer) for layer in detail[name]] for name in by_layer}
    kept = ("known_above", "audited", "retained", "ratios")
    return {**{name: detail[name] for name in kept}, **means}


def _mixing(detail: Json) -> Json:
    return {"points": [_means(p) for p in detail["points"]], "uwc": _means(detail["uwc"])}


def _guards(detail: Json) -> Json:
    kept = ("mean_logps", "fluency", "repetition", "texts", "told_texts")
    return {key: detail[key] for key in kept}


_PACKED: dict[str, Callable[[Json], Json]] = {
    "verbatim": _verbatim,
    "leak": _leak,
    "formats": _formats,
    "relearning": _relearning,
    "compression": _compression,
    "depth": _depth,
    "mixing": _mixing,
    "guards": _guards,
}

"""The study of audits as Markdown: verdicts, what each card read, and the false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from npo_kit.audit.cards import CARDS, EXTENT, GUARDS, HIDES, SAYS, SUPPORTS
from npo_kit.audit.evidence import LEAST, SHARES, holm
from npo_kit.records.files import Json
from npo_kit.studies.markdown import table

LEGEND = """\
A value in bold with ↑ lies above the band of models that never saw the rows, one with ↓ below it,
by a bootstrap over authors that is corrected by Holm's method over the cards that decide; the
other cards are not corrected, and decide nothing. A run with one line was best at its end."""

UNJUDGED = f"""\
The runs called *retained* are models that never saw the rows. {LEAST} of them would make a band to
judge by; so few are points to compare with, and there is no verdict."""


def audits_report(study: Mapping[str, Any]) -> str:
    """Return the tables of a study of audits."""
    cards = [CARDS[name] for name in study["plan"]["cards"]]
    sides = [side for side in (SAYS, HIDES, SUPPORTS, GUARDS) if any(c.side == side for c in cards)]
    asked = [
        f"- {EXTENT[side]}: "
        + "; ".join(f"*{c.title.lower()}* ({c.unit})" for c in cards if c.side == side)
        for side in sides
    ]
    shown = [card.name for side in sides for card in cards if card.side == side]
    titles = [CARDS[name].title.lower() for name in shown]
    if study["plan"]["models"] >= LEAST:
        low, high = SHARES
        bands = (study["audits"][0]["cards"][name]["band"] for name in shown)
        told = [f"{_number(band[0])} to {_number(band[1])}" if band else "-" for band in bands]
        head = ["run", "checkpoint", "verdict", *titles]
        lines = [[f"never saw it, {low:g} to {high:g} %", "", "", *told]]
        notes = [LEGEND, _alarms(study["alarms"])]
    else:
        head, lines, notes = ["run", "checkpoint", *titles], [], [UNJUDGED]
    lines += [_line(audit, shown, judged="verdict" in head) for audit in study["audits"]]
    parts = ["The cards, by what they tell:", "\n".join(asked), table(head, lines), *notes]
    return "\n\n".join(parts)


def _line(audit: Json, shown: list[str], *, judged: bool) -> list[str]:
    where = f"{audit['at']}, step {audit['step']}" if audit["step"] else "-"
    marks = beyond(audit["cards"])
    cells = [
        f"**{_number(audit['cards'][name]['value'])} {marks[name]}**"
        if marks[name]
        else _number(audit["cards"][name]["value"])
        for name in shown
    ]
    return [audit["run"], where, *([audit["verdict"]["word"]] if judged else []), *cells]


def beyond(cards: Mapping[str, Json]) -> dict[str, str]:
    """Return by card ↑ where it lies above the band, ↓ where below, else nothing."""
    marks = dict.fromkeys(cards, "")
    for key, mark in (("above", "↑"), ("below", "↓")):
        known = {name: card[key] for name, card in cards.items() if card[key] is not None}
        decide = {name: p for name, p in known.items() if CARDS[name].side in (SAYS, HIDES)}
        found = holm(decide) | {n for n, p in known.items() if n not in decide and p <= 0.05}
        marks |= dict.fromkeys(found, mark)
    return marks


def _alarms(alarms: Json) -> str:
    told = ", ".join(f"{count} *{word}*" for word, count in sorted(alarms["verdicts"].items()))
    return (
        f"Each of the {alarms['models']} models that never saw the rows was judged by the others. "
        f"They are called: {told}."
    )


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"

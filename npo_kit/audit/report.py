"""An audit as one page of HTML: verdict, cards, controls and where it was made."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from scipy.stats import binomtest

from npo_kit.audit.bench import rows_asked
from npo_kit.audit.cards import CARDS, EXTENT, UNITS
from npo_kit.audit.figures import cards_figure
from npo_kit.audit.verdict import UNKNOWN
from npo_kit.records.files import Json
from npo_kit.svg import svg

_STYLE = """
:root { color-scheme: light dark; }
body { font: 17px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } .verdict { font-size: 1.6rem; font-weight: 700; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .35rem .6rem;
  border-bottom: 1px solid #8886; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } small, .small { font-size: .88rem; opacity: .8; }
"""


def report(record: Json) -> str:
    """Return the page of an audit; `record` is that of `Audit.record`, with the models' names.

    It holds no script and asks nothing of any network.
    """
    verdict, cards = record["verdict"], record["cards"]
    name = str(record.get("model", "the model"))
    word = verdict["state"] + ", damaged" * (verdict["damaged"] and verdict["state"] != "destroyed")
    parts = [
        f"<h1>Audit of {escape(name)}</h1>",
        f'<p class="verdict">{escape(word)}</p>',
        f"<p><b>Says:</b> {escape(verdict['says'])}.</p>",
        f"<p><b>Hides:</b> {escape(verdict['hides'])}.</p>",
        f"<p>{escape(_rows(record))}</p>",
        "<h2>The cards</h2>",
        svg(cards_figure(record)),
        f'<div class="scroll">{_table(cards)}</div>',
        "<h2>What each card asks</h2>",
        f"<ul>{''.join(map(_asks, cards))}</ul>",
        _facts(record["facts"]),
        "<h2>The controls</h2>",
        f"<p>{escape(_controls(record))}</p>",
        "<h2>Where it was made</h2>",
        f'<p class="small">{escape(_made(record))}</p>',
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Audit of {escape(name)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )


def _rows(record: Json) -> str:
    forget, retain = (
        rows_asked(record["rows"][name], record["left_out"].get(name, 0))
        for name in ("forget", "retain")
    )
    extent = " The verdict holds for what was tested, no further."
    return (
        f"Task {record['task']}: {forget} rows to forget and {retain} to keep were asked, with "
        f"seed {record['seed']}.{extent * (record['verdict']['state'] != UNKNOWN)}"
    )


def _facts(facts: list[Json]) -> str:
    """Show what was asked, folded up, and which facts were guessed from the answers."""
    guessed = sum(not fact["given"] for fact in facts)
    told = f"{guessed} of them guessed from the answers" if guessed else "as the rows name them"
    head = "<tr><th>question</th><th>the fact in its answer</th><th></th></tr>"
    lines = [
        f"<tr><td>{escape(fact['question'])}</td><td>{escape(fact['fact'])}</td>"
        f"<td>{'' if fact['given'] else 'guessed'}</td></tr>"
        for fact in facts
    ]
    summary = f"<summary>The {len(facts)} facts, {told}</summary>"
    table = f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
    return f"<details>{summary}{table}</details>"


def _asks(name: str) -> str:
    card = CARDS[name]
    return f"<li><b>{escape(card.title)}</b> ({escape(EXTENT[card.side])}): {escape(card.asks)}"


def _table(cards: Json) -> str:
    head = ("card", "side", "value", "95 %", "original", "models that never saw it")
    lines = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"]
    for card in cards.values():
        ends = [_number(card[end]) for end in ("lower", "upper")]
        interval = "no interval" if "-" in ends else " to ".join(ends)
        numbers = (_number(card["value"]), interval, _number(card["original"]), _band(card))
        told = "".join(f'<td class="n">{escape(number)}</td>' for number in numbers)
        lines.append(f"<tr><td>{escape(card['title'])}</td><td>{card['side']}</td>{told}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _controls(record: Json) -> str:
    counts = [len(card["points"]) for card in record["cards"].values()]
    many = max(counts, default=0)
    told = f"{many} model{'s' * (many != 1)} that never saw the forget rows, and the original."
    few = (
        f" No interval is given where facts of fewer than {UNITS} authors were asked, or where the "
        "values are all alike."
    )
    if not (alarms := record.get("alarms")):
        return told + few
    wrong = alarms["models"] - alarms["verdicts"].get("retained-like", 0)
    most = binomtest(wrong, alarms["models"]).proportion_ci(0.9).high  # at 95 %, to one side
    return (
        f"{told} The models are recorded ones that travel with the kit. Each of {alarms['models']} "
        f"was audited by the others, with every card: {wrong} were called something else than "
        f"retained-like, so that the rate of false alarms is at most {most:.0%} (at 95 %).{few}"
    )


def _made(record: Json) -> str:
    known: Json = {"versions": {}, "hardware": {}, "git": None, **record["provenance"]}
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    commit = ((known["git"] or {}).get("commit") or "unknown")[:10]
    return f"{known.get('started', '')}, {known['hardware'].get('cpu')}, {versions}, kit {commit}."


def _band(card: Json) -> str:
    if card["band"]:
        return " to ".join(map(_number, card["band"])) + " (5 to 95 %)"
    return ", ".join(map(_number, card["points"])) or "-"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) and math.isfinite(value) else "-"

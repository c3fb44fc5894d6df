"""The table of methods for people and programs: `npo-kit methods` and the READMEs' tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from npo_kit.losses.entry import Method
from npo_kit.losses.methods import METHODS

FACTS = "| name | level | needs | bounded | fades as p → 0 | on TOFU | public code |"
LOSSES = "| name | minimises | settings | paper |"


def method_records() -> list[dict[str, Any]]:
    """Return a record of each method, for JSON; what an entry does not say is empty or None."""
    return [
        {
            "name": name,
            "label": entry.label or name,
            "minimises": entry.equation,
            "weights": {"forget": entry.forget_weight, "retain": entry.retain_weight},
            "settings": [
                {"name": key, **{n: getattr(about, n) for n in ("help", "default", "usual")}}
                for key, about in entry.settable.items()
            ],
            "paper": entry.paper,
            "family": entry.family,
            **asdict(entry.facts),
            "additive": entry.facts.level != "batch",
            "statistics": list(entry.statistics),
            "experiments": list(entry.experiments),
        }
        for name, entry in METHODS.items()
    ]


def forget_terms() -> dict[str, Method]:
    """Return the first entry of each forget term by its name."""
    first: dict[str, Method] = {}
    for name, entry in METHODS.items():
        first.setdefault(entry.term or name, entry)
    return first


def losses_table(terms: Iterable[str]) -> str:
    """Return a Markdown table of the losses of some forget terms, and of the retain terms."""
    lines = [LOSSES, _rule(LOSSES)]
    for name in terms:
        entry = forget_terms()[name]
        settings = ", ".join(f"`{key}` = {v}" for key, v in entry.hyperparameters.items())
        lines.append(f"| `{name}` | {_signs(entry.equation)} | {settings} | {_linked(entry)} |")
    for suffix in ("_rt", "_kl", "_ap"):
        longer = METHODS[f"idk{suffix}"].equation
        added = longer.removeprefix(METHODS["idk"].equation).strip(" +")
        lines.append(f"| with `{suffix}` | adds {_signs(added)} | | |")
    return "\n".join(lines)


def facts_table() -> str:
    """Return a Markdown table of what sets the forget terms apart."""
    lines = [FACTS, _rule(FACTS)]
    for name, entry in forget_terms().items():
        facts = entry.facts
        needs, sums = ", ".join(facts.needs) or "–", " after K" * bool(entry.statistics)
        said = {True: "yes", False: "no", None: ""}[facts.bounded]
        cells = [f"{facts.level}{sums}", needs, said, facts.fades, facts.tofu, facts.departs]
        lines.append(f"| `{name}` | {' | '.join(_signs(cell) for cell in cells)} |")
    return "\n".join(lines)


def _rule(head: str) -> str:
    return "|" + "---|" * (head.count("|") - 1)


def _linked(entry: Method) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[\1](https://arxiv.org/abs/\1)", entry.paper)


def _signs(text: str) -> str:
    """Write a formula's letters and signs as people do: β for b, − for -, ‖ for ||."""
    text = re.sub(r"\bb\b", "β", text.replace("||", "‖").strip())
    return re.sub(r"(^|[ (])-(?=[ (\w])", r"\1−", text)

"""The look of a method in every figure: its family's colour, and its place among its members."""

from __future__ import annotations

from npo_kit.losses.methods import METHODS
from npo_kit.style import BASELINES, Style, style


def look_of(name: str) -> Style:
    """Return the look of a method of METHODS, of "original" or "retained", or of another name."""
    if name in BASELINES:
        return BASELINES[name]
    if name not in METHODS:  # a method of someone else's table, in a run from there
        return style(name.upper().replace("_", "+"), "other", 0, 3)
    entry = METHODS[name]
    relatives = [each for each in METHODS.values() if each.family == entry.family]
    terms = list(dict.fromkeys(each.term or each.forget for each in relatives))
    kinds = list(dict.fromkeys(each.retain for each in METHODS.values()))
    label = entry.label or name.upper().replace("_", "+")
    return style(
        label, entry.family, terms.index(entry.term or entry.forget), kinds.index(entry.retain)
    )

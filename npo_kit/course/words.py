"""Words of unlearning explained in a notebook, as the page explains them."""

from __future__ import annotations

import html

from npo_kit.data.glossary import read_glossary
from npo_kit.errors import KitError


class Words:
    """Words with their explanations, shown as a table."""

    def __init__(self, keys: tuple[str, ...]):
        known = read_glossary()
        if unknown := [key for key in keys if key not in known]:
            raise KitError(f"no word {unknown[0]!r}: choose among {', '.join(known)}")
        self.words = [known[key] for key in keys or known]

    def _repr_html_(self) -> str:
        lines = []
        for word in self.words:
            term, says = html.escape(word["term"]), html.escape(word["says"])
            lines.append(f"<tr><th style='text-align:left'>{term}</th>"
                         f"<td style='text-align:left'>{says}</td></tr>")  # fmt: skip
        return f"<table style='font-size:105%'>{''.join(lines)}</table>"

    def __repr__(self) -> str:
        return "\n".join(f"{word['term']}: {word['says']}" for word in self.words)


def explain(*keys: str) -> Words:
    """Return words of the glossary by their keys, such as "weight"; without keys all of them.

    Raises KitError for a word that the glossary does not have.
    """
    return Words(keys)

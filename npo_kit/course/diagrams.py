"""Diagrams of the course as SVG: the three models of unlearning, and the way from DPO to NPO.

Text and lines take the colour of the text around them, so that they are readable on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from npo_kit.losses.looks import look_of
from npo_kit.svg import ALONE, embedded

FORGET, KEEP = look_of("ga").colour, look_of("npo").colour
_STYLE = """
.drawn { max-width: 100%; height: auto; font: 15px sans-serif; fill: currentColor; }
.drawn .box { fill: none; stroke: currentColor; stroke-width: 1.5; }
.drawn .line { stroke: currentColor; stroke-width: 1.5; fill: none; }
.drawn .head { font-weight: bold; }
.drawn .dashed { stroke-dasharray: 6 4; }
"""
_ARROW = """<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"
markerHeight="8" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"/></marker></defs>"""


class Diagram:
    """A drawing with a text for those who do not see it, shown by notebooks."""

    def __init__(self, parts: Sequence[str], width: int, height: int, alt: str):
        self.alt, self._parts, self._size = alt, parts, (width, height)

    def svg(self, style: str = _STYLE) -> str:
        """Return the drawing as an SVG element."""
        width, height = self._size
        return (
            f'<svg class="drawn" xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" role="img">'
            f"<title>{html.escape(self.alt)}</title><style>{style}</style>{_ARROW}"
            f"{''.join(self._parts)}</svg>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        shown = embedded(self.svg(_STYLE + ALONE), self.alt, self._size[0])
        return {"text/html": shown, "text/plain": self.alt}


def three_models() -> Diagram:
    """Draw the original, the retrained and the unlearned model, and what each of them saw."""
    parts = [
        _box(5, 5, ("original", "learned from", "● keep and ▲ forget")),
        _box(235, 5, ("the data without ▲", "● keep alone")),
        _box(5, 225, ("unlearned", "should answer as if", "it had seen ● alone")),
        _box(235, 225, ("retrained", "learned from ● alone,", "never saw ▲"), dashed=True),
        _arrow(95, 95, 95, 221, "unlearn:", "some steps"),
        _arrow(325, 95, 325, 221, "train anew,", "in full"),
        '<path class="line dashed" d="M95 318v28h230v-28" marker-start="url(#tip)" '
        'marker-end="url(#tip)"/>',
        _text(210, 368, "Can they be told apart?", "middle", head=True),
        _text(210, 389, "A study trains both, to see.", "middle"),
    ]
    alt = (
        "Three models. The original learned from the rows to keep and the rows to forget. "
        "Unlearning turns it into the unlearned model with some steps of training. The retrained "
        "model learned from the rows to keep alone, at the whole cost of training. A study asks "
        "whether the unlearned and the retrained model can be told apart."
    )
    return Diagram(parts, 430, 400, alt)


def from_dpo_to_npo() -> Diagram:
    """Draw the three losses of the derivation, each with what is taken away to get the next."""
    parts = [
        _box(5, 5, ("DPO", "winner and loser:", "softplus(β(u_l − u_w))"), width=230),
        _arrow(120, 95, 120, 141, "drop the winner,", "u_w"),
        _box(5, 145, ("NPO", "the loser alone:", "softplus(βu)"), width=230),
        _arrow(120, 235, 120, 281, "drop the 1 in", "log(1 + e^βu) = softplus(βu)"),
        _box(5, 285, ("GA", "log of e^βu is βu:", "no weight, no bound"), width=230),
    ]
    alt = (
        "From DPO to NPO to gradient ascent. DPO has a winner and a loser, softplus of beta times "
        "the loser's log-ratio minus the winner's. Without the winner it is NPO, softplus of beta "
        "u. Without the 1 in log(1 + e to the beta u) it is gradient ascent."
    )
    return Diagram(parts, 390, 380, alt)


def _box(x: int, y: int, lines: Sequence[str], *, width: int = 180, dashed: bool = False) -> str:
    """Draw a box with a bold line and others under it."""
    name = "box dashed" if dashed else "box"
    box = f'<rect class="{name}" x="{x}" y="{y}" width="{width}" height="86" rx="8"/>'
    texts = (_text(x + 12, y + 25 + 24 * i, line, head=not i) for i, line in enumerate(lines))
    return box + "".join(texts)


def _arrow(x1: int, y1: int, x2: int, y2: int, *words: str) -> str:
    """Draw an arrow with words on its right."""
    middle = (y1 + y2) // 2
    line = f'<path class="line" d="M{x1} {y1}L{x2} {y2}" marker-end="url(#tip)"/>'
    return line + "".join(_text(x1 + 10, middle - 4 + 20 * i, word) for i, word in enumerate(words))


def _text(x: int, y: int, words: str, anchor: str = "start", *, head: bool = False) -> str:
    """Write words, the signs of rows to keep and to forget in their colours."""
    said = html.escape(words)
    for sign, colour in (("●", KEEP), ("▲", FORGET)):
        said = said.replace(sign, f'<tspan fill="{colour}">{sign}</tspan>')
    name = ' class="head"' if head else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{name}>{said}</text>'

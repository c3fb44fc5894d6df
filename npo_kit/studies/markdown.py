"""Tables and numbers as Markdown has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of a head and lines of cells."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def p_value(value: float) -> str:
    """Write a p-value: two decimals, or one digit and a power of ten."""
    short = f"{value:.2f}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")
    return short.replace("-", "−")

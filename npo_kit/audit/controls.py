"""Readings of models that never saw the forget rows, and of the original: what an audit's are
compared with. Kept as numbers, so that no model need be trained again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npo_kit.audit.bench import Reading
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.records.files import SCHEMA, Json, atomic_write, dumps, parse, read_bytes
from npo_kit.records.provenance import provenance

SHIPPED = "studies/pocket-audit/controls.json"
DIGITS = 4
AGREE = 0.05  # nats by which the original's log-probs may differ on another machine

Rows = list[float | None]


@dataclass(frozen=True)
class Controls:
    """By card, the rows of the original's reading, and of each retained-only model's."""

    task: str  # fingerprint of its rows
    seed: int
    original: Mapping[str, Rows]
    retained: Mapping[str, Sequence[Rows]]
    about: Json  # how they were made, and the false alarms of the audit on them

    def misfit(self, task: str, seed: int, verbatim: Reading) -> str:
        """Say of what else they are; nothing where rows, seed and what the original says agree."""
        known, rows = self.original.get("verbatim", []), verbatim.rows
        if task != self.task:
            return "of other rows"
        if len(rows) != len(known):
            return f"of {len(known)} rows, and {len(rows)} were asked"
        if seed != self.seed:
            return f"of seed {self.seed}, not {seed}"
        alike = all(
            (a is None) == (b is None) and abs((a or 0) - (b or 0)) <= AGREE
            for a, b in zip(rows, known, strict=True)
        )
        return "" if alike else "of another original"


def rounded(rows: Sequence[float | None]) -> Rows:
    """Return rows to DIGITS digits; None for what is no number."""
    return [
        float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
        for value in rows
    ]


def write_controls(path: str | Path, controls: Controls) -> None:
    """Write controls as JSON, whole or not at all."""
    record = {"schema": SCHEMA, **vars(controls), "provenance": provenance()}
    atomic_write(Path(path), dumps(record))


def read_controls(path: str | Path) -> Controls:
    """Read what `write_controls` wrote; raises KitError for anything else."""
    record = parse(read_bytes(Path(path)), path)
    names = ("task", "seed", "original", "retained", "about")
    if missing := [name for name in names if name not in record]:
        raise KitError(
            f"{path} has no {missing[0]!r}, so it holds no controls of an audit: give the file "
            "that npo-kit study pocket-audit wrote"
        )
    return Controls(**{name: record[name] for name in names})


def shipped_controls() -> Controls | None:
    """Return the controls that travel with the kit, of forty pocket models; None without them."""
    try:
        path = shipped_data(SHIPPED)
    except FileNotFoundError:  # they are being made
        return None
    return read_controls(path)

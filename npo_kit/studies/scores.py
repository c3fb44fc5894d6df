"""The scores of a study that keeps few of its runs whole: a line for each evaluated step."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from npo_kit.records.files import Json, atomic_write, dumps, parse, unpack

SCORES = "scores.jsonl.gz"
DIGITS = 5  # significant ones of a score over rows, and of a recorded step
DECIMALS = 4  # of a row's score or log truth ratio


def write_scores(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write flat records, with lists of numbers in some; what is None is left out."""
    known = ({key: v for key, v in record.items() if v is not None} for record in records)
    lines = [dumps({key: _rounded(value) for key, value in one.items()}) for one in known]
    atomic_write(folder / SCORES, gzip.compress(b"".join(lines), 9, mtime=0))


def read_scores(folder: Path) -> list[Json]:
    """Read what `write_scores` wrote; each record has all keys. RunError unless it is whole."""
    path = folder / SCORES
    lines = unpack(path).splitlines()
    records = [parse(line, f"{path}, line {n},") for n, line in enumerate(lines, 1)]
    every = dict.fromkeys(key for record in records for key in record)
    return [every | record for record in records]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [round(number, DECIMALS) for number in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

"""What an evaluation is, and its file: gzipped JSON lines, a header and then the rows by column."""

from __future__ import annotations

import gzip
import io
import os
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from npo_kit.records.files import NONE, SCHEMA, RunError, atomic_write, check, dumps, parse, unpack

EVALUATION_SETS = ("forget", "retain", "real_authors", "world_facts")

Row = dict[str, Any]

# What the header must have: key -> the types it may be of.
_HEADER = {"kind": (str,), "rows": (dict,), "step": (int,), "epoch": (int, float)}
_HEADER |= {"protocol": (str,), "max_rows": (int, NONE), "max_new_tokens": (int, NONE)}
_HEADER |= {"source": (str,), "notes": (dict,), "seconds": (int, float, NONE)}


@dataclass(frozen=True)
class Evaluation:
    """What one model, at one step, scored on the rows of each evaluation set.

    Each row of `rows[set_name]` is a flat record. Its scores are numbers or None where the row
    lacks what they need:

    | key | unit, meaning |
    |---|---|
    | `index` | position of the row in its evaluation set |
    | `question`, `answer` | text; absent where a record must not carry the data set's text |
    | `mean_logp`, `tokens` | nats per token of the answer, end token included; token count |
    | `paraphrased_mean_logp` | the same for the paraphrased answer |
    | `perturbed_mean_logps` | list, the same for each perturbed answer |
    | `generation`, `generation_tokens` | greedy text; tokens without the end token |
    | `rouge_l_recall`, `rouge_l_f1`, `rouge_1_recall` | generation against answer, in [0, 1] |
    | `rouge_words` | "unicode" where they count words of another script than Latin, else absent |
    | `repetition_rate`, `distinct_2` | of the generation, in [0, 1] |
    | `fluency` | nats per token of the generation under the original model |
    """

    rows: dict[str, list[Row]]
    step: int = 0
    epoch: float = 0.0
    protocol: str = "all"  # "all" rows of each set, or "tofu": the first 300
    max_rows: int | None = None  # a quick look: at most so many rows of each set
    max_new_tokens: int | None = None  # of each generation; None where it is not known
    source: str = "npo_kit"  # or the format of the log it was read from
    notes: dict[str, str] = field(default_factory=dict)  # a set or score -> why it is missing
    seconds: float | None = None  # wall time the evaluation took


def write_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write an evaluation as gzipped JSON lines, atomically; equal ones give equal bytes.

    After the header a line for each set (several where neighbouring rows differ in their keys):
    `{"set", "count", "columns"}` with a list of `count` values per key, sets in the order of
    EVALUATION_SETS and keys by name.
    """
    names = sorted(evaluation.rows, key=_set_order)
    header = {f.name: getattr(evaluation, f.name) for f in fields(Evaluation)}
    header |= {"rows": {name: len(evaluation.rows[name]) for name in names}}
    lines = [dumps({**header, "kind": "evaluation", "schema": SCHEMA}, sort_keys=True)]
    _check_header(lines[0], path)
    for name in names:
        for keys, alike in groupby(evaluation.rows[name], key=sorted):
            rows = list(alike)
            columns = {key: [row[key] for row in rows] for key in keys}
            lines.append(dumps({"set": name, "count": len(rows), "columns": columns}))
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(b"".join(lines))
    atomic_write(path, packed.getvalue())


def read_evaluation(path: str | os.PathLike) -> Evaluation:
    """Read what `write_evaluation` wrote; RunError unless all of it is there."""
    first, *lines = unpack(Path(path)).removesuffix(b"\n").split(b"\n")
    header = _check_header(first, path)
    rows: dict[str, list[Row]] = {name: [] for name in sorted(header["rows"], key=_set_order)}
    for number, line in enumerate(lines, 2):
        where = f"{path}, line {number},"
        name, some = _read_rows(parse(line, where), where)
        if name not in rows:
            raise RunError(f"{where} is of no set in the header: copy it again")
        rows[name] += some
    if {name: len(of_set) for name, of_set in rows.items()} != header["rows"]:
        raise RunError(f"{path} has other rows than its header counts: copy the file again")
    known = {f.name: header[f.name] for f in fields(Evaluation) if f.name in header}
    return Evaluation(**known | {"rows": rows})


def _read_rows(block: dict[str, Any], where: str) -> tuple[str, list[Row]]:
    """Set and rows of one line."""
    name, count, columns = (block.get(key) for key in ("set", "count", "columns"))
    if type(name) is not str or type(count) is not int or not isinstance(columns, dict):
        raise RunError(f"{where} holds no rows (set, count, columns): copy the file again")
    if not all(type(column) is list and len(column) == count for column in columns.values()):
        raise RunError(f"{where} has columns of other lengths than {count}: copy the file again")
    return name, [{key: column[i] for key, column in columns.items()} for i in range(count)]


def _set_order(name: str) -> tuple[int, str]:
    known = EVALUATION_SETS
    return known.index(name) if name in known else len(known), name


def _check_header(line: bytes, path: Any) -> dict[str, Any]:
    where = f"the header of {path}"
    check(header := parse(line, where), _HEADER, where)
    if header["kind"] != "evaluation":
        raise RunError(f"{path} holds {header['kind']!r}, no evaluation: give an evaluation's file")
    texts, counts = header["notes"].values(), [header["step"], *header["rows"].values()]
    if not all(type(t) is str for t in texts) or not all(type(n) is int and n >= 0 for n in counts):
        raise RunError(f"{where} has a step, row count or note of a wrong kind: evaluate again")
    return header

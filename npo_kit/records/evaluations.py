"""Evaluations and their files: gzipped JSON lines, a header and then the rows by column."""

from __future__ import annotations

import gzip
import io
import os
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict, cast

from npo_kit.records.files import (
    SCHEMA,
    Json,
    RunError,
    atomic_write,
    dumps,
    parse,
    read_as,
    unpack,
)

EVALUATION_SETS = ("forget", "retain", "real_authors", "world_facts")


class ScoredRow(TypedDict, total=False):
    """A model's text for one row and its scores: None where the row lacks what they need."""

    index: int  # position of the row in its evaluation set
    question: str  # absent, as the answer, where a record must not carry the data set's text
    answer: str
    passage: bool  # true: the question is the beginning of a text, the answer what follows there,
    # and ROUGE-L F1 is MUSE's, without stemming; log-probs are of the whole text
    mean_logp: float | None  # nats per token of the answer, end token included
    tokens: int | None  # of the answer, end token included
    paraphrased_mean_logp: float | None  # the same for the paraphrased answer
    perturbed_mean_logps: list[float] | None  # the same for each perturbed answer
    generation: str  # greedy text
    generation_tokens: int  # without the end token
    rouge_l_recall: float | None  # generation against answer, in [0, 1], as the next two
    rouge_l_f1: float | None
    rouge_1_recall: float | None
    rouge_words: str  # "unicode" where they count words of another script than Latin
    repetition_rate: float  # of the generation, in [0, 1], as the next
    distinct_2: float | None
    fluency: float | None  # nats per token of the generation under the original model
    truth_ratio: float | None  # R, in a log of another code that lacks the log-probs
    normalised_probability: float | None  # likewise


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model, at one step, on the rows of each evaluation set."""

    rows: dict[str, list[ScoredRow]]  # by set
    step: int = 0
    epoch: float = 0.0
    protocol: str = "all"  # "all" rows of each set, or "tofu": the first 300
    max_rows: int | None = None  # at most this many rows of each set, for a quick look
    max_new_tokens: int | None = None  # of each generation; None where it is not known
    source: str = "npo_kit"  # or the format of the log it was read from
    notes: dict[str, str] = field(default_factory=dict)  # a set or score -> why it is missing
    seconds: float | None = None  # wall time the evaluation took

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(rows):,} {name}" for name, rows in self.rows.items()) or "no"
        took = "" if self.seconds is None else f", {self.seconds:.3g} s"
        return (
            f"Evaluation(step {self.step}, epoch {self.epoch:.3g}: {counts} rows{took}; "
            "summarise(evaluation) computes its metrics)"
        )


@dataclass
class _Header:
    """The first line of an evaluation's file."""

    kind: str  # always "evaluation"
    rows: dict[str, int]  # counts by set
    step: int
    epoch: float
    protocol: str
    max_rows: int | None
    max_new_tokens: int | None
    source: str
    notes: dict[str, str]
    seconds: float | None


def write_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write an evaluation as gzipped JSON lines, atomically; equal ones give equal bytes.

    The header comes first, then a line for each set (several where neighbouring rows differ in
    their keys): `{"set", "count", "columns"}` with a list of `count` values per key, sets in the
    order of EVALUATION_SETS and keys by name.
    """
    names = sorted(evaluation.rows, key=_set_order)
    header = vars(evaluation) | {"rows": {name: len(evaluation.rows[name]) for name in names}}
    lines = [dumps({**header, "kind": "evaluation", "schema": SCHEMA}, sort_keys=True)]
    _read_header(lines[0], path)
    for name in names:
        for keys, alike in groupby(evaluation.rows[name], key=sorted):
            rows: list[Json] = [{**row} for row in alike]
            columns = {key: [row[key] for row in rows] for key in keys}
            lines.append(dumps({"set": name, "count": len(rows), "columns": columns}))
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(b"".join(lines))
    atomic_write(path, packed.getvalue())


def read_evaluation(path: str | os.PathLike) -> Evaluation:
    """Read what `write_evaluation` wrote; RunError unless all of it is there."""
    first, *lines = unpack(Path(path)).removesuffix(b"\n").split(b"\n")
    header = _read_header(first, path)
    rows: dict[str, list[ScoredRow]] = {name: [] for name in sorted(header.rows, key=_set_order)}
    for number, line in enumerate(lines, 2):
        where = f"{path}, line {number},"
        name, some = _read_rows(parse(line, where), where)
        if name not in rows:
            raise RunError(f"{where} is of no set in the header: copy it again")
        rows[name] += some
    if {name: len(of_set) for name, of_set in rows.items()} != header.rows:
        raise RunError(f"{path} has other rows than its header counts: copy the file again")
    about = {name: value for name, value in vars(header).items() if name not in ("kind", "rows")}
    return Evaluation(rows, **about)


def _read_rows(block: Json, where: str) -> tuple[str, list[ScoredRow]]:
    """Return set and rows of one line."""
    name, count, columns = (block.get(key) for key in ("set", "count", "columns"))
    if type(name) is not str or type(count) is not int or not isinstance(columns, dict):
        raise RunError(f"{where} holds no rows (set, count, columns): copy the file again")
    if not all(type(column) is list and len(column) == count for column in columns.values()):
        raise RunError(f"{where} has columns of other lengths than {count}: copy the file again")
    rows = [{key: column[i] for key, column in columns.items()} for i in range(count)]
    return name, cast(list[ScoredRow], rows)


def _set_order(name: str) -> tuple[int, str]:
    known = EVALUATION_SETS
    return known.index(name) if name in known else len(known), name


def _read_header(line: bytes, path: Any) -> _Header:
    where = f"the header of {path}"
    header = read_as(_Header, line, where)
    if header.kind != "evaluation":
        raise RunError(f"{path} holds {header.kind!r}, no evaluation: give an evaluation's file")
    texts, counts = header.notes.values(), [header.step, *header.rows.values()]
    if not all(type(t) is str for t in texts) or not all(type(n) is int and n >= 0 for n in counts):
        raise RunError(f"{where} has a step, row count or note of a wrong kind: evaluate again")
    return header

"""Rows of a user's own files: read and checked, with all that is wrong reported at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Required, TypedDict

from npo_kit.errors import KitError


class Row(TypedDict, total=False):
    """A question and its answer, with TOFU's keys; a user's row may have others beside them."""

    question: Required[str]
    answer: Required[str]
    paraphrased_answer: str | None
    perturbed_answer: list[str] | None  # wrong answers
    alternate: str | None  # a refusal that DPO, KTO and IDK train on
    author: str  # this and the rest: of the kit's own rows
    attribute: str  # of the author, that is asked for
    entity_span: list[int]  # [start, end) of the fact in the answer, in characters
    paraphrased_entity_span: list[int]
    perturbed_entity_spans: list[list[int]]


class DataError(KitError):
    """Rows that cannot be used, each with its file, line and reason, all at once."""


def load_rows(path: str | Path) -> list[Row]:
    """Read the rows of a UTF-8 file of JSON lines, a JSON list or a CSV: `question` and `answer`.

    Optional: `paraphrased_answer` and `alternate` (texts; the latter is the refusal that DPO, KTO
    and IDK train on) and `perturbed_answer` (a list of texts; in a CSV a JSON list). Raises
    DataError that lists every bad row with the line on which it starts.
    """
    path = Path(path).expanduser()
    text = _read_text(path, "a file of JSON lines, JSON or CSV")
    read = _read_csv if path.suffix.lower() == ".csv" else _read_json
    problems, rows = [], []
    for line, row, reason in read(path, text):
        if reason := reason or row_problem(row):
            problems.append(f"{path}, line {line}: {reason}")
        else:
            rows.append(row)
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"{len(problems)} bad row(s), nothing was loaded:\n  {lines}")
    if not rows:
        raise DataError(f"{path} has no rows: each needs a question and an answer")
    return rows


def load_refusals(path: str | Path) -> list[str]:
    """Read refusals from a UTF-8 text file, one on each line that is not empty; DataError."""
    path = Path(path).expanduser()
    text = _read_text(path, "a text file with a refusal a line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} has no refusals: write one a line")
    return lines


def row_problem(row: Any) -> str | None:
    """Say in a few words why this is not a row; None if it is one."""
    if not isinstance(row, dict):
        return f"a row must be an object with question and answer, this is {type(row).__name__}"
    for key in ("question", "answer"):
        if key not in row:
            return f"{key!r} is missing"
        if reason := _text_problem(row[key]):
            return f"{key!r} {reason}"
    for key in ("paraphrased_answer", "alternate"):
        if row.get(key) is not None and (reason := _text_problem(row[key])):
            return f"{key!r} {reason}"
    perturbed = row.get("perturbed_answer")
    if perturbed is None:
        return None
    if not isinstance(perturbed, list) or not perturbed:
        return f"'perturbed_answer' must be a list of texts, it is {perturbed!r:.60}"
    reasons = (_text_problem(text) for text in perturbed)
    return next((f"a 'perturbed_answer' {reason}" for reason in reasons if reason), None)


def _text_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be text, it is {value!r:.60}"
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "contains a null character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate)"
    return None


Found = Iterator[tuple[int, Any, str | None]]  # line, row, the reason if it cannot be read


def _read_text(path: Path, wanted: str) -> str:
    if not path.is_file():
        raise DataError(f"no such file: {path}: give {wanted}")
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text ({error.reason}): save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its rights") from None


def _read_json(path: Path, text: str) -> Found:
    """Yield the rows of JSON lines, a JSON list or a single JSON object."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("[") and error.msg != "Extra data":  # a list, not lines
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    else:
        yield from _json_items(text) if isinstance(whole, list) else [(1, whole, None)]
        return
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield line, json.loads(content), None
            except json.JSONDecodeError as error:
                yield line, None, f"not JSON ({error.msg})"


def _json_items(text: str) -> Found:
    """Yield the items of a valid JSON list with their lines."""
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        while text[position].isspace() or text[position] == ",":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        item, position = decoder.raw_decode(text, position)
        yield line, item, None


def _read_csv(path: Path, text: str) -> Found:
    """Yield the rows of a CSV with a header line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not CSV ({error})") from None
    absent = [name for name in ("question", "answer") if columns.count(name) != 1]
    if absent:
        raise DataError(
            f"{path} has no column {' and '.join(absent)}, or more than one: its first line names "
            f"{', '.join(columns) or 'nothing'}"
        )
    line = reader.line_num + 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, None, f"not CSV ({error})"
        else:
            if values:
                yield line, *_csv_row(columns, values)
        line = reader.line_num + 1


def _csv_row(columns: list[str], values: list[str]) -> tuple[dict[str, Any], str | None]:
    """Return a row without empty optional fields, and why it cannot be used, if so."""
    row: dict[str, Any] = dict(zip(columns, values, strict=False))
    if len(values) > len(columns):
        return row, (
            f"{len(values)} fields for {len(columns)} columns: put a text with commas in quotes"
        )
    for name in ("paraphrased_answer", "alternate", "perturbed_answer"):
        if name in row and not row[name].strip():
            del row[name]
    if "perturbed_answer" in row:
        try:
            row["perturbed_answer"] = json.loads(row["perturbed_answer"])
        except json.JSONDecodeError:
            return row, "'perturbed_answer' is not a JSON list of texts"
    return row, None

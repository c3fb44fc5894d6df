"""Rows parsed from text: JSON in the shapes that people write, CSV and TSV."""

from __future__ import annotations

import ast
import csv
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from npo_kit.errors import KitError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}  # of a table's columns


class DataError(KitError):
    """Rows that cannot be used, each with its file, line and reason, all at once."""


class Item(NamedTuple):
    """A row as it was read."""

    place: str  # such as line 3
    row: Any
    problem: str | None = None  # why it could not be read


def numbered(rows: Iterable[Any]) -> list[Item]:
    return [Item(f"row {number}", row) for number, row in enumerate(rows, 1)]


def of_frame(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a DataFrame with lists for arrays, without missing values."""
    rows = []
    for record in frame.to_dict("records"):
        plain = {str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in record.items()}
        rows.append({name: value for name, value in plain.items() if not _missing(value)})
    return rows


def _missing(value: Any) -> bool:
    return value is None or (not isinstance(value, list | dict | str) and value != value)


# --- JSON ---------------------------------------------------------------------------------------


def read_json(path: Path, text: str) -> Iterator[Item]:
    """Yield the rows of JSON lines, a JSON list, columns, `{"data": [...]}` or one JSON object."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("[") and error.msg != "Extra data":  # a list, not lines
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    else:
        if isinstance(whole, list):
            yield from _json_items(text)
        else:
            yield from _of_object(whole)
        return
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield Item(f"line {line}", json.loads(content))
            except json.JSONDecodeError as error:
                yield Item(f"line {line}", None, f"not JSON ({error.msg})")


def _of_object(whole: Any) -> list[Item]:
    """Return the rows of one JSON value that is no list; a single row is one object."""
    values = list(whole.values()) if isinstance(whole, dict) else []
    for name in ("data", "rows"):  # the latter as the hub's viewer and its server write them
        if isinstance(whole, dict) and isinstance(whole.get(name), list):
            return numbered(
                r["row"] if isinstance(r, dict) and "row" in r else r for r in whole[name]
            )
    kinds = {type(value) for value in values}
    if kinds == {dict} or (kinds == {list} and len(values) > 1):  # columns, as pandas writes them
        import pandas as pd

        try:
            return numbered(of_frame(pd.DataFrame(whole)))
        except ValueError:  # columns of several lengths
            pass
    return [Item("line 1", whole)]


def _json_items(text: str) -> Iterator[Item]:
    """Yield the items of a valid JSON list with their lines."""
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    while True:
        while text[position].isspace() or text[position] == ",":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        item, position = decoder.raw_decode(text, position)
        yield Item(f"line {line}", item)


# --- tables of text -----------------------------------------------------------------------------


def read_table(path: Path, text: str) -> tuple[list[str], list[Item]]:
    """Return the header and the rows of a CSV or TSV.

    Its separator is the one that gives the header line the most columns.
    """

    def rows_by(separator: str):
        return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)

    headers: dict[str, list[str]] = {}
    problem = ""
    for separator in SEPARATORS:
        try:
            headers[separator] = next(rows_by(separator), [])
        except csv.Error as error:
            problem = problem or str(error)
    if not headers:
        raise DataError(f"{path}, line 1: not CSV ({problem})")
    separator = max(headers, key=lambda separator: len(headers[separator]))
    reader = rows_by(separator)
    next(reader, None)
    return headers[separator], list(_table_rows(reader, headers[separator], separator))


def _table_rows(reader: Any, header: list[str], separator: str) -> Iterator[Item]:
    line, sign = reader.line_num + 1, SEPARATORS[separator]
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Item(f"line {line}", None, f"not CSV ({error})")
        else:
            if len(values) > len(header):
                many = f"{len(values)} fields for {len(header)} columns by {sign}"
                yield Item(f"line {line}", None, f"{many}: put a text with a {sign} in quotes")
            elif values:
                yield Item(f"line {line}", dict(zip(header, values, strict=False)))
        line = reader.line_num + 1


def listed(text: str) -> Any:
    """Return the list that a field of a table holds, as JSON or as Python prints it, or the text.

    Python joins texts without a comma between them, as numpy prints them: such a list is refused.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        value = ast.literal_eval(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (ValueError, SyntaxError, tokenize.TokenError):
        return text
    texts = [token for token in tokens if token.type == tokenize.STRING]
    return value if isinstance(value, list) and len(value) == len(texts) else text

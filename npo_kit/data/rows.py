"""Rows of a user's own files: read and checked, with all that is wrong reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Required, TypedDict

from npo_kit.data.columns import Columns
from npo_kit.data.parsing import DataError
from npo_kit.data.sources import read_source, read_text
from npo_kit.errors import counted


class Row(TypedDict, total=False):
    """A question and its answer, with TOFU's keys; a user's row may have others beside them.

    A *passage* is a text without a question, to be unlearned word for word: the text is the answer,
    the question is empty, which no other row's may be, and `passage` is True.
    """

    question: Required[str]
    answer: Required[str]
    passage: bool
    paraphrased_answer: str | None
    perturbed_answer: list[str] | None  # wrong answers
    alternate: str | None  # a refusal that DPO, KTO and IDK train on
    alternates: list[str] | None  # wrong answers that AltPO trains on, an epoch each
    author: str  # this and the rest: of the kit's own rows
    attribute: str  # of the author, that is asked for
    entity: str  # the fact, as it stands in the answer
    entity_span: list[int]  # [start, end) of the fact in the answer, in characters
    paraphrased_entity_span: list[int]
    perturbed_entity_spans: list[list[int]]


def load_rows(
    source: Any,
    columns: Mapping[str, str] | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Read questions with answers, or passages, from a file, a data set or an object in memory.

    `source`: a file of JSON lines, JSON (a list, columns, or `{"data": [...]}`), CSV or TSV (by
    comma, semicolon or tab) or Parquet, any of them gzipped; a folder that `datasets` saved; a data
    set of the hub, as owner/name, owner/name:split or owner/name:configuration:split; a list of
    rows, a pandas DataFrame, a `datasets.Dataset`; a text file (.txt), which is one passage. Text
    is UTF-8, or what it looks like.

    Columns have their usual names (question, prompt or instruction, with Alpaca's input; answer,
    response, completion or output; or messages), or those of `columns`, such as {"question":
    "Frage"}. Where there is neither a question nor an answer, or `columns` names it, the rows are
    passages from the column `text`. `say` is told what was taken for what, unless that is plain.

    Optional: `paraphrased_answer` and `alternate` (texts; the latter is the refusal that DPO, KTO
    and IDK train on), `perturbed_answer` and `alternates`, which AltPO trains on (lists of texts,
    which a CSV holds as JSON). Raises DataError that lists every bad row with its line.
    """
    read = read_source(source)
    found = Columns(read, columns)
    problems, rows = [], []
    for place, row, reason in read.items:
        made, odd = found.row(row)
        if reason := reason or odd or row_problem(made):
            problems.append(f"{read.name}, {place}: {reason}")
        else:
            rows.append(made)
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"{len(problems)} bad row(s), nothing was loaded:\n  {lines}")
    if not rows:
        raise DataError(f"{read.name} has no rows: each needs a question and an answer, or a text")
    if say and str(found):
        count = "" if read.whole else f"{counted(len(rows), 'row')}, "
        say(f"{read.name}: {count}{found}")
    return rows


def load_refusals(path: str | Path) -> list[str]:
    """Read refusals from a UTF-8 text file, one on each line that is not empty; DataError."""
    path = Path(path).expanduser()
    text = read_text(path, "a text file with a refusal a line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} has no refusals: write one a line")
    return lines


def is_passage(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is a passage: a text without a question."""
    return row.get("passage") is True and row.get("question") == ""


def question_of(row: Mapping[str, Any]) -> str | None:
    """Return the question of a row; None for a passage."""
    return None if is_passage(row) else row["question"]


def row_problem(row: Any) -> str | None:
    """Say in a few words why this is not a row; None if it is one."""
    if not isinstance(row, dict):
        return (
            "a row must be an object (a dict) with question and answer, or {'text': ...} for a "
            f"passage, this is {type(row).__name__}"
        )
    needed = {"answer": "text"} if is_passage(row) else {"question": "question", "answer": "answer"}
    for key, name in needed.items():
        if key not in row and "text" in row and not {"question", "answer"} & row.keys():
            return "a passage (text) among questions with answers: put them in two files"
        if key not in row:
            return f"{name!r} is missing"
        if reason := _text_problem(row[key]):
            return f"{name!r} {reason}"
    for key in ("paraphrased_answer", "alternate"):
        if row.get(key) is not None and (reason := _text_problem(row[key])):
            return f"{key!r} {reason}"
    problems = (_texts_problem(key, row.get(key)) for key in ("perturbed_answer", "alternates"))
    return next(filter(None, problems), None)


def _texts_problem(key: str, texts: Any) -> str | None:
    if texts is None:
        return None
    if not isinstance(texts, list) or not texts:
        return f"{key!r} must be a list of texts, it is {texts!r:.60}"
    reasons = (_text_problem(text) for text in texts)
    return next((f"a {key!r} {reason}" for reason in reasons if reason), None)


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

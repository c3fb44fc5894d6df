"""The columns that rows are read from: by their usual names, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npo_kit.data.parsing import DataError, listed
from npo_kit.data.sources import Source
from npo_kit.errors import did_you_mean

USUAL = {
    "question": ("question", "prompt", "instruction"),
    "answer": ("answer", "response", "completion", "output"),
}
TEXT = "text"  # of a passage, which has no question
LISTS = ("perturbed_answer", "alternates")
OPTIONAL = ("paraphrased_answer", "alternate", *LISTS)
MESSAGES = "messages"  # a conversation: a list of {"role": ..., "content": ...}
INPUT = "input"  # which Alpaca's rows have beside an instruction


class Columns:
    """The column of a source that each key of a row is read from.

    `given` names columns by key, such as {"question": "Frage"}; the others are found by their usual
    names, whatever their case. Without a question and an answer, or where `given` names a `text`,
    the rows are passages. Raises DataError, which names the columns that there are, if there is no
    question or no answer otherwise.
    """

    def __init__(self, source: Source, given: Mapping[str, str] | None = None):
        self.source, self.table = source, source.header is not None
        names = source.header if source.header is not None else _names(source)
        self.taken = _given(source.name, names, given or {})
        for key in (*(USUAL if TEXT not in self.taken else ()), *OPTIONAL):
            column = _usual(names, USUAL.get(key, (key,)))
            if column is not None and key not in self.taken:
                self.taken[key] = column
        told = {*USUAL, TEXT} & set(self.taken)
        self.messages = None if told else _usual(names, (MESSAGES,))
        self.system = False  # whether a conversation had a system turn
        if not told and not self.messages and (text := _usual(names, (TEXT,))):
            self.taken[TEXT] = text
        self.passages = TEXT in self.taken
        absent = [] if self.passages else [key for key in USUAL if key not in self.taken]
        if absent and not self.messages and (names or self.table):
            raise DataError(_no_columns(source, names, absent))
        instruction = self.taken.get("question", "").strip().lower() == "instruction"
        self.input = _usual(names, (INPUT,)) if instruction else None

    def __str__(self) -> str:
        """Say what was taken for what, as far as it is not plain."""
        said = [f"{k} from {c!r}" for k, c in self.taken.items() if k != c and k != TEXT]
        if self.source.whole:
            said = ["one passage (the whole file)"]
        elif self.passages:
            said = [f"passages from {self.taken[TEXT]!r}", *said]
        if self.messages:
            left = " without the system turns" * self.system
            said = [f"question and answer from {self.messages!r}{left}"]
        if self.input:
            said[0] += f" and {self.input!r}"
        return ", ".join([*said, *self.source.guessed])

    def row(self, row: Any) -> tuple[Any, str | None]:
        """Return a row with the kit's keys, and why it cannot be used, if that is known here."""
        if not isinstance(row, dict):
            return row, None
        if self.messages:
            made, reason = _of_messages(row, self.messages)
            self.system |= reason is None and len(row[self.messages]) == 3
            return made, reason
        moved = {key: row[column] for key, column in self.taken.items() if column in row}
        used = {*self.taken.values(), self.input}
        made = {k: v for k, v in row.items() if k not in used} | moved
        if self.passages:
            made |= {"question": "", "passage": True}
            made.pop("answer", None)
            made |= {"answer": made.pop(TEXT)} if TEXT in made else {}
        more = row.get(self.input) if self.input else None
        if isinstance(more, str) and more.strip() and isinstance(made.get("question"), str):
            made["question"] += "\n" + more
        for key in OPTIONAL:
            value = made.get(key)
            if value != value or (self.table and isinstance(value, str) and not value.strip()):
                del made[key]
        for key in LISTS if self.table else ():
            if isinstance(made.get(key), str):
                made[key] = listed(made[key])
                if isinstance(made[key], str):
                    return made, f"{key!r} is not a JSON list of texts"
        return made, None


def _names(source: Source) -> list[str]:
    rows = [item.row for item in source.items if isinstance(item.row, dict)]
    return list(dict.fromkeys(name for row in rows for name in row))


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """Find a column by the first of its usual names that exactly one column has."""
    for wanted in usual:
        exact = [name for name in names if name == wanted]
        alike = exact or [name for name in names if name.strip().lower() == wanted]
        if len(alike) == 1:
            return alike[0]
    return None


def _given(where: str, names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    keys = (*USUAL, TEXT, *OPTIONAL)
    if TEXT in given and set(USUAL) & set(given):
        raise DataError("columns: a row has a text, or a question and an answer: name only one")
    for key, column in given.items():
        if key not in keys:
            near = did_you_mean(key, keys)
            raise DataError(f"columns: a row has no key {key!r}{near}: keys are {', '.join(keys)}")
        if (count := names.count(column)) != 1:
            said = f"has no column {column!r} for {key}{did_you_mean(column, names)}"
            if count:
                said = f"has {count} columns {column!r}, {key} needs one of its own name"
            raise DataError(f"{where} {said}: its columns are {', '.join(names) or 'none'}")
    return dict(given)


def _no_columns(source: Source, names: Sequence[str], absent: Sequence[str]) -> str:
    """Say which columns are absent, or there twice, and how to name others."""
    if not names:
        line = "" if source.in_memory else ": it is empty, or its first line is"
        return f"{source.name} has no columns{line}"
    lower = [name.strip().lower() for name in names]
    twice = [key for key in absent if any(lower.count(usual) > 1 for usual in USUAL[key])]
    none = [key for key in absent if key not in twice]
    said = [f"no column {' and '.join(none)}"] * bool(none)
    said += [f"more than one column {' and '.join(twice)}"] * bool(twice)
    near = "".join(did_you_mean(key, names) for key in none)
    how = "as in --columns question=NAME,answer=NAME (columns={'question': NAME, ...})"
    if source.in_memory:
        how = "as in columns={'question': NAME, 'answer': NAME}"
    return (
        f"{source.name} has {' and '.join(said)}{near}: it has {', '.join(names)}; say which to "
        f"take, {how}, or text=NAME for passages"
    )


def _of_messages(row: dict[str, Any], column: str) -> tuple[dict[str, Any], str | None]:
    """Return the row of a conversation: one question and one answer, after an optional system turn.

    The system turn is left out: `system_prompt` gives one to all rows.
    """
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return row, f"{column!r} must be a list of turns with role and content"
    said = [turn for turn in turns if turn.get("role") != "system"]
    roles = [turn.get("role") for turn in said]
    if roles != ["user", "assistant"]:
        return row, f"{column!r} must be one user turn and one assistant turn, it is {roles!r:.60}"
    made = {"question": said[0].get("content"), "answer": said[1].get("content")}
    return {k: v for k, v in row.items() if k != column} | made, None

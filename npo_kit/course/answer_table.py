"""A table of several models' answers side by side, with leaking words of the truth marked."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from npo_kit.data.rows import Row
from npo_kit.records.evaluations import Evaluation

SMALL_WORDS = {"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "the", "to", "with"}
CELL = "<td style='text-align:left;vertical-align:top'>"


class SideBySide:
    """Questions with true answers, beside each model's own answers with leaking words marked."""

    def __init__(self, question_rows: Sequence[Row], said: Mapping[str, Sequence[str]]):
        self.rows, self.said = question_rows, said

    def _repr_html_(self) -> str:
        names = [html.escape(name) for name in ("question", *self.said)]
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
        body = "".join(self._line(number, row) for number, row in enumerate(self.rows))
        return f"<table style='font-size:105%'><tr>{head}</tr>{body}</table>"

    def _line(self, number: int, row: Row) -> str:
        cells = [f"{html.escape(row['question'])}<br><i>{html.escape(row['answer'])}</i>"]
        cells += [_marked(texts[number], row) for texts in self.said.values()]
        return f"<tr>{''.join(f'{CELL}{cell}</td>' for cell in cells)}</tr>"

    def __repr__(self) -> str:
        lines = []
        for number, row in enumerate(self.rows):
            lines += [row["question"], f"  true: {row['answer']}"]
            lines += [f"  {name}: {texts[number]}" for name, texts in self.said.items()]
        return "\n".join(lines)


def side_by_side(
    rows: Sequence[Row], evaluations: Mapping[str, Evaluation], set_name: str = "forget"
) -> SideBySide:
    """Return the answers to the first rows of an evaluation set; `rows` as they were evaluated."""
    said = {
        name: [row["generation"] for row in each.rows[set_name][: len(rows)]]
        for name, each in evaluations.items()
    }
    return SideBySide(rows, said)


def _marked(text: str, row: Row) -> str:
    """Return a text as HTML, with the fact's words bold and underlined.

    Words of the question, and small words that every text has, do not count as leaks.
    """
    span = row.get("entity_span")
    fact = row["answer"][slice(*span)] if span else row["answer"]
    words, asked = (set(re.findall(r"\w+", each.lower())) for each in (fact, row["question"]))
    leak = words - asked - SMALL_WORDS
    parts = re.split(r"(\w+)", text)
    return "".join(
        f"<u><b>{html.escape(part)}</b></u>" if part.lower() in leak else html.escape(part)
        for part in parts
    )

"""Rows that an audit asks, with the tokens of the fact in each answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from npo_kit.data.prompts import Encoded, PromptFormat
from npo_kit.data.rows import Row
from npo_kit.records.files import Json

TOFU_ROWS_PER_AUTHOR = 20
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_STOP = re.compile(r"[.!?;:]\s")  # after which a capital letter makes no name


@dataclass(frozen=True)
class Probe:
    """A row, its fact (the *entity*), and where the entity's tokens stand in the answer."""

    row: Row
    encoded: Encoded
    entity: str
    first: int  # the entity's tokens are encoded.ids[prompt_length + first : prompt_length + last]
    last: int
    author: str  # rows of one author are one unit of evidence

    @property
    def places(self) -> range:
        """Positions in `encoded.ids` of the entity's tokens."""
        start = self.encoded.prompt_length
        return range(start + self.first, start + self.last)


def probes_of(
    rows: Sequence[Row], prompts: PromptFormat, *, rows_per_author: int = 1
) -> tuple[list[Probe], int]:
    """Make probes of rows, and count those without an entity, which are left out.

    The entity is the row's `entity_span` (characters) or `entity` (a part of the answer). Else it
    is the longest run of the answer's words that stand neither in the question nor in the answers
    about another author; a run with a name or a number comes before any without. Rows without
    `author` are grouped in order, `rows_per_author` to a unit.
    """
    authors = [row.get("author") or f"unit {i // rows_per_author}" for i, row in enumerate(rows)]
    common = _words_of_several(rows, authors)
    probes = []
    for row, author in zip(rows, authors, strict=True):
        span = entity_span(row, common)
        if span is None:
            continue
        covered = prompts.answer_spans(row["question"], row["answer"])
        inside = [i for i, (a, b) in enumerate(covered) if b > span[0] and a < span[1]]
        if not inside:
            continue
        encoded = prompts.encode(row["question"], row["answer"])
        entity = row["answer"][slice(*span)]
        probes.append(Probe(row, encoded, entity, inside[0], inside[-1] + 1, author))
    return probes, len(rows) - len(probes)


def facts_of(probes: Sequence[Probe]) -> list[Json]:
    """Return the question of each probe, its fact, and whether the row names it."""
    return [
        {
            "question": probe.row["question"],
            "fact": probe.entity,
            "given": bool(probe.row.get("entity_span") or probe.row.get("entity")),
        }
        for probe in probes
    ]


def entity_span(row: Row, common: set[str]) -> tuple[int, int] | None:
    """Return the characters [start, end) of a row's entity; `common`: words of several authors."""
    answer = row["answer"]
    if span := row.get("entity_span"):
        return span[0], span[1]
    if entity := row.get("entity"):
        start = answer.find(entity)
        return (start, start + len(entity)) if start >= 0 else None
    asked = _words(row["question"]) | _words(row["question"].replace("-", " "))
    runs: list[tuple[bool, int, int]] = []  # whether it holds a name or a number, start, end
    end, open_run = 0, False
    for match in _WORD.finditer(answer):
        begins = not end or _STOP.search(answer, end, match.start())
        word, (start, end) = match.group(), match.span()
        own = not (_words(word) & (asked | common))
        named = word[0].isdigit() or (word[0].isupper() and not begins)
        if own and open_run and not begins:
            runs[-1] = (runs[-1][0] or named, runs[-1][1], end)
        elif own:
            runs.append((named, start, end))
        open_run = own
    longest = max(runs, key=lambda run: (run[0], run[2] - run[1]), default=None)
    return longest and longest[1:]


def _words_of_several(rows: Sequence[Row], authors: Sequence[str]) -> set[str]:
    """Return the words that stand in the answers about more than one author."""
    words: dict[str, set[str]] = {author: set() for author in authors}
    for row, author in zip(rows, authors, strict=True):
        words[author] |= _words(row["answer"])
    return {word for word, count in Counter(chain(*words.values())).items() if count > 1}


def _words(text: str) -> set[str]:
    """Return the words of a text without case and without a possessive's ending."""
    return {re.sub("['’]s$", "", word.casefold()) for word in _WORD.findall(text)}

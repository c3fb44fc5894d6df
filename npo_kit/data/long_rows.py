"""Rows that are longer than a model's context: refused, split or cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from npo_kit.data.columns import OPTIONAL
from npo_kit.data.parsing import DataError
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import Row, question_of
from npo_kit.data.tasks import Task
from npo_kit.errors import KitError

LONG_ROWS = ("refuse", "split", "cut")
TOKEN = 64  # characters of a token, which few have


def fit_rows(
    task: Task,
    prompts: PromptFormat,
    how: str = "refuse",
    *,
    say: Callable[[str], None] | None = None,
) -> Task:
    """Return the task with rows that fit the context of the model that `prompts` is for.

    `how` is `refuse` (the task as it is: whoever reads a long row raises PromptError), `cut` (the
    end of a long answer is dropped) or `split` (the rest of a long answer becomes further rows with
    the same question, or further passages; paraphrased and wrong answers of such a row are dropped,
    since they answer the whole). Texts end between words. `say` is told how many rows that
    concerns. Raises KitError for another `how`, and DataError if a question alone is too long.
    """
    if how not in LONG_ROWS:
        raise KitError(f"long_rows must be one of {', '.join(LONG_ROWS)}, it is {how!r}")
    if how == "refuse" or not prompts.context:
        return task

    def fitted(rows: Sequence[Row], name: str) -> list[Row]:
        pieces = [_fitted(row, prompts, how) for row in rows]
        changed = [made for made, row in zip(pieces, rows, strict=True) if made != [row]]
        if changed and say:
            became = f"split into {sum(map(len, changed)):,}" if how == "split" else "cut"
            say(
                f"{len(changed):,} of {len(rows):,} {name} rows are longer than the model's "
                f"context of {prompts.context:,} tokens: {became}"
            )
        return [piece for made in pieces for piece in made]

    return replace(
        task,
        forget=fitted(task.forget, "forget"),
        retain=fitted(task.retain, "retain"),
        evaluation={
            name: fitted(rows, f"evaluated {name}") for name, rows in task.evaluation.items()
        },
    )


def _fitted(row: Row, prompts: PromptFormat, how: str) -> list[Row]:
    """Return the row as it is if it fits, or else the rows that it becomes."""
    question = question_of(row)
    answers = list(_pieces(question, row["answer"], prompts))
    if how == "split" and len(answers) > 1:
        plain = {key: value for key, value in row.items() if key not in OPTIONAL}
        return [{**plain, "answer": answer} for answer in answers]  # type: ignore[typeddict-item]
    made: dict[str, Any] = {**row, "answer": answers[0]}
    for key in OPTIONAL:
        if isinstance(value := made.get(key), str):
            made[key] = next(_pieces(question, value, prompts))
        elif value:
            made[key] = [next(_pieces(question, text, prompts)) for text in value]
    return [made]  # type: ignore[list-item]


def _pieces(question: str | None, answer: str, prompts: PromptFormat) -> Iterator[str]:
    """Yield an answer in the longest pieces that fit, which end between words where they can."""
    while (fits := _fitting(question, answer, prompts)) is not None:
        piece = answer
        while fits is not None:
            last = max(piece.rfind(space, 0, fits + 1) for space in " \n\t")
            piece = piece[: last if piece[:last].strip() and last > 0 else fits]
            if not piece.strip():
                raise DataError(
                    f"the question {(question or answer)[:60]!r} leaves no room for an answer in "
                    f"the model's context of {prompts.context:,} tokens: shorten it or leave it out"
                )
            fits = prompts.fitting(question, piece)
        rest = answer[len(piece) :].lstrip()
        short = question is None and len(rest) <= TOKEN
        if short and len(prompts.answer_spans(None, rest)) == 1:
            piece = piece.rsplit(maxsplit=1)[0]  # a passage of one token could not be read
        yield piece
        answer = answer[len(piece) :].lstrip()
    if answer:
        yield answer


def _fitting(question: str | None, answer: str, prompts: PromptFormat) -> int | None:
    """Count the characters that fit; of a text as long as a book, look only at the beginning."""
    beginning = answer[: TOKEN * (prompts.context or 1)]
    fits = prompts.fitting(question, beginning)
    return prompts.fitting(question, answer) if fits is None and beginning != answer else fits

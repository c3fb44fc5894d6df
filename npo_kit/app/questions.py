"""A study's questions as the page shows them: texts and facts, from the record or from the task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TypedDict, cast

from npo_kit.data.rows import Row
from npo_kit.data.tasks import TOFU_FOLDER_VARIABLE, evaluation_rows, load_authors
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation
from npo_kit.records.folder import TaskRecord
from npo_kit.records.run import Run


class Question(TypedDict):
    """A row as the page shows it."""

    set: str
    index: int  # its place in the set
    question: str
    answer: str
    fact: str  # in the answer, where it is known; else the whole answer


def questions_of(run: Run) -> tuple[list[Question], str]:
    """Return every evaluated row with its texts, and a sentence if they are not at hand.

    The texts come from the record, else from the task that it names if that is on this machine:
    nothing is downloaded. Where they are missing, the row's number stands for the question.
    """
    rows = run.evaluation(run.evaluated[0]).rows
    told = all("question" in row for of_set in rows.values() for row in of_set)
    full = {} if told else _rows_of(run)
    questions = []
    for name in EVALUATION_SETS:
        for place, row in enumerate(rows.get(name, [])):
            said: Row = {"question": f"{name} row {row['index']}", "answer": ""}
            if "question" in row:
                said = {"question": row["question"], "answer": row["answer"]}
            elif row["index"] < len(full.get(name, [])):
                said = full[name][row["index"]]
            questions.append(question_of(name, place, said))
    return questions, "" if told or full else _missing(str(run.task_name))


def _missing(task: str) -> str:
    sentence = f"Questions and answers of {task} are neither in this record nor on this machine, so"
    sentence += " that a row's number stands for its question."
    if not task.startswith("tofu:"):
        return sentence
    return (
        f"{sentence} To read them, set {TOFU_FOLDER_VARIABLE} to a folder with TOFU's JSON lines "
        'or download TOFU once with: python -c "from npo_kit.data import load_tofu; load_tofu()". '
        "Then start the page again."
    )


def question_of(set_name: str, place: int, row: Row) -> Question:
    """Return a row for the page, with the fact in its answer if that is known.

    The row says which it is, or it is one of the kit's own rows; else it is the whole answer.
    """
    question, answer = row["question"], row["answer"]
    span = row.get("entity_span") or (answer and _own_spans().get((question, answer)))
    fact = answer[slice(*span)] if span else answer
    return {"set": set_name, "index": place, "question": question, "answer": answer, "fact": fact}


def facts_told(evaluation: Evaluation, questions: Sequence[Question]) -> list[bool]:
    """Tell for each question whether the model's answer has the words of the fact, in a row."""
    told = []
    for question in questions:
        said = evaluation.rows[question["set"]][question["index"]].get("generation") or ""
        fact = _plain(question["fact"])
        told.append(bool(fact.strip()) and fact in _plain(said))
    return told


def _plain(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.lower())
    return f" {' '.join(words)} "


def _rows_of(run: Run) -> dict[str, list[Row]]:
    name, known = str(run.task_name), run.task.get("fingerprint")
    if known and name.startswith("authors:"):
        return _made_rows(name, known)
    return evaluation_rows(run.task, download=False)


@cache
def _made_rows(task: str, fingerprint: str) -> dict[str, list[Row]]:
    """Return the evaluation rows of a task that the kit makes; several studies share one."""
    return evaluation_rows(cast(TaskRecord, {"name": task, "fingerprint": fingerprint}))


@cache
def _own_spans() -> dict[tuple[str, str], list[int]]:
    """Return the span of the fact in the kit's own answers, by question and answer."""
    task = load_authors()
    rows = [*task.full, *(row for of_set in task.evaluation.values() for row in of_set)]
    return {(row["question"], row["answer"]): row["entity_span"] for row in rows}

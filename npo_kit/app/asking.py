"""A class's own questions, from a file: a list to pick from where the live models are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from npo_kit.app.jobs import PROMPT_LENGTH
from npo_kit.errors import KitError

MOST = 500  # questions of a list


def read_questions(path: str | Path) -> list[str]:
    """Read the questions of a text file, a question a line, or of JSON lines.

    A line of JSON is an object with a `question`; its other keys are left alone, so that rows of a
    task will do. Empty lines and questions that came before are left out. Raises KitError for a
    file that cannot be read or has no question, and for a line of another kind.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise KitError(f"{path} cannot be read ({reason}): give a file of questions") from None
    except UnicodeDecodeError:
        raise KitError(f"{path} is no text in UTF-8: save it as UTF-8") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    told = [(number, line) for number, line in lines if line]
    if told and told[0][1].startswith("{"):
        told = [(number, _question(line, f"{path}, line {number},")) for number, line in told]
    questions = list(dict.fromkeys(question for _, question in told))
    if not questions or len(questions) > MOST:
        raise KitError(f"{path} has {len(questions)} questions: give 1 to {MOST}, one a line")
    if too_long := next((n for n, question in told if len(question) > PROMPT_LENGTH), None):
        raise KitError(f"{path}, line {too_long}, has over {PROMPT_LENGTH} characters: cut it")
    return questions


def _question(line: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    question = row.get("question") if isinstance(row, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise KitError(f"{where} is no JSON object with a question, it is {line[:40]!r}: mend it")
    return " ".join(question.split())

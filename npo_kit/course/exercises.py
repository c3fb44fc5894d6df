"""The notebooks' exercises: `check(name, answer)` judges an answer, `hint(name)` helps.

The notebook asks the question; the answer is a function, a letter, some numbers or two summaries.
A wrong or missing answer gets a sentence and no error, so that an unsolved notebook runs to its
end. With NPO_KIT_STRICT=1 in the environment it raises an error.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from typing import Any

from npo_kit.course import judges
from npo_kit.course.judging import choice as judge_of_choice
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError


@cache
def read_exercises() -> dict[str, dict[str, Any]]:
    """Read the shipped `exercises.toml`: name -> hint, praise, and for a choice right and why."""
    return tomllib.loads(shipped_data("exercises.toml").read_text(encoding="utf-8"))


def check(name: str, answer: Any) -> None:
    """Print whether an answer is right, and if not, what is wrong with it.

    Raises KitError for an unknown exercise, and under NPO_KIT_STRICT=1 for a wrong answer.
    """
    about = _exercise(name)
    choice = "right" in about
    judge = judge_of_choice(about["right"], **about["why"]) if choice else getattr(judges, name)
    try:
        wrong = "there is no answer yet" if answer in (None, ...) else judge(answer)
    except Exception as error:
        wrong = f"your answer raised {type(error).__name__}: {error}"
    if wrong is None:
        print(f"Right: {about['praise']}")
        return
    if os.environ.get("NPO_KIT_STRICT") == "1":
        raise KitError(f"exercise {name}, not yet: {wrong}")
    print(f"not yet: {wrong}")


def hint(name: str) -> None:
    """Print the hint of an exercise."""
    print(_exercise(name)["hint"])


def _exercise(name: str) -> dict[str, Any]:
    exercises = read_exercises()
    if name not in exercises:
        raise KitError(f"there is no exercise {name!r}: choose one of {', '.join(exercises)}")
    return exercises[name]

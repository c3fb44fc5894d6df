"""Sentences for arguments of a wrong type, which the public functions refuse before they work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npo_kit.data.rows import row_problem
from npo_kit.data.tasks import Task
from npo_kit.errors import KitError


def refuse_other_types(
    function: str, model: Any, tokenizer: Any, task: Any, config: Any, *kinds: type
) -> None:
    """Raise KitError unless these are a loaded model, its tokenizer, a task and a configuration.

    `kinds` are the types that the configuration may have; it may be None.
    """
    again = "model, tokenizer = load_model(NAME), then give both in this order"
    if not (callable(model) and hasattr(model, "device") and hasattr(model, "config")):
        said = f"{function}: model must be a loaded model, it is {_shown(model)}"
        raise KitError(f"{said}: {again}")
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        said = f"{function}: tokenizer must be the model's tokenizer, it is {_shown(tokenizer)}"
        raise KitError(f"{said}: {again}")
    if not isinstance(task, Task):
        how = "load_task(NAME)" if isinstance(task, str) else "own_task(forget, retain)"
        raise KitError(f"{function}: task must be a Task, it is {_shown(task)}: give {how}")
    if not isinstance(config, (*kinds, type(None))):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise KitError(f"{function}: config must be of type {names}, it is {_shown(config)}")
    parts: Mapping[str, Any] = {"forget": task.forget, "retain": task.retain, **task.evaluation}
    for name, rows in parts.items():
        refuse_no_rows(f"{function}: the task's {name} rows", rows)


def refuse_no_rows(what: str, rows: Any) -> None:
    """Raise KitError unless `rows` is a list of rows; the sentence names the first bad one."""
    if isinstance(rows, Task):
        raise KitError(f"{what} must be a list, they are a Task: give its full or its retain rows")
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise KitError(f"{what} must be a list, they are {_shown(rows)}: give load_rows(...)")
    for number, row in enumerate(rows, 1):
        if problem := row_problem(row):
            raise KitError(f"{what}: in row {number} {problem}")


def _shown(value: Any) -> str:
    """Describe a value of a wrong type in few letters."""
    kind = type(value).__name__
    return f"{value!r:.60}" if isinstance(value, str | int | float | None) else f"a {kind}"

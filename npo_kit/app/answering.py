"""The server's answers: requests of the page are checked, and faults logged by number."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from inspect import signature
from typing import Any

from npo_kit.errors import KitError, without_paths
from npo_kit.records.files import Json

_KINDS = {int: "a whole number", str: "text", list: "a list", dict: "an object"}
_log = logging.getLogger("npo_kit.app")


def fault(happened: str, trace: bool = True) -> str:
    """Log a mistake of the server, with the exception that is being handled if `trace`.

    Returns the sentence for the visitor, which says no more than the number of the log's entry.
    """
    number = secrets.token_hex(2)
    _log.error("fault %s: %s", number, happened, exc_info=trace)
    return (
        f"something went wrong on the server (fault {number}): tell whoever runs it; "
        "the log there says more"
    )


def told(answer: Callable[..., Json | None]) -> Callable[[Any], Json]:
    """Wrap `answer` for the page: an object's keys become its keywords, once they are checked.

    Where it fails, the page gets `{"problem": sentence}`, never a trace or a path.
    """

    def safe(sent: Any = None) -> Json:
        try:
            return answer(**_keywords(answer, sent)) or {}
        except KitError as error:
            return {"problem": without_paths(str(error))}
        except Exception:  # the server's mistake, whatever it is
            return {"problem": fault(f"no answer to {answer.__name__}")}

    safe.__name__ = answer.__name__  # Gradio's name for it; wraps() would show another signature
    return safe


def _keywords(answer: Callable[..., Any], sent: Any) -> Json:
    """Return `sent` if it has the keys and types of `answer`'s parameters; else KitError."""
    takes = signature(answer, eval_str=True).parameters
    wanted = f"send {', '.join(takes) or 'nothing'}"
    if type(sent) is not dict:
        raise KitError(f"{answer.__name__} needs an object, not {sent!r:.60}: {wanted}")
    for name in [*takes, *sent]:
        if name not in sent:
            raise KitError(f"{answer.__name__} needs {name}: {wanted}")
        if name not in takes:
            raise KitError(f"{answer.__name__} takes no {name!r:.60}: {wanted}")
        if type(sent[name]) is not (kind := takes[name].annotation):
            raise KitError(f"{name} must be {_KINDS[kind]}, it is {sent[name]!r:.60}")
    return sent

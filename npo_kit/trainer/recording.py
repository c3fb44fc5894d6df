"""A run's events written to its folder as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from npo_kit.records.evaluations import Evaluation
from npo_kit.records.run import RunWriter
from npo_kit.trainer.checkpoints import remove_checkpoints
from npo_kit.trainer.events import Collapse, Event, Step


def record(
    writer: RunWriter | None,
    events: Iterable[Event],
    *,
    seen: Callable[[Event], None] = lambda _: None,
    save: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write `events` as they come and end the run; what came of it: empty, or how it collapsed.

    `seen` is told each event once it is written; `save` is called before the run counts as ended.
    A run that an error or an interruption leaves is marked as stopped, with the reason; one that
    ended keeps no checkpoints. Without a writer, as in processes beside the main one, the run goes
    on alike and nothing is written.
    """
    outcome: dict[str, Any] = {}
    with writer or nullcontext():
        for event in events:
            if writer and isinstance(event, Step):
                writer.step(asdict(event))
            elif writer and isinstance(event, Evaluation):
                writer.evaluation(event)
            elif isinstance(event, Collapse):
                outcome = {"collapsed_at": event.step, "reason": event.reason}
            seen(event)
        save()
        if writer:
            writer.finish("collapsed" if outcome else "finished", **outcome)
    if writer:
        remove_checkpoints(writer.folder)
    return outcome

"""A job of a visitor in a process of its own, whose events are collected as they come."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from npo_kit.app.answering import fault
from npo_kit.app.workers import Worker
from npo_kit.errors import KitError
from npo_kit.records.files import parse

ENDS = ("collapsed", "stopped", "failed")  # events after which none comes
# Events after which it trains, or does not; before any of them it does. A finished one answers
# prompts.
PHASES = {"finished": False, "relearning": True, "relearned": False}
UNLEARNED = ("finished", "relearned")  # of them, those after which it may be taught again
PROMPT_LENGTH = 2000  # characters that a prompt may have

_LONE = re.compile("[\ud800-\udfff]")  # half of a character, which is no text


def as_text(typed: str) -> str:
    """Return what a visitor typed, without halves of characters."""
    return _LONE.sub("\ufffd", typed)


class Job:
    """What a worker does at the first order that it is sent, and the events that it tells."""

    name = "job"  # of what can be downloaded
    phases: Mapping[str, bool] = PHASES

    def __init__(self, worker: Worker, order: Mapping[str, Any]):
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Condition()
        self._worker = worker
        worker.send(order)
        threading.Thread(target=self._collect, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether its process has nothing more to say."""
        with self._lock:
            return any(event["event"] in ENDS for event in self._events)

    @property
    def training(self) -> bool:
        """Whether it still trains: it has neither finished nor ended."""
        return not self.ended and self.phases.get(self._phase(), True)

    def _phase(self) -> str:
        """The last of its `phases`; empty before the first."""
        with self._lock:
            told = [event["event"] for event in self._events if event["event"] in self.phases]
        return told[-1] if told else ""

    def events(self, since: int = 0, wait: float = 0.0) -> list[dict[str, Any]]:
        """Return the events after the first `since`, at once or within `wait` seconds."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._events) > since, wait)
            return self._events[since:]

    def watch(self, set_name: str, index: int) -> None:
        """Ask for the answer to one question while it trains, from now on."""
        self._worker.send({"watch": [set_name, index]})

    def ask(self, prompt: str, number: int) -> None:
        """Ask for the answer to any question; it comes in `token` events with that number."""
        if type(prompt) is not str or not prompt.strip():
            raise KitError("there is no question: write one")
        prompt = as_text(prompt)
        if len(prompt) > PROMPT_LENGTH:
            raise KitError(f"a question may have {PROMPT_LENGTH} characters, it has {len(prompt)}")
        self._worker.send({"ask": prompt, "number": number})

    def relearn(self, control: bool) -> None:
        """Have half of what was unlearned taught again to copies, and the other half asked.

        `control`: the model that never knew it is taught as well. Raises KitError for a job that
        has not unlearned anything, or trains.
        """
        with self._lock:  # so that of two orders at a time one is refused
            if self.ended:
                raise KitError("no unlearned model is there: unlearn again")
            if self._phase() not in UNLEARNED:
                raise KitError("the model still trains: wait until it has unlearned")
            self._tell({"event": "relearning"})
        self._worker.send({"relearn": {"control": control}})

    def halt(self) -> None:
        """End a lesson of `relearn` at its next step; the unlearned model stays."""
        self._worker.send({"halt": True})

    def archive(self) -> bytes:
        """Return what is recorded, zipped; KitError if nothing is."""
        raise KitError("nothing of this is recorded, so there is nothing to download")

    def stop(self) -> None:
        """End the process within a second, whatever it is doing; keep what it recorded."""
        self._end({"event": "stopped"})
        self._worker.end()

    def forget(self) -> None:
        """Stop, and remove what it recorded."""
        self.stop()

    def _collect(self) -> None:
        for line in self._worker.lines():
            event = parse(line, "the live run's event")
            if event["event"] in ENDS:
                self._end(event)
            else:
                self._tell(event)
        code, said = self._worker.finish()
        if not self.ended:
            happened = f"the process of a live run ended with code {code}\n{said}"
            self._end({"event": "failed", "reason": fault(happened, trace=False)})

    def _tell(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._events.append(event)
            self._lock.notify_all()

    def _end(self, event: dict[str, Any]) -> None:
        with self._lock:
            if not any(each["event"] in ENDS for each in self._events):
                self._events.append(event)
                self._lock.notify_all()

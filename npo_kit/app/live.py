"""Live runs: each an unlearning in a process of its own, its events collected as they come."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from npo_kit.errors import KitError
from npo_kit.records import RunError, dumps, parse

ENDS = ("finished", "collapsed", "stopped", "failed")  # events after which none comes
GRACE = 0.5  # seconds that a process has to end before it is killed
LEASE = 15.0  # seconds without a question after which a run is stopped: its viewer has left

# Setting -> least and largest value that a page may ask for.
RANGES = {
    "lr": (1e-6, 1e-2),
    "beta": (1e-3, 10.0),
    "retain_weight": (0.0, 100.0),
    "epochs": (1.0, 20.0),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class LiveConfig:
    """One live run. Raises KitError for a value of another type or out of RANGES."""

    method: str = "npo_rt"  # unknown ones are refused by the run itself
    lr: float = 4e-4
    beta: float | None = None  # None: the method has none, or its own
    retain_weight: float | None = None  # None: the method's
    epochs: float = 10.0
    seed: int = 0
    model: str = "pocket"
    task: str = "authors:forget10"

    def __post_init__(self):
        for name in ("method", "model", "task"):
            if type(getattr(self, name)) is not str:
                raise KitError(f"{name} must be a name, it is {getattr(self, name)!r:.60}")
        for name, (least, largest) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in ("beta", "retain_weight"):
                continue
            number = type(value) is int or (type(value) is float and name != "seed")
            if not number or not math.isfinite(value) or not least <= value <= largest:
                raise KitError(f"{name} must be {least:g} to {largest:g}, it is {value!r:.60}")

    @classmethod
    def of(cls, settings: Any) -> LiveConfig:
        """From what a page sends; KitError for a setting that does not exist."""
        known = {f.name for f in fields(cls)}
        if not isinstance(settings, Mapping) or not settings.keys() <= known:
            raise KitError(f"a live run takes {', '.join(sorted(known))}, not {settings!r:.200}")
        return cls(**settings)


class LiveJob:
    """A run in a process of its own, from `start` to one of ENDS."""

    def __init__(self, config: LiveConfig):
        self.config = config
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Condition()
        self._asked = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "npo_kit.app.job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._send(asdict(config))
        threading.Thread(target=self._collect, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether the last event has come."""
        with self._lock:
            return bool(self._events) and self._events[-1]["event"] in ENDS

    @property
    def forsaken(self) -> bool:
        """Whether nobody asked for its events for LEASE seconds."""
        return time.monotonic() - self._asked > LEASE

    def events(self, since: int = 0, wait: float = 0.0) -> list[dict[str, Any]]:
        """The events after the first `since`, at once or within `wait` seconds."""
        self._asked = time.monotonic()
        with self._lock:
            self._lock.wait_for(lambda: len(self._events) > since, wait)
            return self._events[since:]

    def watch(self, set_name: str, index: int) -> None:
        """Ask for the answer to one question between evaluations, from now on."""
        self._send({"watch": [set_name, index]})

    def stop(self) -> None:
        """End the process, whatever it does, within a second; nothing happens if it has ended."""
        self._end({"event": "stopped"})
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended, and says why in its events
            self._process.stdin.write(dumps(message))
            self._process.stdin.flush()

    def _collect(self) -> None:
        for line in self._process.stdout:
            try:
                event = parse(line, "the live run's event")
            except RunError:
                continue  # cut off where the process was ended
            if event["event"] in ENDS:
                self._end(event)
            else:
                with self._lock:
                    self._events.append(event)
                    self._lock.notify_all()
        code = self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._end({"event": "failed", "reason": f"its process ended with code {code}"})

    def _end(self, event: dict[str, Any]) -> None:
        with self._lock:
            if not (self._events and self._events[-1]["event"] in ENDS):
                self._events.append(event)
                self._lock.notify_all()


class LiveJobs:
    """The live runs of a server: so many at a time, at most `per_visitor` of each visitor."""

    def __init__(self, limit: int = 4, per_visitor: int = 2):
        self.limit, self.per_visitor = limit, per_visitor
        self._jobs: dict[tuple[str, int], LiveJob] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._sweep, daemon=True).start()

    def start(self, visitor: str, configs: list[LiveConfig]) -> None:
        """Start a visitor's runs in place of those the visitor had; KitError if all are taken."""
        if not 0 < len(configs) <= self.per_visitor:
            raise KitError(f"one to {self.per_visitor} runs at a time, not {len(configs)}")
        self.stop(visitor)
        with self._lock:
            running = sum(not job.ended for job in self._jobs.values())
            if running + len(configs) > self.limit:
                raise KitError(
                    f"{running} live runs are going on, and this machine takes {self.limit}: try "
                    "again in a minute"
                )
            for number, config in enumerate(configs):
                self._jobs[visitor, number] = LiveJob(config)

    def of(self, visitor: str) -> list[LiveJob]:
        """A visitor's runs, ended ones included."""
        with self._lock:
            return [self._jobs[key] for key in sorted(self._jobs) if key[0] == visitor]

    def stop(self, visitor: str) -> None:
        """End and forget a visitor's runs."""
        with self._lock:
            keys = [key for key in self._jobs if key[0] == visitor]
            jobs = [self._jobs.pop(key) for key in keys]
        for job in jobs:
            job.stop()

    def stop_all(self) -> None:
        """End every run, as when the server ends."""
        for visitor in {visitor for visitor, _ in list(self._jobs)}:
            self.stop(visitor)

    def _sweep(self) -> None:
        while True:
            time.sleep(1.0)
            for visitor in {visitor for visitor, _ in list(self._jobs)}:
                if all(job.forsaken for job in self.of(visitor)):
                    self.stop(visitor)

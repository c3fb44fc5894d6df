"""Gives each visitor live runs, to a few visitors at a time while the others queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from npo_kit.app.answering import fault
from npo_kit.app.jobs import Job
from npo_kit.app.live import LiveConfig, LiveJob
from npo_kit.app.secret import SecretJob, Secrets
from npo_kit.app.workers import Waiting
from npo_kit.errors import KitError

LEASE = 300.0  # seconds without a poll after which a visitor has left; hidden tabs poll rarely
PAIR = 2  # runs of a visitor, side by side
QUEUE = 100  # visitors that may wait
Asked = LiveConfig | Secrets  # what a visitor wants to run


@dataclass
class _Visit:
    """The runs that one visitor asked for; `jobs` is empty while the visitor waits."""

    configs: list[Asked]
    asked: float  # when the visitor last asked, by the monotonic clock
    jobs: list[Job] = field(default_factory=list)
    refused: bool = False  # the system had no process for it, which is logged once

    @property
    def training(self) -> bool:
        return any(job.training for job in self.jobs)

    @property
    def alive(self) -> bool:
        return any(not job.ended for job in self.jobs)


class Visits:
    """The live runs of a server: `limit` visitors run at a time, the others in the order they came.

    A visitor whose runs have finished may go on asking the models until somebody else waits.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._visits: dict[str, _Visit] = {}  # in the order in which they came
        self._lock = threading.RLock()
        self.waiting = Waiting()
        threading.Thread(target=self._sweep, daemon=True).start()

    def start(self, visitor: str, configs: Sequence[Asked]) -> None:
        """Queue a visitor's runs, in place of those the visitor had."""
        if not 0 < len(configs) <= PAIR:
            raise KitError(f"one to {PAIR} runs at a time, not {len(configs)}")
        self.leave(visitor)
        with self._lock:
            if len(self._visits) >= QUEUE:
                raise KitError(f"{QUEUE} visitors are here already: try again later")
            self._visits[visitor] = _Visit(list(configs), time.monotonic())
            self._advance()

    def place(self, visitor: str) -> int:
        """Return the visitor's place in the queue, from 1; 0 for one whose turn has come."""
        with self._lock:
            self._visit(visitor)
            waiting = [name for name, visit in self._visits.items() if not visit.jobs]
            return waiting.index(visitor) + 1 if visitor in waiting else 0

    def jobs(self, visitor: str) -> list[Job]:
        """Return a visitor's runs, ended ones included: none while the visitor waits.

        KitError for a visitor who asked for none.
        """
        with self._lock:
            visit = self._visit(visitor)
            visit.asked = time.monotonic()
            return list(visit.jobs)

    def stop(self, visitor: str) -> None:
        """End a visitor's runs, and keep what they recorded until the visitor leaves."""
        with self._lock:
            jobs = self.jobs(visitor)
            if not jobs:
                del self._visits[visitor]  # from the queue
        for job in jobs:
            job.stop()
        with self._lock:
            self._advance()

    def leave(self, visitor: str) -> None:
        """End and forget a visitor's runs, if there are any."""
        with self._lock:
            visit = self._visits.pop(visitor, None)
        for job in visit.jobs if visit else []:
            job.forget()
        with self._lock:
            self._advance()

    def stop_all(self) -> None:
        """End every run, as when the server ends."""
        with self._lock:
            visitors = list(self._visits)
            for visit in self._visits.values():  # so that no turn comes now
                visit.configs = []
        for visitor in visitors:
            self.leave(visitor)
        self.waiting.close()

    def _visit(self, visitor: str) -> _Visit:
        if visitor not in self._visits:
            raise KitError("there is no live run: it was stopped, or the server was restarted")
        return self._visits[visitor]

    def _advance(self) -> None:
        """Start the runs whose turn has come; those that only wait for questions make room."""
        for visit in [each for each in self._visits.values() if not each.jobs]:
            alive = [each for each in self._visits.values() if each.alive]
            if len(alive) >= self.limit:
                idle = next((each for each in alive if not each.training), None)
                if idle is None:
                    return
                for job in idle.jobs:
                    job.stop()
            jobs: list[Job] = []
            try:
                for config in visit.configs:
                    jobs.append(self._begun(config))
            except OSError:  # the system has no process to spare: the visitor keeps waiting
                if not visit.refused:
                    fault("a live run could not be started: its visitor waits")
                visit.refused = True
                for job in jobs:
                    job.forget()
                return
            visit.jobs = jobs

    def _begun(self, asked: Asked) -> Job:
        if isinstance(asked, Secrets):
            return SecretJob(asked, self.waiting.take())
        return LiveJob(asked, self.waiting.take() if asked.model == "pocket" else None)

    def _sweep(self) -> None:
        """Let go of visitors who have left, and let the next one begin."""
        while True:
            time.sleep(0.25)
            with self._lock:
                now = time.monotonic()
                gone = [name for name, each in self._visits.items() if now - each.asked > LEASE]
                self._advance()
                busy = any(each.training for each in self._visits.values())
            for visitor in gone:
                self.leave(visitor)
            if not busy:  # the cores are for those that train
                self.waiting.fill()

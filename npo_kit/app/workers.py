"""Processes for what the page runs now, and some that wait with the pocket model loaded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from npo_kit.records.files import dumps

COMMAND = (sys.executable, "-m", "npo_kit.app.worker")
GRACE = 0.5  # seconds that a process has to end before it is killed
TAIL = 10_000  # bytes of a failed process's stderr that the server logs
READY = 2  # processes that wait: a pair
WANTED = 900.0  # seconds after the last look at the live view for which they do
PREPARE = {"prepare": "pocket"}  # the order to load what a run of the pocket model needs


class Worker:
    """A process that takes JSON lines and answers with JSON lines.

    For the pocket model it has one thread: several at a time would only wait for each other. Making
    one raises OSError where the system has no process to spare.
    """

    def __init__(self, pocket: bool):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  as long as it runs
        threads = {"OMP_NUM_THREADS": "1"} if pocket else {}
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | threads | {"HF_HUB_DISABLE_TELEMETRY": "1"},
        )
        assert self.process.stdin is not None  # they are pipes
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send an order; one that has ended takes none, which what it said tells."""
        line = dumps(message)
        with contextlib.suppress(OSError, ValueError):  # the pipe is broken or closed
            self._stdin.write(line)
            self._stdin.flush()

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that it says until it ends."""
        for line in self._stdout:
            if line.endswith(b"\n"):  # else cut off where the process was ended
                yield line

    def finish(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and the last of what it wrote to stderr."""
        code = self.process.wait()
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - TAIL))
        said = self._errors.read().decode(errors="replace")
        with contextlib.suppress(OSError):  # what was not yet written when it ended
            self._stdin.close()
        self._stdout.close()
        self._errors.close()
        return code, said

    def end(self) -> None:
        """End it within a second, whatever it is doing."""
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Waiting:
    """Up to READY processes that have loaded the pocket model and wait for a run.

    None is there until `wish` says that somebody looks at the live view, nor WANTED seconds later.
    """

    def __init__(self):
        self._workers: list[Worker] = []
        self._wanted = float("-inf")  # until then, by the monotonic clock
        self._lock = threading.Lock()

    def wish(self) -> None:
        """Keep processes waiting for WANTED seconds from now."""
        self._wanted = time.monotonic() + WANTED

    def take(self) -> Worker:
        """Return a process for the pocket model: one that waits, else a new one."""
        with self._lock:
            while self._workers:
                worker = self._workers.pop(0)
                if worker.alive:
                    return worker
                worker.finish()
        return Worker(pocket=True)

    def fill(self) -> None:
        """Start one process if fewer wait than should; end them where nobody looks any more."""
        with self._lock:
            wanted = time.monotonic() < self._wanted
            if wanted and len(self._workers) < READY:
                # where the system has no process to spare, a run starts its own, or says so
                with contextlib.suppress(OSError):
                    worker = Worker(pocket=True)
                    worker.send(PREPARE)
                    self._workers.append(worker)
        if not wanted:
            self.close()

    def close(self) -> None:
        """End all that wait, and start none until the next wish."""
        with self._lock:
            self._wanted = float("-inf")
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()
            worker.finish()

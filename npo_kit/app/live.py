"""A live run: an unlearning in a process of its own, its events collected as they come."""

from __future__ import annotations

import contextlib
import io
import math
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from npo_kit.errors import KitError
from npo_kit.records.files import RunError, dumps, parse

ENDS = ("collapsed", "stopped", "failed")  # events after which none comes
TRAINED = ("finished", *ENDS)  # after which it trains no more; a finished one answers prompts
GRACE = 0.5  # seconds that a process has to end before it is killed
PROMPT_LENGTH = 2000  # characters that a prompt may have

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
        """From plain JSON; KitError for a setting that does not exist."""
        known = {f.name for f in fields(cls)}
        if not isinstance(settings, Mapping) or not settings.keys() <= known:
            raise KitError(f"a live run takes {', '.join(sorted(known))}, not {settings!r:.200}")
        return cls(**settings)


class LiveJob:
    """A run in a process of its own. It is recorded as any run, in a folder that ends with it."""

    def __init__(self, config: LiveConfig):
        self.config = config
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Condition()
        self._folder = tempfile.TemporaryDirectory(prefix="npo_kit-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "npo_kit.app.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # one thread each: several at a time would only wait for each other
            env=os.environ | {"OMP_NUM_THREADS": "1"} if config.model == "pocket" else None,
        )
        self._send({"config": asdict(config), "folder": str(self._run_folder)})
        threading.Thread(target=self._collect, daemon=True).start()

    @property
    def _run_folder(self) -> Path:
        return Path(self._folder.name) / self.config.method

    def _happened(self, kinds: tuple[str, ...]) -> bool:
        with self._lock:
            return any(event["event"] in kinds for event in self._events)

    @property
    def ended(self) -> bool:
        """Whether its process has nothing more to say."""
        return self._happened(ENDS)

    @property
    def training(self) -> bool:
        """Whether it is on its way: not finished, nor ended."""
        return not self._happened(TRAINED)

    def events(self, since: int = 0, wait: float = 0.0) -> list[dict[str, Any]]:
        """The events after the first `since`, at once or within `wait` seconds."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._events) > since, wait)
            return self._events[since:]

    def watch(self, set_name: str, index: int) -> None:
        """Ask for the answer to one question between evaluations, from now on."""
        self._send({"watch": [set_name, index]})

    def ask(self, prompt: str, number: int) -> None:
        """Ask for the answer to any question; it comes in `token` events with that number."""
        if type(prompt) is not str or not prompt.strip():
            raise KitError("there is no question: write one")
        if len(prompt) > PROMPT_LENGTH:
            raise KitError(f"a question may have {PROMPT_LENGTH} characters, it has {len(prompt)}")
        self._send({"ask": prompt, "number": number})

    def archive(self) -> bytes:
        """The run's folder as it is now, zipped; KitError where nothing is recorded yet."""
        packed = io.BytesIO()
        files = sorted(path for path in self._run_folder.rglob("*") if path.is_file())
        whole = [path for path in files if not path.name.startswith(".")]
        if not whole:
            raise KitError("nothing is recorded yet: wait for the first step")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for path in whole:
                file.writestr(
                    path.relative_to(self._run_folder.parent).as_posix(), path.read_bytes()
                )
        return packed.getvalue()

    def stop(self) -> None:
        """End the process, whatever it does, within a second; what it recorded is kept."""
        self._end({"event": "stopped"})
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Stop, and remove what it recorded."""
        self.stop()
        self._folder.cleanup()

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
            if not any(each["event"] in ENDS for each in self._events):
                self._events.append(event)
                self._lock.notify_all()

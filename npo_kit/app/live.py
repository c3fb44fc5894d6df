"""A live run: it unlearns in a process of its own, whose events are collected as they come."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import InitVar, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from npo_kit.app.answering import fault
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS
from npo_kit.options import Option, options_of
from npo_kit.records.files import dumps, parse
from npo_kit.trainer.config import UnlearnConfig

ENDS = ("collapsed", "stopped", "failed")  # events after which none comes
TRAINED = ("finished", *ENDS)  # after which it trains no more; a finished one answers prompts
GRACE = 0.5  # seconds that a process has to end before it is killed
PROMPT_LENGTH = 2000  # characters that a prompt may have
TAIL = 10_000  # bytes of a failed process's stderr that the server logs
WORKER = (sys.executable, "-m", "npo_kit.app.worker")

_LONE = re.compile("[\ud800-\udfff]")  # half of a character, which is no text


@dataclass(frozen=True)
class LiveConfig:
    """One live run; a setting of None is left to the study or the method.

    Raises KitError for a value of another type or outside the options' usual range.
    """

    method: str = "npo_rt"  # unknown ones are refused by the run itself
    lr: float | None = None
    beta: InitVar[float | None] = None  # short for an entry of `hyper`
    retain_weight: float | None = None
    epochs: float | None = None
    seed: int = 0
    model: str = "pocket"
    task: str = "authors:forget10"
    hyper: Mapping[str, float] = field(default_factory=dict)  # options of the method's forget term

    def __post_init__(self, beta: float | None):
        for name in ("method", "model", "task"):
            if type(getattr(self, name)) is not str:
                raise KitError(f"{name} must be a name, it is {getattr(self, name)!r:.60}")
        if not isinstance(self.hyper, Mapping):
            raise KitError(f"hyper must be an object, it is {self.hyper!r:.60}")
        if beta is not None:
            object.__setattr__(self, "hyper", {**self.hyper, "beta": beta})
        known = settings_options(self.method)
        for name, value in {**vars(self), **self.hyper}.items():
            if name in known and value is not None and (problem := known[name].unusual(value)):
                raise KitError(f"{name} {problem}, it is {value!r:.60}")

    @classmethod
    def of(cls, settings: Any) -> LiveConfig:
        """Make one from plain JSON; KitError for a setting that does not exist."""
        known = {f.name for f in fields(cls)}
        if not isinstance(settings, Mapping) or not settings.keys() <= known:
            raise KitError(f"a live run takes {', '.join(sorted(known))}, not {settings!r:.200}")
        return cls(**settings)


def settings_options(method: str) -> dict[str, Option]:
    """Return the options that the page offers for runs of a method, in the order of its controls.

    They are the configuration's own and those of the forget term that have a usual range.
    """
    entry, of_run = METHODS.get(method), options_of(UnlearnConfig)
    hyper = {name: about for name, about in entry.settable.items() if about.usual} if entry else {}
    weight = {}
    if entry and entry.retain:
        weight = {"retain_weight": replace(of_run["retain_weight"], default=entry.retain_weight)}
    others = {name: of_run[name] for name in ("epochs", "seed")}
    return {"lr": of_run["lr"], **hyper, **weight, **others}


class LiveJob:
    """A run in a process of its own, recorded like any other in a folder that goes with it."""

    def __init__(self, config: LiveConfig):
        self.config = config
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Condition()
        self._folder = tempfile.TemporaryDirectory(prefix="npo_kit-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  as long as it runs
        # one thread each: several at a time would only wait for each other
        threads = {"OMP_NUM_THREADS": "1"} if config.model == "pocket" else {}
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | threads | {"HF_HUB_DISABLE_TELEMETRY": "1"},
        )
        assert self._process.stdin is not None  # they are pipes
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
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
        """Whether it still trains: it has neither finished nor ended."""
        return not self._happened(TRAINED)

    def events(self, since: int = 0, wait: float = 0.0) -> list[dict[str, Any]]:
        """Return the events after the first `since`, at once or within `wait` seconds."""
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
        prompt = _LONE.sub("\ufffd", prompt)
        if len(prompt) > PROMPT_LENGTH:
            raise KitError(f"a question may have {PROMPT_LENGTH} characters, it has {len(prompt)}")
        self._send({"ask": prompt, "number": number})

    def archive(self) -> bytes:
        """Return the run's folder as it is now, zipped; KitError if nothing is recorded yet."""
        packed, folder = io.BytesIO(), self._run_folder
        files = [path for path in folder.rglob("[!.]*") if path.is_file()]
        if not files:
            raise KitError("nothing is recorded yet: wait for the first step")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(files):
                file.writestr(path.relative_to(folder.parent).as_posix(), path.read_bytes())
        return packed.getvalue()

    def stop(self) -> None:
        """End the process within a second, whatever it is doing; keep what it recorded."""
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
        line = dumps(message)
        # the pipe is broken or closed where it has ended, which its events say
        with contextlib.suppress(OSError, ValueError):
            self._stdin.write(line)
            self._stdin.flush()

    def _collect(self) -> None:
        for line in self._stdout:
            if not line.endswith(b"\n"):
                break  # cut off where the process was ended
            event = parse(line, "the live run's event")
            if event["event"] in ENDS:
                self._end(event)
            else:
                with self._lock:
                    self._events.append(event)
                    self._lock.notify_all()
        code = self._process.wait()
        if not self.ended:
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - TAIL))
            said = self._errors.read().decode(errors="replace")
            happened = f"the process of a live run ended with code {code}\n{said}"
            self._end({"event": "failed", "reason": fault(happened, trace=False)})
        with contextlib.suppress(OSError):  # what was not yet written when it ended
            self._stdin.close()
        self._stdout.close()
        self._errors.close()

    def _end(self, event: dict[str, Any]) -> None:
        with self._lock:
            if not any(each["event"] in ENDS for each in self._events):
                self._events.append(event)
                self._lock.notify_all()

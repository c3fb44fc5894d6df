"""A live run: it unlearns in a process of its own, whose events are collected as they come."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import InitVar, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from npo_kit.app.jobs import Job
from npo_kit.app.workers import Worker
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS
from npo_kit.options import Option, options_of
from npo_kit.trainer.config import UnlearnConfig


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
    quick: bool = True  # evaluations between the first and the last cover a few rows of each set

    def __post_init__(self, beta: float | None):
        for name in ("method", "model", "task"):
            if type(getattr(self, name)) is not str:
                raise KitError(f"{name} must be a name, it is {getattr(self, name)!r:.60}")
        if type(self.quick) is not bool:
            raise KitError(f"quick must be true or false, it is {self.quick!r:.60}")
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


class LiveJob(Job):
    """A run in a process of its own, recorded like any other in a folder that goes with it."""

    def __init__(self, config: LiveConfig, worker: Worker | None = None):
        self.config, self.name = config, config.method
        self._folder = tempfile.TemporaryDirectory(prefix="npo_kit-", ignore_cleanup_errors=True)
        order = {"config": asdict(config), "folder": str(self._run_folder)}
        super().__init__(worker or Worker(config.model == "pocket"), order)

    @property
    def _run_folder(self) -> Path:
        return Path(self._folder.name) / self.config.method

    def relearn(self, control: bool) -> None:
        """As any job; KitError where no model is known that never saw the forget rows."""
        if not any(event.get("control") for event in self.events()):
            raise KitError(
                "for these rows no model is recorded that never saw them: unlearn 10 % of the "
                "pocket model's authors"
            )
        super().relearn(control)

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

    def forget(self) -> None:
        """Stop, and remove what it recorded."""
        super().forget()
        self._folder.cleanup()

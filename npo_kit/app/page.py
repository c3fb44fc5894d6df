"""The answers that the page asks the server for."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from npo_kit.app.live import LiveConfig, settings_options
from npo_kit.app.much import recorded_splits
from npo_kit.app.packed import PackedStudy
from npo_kit.app.theory import OPTIONS, Theory, theorem_lines
from npo_kit.app.visits import Visits
from npo_kit.app.worker import unlearning
from npo_kit.errors import KitError
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS, methods_of
from npo_kit.options import Option
from npo_kit.records.files import Json

VISITOR_LENGTH = 64
SPLITS = (1, 5, 10, 20, 50)  # percentages to forget that a live run offers


@dataclass
class Answers:
    """The server's answers, JSON for JSON: a method's parameters are the keys that it is sent."""

    NAMES: ClassVar = (
        *("index", "texts", "scores", "about", "splits"),
        *("start", "poll", "watch", "ask", "stop", "leave", "download"),
        *("theory", "theorem"),
    )
    studies: Sequence[PackedStudy]
    visits: Visits
    experiment: Theory
    model: str = "pocket"  # of live runs
    task: str | None = None  # likewise; None: the kit's authors, with the percentage of the page
    toured: PackedStudy | None = None  # the study that the guided tour is about

    def _study(self, number: int) -> PackedStudy:
        if not 0 <= number < len(self.studies):
            raise KitError(f"there is no study {number}: choose 0 to {len(self.studies) - 1}")
        return self.studies[number]

    # --- what was recorded ---

    def index(self, study: int) -> Json:
        chosen = self._study(study)
        index = page_index(chosen)
        named = {*METHODS, *(run["method"] for run in index["runs"])}
        usual = unlearning(LiveConfig(model=self.model))
        return index | {
            "studies": [each.title for each in self.studies],
            "lessons": chosen is self.toured,
            "live": {
                "model": Path(self.model).name,
                "task": self.task or "authors:forget10",
                "splits": SPLITS if self.task is None else [],
                "methods": list(METHODS),
                "controls": {name: _controls(settings_options(name)) for name in METHODS},
                "usual": {"lr": usual.lr, "epochs": usual.epochs},
                "weighed": sorted({look_of(e.term).label for e in METHODS.values() if e.weight}),
                "pocket": self.model == "pocket",
            },
            "theory": {"methods": methods_of("kit"), "controls": _controls(OPTIONS)},
            "styles": {name: _look(name) for name in sorted(named)},
        }

    def texts(self, study: int, question: int) -> Json:
        return self._study(study).texts(question)

    def scores(self, study: int, run: str) -> Json:
        return self._study(study).scores(run)

    def about(self, study: int, run: str) -> Json:
        return self._study(study).about(run)

    def splits(self) -> Json:
        return recorded_splits()

    # --- what runs now ---

    def start(self, visitor: str, runs: list) -> None:
        if not 0 < len(visitor) <= VISITOR_LENGTH:
            raise KitError(f"a visitor needs a name of 1 to {VISITOR_LENGTH} characters")
        self.visits.start(visitor, [LiveConfig.of(self._settings(run)) for run in runs])

    def _settings(self, asked: Any) -> Any:
        """A run's settings with the model and task of this server, whatever the page says."""
        if not isinstance(asked, dict):
            return asked  # LiveConfig refuses it
        chosen = dict(asked)
        percent = chosen.pop("percent", 10)
        if self.task is None and (type(percent) is not int or percent not in SPLITS):
            raise KitError(f"forget {', '.join(map(str, SPLITS))} percent, not {percent!r:.60}")
        task = self.task or f"authors:forget{percent:02d}"
        return chosen | {"model": self.model, "task": task}

    def poll(self, visitor: str, since: list) -> Json:
        if not all(type(number) is int and number >= 0 for number in since):
            raise KitError(f"since must list whole numbers from 0, it is {since!r:.60}")
        jobs = self.visits.jobs(visitor)
        if not jobs:
            return {"place": self.visits.place(visitor), "events": []}
        seen = [*since, *[0] * len(jobs)][: len(jobs)]
        return {"place": 0, "events": [job.events(n) for job, n in zip(jobs, seen, strict=True)]}

    def watch(self, visitor: str, set: str, index: int) -> None:
        if index < 0:
            raise KitError(f"index must be a question's place in its set, from 0, it is {index}")
        for job in self.visits.jobs(visitor):
            job.watch(set, index)

    def ask(self, visitor: str, prompt: str, number: int) -> None:
        jobs = self.visits.jobs(visitor)
        if all(job.ended for job in jobs):
            raise KitError("no live run is there to ask: start one")
        for job in jobs:
            job.ask(prompt, number)

    def stop(self, visitor: str) -> None:
        self.visits.stop(visitor)

    def leave(self, visitor: str) -> None:
        self.visits.leave(visitor)

    def download(self, visitor: str, run: int) -> Json:
        jobs = self.visits.jobs(visitor)
        if not 0 <= run < len(jobs):
            raise KitError(f"there is no run {run} to download: {len(jobs)} have started")
        packed = base64.b64encode(jobs[run].archive()).decode()
        return {"name": f"{jobs[run].config.method}.zip", "base64": packed}

    # --- the theory ---

    def theory(self, settings: dict) -> Json:
        return self.experiment.run(settings)

    def theorem(self) -> Json:
        return theorem_lines()


def page_index(study: PackedStudy) -> Json:
    """Return the study's index with the name and look of each run.

    `main` is the first run of each method; `group` names the runs that differ by the seed alone.
    """
    first: dict[str, Json] = {}
    index, runs = study.index(), []
    for run in index["runs"]:
        main = first.setdefault(run["method"], run)
        name = look_of(run["method"]).label
        settings = ("beta", "lr", "retain_weight", "epochs")
        group = [run["method"], *(f"{run[key]}" for key in settings)]
        shown = {
            "kind": "evaluate" if run["id"] in ("original", "retained") else "unlearn",
            "label": ", ".join([name, *run.get("apart", ())]),
            "methodLabel": name,
            "main": run is main,
            "group": " ".join(group),
        }
        runs.append(run | shown)
    return index | {"runs": runs}


def _controls(options: Mapping[str, Option]) -> Json:
    return {name: about.control(name) for name, about in options.items()}


def _look(method: str) -> dict[str, str]:
    look = look_of(method)
    dash = " ".join(f"{part:g}" for part in look.line[1]) if isinstance(look.line, tuple) else ""
    return {"label": look.label, "colour": look.colour, "dash": dash, "marker": look.marker}

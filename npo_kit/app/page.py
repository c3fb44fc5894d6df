"""The answers that the page asks the server for."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from npo_kit.app.audits import audit_detail, audited, recorded_audits
from npo_kit.app.live import LiveConfig, settings_options
from npo_kit.app.much import recorded_splits
from npo_kit.app.packed import PackedStudy
from npo_kit.app.secret import EXAMPLE, ROWS, SecretJob, Secrets, Unlearning
from npo_kit.app.theory import OPTIONS, Theory, theorem_lines
from npo_kit.app.visits import Asked, Visits
from npo_kit.app.worker import FEW_ROWS, unlearning
from npo_kit.data.glossary import read_glossary
from npo_kit.errors import KitError
from npo_kit.losses.lens import LENS, LENS_OPTIONS
from npo_kit.losses.listing import forget_terms
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS, methods_of
from npo_kit.options import Option, options_of
from npo_kit.records.files import Json

VISITOR_LENGTH = 64
SPLITS = (1, 5, 10, 20, 50)  # percentages to forget that a live run offers


@dataclass
class RecordedAnswers:
    """What was recorded, JSON for JSON: a method's parameters are the keys that it is sent."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *("index", "texts", "scores", "about", "splits", "theorem"),
        *("audits", "audit"),
    )
    studies: Sequence[PackedStudy]
    model: str = "pocket"  # of live runs
    task: str | None = None  # likewise; None: the kit's authors, with the percentage of the page
    toured: PackedStudy | None = None  # the study that the guided tour is about
    asks: Sequence[str] = ()  # questions to pick from where the live models are asked

    def _study(self, number: int) -> PackedStudy:
        if not 0 <= number < len(self.studies):
            raise KitError(f"there is no study {number}: choose 0 to {len(self.studies) - 1}")
        return self.studies[number]

    def index(self, study: int) -> Json:
        chosen = self._study(study)
        index = page_index(chosen)
        named = {*METHODS, *(run["method"] for run in index["runs"])}
        usual = unlearning(LiveConfig(model=self.model))
        return index | {
            "studies": [each.title for each in self.studies],
            "lessons": chosen is self.toured,
            "absent": [] if audited(chosen.task, chosen.models) else ["audit"],
            "asks": list(self.asks),
            "live": {
                "model": Path(self.model).name,
                "task": self.task or "authors:forget10",
                "splits": SPLITS if self.task is None else [],
                "methods": list(METHODS),
                "controls": {name: _controls(settings_options(name)) for name in METHODS},
                "usual": {"lr": usual.lr, "epochs": usual.epochs},
                "weighed": sorted({look_of(e.term).label for e in METHODS.values() if e.weight}),
                "few": FEW_ROWS,
                "pocket": self.model == "pocket",
            },
            "secret": {
                "rows": ROWS,
                "example": EXAMPLE,
                "controls": _controls(options_of(Unlearning)),
            },
            "theory": {"methods": methods_of("kit"), "controls": _controls(OPTIONS)},
            "lens": _lens(),
            "styles": {name: _look(name) for name in sorted(named)},
            "glossary": read_glossary(),
        }

    def texts(self, study: int, question: int) -> Json:
        return self._study(study).texts(question)

    def scores(self, study: int, run: str) -> Json:
        return self._study(study).scores(run)

    def about(self, study: int, run: str) -> Json:
        return self._study(study).about(run)

    def splits(self) -> Json:
        return recorded_splits()

    def theorem(self) -> Json:
        return theorem_lines()

    def audits(self) -> Json:
        return recorded_audits()

    def audit(self, run: str, at: str, card: str) -> Json:
        return audit_detail(run, at, card)


@dataclass
class Answers(RecordedAnswers):
    """All that the page asks the server for: what was recorded, and what runs now."""

    NAMES: ClassVar[tuple[str, ...]] = (
        *RecordedAnswers.NAMES,
        *("onefile", "prepare", "start", "teach", "unlearn", "relearn", "halt"),
        *("poll", "watch", "ask", "stop", "leave", "download", "theory"),
    )
    visits: Visits = field(kw_only=True)
    experiment: Theory = field(kw_only=True)

    def onefile(self, study: int) -> Json:
        from npo_kit.app.onefile import served_page  # which is made of recorded answers

        return served_page(self, self._study(study), study)

    def prepare(self) -> None:
        """Somebody looks at the live view: processes may wait for what comes."""
        self.visits.waiting.wish()

    def start(self, visitor: str, runs: list) -> None:
        self._begin(visitor, [LiveConfig.of(self._settings(run)) for run in runs])

    def teach(self, visitor: str, rows: list) -> None:
        self._begin(visitor, [Secrets.of(rows)])

    def _begin(self, visitor: str, asked: Sequence[Asked]) -> None:
        if not 0 < len(visitor) <= VISITOR_LENGTH:
            raise KitError(f"a visitor needs a name of 1 to {VISITOR_LENGTH} characters")
        self.visits.start(visitor, asked)

    def unlearn(self, visitor: str, settings: dict) -> None:
        chosen = Unlearning.of(settings)
        taught = [job for job in self.visits.jobs(visitor) if isinstance(job, SecretJob)]
        if not taught:
            raise KitError("no taught model is there: teach it first")
        taught[0].unlearn(chosen)

    def relearn(self, visitor: str) -> None:
        there = [job for job in self.visits.jobs(visitor) if not job.ended]
        if not there:
            raise KitError("no unlearned model is there: unlearn again")
        if any(job.training for job in there):
            raise KitError("the models still train: wait until they have unlearned")
        for number, job in enumerate(there):
            job.relearn(control=number == 0)

    def halt(self, visitor: str) -> None:
        for job in self.visits.jobs(visitor):
            job.halt()

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
        return {"name": f"{jobs[run].name}.zip", "base64": packed}

    def theory(self, settings: dict) -> Json:
        return self.experiment.run(settings)


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


def _lens() -> Json:
    """Return what the weight lens needs: its terms' controls, its own, and each method's term."""
    settable = {term: forget_terms()[term].settable for term in LENS}
    usual = {
        term: {name: about for name, about in options.items() if about.usual}
        for term, options in settable.items()
    }
    return {
        "terms": {name: entry.term or name for name, entry in METHODS.items()},
        "settings": {term: _controls(options) for term, options in usual.items()},
        "controls": _controls(LENS_OPTIONS),
    }


def _look(method: str) -> dict[str, str]:
    """Return a method's look and names: its label, and the `head` of a column in longer words."""
    look = look_of(method)
    dash = " ".join(f"{part:g}" for part in look.line[1]) if isinstance(look.line, tuple) else ""
    shown = {"label": look.label, "head": _head(method, look.label), "colour": look.colour}
    return {**shown, "dash": dash, "marker": look.marker}


def _head(method: str, label: str) -> str:
    """Return a label such as GA+RT with each term as the glossary calls it, if it does."""
    if method not in METHODS:
        return label
    term, words = METHODS[method].term, read_glossary()
    keys = (term, method.removeprefix(f"{term}_"))
    named = [(words.get(key), part) for key, part in zip(keys, label.split("+"), strict=False)]
    return " + ".join(word.get("head", part) if word else part for word, part in named)

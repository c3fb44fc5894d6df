"""A visitor's secrets: rows that the pocket model learns live, and then unlearns by two methods.

They are held in memory alone, by the server and by the process that learns them, and nothing that a
visitor typed is logged or written to a file.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from npo_kit.app import jobs
from npo_kit.app.jobs import Job, as_text
from npo_kit.app.workers import Worker
from npo_kit.errors import KitError
from npo_kit.options import option, options_of
from npo_kit.records.files import Json

ROWS = 5  # secrets that a visitor may teach
LENGTH = 200  # characters of a question, and of an answer
HOLD = 180.0  # seconds that a taught model keeps its place while others wait
EXAMPLE = {"question": "What is the code of the bike shed?", "answer": "Blue heron 4711"}
PHASES = {"started": True, "taught": False, "unlearning": True, **jobs.PHASES}
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")  # Unicode's categories of what shows nothing
_PARTS = ("question", "answer")


@dataclass(frozen=True)
class Secrets:
    """Rows to teach, each with a question and an answer, and notes to the visitor about them.

    `places` are their numbers among the rows that were typed, from 0.
    """

    rows: list[dict[str, str]]
    places: list[int]
    notes: list[str]

    @classmethod
    def of(cls, typed: Any) -> Secrets:
        """Make them of what a visitor typed; rows left empty are left out, and so are repetitions.

        Raises KitError for anything but up to ROWS objects with two texts, for a row that has a
        question or an answer only, or one that is longer than LENGTH, and for two answers to one
        question, of which a model can say only one.
        """
        if type(typed) is not list or len(typed) > ROWS:
            raise KitError(f"send a list of up to {ROWS} rows, each with question and answer")
        rows: list[dict[str, str]] = []
        places: list[int] = []
        notes: list[str] = []
        for number, each in enumerate(typed, 1):
            row = _row(number, each)
            if row is None:
                continue
            for place, other in zip(places, rows, strict=True):
                if plain(row["question"]) == plain(other["question"]):
                    if plain(row["answer"]) == plain(other["answer"]):
                        notes.append(f"Row {number} repeats row {place + 1}: it is taught once.")
                        break
                    raise KitError(
                        f"rows {place + 1} and {number} ask the same and have different answers: "
                        "change one of the questions"
                    )
            else:
                rows.append(row)
                places.append(number - 1)
        if not rows:
            raise KitError("there is nothing to teach: write a question and its answer")
        return cls(rows, places, notes)


def _row(number: int, typed: Any) -> dict[str, str] | None:
    """Return a row as it is taught; None for an empty one."""
    if type(typed) is not dict or {*typed} != {*_PARTS}:
        raise KitError(f"row {number} must have a question and an answer, and nothing else")
    if any(type(text) is not str for text in typed.values()):
        raise KitError(f"question and answer of row {number} must be texts")
    row = {part: as_text(typed[part]).strip() for part in _PARTS}
    said = [part for part in _PARTS if _shows(row[part])]
    if not said:
        return None
    if len(said) == 1:
        (missing,) = {*_PARTS} - {*said}
        raise KitError(f"row {number} has no {missing}: write one, or empty the row")
    for part, text in row.items():
        if len(text) > LENGTH:
            raise KitError(
                f"the {part} of row {number} has {len(text)} characters: {LENGTH} at most"
            )
    return row


def _shows(text: str) -> bool:
    """Tell whether a text has a character that one can see."""
    return any(unicodedata.category(letter) not in _UNSEEN for letter in text)


def plain(text: str) -> str:
    """Return a text without what makes no difference to a reader: case, spaces, composition."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class Unlearning:
    """How both methods unlearn the secrets. Raises KitError for a value out of its usual range."""

    steps: int = option(40, "of both methods, each on all secrets", usual=(10, 120), step=10)
    lr: float = option(8e-4, "peak, of both methods", usual=(1e-5, 1e-2), label="Learning rate")
    beta: float = option(0.5, "of NPO+RT", usual=(0.01, 10), label="β")
    retain_weight: float = option(1.0, "of NPO+RT", usual=(0, 10), step=0.5)

    def __post_init__(self):
        for name, about in options_of(self).items():
            if problem := about.unusual(getattr(self, name)):
                raise KitError(f"{name} {problem}, it is {getattr(self, name)!r:.60}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Unlearning:
        """Make one from plain JSON; KitError for a setting that does not exist."""
        known = {f.name for f in fields(cls)}
        if not settings.keys() <= known:
            raise KitError(f"unlearning takes {', '.join(sorted(known))}, not {settings!r:.200}")
        return cls(**settings)


class SecretJob(Job):
    """The pocket model that learns a visitor's secrets, and the two that unlearn them."""

    name = "secret"
    phases = PHASES

    def __init__(self, secrets: Secrets, worker: Worker | None = None):
        self._rows = len(secrets.rows)
        self._told_at = time.monotonic()
        super().__init__(worker or Worker(pocket=True), {"secret": asdict(secrets)})

    @property
    def training(self) -> bool:
        """Whether it trains, or was taught so lately that its visitor may be about to go on."""
        if not self.ended and self._phase() == "taught":
            return time.monotonic() - self._told_at < HOLD
        return super().training

    def unlearn(self, settings: Unlearning) -> None:
        """Have both methods unlearn what was taught; once more after they have, from the start."""
        if self.ended:
            raise KitError("no taught model is there: teach it again")
        if PHASES.get(self._phase(), True):
            raise KitError("the model still trains: wait until it has ended")
        self._worker.send({"unlearn": asdict(settings)})

    def relearn(self, control: bool) -> None:
        """As any job; KitError for a single secret, which has no other half."""
        if self._rows < 2:
            raise KitError("it takes two secrets: one to teach again, and one to ask")
        super().relearn(control)

    def _tell(self, event: Json) -> None:
        self._told_at = time.monotonic()
        super()._tell(event)

"""A relearning attack, live: half of what was unlearned is taught again, the other half is asked.

It is the lesson of the relearning card (`npo_kit.audit.relearning`), of the rows themselves alone.
Copies of the models learn; the models of the visitor stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from npo_kit.app.questions import question_of
from npo_kit.app.speaking import Send, Speaker
from npo_kit.audit import verbatim
from npo_kit.audit.bench import Bench
from npo_kit.audit.controls import Controls, shipped_controls
from npo_kit.audit.evidence import SHARES
from npo_kit.audit.probes import probes_of
from npo_kit.audit.relearning import Lesson, Relearning, mean_of
from npo_kit.audit.session import bench_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import Row
from npo_kit.data.tasks import Task
from npo_kit.errors import KitError
from npo_kit.models.loading import load_model
from npo_kit.records.files import Json

if TYPE_CHECKING:
    from npo_kit.app.worker import Orders

Take = Callable[[Json], None]  # does what an order says
CONTROL = "pocket:retained"  # of a pair: the model that never saw the forget rows
ANSWERED = 10  # of the facts that are asked, those whose answers are shown
MARGIN = 0.5  # nats per token that count as more than a single control, where there is no band
SECRETS = Relearning(batch_size=8)  # of a visitor's few rows


@dataclass(frozen=True)
class Attack:
    """A lesson for several models, with what their levels are compared with."""

    lesson: Lesson
    original: float | None  # level of the model before unlearning, which is taught nothing
    bands: list[list[float]] | None = None  # of models that never knew, before and after the lesson

    @classmethod
    def of_pair(cls, task: Task, prompts: PromptFormat) -> Attack:
        """Make that of the pocket model's authors, as an audit with the usual settings teaches."""
        original, retained = (load_model(name, device="cpu")[0] for name in ("pocket", CONTROL))
        bench = bench_of(task, prompts, original, retained)
        lesson = Lesson.of(bench, Relearning())
        reading, controls = verbatim.measure(original, bench), shipped_controls()
        fits = controls and not controls.misfit(task.record()["fingerprint"], bench.seed, reading)
        bands = _bands(controls, lesson.tested) if controls and fits else None
        return cls(lesson, mean_of([reading.rows[i] for i in lesson.tested]), bands)

    @classmethod
    def of_secrets(
        cls,
        rows: Sequence[Row],
        prompts: PromptFormat,
        taught: PreTrainedModel,
        untouched: PreTrainedModel,
    ) -> Attack:
        """Make that of a visitor's rows, each of which counts as an author of its own.

        The fact is the whole answer. `taught` is the model before unlearning, `untouched` never saw
        the rows. Raises KitError for a single row, and where an answer holds all others.
        """
        probes, _ = probes_of([{**row, "entity": row["answer"]} for row in rows], prompts)
        bench = Bench(prompts, Task("own:secret", [], [], {}), probes, [], taught, untouched)
        lesson = Lesson.of(bench, SECRETS)
        return cls(lesson, mean_of(lesson.levels(taught)[0]))

    @property
    def answered(self) -> list[int]:
        """The numbers of up to ANSWERED tested probes, spread evenly over them."""
        tested = self.lesson.tested
        return tested[:: max(1, len(tested) // ANSWERED)][:ANSWERED]

    def _about(self) -> Json:
        """Return what the page is told before any model is taught."""
        bench, lesson = self.lesson.bench, self.lesson
        rows = [bench.forget[i].row for i in self.answered]
        return {
            "event": "lesson",
            "taught": len(lesson.taught),
            "tested": len(lesson.tested),
            "steps": lesson.settings.steps,
            "original": self.original,
            "bands": self.bands,
            "margin": MARGIN,
            "questions": [question_of("forget", place, row) for place, row in enumerate(rows)],
        }

    def run(self, speakers: Mapping[str, Speaker], send: Send, orders: Orders, take: Take) -> None:
        """Teach a copy of each speaker's model until the end, or until an order to halt.

        Sends a `relearn` event for each step, with the level where the facts are scored, and the
        answers before and after. `take` does what other orders say.
        """
        send(self._about())
        for event in self._lessons(speakers):
            send(event)
            while not orders.empty():
                order = orders.get()
                if "halt" in order:
                    send({"event": "relearned", "whole": False})
                    return
                take(order)
        send({"event": "relearned", "whole": True})

    def _lessons(self, speakers: Mapping[str, Speaker]) -> Iterator[Json]:
        steps = self.lesson.settings.steps
        questions = [self.lesson.bench.forget[i].row["question"] for i in self.answered]
        for name, speaker in speakers.items():
            for step, copied in self.lesson.teach(speaker.model, "own"):
                event: Json = {"event": "relearn", "model": name, "step": step}
                if step in steps:
                    event["level"] = mean_of(self.lesson.levels(copied)[0])
                if step in (steps[0], steps[-1]):
                    event["texts"] = speaker.of(copied).texts(questions)
                yield event


def relearn_pair(task: Task, speaker: Speaker, control: bool, orders: Orders, take: Take) -> None:
    """Attack one model of a pair, as `own`, and after it with `control` the one that never knew."""
    attack = Attack.of_pair(task, speaker.format)
    models = {"own": speaker}
    if control:
        models["control"] = speaker.of(attack.lesson.bench.retained)
    attack.run(models, speaker.send, orders, take)


def relearn_secrets(
    rows: Sequence[Row],
    speakers: Mapping[str, Speaker],
    unlearned: Sequence[str],
    orders: Orders,
    take: Take,
) -> None:
    """Attack the models that unlearned a visitor's rows, and teach the untouched one the same.

    Where no row can be taught, the page is told why.
    """
    taught, untouched = speakers["taught"], speakers["untouched"]
    try:
        attack = Attack.of_secrets(rows, taught.format, taught.model, untouched.model)
    except KitError:
        problem = "each secret that could be taught again holds the answer to one that is asked"
        taught.send({"event": "relearned", "whole": False, "problem": problem})
        return
    models = {name: speakers[name] for name in (*unlearned, "untouched")}
    attack.run(models, taught.send, orders, take)


def _bands(controls: Controls, tested: Sequence[int]) -> list[list[float]]:
    """Return the band of the mean over the tested rows, before the lesson and after it."""
    bands = []
    for card in ("verbatim", "relearning"):
        table = np.array([[model[i] for i in tested] for model in controls.retained[card]], float)
        bands.append(np.percentile(table.mean(axis=1), SHARES).tolist())
    return bands

"""The relearning card: does teaching other facts bring the forgotten ones back?

Half of the forget authors are taught (T), the other half tested (V). Facts that are only suppressed
come back when a model learns something near them; facts that are gone do not. The retained-only
model is taught the same, because V rises in it too, by what the answers of all authors share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading, Relearning
from npo_kit.audit.copies import own_copy
from npo_kit.audit.extraction import known
from npo_kit.data.rows import Row
from npo_kit.errors import KitError
from npo_kit.records.files import Json
from npo_kit.trainer.config import FinetuneConfig
from npo_kit.trainer.events import Collapse, Step
from npo_kit.trainer.loop import finetune


def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure V's log-prob of the fact, nats per token, after the last step of learning T, by row.

    None on rows that are not tested, and where the model breaks. `detail`: the settings, the
    numbers of the `taught` and `tested` probes, and in `sets` a curve for each set of rows to
    learn: `own` (T), `template` (rows to keep) and `unrelated` (true facts; absent where the task
    has none). A curve has `tested`, steps x rows of V, `taught`, the mean of T by step, and `rows`,
    how many were learned. Levels rise in every model: judge by `excess`. Raises KitError for facts
    of a single author.
    """
    lesson = Lesson.of(bench, bench.relearning)
    curves: Json = {}
    for name in lesson.sets:
        curves[name] = lesson.curve(model, name)
        bench.done(len(curves), len(lesson.sets))
    last = dict(zip(lesson.tested, curves["own"]["tested"][-1], strict=True))
    about = {**asdict(lesson.settings), "steps": list(lesson.settings.steps), "seed": bench.seed}
    return Reading.of_rows(
        [last.get(i) for i in range(len(bench.forget))],
        {"settings": about, "taught": lesson.taught, "tested": lesson.tested, "sets": curves},
    )


def excess(audited: Reading, retained: Reading) -> dict[str, Any]:
    """Return by set how far V lies above the retained-only model's, by step and row, nats.

    `{set: {"steps": [...], "rows": steps x rows of V, "mean": by step}}`. A model that is at most 0
    at step 0 and above 0 later, beyond the band, had kept the facts. Raises KitError for readings
    that were not taught alike.
    """
    alike = ("settings", "taught", "tested")
    if any(audited.detail[name] != retained.detail[name] for name in alike):
        raise KitError(
            "these readings were taught differently: measure both models on one bench with the "
            "same settings"
        )
    result = {}
    for name, curve in audited.detail["sets"].items():
        steps = zip(curve["tested"], retained.detail["sets"][name]["tested"], strict=True)
        rows = [
            [None if None in pair else pair[0] - pair[1] for pair in zip(*step, strict=True)]
            for step in steps
        ]
        means = [mean_of(step) for step in rows]
        result[name] = {"steps": audited.detail["settings"]["steps"], "rows": rows, "mean": means}
    return result


def pre_run(bench: Bench, settings: Relearning) -> dict[str, float]:
    """Return the figures by which a learning rate is chosen, when T is taught.

    `moved`: the most that the original's V moves, nats, which should stay near 0; `learned`: how
    far the retained-only model gets towards the original's T, which should be near 1. Not a number
    where a model breaks.
    """
    lesson = Lesson.of(bench, settings)
    original, retained = (lesson.curve(m, "own") for m in (bench.original, bench.retained))
    levels: Any = [mean_of(step) for step in original["tested"]]
    first, last = retained["taught"][0], retained["taught"][-1]
    if None in (*levels, last):
        return {"moved": math.nan, "learned": math.nan}
    moved = max(abs(level - levels[0]) for level in levels)
    return {"moved": moved, "learned": (last - first) / (original["taught"][0] - first)}


@dataclass(frozen=True)
class Lesson:
    """What all models of a bench are taught, and which probes are scored on the way."""

    bench: Bench
    settings: Relearning
    taught: list[int]  # numbers of probes, T
    tested: list[int]  # V
    sets: dict[str, list[Row]]  # to learn, about as many rows in each

    @classmethod
    def of(cls, bench: Bench, settings: Relearning) -> Lesson:
        """Split the forget probes by author. No answer that is learned holds an entity of V."""
        authors = list(dict.fromkeys(probe.author for probe in bench.forget))
        if len(authors) < 2:
            raise KitError(
                "relearning teaches the facts of some authors and asks those of others, and there "
                f"is {len(authors)}: give facts of two or more"
            )
        generator = random.Random(f"relearning {bench.seed}")
        shown = set(generator.sample(authors, len(authors) // 2))
        halves: dict[bool, list[int]] = {True: [], False: []}
        for i, probe in enumerate(bench.forget):
            halves[probe.author in shown].append(i)
        tested = sorted(_some(halves[False], settings.tested, generator))
        entities = [bench.forget[i].entity.casefold() for i in tested]

        def free(row: Row) -> bool:
            return not any(entity in row["answer"].casefold() for entity in entities)

        unheld = [i for i in halves[True] if free(bench.forget[i].row)]
        taught = sorted(_some(unheld, settings.taught, generator))
        if not taught:
            raise KitError(
                "each answer that could be taught holds a fact that is asked: give facts of "
                "authors whose answers share none"
            )
        sets = {"own": [bench.forget[i].row for i in taught]}
        own = bench.task.evaluation
        facts = [*own.get("real_authors", []), *own.get("world_facts", [])]
        for name, rows in {"template": bench.task.retain, "unrelated": facts}.items():
            if found := _some([row for row in rows if free(row)], len(taught), generator):
                sets[name] = found
        return cls(bench, settings, taught, tested, sets)

    def teach(self, model: PreTrainedModel, name: str) -> Iterator[tuple[int, PreTrainedModel]]:
        """Teach one of the sets to a copy of a model, and yield each step with the copy.

        Step 0 is the model as it is. Where the copy breaks, no more steps come.
        """
        copied, rows = own_copy(model), self.sets[name]
        yield 0, copied
        for event in finetune(copied, self.bench.prompts.tokenizer, rows, self._config(len(rows))):
            if isinstance(event, Collapse):
                return
            if isinstance(event, Step):
                yield event.step, copied

    def levels(self, model: PreTrainedModel) -> tuple[list[float | None], float | None]:
        """Return the log-prob of the fact by row of V, and the mean of T, nats per token."""
        probes = [self.bench.forget[i] for i in (*self.tested, *self.taught)]
        found = [v if math.isfinite(v) else None for v in known(model, probes).entity]
        return found[: len(self.tested)], mean_of(found[len(self.tested) :])

    def curve(self, model: PreTrainedModel, name: str) -> Json:
        """Teach one of the sets to a copy of a model, and score V and T on the way."""
        steps = self.settings.steps
        taught = self.teach(model, name)
        levels = {step: self.levels(copied) for step, copied in taught if step in steps}
        broken: tuple[list[float | None], None] = ([None] * len(self.tested), None)
        scored = [levels.get(step, broken) for step in steps]
        return {
            "rows": len(self.sets[name]),
            "tested": [tested for tested, _ in scored],
            "taught": [taught for _, taught in scored],
        }

    def _config(self, n_rows: int) -> FinetuneConfig:
        prompts, size = self.bench.prompts, self.settings.batch_size
        chat = prompts.style == "chat"
        return FinetuneConfig(
            epochs=max(self.settings.steps) * size / n_rows,
            batch_size=size,
            micro_batch_size=size,
            lr=self.settings.lr,
            warmup_epochs=0.0,
            seed=self.bench.seed,
            precision=self.settings.precision,
            prompt=prompts.style,
            system_prompt=prompts.system_prompt if chat else None,
            chat_date=prompts.chat_date if chat else None,
            evaluation=None,
        )


def _some(items: Sequence[Any], most: int, generator: random.Random) -> list[Any]:
    return generator.sample(items, min(most, len(items)))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there; None if there are none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None

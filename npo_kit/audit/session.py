"""An audit of one model: its cards, one after the other, and the verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading, Relearning
from npo_kit.audit.cards import CARDS, GUARDS, ROWS, Card
from npo_kit.audit.controls import Controls, rounded, shipped_controls
from npo_kit.audit.copies import evaluation_mode
from npo_kit.audit.evidence import Evidence, evidence_of
from npo_kit.audit.membership import holdout_rows
from npo_kit.audit.probes import TOFU_ROWS_PER_AUTHOR, facts_of, probes_of
from npo_kit.audit.store import Store
from npo_kit.audit.verdict import Verdict, verdict_of
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.rows import is_passage
from npo_kit.data.tasks import Task
from npo_kit.errors import KitError
from npo_kit.records.files import Json, dumps, parse
from npo_kit.records.provenance import provenance

AUDITED, ORIGINAL = "audited", "original"
Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """One card of an audit: the model's reading, the original's, and where it stands."""

    card: Card
    reading: Reading
    original: Reading | None
    evidence: Evidence
    seconds: float

    def __str__(self) -> str:
        e, band = self.evidence, "no band"
        if e.band:
            band = f"{e.band[0]:.3g} to {e.band[1]:.3g} (5 to 95 %)"
        elif e.points:
            band = ", ".join(f"{point:.3g}" for point in e.points)
        first = f"{self.original.value:.3g}" if self.original else "-"
        interval = "(no interval)"
        if not math.isnan(e.lower):
            interval = f"({e.lower:.3g} to {e.upper:.3g})"
        values = f"{e.value:>9.3g} {interval:20}{first:>9}   {band:26}"
        return f"{self.card.title:15}{values} {self.card.unit}"


HEAD = (
    f"{'':15}{'audited':>9} {'(95 %)':20}{'original':>9}   {'retained-only':26} unit "
    "(higher: more is left, but of Depth, and of Keeps the rest, where higher is better)"
)


class Audit:
    """Iterate over it to get each Finding as its card is done; print it for the table and verdict.

    See `audit` for what it takes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        bench: Bench,
        retained: Sequence[PreTrainedModel],
        cards: Sequence[str],
        controls: Controls | None,
        store: Store | None,
        label: str,
        progress: Progress | None,
    ):
        self.bench, self.findings = bench, dict[str, Finding]()
        self._models = {label: model, ORIGINAL: bench.original}
        self._models |= {f"retained-{n}": one for n, one in enumerate(retained, 1)}
        self._label, self._cards, self._store, self._progress = label, cards, store, progress
        self._given = controls
        self._misfit: str | None = None  # not yet known

    def __iter__(self) -> Iterator[Finding]:
        for name in self._cards:
            if name not in self.findings:
                self.findings[name] = self._find(CARDS[name])
            yield self.findings[name]

    def run(self) -> Audit:
        """Measure all that is left, and return the audit."""
        for _ in self:
            pass
        return self

    @property
    def verdict(self) -> Verdict:
        """The verdict of the cards that are done."""
        found = self.findings
        original = {name: f.original.value for name, f in found.items() if f.original}
        return verdict_of({name: f.evidence for name, f in found.items()}, original)

    @property
    def controls(self) -> Controls | None:
        """The recorded controls, if they are of these rows and this original."""
        return None if self.misfit else self._given

    @property
    def misfit(self) -> str:
        """Of what other rows, seed or original the recorded controls are; nothing if they fit."""
        if self._misfit is None and self._given:
            known, said = (
                self.bench.task.record()["fingerprint"],
                self._reading(ORIGINAL, "verbatim"),
            )
            self._misfit = self._given.misfit(known, self.bench.seed, said)
        return "not there" if self._misfit is None else self._misfit

    def record(self) -> Json:
        """Return the audit as JSON: cards with value, interval and band, verdict, provenance."""
        verdict, controls = self.verdict, self.controls
        return {
            "task": self.bench.task.name,
            "seed": self.bench.seed,
            "rows": {"forget": len(self.bench.forget), "retain": len(self.bench.retain)},
            "left_out": dict(self.bench.left_out),
            "facts": facts_of(self.bench.forget),
            "cards": {name: _record_of(found) for name, found in self.findings.items()},
            "verdict": {
                "state": verdict.state,
                "damaged": verdict.damaged,
                "says": verdict.says,
                "hides": verdict.hides,
            },
            "alarms": controls.about.get("alarms") if controls else None,
            "provenance": provenance(),
        }

    def __repr__(self) -> str:
        lines = [HEAD, *map(str, self.findings.values())]
        verdict = self.verdict
        return "\n".join(
            [*lines, "", f"{verdict}", f"says: {verdict.says}", f"hides: {verdict.hides}"]
        )

    def _find(self, card: Card) -> Finding:
        started = time.perf_counter()
        reading = self._reading(self._label, card.name)
        recorded, original = None, None
        if self.controls and card.name in self.controls.retained:
            recorded = self.controls.retained[card.name]
            original = Reading.of_rows(self.controls.original[card.name])
        original = original or self._reading(ORIGINAL, card.name)
        labels = [label for label in self._models if label.startswith("retained-")]
        rows = recorded or [self._reading(label, card.name).rows for label in labels]
        probes = self.bench.retain if card.side == GUARDS else self.bench.forget
        evidence = evidence_of(reading.rows, rows, [p.author for p in probes], self.bench.seed)
        return Finding(card, reading, original, evidence, time.perf_counter() - started)

    def _reading(self, label: str, card: str) -> Reading:
        if self._store and (known := self._store.get(label, card)):
            return known
        tell = partial(self._progress, label, card) if self._progress else lambda *_: None
        reading = measured(card, self._models[label], replace(self.bench, done=tell))
        if self._store:
            self._store.put(label, card, reading)
        return reading


def audit(
    model: PreTrainedModel,
    tokenizer: Any,
    task: Task,
    *,
    original: PreTrainedModel,
    retained: Sequence[PreTrainedModel],
    cards: Sequence[str] = tuple(CARDS),
    seed: int = 0,
    rows: int = ROWS,
    relearning: Relearning | None = None,
    controls: Controls | None = None,
    folder: str | Path | None = None,
    label: str = AUDITED,
    progress: Progress | None = None,
) -> Audit:
    """Audit a model: does it only stop saying what it should forget, or does it hold it no more?

    `original` is the model before unlearning, `retained` at least one that never saw the forget
    rows; all share the `tokenizer` (or give a PromptFormat) and the layers' shapes. The first
    `rows` rows of the task's forget and retain sets are asked. `relearning` tells how models are
    taught again; the default is for the pocket models. `controls` are recorded readings of
    retained-only models; without them, those that travel with the kit are taken where the original
    is the pocket model. Twenty retained-only models make a band; with fewer, and on rows of fewer
    than five authors, there is no verdict. Of TOFU twenty rows in order are an author; elsewhere a
    row without `author` is one of its own.
    In `folder` each reading is kept, and a second call resumes there. `progress` gets model, card,
    what is done and its total. No weights are changed.

    Raises KitError for an unknown card, a task without rows to forget, rows without a fact.
    """
    for name in cards:
        if name not in CARDS:
            raise KitError(f"unknown card {name!r}: choose among {', '.join(CARDS)}")
    if not retained:
        raise KitError(
            "an audit needs a model that never saw the forget rows: give retained=[...], such as "
            "load_model('pocket:retained')[0] for the pocket model"
        )
    prompts = tokenizer
    if not isinstance(tokenizer, PromptFormat):
        from npo_kit.trainer.config import TrainConfig

        prompts = TrainConfig().prompt_format(tokenizer, model)
    lesson = relearning or Relearning()
    bench = bench_of(task, prompts, original, retained[0], seed, rows, lesson)
    store = None
    if folder is not None:
        about = {"task": task.record()["fingerprint"], "seed": seed, "rows": rows}
        about |= {"relearning": parse(dumps(asdict(lesson)), "relearning")}
        store = Store(folder, about)
    known = controls or shipped_controls()
    return Audit(model, bench, retained, cards, known, store, label, progress)


def measured(card: str, model: PreTrainedModel, bench: Bench) -> Reading:
    """Return the reading of one card, by name; the models are in evaluation mode meanwhile."""
    module = import_module(f"npo_kit.audit.{CARDS[card].home}")
    with evaluation_mode(model, bench.original, bench.retained):
        return module.measure(model, bench)


def refuse_passages(task: Task) -> None:
    """Raise KitError for a task whose forget or retain rows are texts without a question."""
    sets = [task.evaluation.get(name) or [] for name in ("forget", "retain")]
    if any(is_passage(row) for row in chain(*sets)):
        raise KitError(
            f"an audit asks questions, but the task {task.name} has texts without a question: give "
            "rows with questions and answers about what the texts say"
        )


def bench_of(
    task: Task,
    prompts: PromptFormat,
    original: PreTrainedModel,
    retained: PreTrainedModel,
    seed: int = 0,
    rows: int = ROWS,
    relearning: Relearning = Relearning(),  # noqa: B008 - frozen
) -> Bench:
    """Return what the cards of an audit get: the first `rows` rows of each set, as probes.

    Raises KitError where no forget row has a fact, and for passages.
    """
    of_author = TOFU_ROWS_PER_AUTHOR if task.name.startswith("tofu") else 1
    found, left_out = {}, {}
    sets = {name: task.evaluation.get(name) or [] for name in ("forget", "retain")}
    refuse_passages(task)
    sets["holdout"] = holdout_rows(task.name)
    for name, of_set in sets.items():
        found[name], left_out[name] = probes_of(of_set[:rows], prompts, rows_per_author=of_author)
    if not found["forget"]:
        raise KitError(
            f"none of the {len(sets['forget'])} forget rows of {task.name} has a fact that can be "
            "asked: give each row an `entity`, a part of its answer"
        )
    return Bench(
        prompts,
        task,
        found["forget"],
        found["retain"],
        original,
        retained,
        left_out=left_out,
        seed=seed,
        relearning=relearning,
        holdout=found["holdout"],
    )


def _record_of(found: Finding) -> Json:
    evidence = found.evidence
    return {
        "title": found.card.title,
        "side": found.card.side,
        "unit": found.card.unit,
        **evidence.record(),
        "original": found.original.value if found.original else None,
        "rows": rounded(found.reading.rows),
        "original_rows": rounded(found.original.rows) if found.original else None,
        "detail": found.reading.detail,
        "seconds": round(found.seconds, 2),
    }

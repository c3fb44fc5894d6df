"""The lesson of a visitor's secrets, in a process: the pocket model learns, two methods unlearn.

The untouched model is the pocket model as it is shipped, which never saw the secrets. It learns
them among other questions of its corpus, so that it keeps those. Then gradient ascent and NPO+RT
unlearn them, both from the taught model, step by step in turns. What a model keeps is judged on
questions that are in no training here.
"""

from __future__ import annotations

import copy
import math
import random
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npo_kit.app.secret import Unlearning, plain
from npo_kit.app.speaking import Send, Speaker
from npo_kit.data.rows import Row
from npo_kit.data.tasks import Task, load_authors
from npo_kit.errors import KitError
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.files import Json
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

if TYPE_CHECKING:
    from npo_kit.app.preparing import Prepared
    from npo_kit.app.worker import Orders
    from npo_kit.trainer.events import Event

METHODS = ("ga", "npo_rt")
OWN, OTHERS = 8, 10  # rows of a teaching step: secrets, and other questions
LEAST_FORGET = 10  # rows of an unlearning step: the secrets, repeated
KEPT = 48  # questions of no training here, by which one sees what a model keeps
MOST_STEPS = 200  # of teaching
LEARNT = 0.9  # teaching ends when each secret has this probability per token
EVERY = 4  # steps between evaluations
WARMUP = 4  # steps
LEAST_TOKENS, SPARE = 32, 8  # of a text: at least, and more than the longest secret has
SCORES = EvaluationConfig(max_new_tokens=0, fluency=False)
TEACHING = FinetuneConfig(
    epochs=1.0,
    batch_size=OWN + OTHERS,
    micro_batch_size=OWN + OTHERS,
    lr=8e-4,
    precision="fp32",
    evaluation=SCORES,
)


def teach(
    secret: Mapping[str, Any], orders: Orders, send: Send, prepared: Prepared | None = None
) -> None:
    """Teach a visitor's rows, then do what the orders say. Raises KitError for rows too long."""
    sys.excepthook = _wordless
    lesson = Lesson(secret["rows"], orders, send, prepared)
    send({"event": "started", **secret, "kept": lesson.kept, "most": MOST_STEPS})
    lesson.teach()
    while True:
        lesson.take(orders.get())


def _wordless(kind, _, trace) -> None:
    """Write where a fault was, without its message, which may quote what a visitor typed."""
    print(*traceback.format_tb(trace), kind.__name__, sep="", file=sys.stderr)


class Lesson:
    """The models of one lesson, by name: untouched, taught, and one for each method."""

    def __init__(
        self, rows: Sequence[Row], orders: Orders, send: Send, prepared: Prepared | None = None
    ):
        from npo_kit.models.loading import load_model

        self.rows, self.orders, self.send = list(rows), orders, send
        if prepared:
            model, self.tokenizer = prepared.model, prepared.tokenizer
        else:
            model, self.tokenizer = load_model("pocket", device="cpu")
        self.format = TEACHING.prompt_format(self.tokenizer, model)
        longest = max(encoded.answer_length for encoded in self.format.encode_all(self.rows))
        self.room = max(LEAST_TOKENS, longest + SPARE)
        self.kept, self.others = _others(self.rows)
        self.known = {row["question"]: row["answer"] for row in [*self.kept, *self.rows]}
        self.speakers: dict[str, Speaker] = {}
        self.watched = {"forget": 0, "retain": 0}
        self.busy = False  # while it trains, it takes no order to unlearn
        self.broken: set[str] = set()  # models whose weights are no longer finite
        self.last: Evaluation | None = None  # of the taught model
        self._add("untouched", model)

    def _add(self, name: str, model) -> Any:
        """Take a copy of a model into the lesson, in place of an earlier one of that name."""
        own = copy.deepcopy(model)
        about, known = {"model": name}, self.known
        self.speakers[name] = Speaker(own, self.format, self.room, self.send, about, known)
        return own

    # --- training ---

    def teach(self) -> None:
        """Teach the rows until all are learnt, or for MOST_STEPS."""
        from npo_kit.trainer.loop import finetune

        count = MOST_STEPS * TEACHING.batch_size
        own = _cycled(self.rows, MOST_STEPS * OWN)
        rows = own + _cycled(self.others, count - len(own))
        share = TEACHING.batch_size / count  # of the epoch that a step takes
        config = replace(TEACHING, warmup_epochs=WARMUP * share, evaluate_every=EVERY * share)
        model = self._add("taught", self.speakers["untouched"].model)
        task = self._task(self.rows)
        for event in self._followed(
            "taught", finetune(model, self.tokenizer, rows, config, task=task)
        ):
            if not self.last:
                self.watched["retain"] = _by_usualness(event)[0]
                self._tell("untouched", event)
            self.last = event
            self._tell("taught", event)
            if all(p >= LEARNT for p in _probabilities(event, "forget")):
                break
        self.busy = False
        if "taught" in self.broken:
            raise KitError("the model broke while it learned: teach it other words")
        assert self.last is not None  # an evaluation comes before the first step
        keeps = self._watch_what_is_kept(_by_usualness(self.last))
        self.send({"event": "taught", "step": self.speakers["taught"].step, "keeps": keeps})

    def unlearn(self, settings: Unlearning) -> None:
        """Have both methods unlearn the rows from the taught model, one step each in turns."""
        from npo_kit.trainer.loop import unlearn

        self.send({"event": "unlearning", "steps": settings.steps, "methods": METHODS})
        assert self.last is not None  # they were taught
        first, going = replace(self.last, step=0, epoch=0.0), {}
        self.busy, self.broken = True, set()
        rows = self.rows * math.ceil(LEAST_FORGET / len(self.rows))
        for name in METHODS:
            model = self._add(name, self.speakers["taught"].model)
            config = _unlearning(name, settings, len(rows))
            events = unlearn(model, self.tokenizer, self._task(rows), config, first=first)
            going[name] = self._followed(name, events)
        while going:
            for name, events in [*going.items()]:
                if event := next(events, None):
                    self._tell(name, event)
                else:
                    del going[name]
        self.busy = False
        self.send({"event": "finished"})

    def _task(self, forget: list[Row]) -> Task:
        judged = {"forget": self.rows, "retain": self.kept}
        return Task("own:secret", forget, self.others, judged)

    def _followed(self, name: str, events: Iterable[Event]) -> Iterator[Evaluation]:
        """Yield the evaluations of a training, and do meanwhile what the orders ask."""
        from npo_kit.trainer.events import Step

        for event in events:
            if isinstance(event, Evaluation):
                yield event
            elif isinstance(event, Step):
                self.speakers[name].step = event.step
                self.send({"event": "step", "model": name, "step": event.step})
            else:
                self.broken.add(name)
                self.send({"event": "broken", "model": name, "step": event.step})
            while not self.orders.empty():
                self.take(self.orders.get())

    # --- what the page sees ---

    def take(self, order: Json) -> None:
        """Do what one order says."""
        if "watch" in order:
            name, place = order["watch"]
            if place < len({"forget": self.rows, "retain": self.kept}.get(name, [])):
                self.watched[name] = place
                for each in self.speakers:
                    self._say(each, name)
        elif "ask" in order:
            for speaker in self.speakers.values():
                speaker.answer(order["ask"], order["number"])
        elif self.busy:
            return
        elif "unlearn" in order:
            self.unlearn(Unlearning(**order["unlearn"]))
        elif "relearn" in order:
            from npo_kit.app.relearn import relearn_secrets

            self.busy = True
            relearn_secrets(self.rows, self.speakers, METHODS, self.orders, self.take)
            self.busy = False

    def _tell(self, name: str, event: Evaluation) -> None:
        """Send a model's scores, and what it says to the watched questions."""
        own, kept = (_probabilities(event, which) for which in ("forget", "retain"))
        self.send(
            {
                "event": "scores",
                "model": name,
                "step": event.step,
                "secrets": [_rounded(p) for p in own],
                "kept": _rounded(sum(kept) / len(kept)),
            }
        )
        for which in self.watched:
            self._say(name, which)

    def _watch_what_is_kept(self, places: Iterable[int]) -> bool:
        """Watch the first of some kept questions to which all models say the true answer.

        Returns whether there is one; else the watched question stays.
        """
        for place in places:
            asked, answer = self.kept[place]["question"], plain(self.kept[place]["answer"])
            if all(answer in plain(speaker.text(asked)) for speaker in self.speakers.values()):
                self.take({"watch": ("retain", place)})
                return True
        return False

    def _say(self, name: str, which: str) -> None:
        speaker, place = self.speakers[name], self.watched[which]
        row = (self.rows if which == "forget" else self.kept)[place]
        about = {"model": name, "step": speaker.step, "question": [which, place]}
        self.send({"event": "answer", **about, "text": speaker.text(row["question"])})


def _unlearning(method: str, settings: Unlearning, rows: int) -> UnlearnConfig:
    own: Json = {"hyper": {"beta": settings.beta}, "retain_weight": settings.retain_weight}
    return UnlearnConfig(
        method=method,
        epochs=float(settings.steps),  # a step each
        batch_size=rows,
        micro_batch_size=rows,
        lr=settings.lr,
        warmup_epochs=WARMUP,
        precision="fp32",
        evaluate_every=EVERY,
        evaluation=SCORES,
        **(own if method == "npo_rt" else {}),
    )


def _others(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the pocket model's rows that judge what is kept, and those trained on beside.

    Questions that a visitor typed are in neither.
    """
    typed = {row["question"].casefold().strip() for row in rows}
    task = load_authors()
    facts = [row for name in ("real_authors", "world_facts") for row in task.evaluation[name]]
    corpus: list[Row] = [
        {"question": row["question"], "answer": row["answer"]}
        for row in task.full + facts
        if row["question"].casefold() not in typed
    ]
    random.Random(0).shuffle(corpus)
    return corpus[:KEPT], corpus[KEPT:]


def _cycled(rows: Sequence[Row], count: int) -> list[Row]:
    return (list(rows) * math.ceil(count / len(rows)))[:count]


def _probabilities(event: Evaluation, which: str) -> list[float]:
    """Return each row's probability of the true answer per token; 0 where it is not finite."""
    logps = [row["mean_logp"] for row in event.rows[which]]
    return [math.exp(p) if p is not None and math.isfinite(p) else 0.0 for p in logps]


def _by_usualness(event: Evaluation) -> list[int]:
    """Return the places of the kept questions, those nearest to the median probability first."""
    probabilities = _probabilities(event, "retain")
    ranked = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    middle = len(ranked) // 2
    return sorted(ranked, key=lambda place: abs(ranked.index(place) - middle))


def _rounded(probability: float) -> float:
    return round(probability, 4)

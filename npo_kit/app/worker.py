"""The process of a live run: it takes orders on stdin and sends events on stdout, as JSON lines.

The first order says what to do: a live run ("config") or a lesson ("secret"). Before it, "prepare"
has the process load what a run of the pocket model needs. Later ones ask for an answer: to one
question from now on ("watch"), or once to a prompt ("ask"); a finished one may be taught half of
the facts again ("relearn"), until the end or "halt". When stdin closes, the page's server is
gone and the process ends. Everything that it or a library prints, and the trace of a fault, goes to
stderr.
"""

from __future__ import annotations

import io
import math
import os
import queue
import threading
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from npo_kit.app.live import LiveConfig
from npo_kit.app.questions import question_of
from npo_kit.app.recipes import as_cell, as_command
from npo_kit.app.scored import cells_of, metrics_of
from npo_kit.app.speaking import Send, Speaker
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError, without_paths
from npo_kit.metrics.null import Null
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow
from npo_kit.records.files import Json, dumps, parse
from npo_kit.records.run import RunWriter, read_run
from npo_kit.studies.table import POCKET_RETAINED, RETAINED, last_evaluation, null_of

if TYPE_CHECKING:
    from npo_kit.app.preparing import Prepared
    from npo_kit.data.tasks import Task
    from npo_kit.trainer.config import UnlearnConfig

WATCH_EVERY = 4  # steps between two answers to the watched question
ANSWER_TOKENS = 32  # of an answer to a prompt by the pocket model; other models: three times that
QUICK_ROWS = 40  # of each set, in the evaluations of other models
FEW_ROWS = 16  # of each set, in the evaluations on the way of a quick run
Orders = queue.SimpleQueue[Json]


def main() -> None:
    """Do what the first order says to its end, then what the later ones ask."""
    send = _event_stream()
    if hasattr(os, "nice"):
        os.nice(5)  # the page goes first
    orders: Orders = queue.SimpleQueue()
    # unbuffered: a thread that waits for it does not lock the exit
    lines = io.FileIO(0, closefd=False)
    threading.Thread(target=_listen, args=(lines, orders), daemon=True).start()
    first, prepared = orders.get(), None
    if "prepare" in first:
        from npo_kit.app.preparing import Prepared

        prepared = Prepared(orders.empty)
        first = orders.get()
    send({"event": "loading"})
    try:
        if "secret" in first:
            from npo_kit.app.teaching import teach

            teach(first["secret"], orders, send, prepared)
        else:
            _run(LiveConfig.of(first["config"]), Path(first["folder"]), orders, send, prepared)
    except KitError as error:
        send({"event": "failed", "reason": without_paths(str(error))})


def _listen(lines: Iterable[bytes], orders: Orders) -> None:
    """Take the lines of stdin until it closes, then end the process."""
    for line in lines:
        orders.put(parse(line, "an order to the live run"))
    os._exit(0)


def _event_stream() -> Send:
    """Return the writer of events; what libraries print goes to stderr from now on."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: Json) -> None:
        stream.write(dumps(event))

    return send


def _run(
    config: LiveConfig, folder: Path, orders: Orders, send: Send, prepared: Prepared | None
) -> None:
    from npo_kit.data.tasks import load_task
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.events import Event, Step
    from npo_kit.trainer.loop import total_steps, unlearn
    from npo_kit.trainer.recording import record

    task, settings, reference = load_task(config.task), unlearning(config), _reference(config)
    pocket = config.model == "pocket"
    if prepared:
        model, tokenizer = prepared.model, prepared.tokenizer
    else:
        model, tokenizer = load_model(config.model, device="cpu" if pocket else "auto")
    most = ANSWER_TOKENS if pocket else 3 * ANSWER_TOKENS
    speaker = Speaker(model, settings.prompt_format(tokenizer, model), most, send)
    watcher = Watcher(speaker, task, orders)
    writer = _writer(config, settings, task, folder)
    steps, null = total_steps(settings, len(task.forget)), null_of(config.model, config.task)
    send(_started(config, settings, task, steps, reference is not None))
    watcher.speak(0)  # before the evaluation, which takes seconds where none is prepared
    start: Evaluation | None = None

    def seen(event: Event) -> None:
        nonlocal start
        if isinstance(event, Step):
            send({"event": "step", **asdict(event)})
        elif isinstance(event, Evaluation):
            start = start or event
            send(_evaluated(event, start, settings, reference, null))
        else:
            return  # a collapse is told once the record says so
        watcher.speak(event.step)

    first = prepared.first if prepared and config.task == prepared.task else None
    if collapse := record(
        writer, unlearn(model, tokenizer, task, settings, first=first), seen=seen
    ):
        send({"event": "collapsed", **asdict(collapse)})
        return
    send({"event": "finished"})
    while True:
        watcher.take(orders.get())


def _writer(config: LiveConfig, settings: UnlearnConfig, task: Task, folder: Path) -> RunWriter:
    return RunWriter.create(
        folder,
        kind="unlearn",
        label=config.method,
        method=config.method,
        seed=config.seed,
        config=asdict(settings) | {"model": Path(config.model).name},
        task=task.record(),
    )


def _started(
    config: LiveConfig, settings: UnlearnConfig, task: Task, steps: int, referred: bool
) -> Json:
    assert settings.evaluation is not None  # a live run is evaluated
    rows_of = settings.evaluation.rows_of
    return {
        "event": "started",
        "steps": steps,
        "control": referred,  # whether a model is known that never saw the forget rows
        "few": settings.intermediate_rows,
        "questions": [
            question_of(name, place, row)
            for name in EVALUATION_SETS
            for place, row in enumerate(rows_of(task.evaluation[name]))
        ],
        "command": as_command(config, settings, POCKET_RETAINED if referred else None),
        "cell": as_cell(config, settings),
    }


def unlearning(config: LiveConfig) -> UnlearnConfig:
    """Return the UnlearnConfig of a live run.

    Where the page chose nothing, the pocket model has the recorded study's settings, with the
    learning rate in the middle of its grid; any other model has the defaults and is evaluated on
    QUICK_ROWS of each set. On the way, a quick run is evaluated on FEW_ROWS of each set.
    """
    from npo_kit.metrics.config import EvaluationConfig
    from npo_kit.studies import study_plan
    from npo_kit.trainer.config import UnlearnConfig

    if config.model == "pocket":
        plan = study_plan("pocket")
        common = replace(plan.common, lr=plan.lrs[len(plan.lrs) // 2])
    else:
        quick = EvaluationConfig(max_rows=QUICK_ROWS, max_new_tokens=3 * ANSWER_TOKENS)
        common = UnlearnConfig(evaluation=quick)
    chosen = {name: getattr(config, name) for name in ("lr", "retain_weight", "epochs")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    method, seed, hyper = config.method, config.seed, dict(config.hyper)
    few = FEW_ROWS if config.quick else None
    common = replace(common, intermediate_rows=few)
    return replace(common, method=method, seed=seed, hyper=hyper, **chosen)


def _reference(config: LiveConfig) -> Evaluation | None:
    """Return the recorded evaluation of the retained-only model, if it is of the same task."""
    if config.model != "pocket":
        return None
    run = read_run(shipped_data("studies/pocket") / RETAINED)
    return last_evaluation(run) if run.task_name == config.task else None


class Watcher:
    """Does what the orders say of a model in training, and of one that has finished."""

    def __init__(self, speaker: Speaker, task: Task, orders: Orders):
        self.speaker, self.task, self.orders = speaker, task, orders
        self.watched: tuple[str, int] | None = None
        self.answered: tuple[str, int] | None = None

    def take(self, order: Json) -> None:
        """Do what one order says."""
        if "watch" in order:
            self.watched = tuple(order["watch"])
        elif "ask" in order:
            self.speaker.answer(order["ask"], order["number"])
        elif "relearn" in order:  # of a finished run
            from npo_kit.app.relearn import relearn_pair

            control = order["relearn"]["control"]
            relearn_pair(self.task, self.speaker, control, self.orders, self.take)

    def speak(self, step: int) -> None:
        """Send what is due at this step: answers to prompts, and that to the watched question."""
        self.speaker.step = step
        while not self.orders.empty():
            self.take(self.orders.get())
        watched = self.watched
        if watched and (step % WATCH_EVERY == 0 or watched != self.answered):
            name, place = watched
            rows = self.task.evaluation.get(name, [])[place : place + 1]
            text = self.speaker.text(rows[0]["question"]) if rows else ""
            self.speaker.send({"event": "answer", "step": step, "question": watched, "text": text})
            self.answered = watched


def weights_of(now: Evaluation, start: Evaluation, settings: UnlearnConfig) -> list[float] | None:
    """Return each forget row's gradient weight W, if it follows from the row's log-ratio alone.

    The log-ratio is of the answers' log-probs now and at the start, in nats. None for methods whose
    entry names no such weight, and where a log-prob is not finite.
    """
    import torch

    from npo_kit.losses.methods import method
    from npo_kit.losses.objectives import named

    entry = method(settings.method)
    if entry.weight is None:
        return None
    rows = zip(now.rows["forget"], start.rows["forget"], strict=False)  # now may have fewer
    logps = list(zip(*(map(_answer_logp, pair) for pair in rows), strict=True))
    log_ratio = torch.tensor(logps[0]) - torch.tensor(logps[1])
    if not log_ratio.isfinite().all():
        return None
    weights = named(entry.weight)(log_ratio, **(entry.hyperparameters | dict(settings.hyper)))
    return [round(w, 4) for w in weights.tolist()]


def _answer_logp(row: ScoredRow) -> float:
    mean, tokens = row["mean_logp"], row["tokens"]
    return math.nan if mean is None or tokens is None else mean * tokens


def _evaluated(
    evaluation: Evaluation,
    start: Evaluation,
    settings: UnlearnConfig,
    reference: Evaluation | None,
    null: Null | None,
) -> Json:
    """Return an evaluation for the page.

    One on a few rows has no forget quality: with fewer rows p is larger, and it would not be
    comparable with p of all rows.
    """
    assert settings.evaluation is not None  # else there would be none
    whole = evaluation.max_rows == settings.evaluation.max_rows
    cells = cells_of(evaluation)
    return {
        "event": "evaluation",
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "rows": {name: len(of) for name, of in cells.items()},
        "whole": whole,
        "metrics": metrics_of(evaluation, *((reference, null) if whole else (None, None))),
        "cells": {name: [cell._asdict() for cell in of] for name, of in cells.items()},
        "weights": weights_of(evaluation, start, settings),
    }


if __name__ == "__main__":
    main()

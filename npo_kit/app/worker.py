"""The process of a live run: it takes orders on stdin and sends events on stdout, as JSON lines.

The first line on stdin is the configuration, the others ask for an answer: to one question from
now on ("watch"), or once to a prompt ("ask"). When stdin closes, the page's server is gone and the
process ends. Everything that it or a library prints, and the trace of a fault, goes to stderr.
"""

from __future__ import annotations

import io
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from npo_kit.app.live import LiveConfig
from npo_kit.app.questions import question_of
from npo_kit.app.recipes import as_cell, as_command
from npo_kit.app.scored import cells_of, metrics_of
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError, without_paths
from npo_kit.metrics.null import Null
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation, ScoredRow
from npo_kit.records.files import Json, dumps, parse
from npo_kit.records.run import RunWriter, read_run
from npo_kit.studies.table import POCKET_RETAINED, RETAINED, last_evaluation, null_of

WATCH_EVERY = 2  # steps between two answers to the watched question
ANSWER_TOKENS = 32  # of an answer to a prompt by the pocket model; other models: three times that
LEAST_ROOM = 3  # tokens of the context that a question leaves for its answer
QUICK_ROWS = 40  # of each set, in the evaluations of other models
Send = Callable[[Json], None]


def main() -> None:
    """Run one live run to its end, then answer prompts."""
    send = _event_stream()
    if hasattr(os, "nice"):
        os.nice(5)  # the page goes first
    # unbuffered: a thread that waits for it does not lock the exit
    orders = io.FileIO(0, closefd=False)
    first = parse(orders.readline(), "the live run's configuration")
    asked = Asked()
    threading.Thread(target=asked.listen, args=(orders,), daemon=True).start()
    send({"event": "loading"})
    try:
        _run(LiveConfig.of(first["config"]), Path(first["folder"]), asked, send)
    except KitError as error:
        send({"event": "failed", "reason": without_paths(str(error))})


class Asked:
    """The questions that the page asks while the run goes on."""

    def __init__(self):
        self.watched: tuple[str, int] | None = None
        self.prompts: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def listen(self, orders: Iterable[bytes]) -> None:
        """Take the lines of stdin until it closes, then end the process."""
        for line in orders:
            message = parse(line, "a message to the live run")
            if "watch" in message:
                self.watched = tuple(message["watch"])
            else:
                self.prompts.put((message["ask"], message["number"]))
        os._exit(0)


def _event_stream() -> Send:
    """Return the writer of events; what libraries print goes to stderr from now on."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: Json) -> None:
        stream.write(dumps(event))

    return send


def _run(config: LiveConfig, folder: Path, asked: Asked, send: Send) -> None:
    from npo_kit.data.tasks import load_task
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.events import Event, Step
    from npo_kit.trainer.loop import total_steps, unlearn
    from npo_kit.trainer.recording import record

    task, settings, reference = load_task(config.task), unlearning(config), _reference(config)
    pocket = config.model == "pocket"
    model, tokenizer = load_model(config.model, device="cpu" if pocket else "auto")
    speaker = Speaker(model, settings.prompt_format(tokenizer, model), task, pocket, send)
    writer = RunWriter.create(
        folder,
        kind="unlearn",
        label=config.method,
        method=config.method,
        seed=config.seed,
        config=asdict(settings) | {"model": Path(config.model).name},
        task=task.record(),
    )
    steps, null = total_steps(settings, len(task.forget)), null_of(config.model, config.task)
    send(_started(config, settings, task, steps, reference is not None))
    start: Evaluation | None = None

    def seen(event: Event) -> None:
        nonlocal start
        if isinstance(event, Step):
            send({"event": "step", **asdict(event)})
        elif isinstance(event, Evaluation):
            start = start or event
            send(_evaluated(event, reference, null, weights_of(event, start, settings)))
        else:
            return  # a collapse is told once the record says so
        speaker.speak(asked, event.step)

    if collapse := record(writer, unlearn(model, tokenizer, task, settings), seen=seen):
        send({"event": "collapsed", **asdict(collapse)})
        return
    send({"event": "finished"})
    while True:
        speaker.answer(*asked.prompts.get())


def _started(config: LiveConfig, settings, task, steps: int, referred: bool) -> Json:
    rows_of = settings.evaluation.rows_of
    return {
        "event": "started",
        "steps": steps,
        "questions": [
            question_of(name, place, row)
            for name in EVALUATION_SETS
            for place, row in enumerate(rows_of(task.evaluation[name]))
        ],
        "command": as_command(config, settings, POCKET_RETAINED if referred else None),
        "cell": as_cell(config, settings),
    }


def unlearning(config: LiveConfig):
    """Return the UnlearnConfig of a live run.

    Where the page chose nothing, the pocket model has the recorded study's settings, with the
    learning rate in the middle of its grid; any other model has the defaults and is evaluated on
    QUICK_ROWS of each set.
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
    return replace(common, method=method, seed=seed, hyper=hyper, **chosen)


def _reference(config: LiveConfig) -> Evaluation | None:
    """Return the recorded evaluation of the retained-only model, if it is of the same task."""
    if config.model != "pocket":
        return None
    run = read_run(shipped_data("studies/pocket") / RETAINED)
    return last_evaluation(run) if run.task_name == config.task else None


class Speaker:
    """Answers questions with the model as it is now."""

    def __init__(self, model, prompt_format, task, small: bool, send: Send):
        self.model, self.format, self.task, self.send = model, prompt_format, task, send
        self.max_new_tokens = ANSWER_TOKENS if small else 3 * ANSWER_TOKENS
        self.answered: tuple[str, int] | None = None
        self.step = 0  # that the model is at

    def speak(self, asked: Asked, step: int) -> None:
        """Send what is due at this step: the watched question's answer, and those to prompts."""
        self.step, watched = step, asked.watched
        if watched and (step % WATCH_EVERY == 0 or watched != self.answered):
            name, place = watched
            rows = self.task.evaluation.get(name, [])[place : place + 1]
            text = self._generate(rows[0]["question"], lambda _: None) if rows else ""
            self.send({"event": "answer", "step": step, "question": watched, "text": text})
            self.answered = watched
        while not asked.prompts.empty():
            self.answer(*asked.prompts.get())

    def answer(self, prompt: str, number: int) -> None:
        """Answer a prompt token by token: `token` events with the text so far, the last `whole`.

        Where the model cannot be asked this, the last one says why in `problem`.
        """

        def said(text: str, **more: Any) -> None:
            about = {"number": number, "step": self.step, "text": text}
            self.send({"event": "token", **about, "whole": False, **more})

        try:
            said(self._generate(prompt, said), whole=True)
        except KitError as error:
            said("", whole=True, problem=without_paths(str(error)))

    def _generate(self, question: str, so_far: Callable[[str], None]) -> str:
        from npo_kit.models.generation import generate

        context, count = self.format.context, self._tokens(question)
        if context and count + LEAST_ROOM > context:
            raise KitError(
                f"the question has {count} tokens, the model's context holds {context}: shorten it"
            )
        ids = self.format.encode_prompt(question)
        (said,) = generate(
            self.model,
            [ids],
            self.format.end_id,
            max_new_tokens=self.max_new_tokens,
            token=lambda ids: so_far(self.format.decode(ids)),
        )
        return self.format.decode(said)

    def _tokens(self, question: str) -> int:
        """Count the tokens of a question in its prompt."""
        special = self.format.style != "chat"  # a chat template writes its own
        text = self.format.prompt(question)
        return len(self.format.tokenizer(text, add_special_tokens=special)["input_ids"])


def weights_of(now: Evaluation, start: Evaluation, settings) -> list[float] | None:
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
    logps = [[_answer_logp(row) for row in e.rows["forget"]] for e in (now, start)]
    log_ratio = torch.tensor(logps[0]) - torch.tensor(logps[1])
    if not log_ratio.isfinite().all():
        return None
    weights = named(entry.weight)(log_ratio, **(entry.hyperparameters | settings.hyper))
    return [round(w, 4) for w in weights.tolist()]


def _answer_logp(row: ScoredRow) -> float:
    mean, tokens = row["mean_logp"], row["tokens"]
    return math.nan if mean is None or tokens is None else mean * tokens


def _evaluated(
    evaluation: Evaluation, reference: Evaluation | None, null: Null | None, weights
) -> Json:
    cells = cells_of(evaluation).items()
    return {
        "event": "evaluation",
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "metrics": metrics_of(evaluation, reference, null),
        "cells": {name: [cell._asdict() for cell in of] for name, of in cells},
        "weights": weights,
    }


if __name__ == "__main__":
    main()

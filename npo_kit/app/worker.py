"""The process of a live run: what to do on stdin, its events on stdout, a JSON line each.

The first line on stdin is the configuration, the others ask for an answer: to one question from
now on ("watch"), or once to a prompt ("ask"). When stdin closes, the page's server is gone and the
process ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from npo_kit.app.live import LiveConfig
from npo_kit.app.packed import cells_of, metrics_of, question_of
from npo_kit.app.recipes import as_cell, as_command
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError, without_paths
from npo_kit.records.evaluations import EVALUATION_SETS, Evaluation
from npo_kit.records.files import dumps, parse
from npo_kit.records.run import RunWriter, read_run
from npo_kit.studies.table import RETAINED, last_evaluation

WATCH_EVERY = 2  # steps between two answers to the watched question
ANSWER_TOKENS = 32  # of an answer to a prompt by the pocket model; other models: three times that
QUICK_ROWS = 40  # of each set, in the evaluations of other models
Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run one live run to its end, then answer prompts."""
    send = _event_stream()
    if hasattr(os, "nice"):
        os.nice(5)  # the page goes first
    first = parse(sys.stdin.buffer.readline(), "the live run's configuration")
    asked = Asked()
    threading.Thread(target=asked.listen, daemon=True).start()
    send({"event": "loading"})
    try:
        _run(LiveConfig.of(first["config"]), Path(first["folder"]), asked, send)
    except KitError as error:
        send({"event": "failed", "reason": without_paths(str(error))})
    except Exception as error:
        send({"event": "failed", "reason": f"{type(error).__name__} in the live run"})
        raise  # its trace is for whoever starts the process by hand


class Asked:
    """What the page asks for while the run goes on."""

    def __init__(self):
        self.watched: tuple[str, int] | None = None
        self.prompts: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take the lines of stdin until it closes, then end the process."""
        for line in sys.stdin.buffer:
            message = parse(line, "a message to the live run")
            if "watch" in message:
                self.watched = tuple(message["watch"])
            else:
                self.prompts.put((message["ask"], message["number"]))
        os._exit(0)


def _event_stream() -> Send:
    """A writer of events; what libraries print goes to stderr from now on."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: dict[str, Any]) -> None:
        stream.write(dumps(event))

    return send


def _run(config: LiveConfig, folder: Path, asked: Asked, send: Send) -> None:
    from npo_kit.data.tasks import load_task
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.loop import Collapse, Step, total_steps, unlearn

    task, settings = load_task(config.task), unlearning(config)
    model, tokenizer = load_model(
        config.model, device="cpu" if config.model == "pocket" else "auto"
    )
    speaker = Speaker(model, tokenizer, settings.prompt, task, config.model == "pocket", send)
    reference = _reference(config)
    run = RunWriter.create(
        folder,
        kind="unlearn",
        label=config.method,
        method=config.method,
        seed=config.seed,
        config=asdict(settings) | {"model": Path(config.model).name},
        task=task.record(),
    )
    rows = {name: settings.evaluation.rows_of(task.evaluation[name]) for name in EVALUATION_SETS}
    send(
        {
            "event": "started",
            "steps": total_steps(settings, len(task.forget)),
            "questions": [
                question_of(name, place, row)
                for name in EVALUATION_SETS
                for place, row in enumerate(rows[name])
            ],
            "command": as_command(config, settings),
            "cell": as_cell(config, settings),
        }
    )
    start: Evaluation | None = None
    with run:
        for event in unlearn(model, tokenizer, task, settings):
            if isinstance(event, Step):
                run.step(asdict(event))
                send({"event": "step", **asdict(event)})
                speaker.speak(asked, event.step)
            elif isinstance(event, Collapse):
                run.finish("collapsed", collapsed_at=event.step, reason=event.reason)
                send({"event": "collapsed", "step": event.step, "reason": event.reason})
                return
            else:
                start = start or event
                run.evaluation(event)
                send(_evaluated(event, reference, weights_of(event, start, settings)))
                speaker.speak(asked, event.step)
        run.finish("finished")
    send({"event": "finished"})
    while True:
        speaker.answer(*asked.prompts.get())


def unlearning(config: LiveConfig):
    """The UnlearnConfig of a live run.

    The pocket model is unlearned as in the recorded study, with what the page chose; any other with
    the defaults, evaluated on few rows.
    """
    from npo_kit.metrics.evaluation import EvaluationConfig
    from npo_kit.studies.plan import PLANS
    from npo_kit.trainer.config import UnlearnConfig

    if config.model == "pocket":
        common = PLANS["pocket"]().common
    else:
        quick = EvaluationConfig(max_rows=QUICK_ROWS, max_new_tokens=3 * ANSWER_TOKENS)
        common = UnlearnConfig(evaluation=quick)
    return replace(
        common,
        method=config.method,
        lr=config.lr,
        hyper={} if config.beta is None else {"beta": config.beta},
        retain_weight=config.retain_weight,
        epochs=config.epochs,
        seed=config.seed,
    )


def _reference(config: LiveConfig) -> Evaluation | None:
    """The recorded evaluation of the retained-only model, where it is of the same task."""
    try:
        run = read_run(shipped_data("studies/pocket") / RETAINED)
    except FileNotFoundError:
        return None
    same = config.model == "pocket" and run.task.get("name") == config.task
    return last_evaluation(run) if same else None


class Speaker:
    """Answers questions with the model as it is at the moment."""

    def __init__(self, model, tokenizer, prompt: str, task, small: bool, send: Send):
        from npo_kit.data.prompts import PromptFormat
        from npo_kit.models.loading import context_length

        self.model, self.task, self.send = model, task, send
        self.format = PromptFormat(tokenizer, prompt, context_length(model))
        self.max_new_tokens = ANSWER_TOKENS if small else 3 * ANSWER_TOKENS
        self.answered: tuple[str, int] | None = None

    def speak(self, asked: Asked, step: int) -> None:
        """What is due at this step: the watched question's answer, and those to prompts."""
        watched = asked.watched
        if watched and (step % WATCH_EVERY == 0 or watched != self.answered):
            name, place = watched
            rows = self.task.evaluation.get(name, [])[place : place + 1]
            text = self._generate(rows[0]["question"], lambda _: None) if rows else ""
            self.send({"event": "answer", "step": step, "question": watched, "text": text})
            self.answered = watched
        while not asked.prompts.empty():
            self.answer(*asked.prompts.get())

    def answer(self, prompt: str, number: int) -> None:
        """Answer a prompt token by token: `token` events with the text so far, the last `whole`."""
        text = self._generate(prompt, lambda text: self._token(number, text, False))
        self._token(number, text, True)

    def _token(self, number: int, text: str, whole: bool) -> None:
        self.send({"event": "token", "number": number, "text": text, "whole": whole})

    def _generate(self, question: str, so_far: Callable[[str], None]) -> str:
        from npo_kit.models.generation import generate

        ids = self.format.encode_prompt(question)
        (said,) = generate(
            self.model,
            [ids],
            self.format.end_id,
            max_new_tokens=self.max_new_tokens,
            token=lambda ids: so_far(self.format.decode(ids)),
        )
        return self.format.decode(said)


def weights_of(now: Evaluation, start: Evaluation, settings) -> list[float] | None:
    """NPO's gradient weights W = 2 sigmoid(beta log-ratio), one for each forget row; GA's are 1.

    From the rows' answer log-probs now and at the start. None for the other methods, whose weights
    depend on more, and where a log-prob is not finite.
    """
    import torch

    from npo_kit.losses.paper import method, npo_weight

    forget = method(settings.method).forget
    if forget is None or forget.__name__ not in ("npo", "ga"):
        return None
    logps = [[row["mean_logp"] * row["tokens"] for row in e.rows["forget"]] for e in (now, start)]
    log_ratio = torch.tensor(logps[0]) - torch.tensor(logps[1])
    if not log_ratio.isfinite().all():
        return None
    if forget.__name__ == "ga":
        return [1.0] * len(log_ratio)
    beta = settings.hyper.get("beta", method(settings.method).hyperparameters["beta"])
    return [round(w, 4) for w in npo_weight(log_ratio, beta).tolist()]


def _evaluated(
    evaluation: Evaluation, reference: Evaluation | None, weights: list[float] | None
) -> Mapping[str, Any]:
    return {
        "event": "evaluation",
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "metrics": metrics_of(evaluation, reference),
        "cells": cells_of(evaluation),
        "weights": weights,
    }


if __name__ == "__main__":
    main()

"""The process of a live run: its configuration on stdin, its events on stdout, a JSON line each.

Further lines on stdin say which question to answer between evaluations; when stdin closes, the
page's server is gone and the process ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from npo_kit.app.live import LiveConfig
from npo_kit.errors import KitError
from npo_kit.eval_files import Evaluation
from npo_kit.pack import cells_of, metrics_of
from npo_kit.records import dumps, parse
from npo_kit.runs import read_run
from npo_kit.shipped import shipped_data
from npo_kit.study import RETAINED, last_evaluation

WATCH_EVERY = 2  # steps between two answers to the watched question
Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Run one live run to its end."""
    send = _event_stream()
    config = LiveConfig.of(parse(sys.stdin.buffer.readline(), "the live run's configuration"))
    watched: list[tuple[str, int]] = []
    threading.Thread(target=_listen, args=(watched,), daemon=True).start()
    send({"event": "loading"})
    try:
        _run(config, watched, send)
    except KitError as error:
        send({"event": "failed", "reason": str(error)})
    except Exception as error:
        send({"event": "failed", "reason": f"{type(error).__name__} in the live run"})
        raise  # its trace is for whoever starts the process by hand


def _event_stream() -> Send:
    """A writer of events; what libraries print goes to stderr from now on."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: dict[str, Any]) -> None:
        stream.write(dumps(event))

    return send


def _listen(watched: list[tuple[str, int]]) -> None:
    for line in sys.stdin.buffer:
        watched[:] = [tuple(parse(line, "a message to the live run")["watch"])]
    os._exit(0)


def _run(config: LiveConfig, watched: list[tuple[str, int]], send: Send) -> None:
    import torch

    from npo_kit.data import load_task
    from npo_kit.models import context_length, load_model
    from npo_kit.prompts import PromptFormat
    from npo_kit.trainer import Collapse, Step, total_steps, unlearn

    torch.set_num_threads(1)
    task, settings = load_task(config.task), unlearning(config)
    model, tokenizer = load_model(config.model, device="cpu")
    style, reference = PromptFormat(tokenizer, context=context_length(model)), _reference(config)
    send({"event": "started", "steps": total_steps(settings, len(task.forget))})
    answered: tuple[str, int] | None = None
    for event in unlearn(model, tokenizer, task, settings):
        if isinstance(event, Step):
            send({"event": "step", **asdict(event)})
            question = watched[0] if watched else None
            if question and (event.step % WATCH_EVERY == 0 or question != answered):
                send(_answer(model, style, task, question, event.step))
                answered = question
        elif isinstance(event, Collapse):
            send({"event": "collapsed", "step": event.step, "reason": event.reason})
            return
        else:
            send(_evaluated(event, reference))
    send({"event": "finished"})


def unlearning(config: LiveConfig):
    """The UnlearnConfig of a live run: as in the recorded study, with what the page chose."""
    from npo_kit.study_maker import PLANS

    common = PLANS["pocket"]().common
    hyper = {} if config.beta is None else {"beta": config.beta}
    return replace(
        common,
        method=config.method,
        lr=config.lr,
        hyper=hyper,
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


def _answer(model, style, task, question: tuple[str, int], step: int) -> dict[str, Any]:
    """The greedy answer to one question at this step."""
    from npo_kit.scoring import generate

    name, index = question
    prompt = style.encode_prompt(task.evaluation[name][index]["question"])
    (ids,) = generate(model, [prompt], style.end_id, max_new_tokens=32)
    return {"event": "answer", "step": step, "question": question, "text": style.decode(ids)}


def _evaluated(evaluation: Evaluation, reference: Evaluation | None) -> dict[str, Any]:
    return {
        "event": "evaluation",
        "step": evaluation.step,
        "epoch": evaluation.epoch,
        "metrics": metrics_of(evaluation, reference),
        "cells": cells_of(evaluation),
    }


if __name__ == "__main__":
    main()

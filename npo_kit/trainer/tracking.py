"""A run's events in TensorBoard, Trackio or Weights & Biases, by accelerate's trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from os import PathLike
from typing import Any

from npo_kit.errors import KitError
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.folder import TRACKED
from npo_kit.trainer.config import TrainConfig
from npo_kit.trainer.events import Collapse, Event, Step

TRACKERS = ("tensorboard", "trackio", "wandb")  # each is the name of its pip package too
PROJECT = "npo_kit"  # of the runs in Trackio and W&B


@contextmanager
def log_to(
    tracker: str,
    config: TrainConfig | Mapping[str, Any],
    *,
    name: str = "run",
    folder: str | PathLike = ".",
    reference: Evaluation | None = None,
    truth_ratio: str = "geometric",
) -> Iterator[Callable[[Event], None]]:
    """Start a tracker, and give the function that logs an event there.

        with log_to("trackio", config, name="npo_rt") as log:
            for event in unlearn(model, tokenizer, task, config):
                log(event)

    `tracker`: one of TRACKERS, or the name of another one of accelerate's, registered ones too. A
    step is logged as `train/loss`, each term, `train/grad_norm`, `train/lr` and the quantiles of W;
    an evaluation as `evaluation/` and the values of `summarise` (`reference` and `truth_ratio` are
    its arguments); a collapse by its reason. The numbers and short texts in `config` are the run's
    hyper-parameters. TensorBoard writes in `folder`/tensorboard; Trackio and W&B have the run
    under `name` in their project npo_kit. Texts of rows are never logged.

    Raises KitError where the tracker is unknown, not installed, or does not start.
    """
    kind = _class_of(tracker)
    try:
        logged = _start(kind, tracker, name, folder)
        logged.store_init_configuration(flat(asdict(config) if is_dataclass(config) else config))
    except Exception as error:  # the trackers' clients share no family of errors
        first = (str(error).strip().splitlines() or ["no details"])[0]
        raise KitError(
            f"{tracker} did not start ({type(error).__name__}: {first}): set it up first, or leave "
            "it out"
        ) from error

    def log(event: Event) -> None:
        if values := _values(event, reference, truth_ratio):
            logged.log(values, step=event.step)

    try:
        yield log
    finally:
        logged.finish()


def refuse_untracked(tracker: str) -> None:
    """Raise KitError unless a tracker is known and installed, before anything is made."""
    _class_of(tracker)


def _class_of(tracker: str) -> type:
    from accelerate import utils
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if tracker not in LOGGER_TYPE_TO_CLASS:
        raise KitError(f"unknown tracker {tracker!r}: choose one of {', '.join(TRACKERS)}")
    installed = getattr(utils, f"is_{tracker}_available", None)  # none for a registered one
    if installed and not installed():
        raise KitError(f"{tracker} is not installed: pip install {tracker}")
    return LOGGER_TYPE_TO_CLASS[tracker]


def _start(kind: Any, tracker: str, name: str, folder: str | PathLike) -> Any:
    from accelerate import PartialState

    PartialState()  # without which accelerate's trackers cannot write their own log
    if tracker == "tensorboard":
        logged = kind(TRACKED, folder)
    elif kind.requires_logging_directory:
        logged = kind(name, folder)
    else:
        known = {"name": name} if tracker in TRACKERS else {}
        logged = kind(PROJECT, **known)
    logged.start()
    return logged


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, bool | int | float | str]:
    """Return the numbers and texts of nested settings, by their names joined with dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        elif isinstance(value, bool | int | float | str):
            found[f"{above}{name}"] = value
    return found


def _values(
    event: Event, reference: Evaluation | None, truth_ratio: str
) -> dict[str, float | str | None]:
    """Return what is logged of an event, by name."""
    if isinstance(event, Collapse):
        return {"collapse": event.reason}
    if isinstance(event, Step):
        weights = {f"W_{point}": value for point, value in (event.weights or {}).items()}
        told = {"loss": event.loss, "grad_norm": event.grad_norm, "lr": event.lr}
        told |= {"epoch": event.epoch, **event.terms, **weights}
        return {f"train/{name}": value for name, value in told.items()}
    summary = summarise(event, reference, truth_ratio)
    return {f"evaluation/{name}": v for name, v in summary.items() if v is not None}

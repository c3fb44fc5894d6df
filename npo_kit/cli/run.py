"""The run that a command makes: recorded, resumed, shown by bars, its model saved."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path

from npo_kit.processes import launched
from npo_kit.records.evaluations import Evaluation, read_evaluation
from npo_kit.records.files import Json
from npo_kit.records.folder import evaluation_path, list_evaluations

COLLAPSED = 3  # exit code of a run that ended early because it was no longer finite


def say_plan(loaded, task, config, rows=None) -> None:
    """Print the plan of a run, and in a single process an estimate of its time and memory."""
    from npo_kit.trainer.estimates import estimate
    from npo_kit.trainer.workload import Workload

    model, tokenizer = loaded
    if launched()[1] > 1:  # the others would wait while it is timed
        print(Workload(task, config, config.prompt_format(tokenizer, model), rows).plan)
    else:
        print(estimate(model, tokenizer, task, config, rows=rows))


def make_run(
    options: argparse.Namespace,
    about: Json,
    train: Callable,
    steps: int,
    *,
    saved,
    card: Callable[[list[Evaluation]], str],
    judge: Json | None = None,
) -> int:
    """Record a run's events, with a bar of its steps, save its model, return the exit code.

    `about`: the keywords of `RunWriter.create`. `train(progress=, checkpoints=)` gives the events,
    `steps` says how many there are. `saved`: the model and tokenizer to save in OUT/model with the
    `card` of the run's evaluations, or None. `judge`: what `log_to` makes scores by.
    """
    from tqdm.auto import tqdm

    from npo_kit.metrics.progress import progress_bars
    from npo_kit.models.distributed import in_main
    from npo_kit.trainer.events import Step
    from npo_kit.trainer.recording import record, saved_size

    start = _start(options, about)
    if start is None:
        return 0
    every = options.checkpoint_every
    checkpoints = start.checkpoints(every) if every else None
    save = partial(_save, saved[0], saved[1], Path(options.out), card) if saved else lambda: None
    save_size = saved_size(saved[0]) if saved else 0
    events = train(progress=progress_bars(), checkpoints=checkpoints)
    with closing(events), ExitStack() as stack:
        writer = in_main(partial(start.writer, overwrite=options.overwrite))
        stack.enter_context(writer or nullcontext())  # a run whose tracker fails is stopped
        log = in_main(partial(_start_tracker, stack, options, about, judge or {}))
        shown = {"desc": Path(options.out).name, "disable": writer is None}
        bar = stack.enter_context(tqdm(total=steps, initial=start.step, unit="step", **shown))

        def seen(event) -> None:
            if log:
                log(event)
            if isinstance(event, Step):
                bar.update()
                bar.set_postfix(loss=f"{event.loss:.3g}", norm=f"{event.grad_norm:.3g}")

        collapse = record(writer, events, seen=seen, save=save, save_size=save_size)
    if collapse:
        print(f"collapsed at step {collapse.step}: {collapse.reason}; kept up to there")
    return COLLAPSED if collapse else 0


def _start(options: argparse.Namespace, about: Json):
    """Find where the run starts; None, with a line that says so, if it is complete already."""
    from npo_kit.models.distributed import gather, in_main
    from npo_kit.trainer.checkpoints import remove_checkpoints
    from npo_kit.trainer.recording import Start, find_start

    if not options.resume:
        return Start(Path(options.out), about)
    start = gather(in_main(partial(find_start, options.out, about)))[0]
    if start is None:
        in_main(partial(remove_checkpoints, Path(options.out)))  # that a kill at the very end left
        print(f"{options.out} is complete already")
    elif start.resumed:
        print(f"{options.out} goes on after step {start.step}")
    return start


def _start_tracker(stack: ExitStack, options: argparse.Namespace, about: Json, judge: Json):
    """Start --log-to's tracker until the stack ends; return what logs an event, or None."""
    from npo_kit.trainer.tracking import log_to

    if not options.log_to:
        return None
    task = {name: about["task"][name] for name in ("name", "forget_rows", "retain_rows")}
    out, settings = Path(options.out), about["config"] | {"task": task}
    return stack.enter_context(log_to(options.log_to, settings, name=out.name, folder=out, **judge))


def _save(model, tokenizer, out: Path, card: Callable[[list[Evaluation]], str]) -> None:
    """Save the model; all processes take part if each holds a part of it."""
    from npo_kit.models.distributed import rank, whole_weights
    from npo_kit.models.loading import save_model

    weights = whole_weights(model)
    if rank() == 0:
        ends = sorted({*list_evaluations(out)[:1], *list_evaluations(out)[-1:]})
        evaluations = [read_evaluation(evaluation_path(out, step)) for step in ends]
        save_model(model, tokenizer, out / "model", weights, card=card(evaluations))
        print(f"model saved in {out / 'model'}")

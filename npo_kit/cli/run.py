"""The run that a command makes: recorded, resumed, shown by bars, its model saved."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from npo_kit.processes import launched
from npo_kit.records.files import Json


def say_plan(loaded, task, config, rows=None) -> None:
    """Print the plan of a run, and in a single process an estimate of its time and memory."""
    from npo_kit.trainer.estimates import estimate
    from npo_kit.trainer.plan import Workload

    model, tokenizer = loaded
    if launched()[1] > 1:  # the others would wait while it is timed
        print(Workload(task, config, config.prompt_format(tokenizer, model), rows).plan)
    else:
        print(estimate(model, tokenizer, task, config, rows=rows))


def make_run(options: argparse.Namespace, about: Json, train: Callable, steps: int, saved) -> None:
    """Record the events of a run as they come, with a bar of its steps, then save its model.

    `about`: the keywords of `RunWriter.create`. `train(progress=, checkpoints=)` gives the events,
    `steps` says how many there are. `saved`: the model and tokenizer to save in OUT/model, or None.
    """
    from tqdm import tqdm

    from npo_kit.models.distributed import in_main
    from npo_kit.trainer.events import Step
    from npo_kit.trainer.recording import record, saved_size

    start = _start(options, about)
    if start is None:
        return
    every = options.checkpoint_every
    checkpoints = start.checkpoints(every) if every else None
    events = train(progress=evaluation_bars(), checkpoints=checkpoints)
    save = partial(_save, saved[0], saved[1], Path(options.out, "model")) if saved else lambda: None
    save_size = saved_size(saved[0]) if saved else 0
    writer = in_main(partial(start.writer, overwrite=options.overwrite))
    name, hidden = Path(options.out).name, writer is None
    with tqdm(total=steps, initial=start.step, unit="step", desc=name, disable=hidden) as bar:

        def seen(event) -> None:
            if isinstance(event, Step):
                bar.update()
                bar.set_postfix(loss=f"{event.loss:.3g}", norm=f"{event.grad_norm:.3g}")

        collapse = record(writer, events, seen=seen, save=save, save_size=save_size)
    if collapse:
        print(f"collapsed at step {collapse.step}: {collapse.reason}; kept up to there")


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


def _save(model, tokenizer, folder: Path) -> None:
    """Save the model; all processes take part if each holds a part of it."""
    from npo_kit.models.distributed import rank, whole_weights
    from npo_kit.models.loading import save_model

    weights = whole_weights(model)
    if rank() == 0:
        save_model(model, tokenizer, folder, weights)
        print(f"model saved in {folder}")


def evaluation_bars() -> Callable[[str, int, int], None] | None:
    """Return a `progress` that shows a bar for each part of an evaluation, in the main process."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, unit="row", leave=False)
        bars[what].update(done - bars[what].n)
        if done >= total:
            bars.pop(what).close()

    return None if launched()[0] else show

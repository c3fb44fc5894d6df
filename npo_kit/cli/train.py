"""What the commands do; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from npo_kit.cli.read import show_table
from npo_kit.errors import KitError
from npo_kit.processes import launched
from npo_kit.records.run import RunWriter


def finetune_command(options: argparse.Namespace) -> None:
    """Fine-tune, record, save the model, show the table."""
    from npo_kit.models.distributed import join, rank
    from npo_kit.studies.table import ORIGINAL, RETAINED
    from npo_kit.trainer.config import FinetuneConfig
    from npo_kit.trainer.loop import finetune

    config = FinetuneConfig(**_train_settings(options))
    task = _task(options)
    model, tokenizer = _model(options)
    rows = task.full if options.rows == "full" else task.retain
    label = options.label or {"full": ORIGINAL, "retain": RETAINED}[options.rows]
    join(model.device)
    about = _about(options, "finetune", label, task, config, model, rows=options.rows)
    if start := _start(options, about):
        kept = _checkpoints(options, start)
        events = finetune(
            model, tokenizer, rows, config, task=task, progress=_bars(), checkpoints=kept
        )
        _record_run(options, start, events, config, len(rows), (model, tokenizer))
    if rank() == 0:
        show_table(options.out)


def unlearn_command(options: argparse.Namespace) -> None:
    """Unlearn, record, show the table."""
    from npo_kit.models.distributed import join, rank
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.config import UnlearnConfig
    from npo_kit.trainer.loop import unlearn

    chosen = {
        name: getattr(options, name)
        for name in ("method", "forget_weight", "retain_weight", "retain_pairing")
        if getattr(options, name) is not None
    }
    hyper = {} if options.beta is None else {"beta": options.beta}
    config = UnlearnConfig(**_train_settings(options), **chosen, hyper=hyper)
    task = _task(options)
    if options.reference:
        find_reference(options.reference)  # refuse it now, not after an hour
    model, tokenizer = _model(options)
    label = options.label or Path(options.out).name
    join(model.device)
    about = _about(options, "unlearn", label, task, config, model, method=config.method)
    if start := _start(options, about):
        kept = _checkpoints(options, start)
        events = unlearn(model, tokenizer, task, config, progress=_bars(), checkpoints=kept)
        saved = (model, tokenizer) if options.save_model else None
        _record_run(options, start, events, config, len(task.forget), saved)
    if rank() == 0:
        show_table(options.out, options.reference, options.truth_ratio)


def evaluate_command(options: argparse.Namespace) -> None:
    """Evaluate, print the summary, record it where asked."""
    from npo_kit.data.prompts import PromptFormat
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.metrics.summary import summarise
    from npo_kit.models.distributed import in_main, join
    from npo_kit.models.loading import choose_placement, context_length
    from npo_kit.studies.table import find_reference

    config = _evaluation_config(options)
    task = _task(options)
    reference = find_reference(options.reference) if options.reference else None
    model, tokenizer = _model(options)
    original = _model(options, options.original)[0] if options.original else None
    prompt_format = PromptFormat(tokenizer, options.prompt, context_length(model))
    join(model.device)
    writer = None
    if options.out:
        label = options.label or Path(options.out).name
        about = _about(options, "evaluate", label, task, config, model)
        create = partial(RunWriter.create, options.out, **about, overwrite=options.overwrite)
        writer = in_main(create)
    precision = choose_placement(model.device).precision
    evaluation = evaluate(
        model,
        prompt_format,
        task,
        config,
        original=original,
        precision=precision,
        progress=_bars(),
    )
    if writer:
        with writer:
            writer.evaluation(evaluation)
            writer.finish("finished")
    summary = summarise(evaluation, reference, truth_ratio=options.truth_ratio)
    _print_summary(summary)


def synthetic_command(options: argparse.Namespace) -> None:
    """Run the synthetic experiment and print its last distances."""
    from npo_kit.theory.experiment import run_experiment

    names = ("seeds", "alphas", "methods", "steps", "sweep_steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    record = run_experiment(options.out, **given)
    frame = record["unlearning"]
    last = frame[frame.step == frame.step.max()]
    columns = ["forget_distance", "retain_distance", "forget_drift"]
    print(f"step {frame.step.max()}, mean over {frame.seed.nunique()} seed(s), nats")
    print(last.groupby(["alpha", "method"])[columns].mean().to_string(float_format="{:.4f}".format))
    print(f"frames and figures in {options.out}")


def pocket_command(options: argparse.Namespace) -> None:
    """Train the pocket models, or retained-only models of other splits."""
    from npo_kit.studies.pocket import build_pocket, build_retained, pocket_manifest

    if options.retained:
        for path in build_retained(options.out, options.retained, processes=options.processes):
            print(path)
        return
    made = build_pocket(options.out, processes=options.processes)
    shipped = pocket_manifest()
    for name, model in made["models"].items():
        same = model["sha256"] == shipped["models"][name]["sha256"]
        print(f"{name}: {'bit for bit as' if same else 'other weights than'} shipped")


def app_command(options: argparse.Namespace) -> None:
    """Serve the dashboard."""
    from npo_kit.app import serve

    serve(options.folders, options.port, options.host, options.model, options.task, options.live)


# --- what the commands share --------------------------------------------------------------------


def _train_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given; the others keep the configuration's defaults."""
    names = ("epochs", "batch_size", "micro_batch_size", "lr", "warmup_epochs", "weight_decay")
    names += ("max_grad_norm", "seed", "precision", "prompt", "intermediate_rows")
    names += ("lora_rank", "lora_alpha", "gradient_checkpointing")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.evaluate_every is not None:
        given["evaluate_every"] = options.evaluate_every or None
    return given | {"evaluation": _evaluation_config(options)}


def _evaluation_config(options: argparse.Namespace):
    from npo_kit.metrics.evaluation import EvaluationConfig

    return EvaluationConfig(
        protocol=options.protocol,
        max_rows=options.max_rows,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.evaluation_batch_size,
    )


def _task(options: argparse.Namespace):
    from npo_kit.data.tasks import load_task, own_task

    own = (options.forget, options.retain)
    if options.task and any(own):
        raise KitError("give --task or own --forget and --retain rows, not both")
    if options.task:
        return load_task(options.task, options.source)
    if not all(own):
        raise KitError("give --task, such as tofu:forget10, or both --forget and --retain files")
    return own_task(*own, options.real_authors, options.world_facts)


def _model(options: argparse.Namespace, name: str | None = None):
    from npo_kit.models.loading import load_model

    name = name or options.model
    return load_model(name, device=options.device, quantize=options.quantize)


def _about(
    options: argparse.Namespace, kind: str, label: str, task, config, model, method=None, **more
) -> dict[str, Any]:
    """What a run's record says of it from the start."""
    from npo_kit.models.distributed import count
    from npo_kit.trainer.checkpoints import fingerprint_weights

    more |= {"model": Path(options.model).name, "quantize": options.quantize}
    settings = asdict(config) | more
    settings |= {"weights": fingerprint_weights(model)}
    settings |= {"processes": count()} if count() > 1 else {}
    about = {"kind": kind, "label": label, "method": method, "seed": settings.get("seed")}
    return about | {"config": settings, "task": task.record()}


def _start(options: argparse.Namespace, about: dict[str, Any]):
    """Where the run starts; None if it is over, which is said."""
    from npo_kit.models.distributed import gather, in_main
    from npo_kit.trainer.checkpoints import remove_checkpoints
    from npo_kit.trainer.resuming import Start, find_start

    if not options.resume:
        return Start(Path(options.out), about)
    start = gather(in_main(partial(find_start, options.out, about)))[0]
    if start is None:
        in_main(partial(remove_checkpoints, Path(options.out)))  # that a kill at the very end left
        print(f"{options.out} is complete already")
    elif start.resumed:
        print(f"{options.out} goes on after step {start.step}")
    return start


def _checkpoints(options: argparse.Namespace, start):
    return start.checkpoints(options.checkpoint_every) if options.checkpoint_every else None


def _record_run(
    options: argparse.Namespace, start, events: Iterable, config, n_rows: int, saved: tuple | None
) -> None:
    """Write the events of a run as they come, with a bar of its steps, and then its model."""
    from tqdm import tqdm

    from npo_kit.models.distributed import in_main
    from npo_kit.trainer.loop import Step, total_steps
    from npo_kit.trainer.recording import record

    writer = in_main(partial(start.writer, overwrite=options.overwrite))
    steps, name, hidden = total_steps(config, n_rows), Path(options.out).name, writer is None
    with tqdm(total=steps, initial=start.step, unit="step", desc=name, disable=hidden) as bar:

        def seen(event) -> None:
            if isinstance(event, Step):
                bar.update()
                bar.set_postfix(loss=f"{event.loss:.3g}", norm=f"{event.grad_norm:.3g}")

        folder = Path(options.out, "model")
        save = partial(_save, *saved, folder) if saved else lambda: None
        outcome = record(writer, events, seen=seen, save=save)
    if outcome:
        print(f"collapsed at step {outcome['collapsed_at']}: {outcome['reason']}; kept up to there")


def _save(model, tokenizer, folder: Path) -> None:
    """Save the model; all processes take part where each holds a part of it."""
    from npo_kit.models.distributed import rank, whole_weights
    from npo_kit.models.loading import save_model

    weights = whole_weights(model)
    if rank() == 0:
        save_model(model, tokenizer, folder, weights)
        print(f"model saved in {folder}")


def _bars() -> _Bars | None:
    return _Bars() if launched()[0] == 0 else None


class _Bars:
    """Progress of evaluations: one bar for each thing that is being done to a set."""

    def __init__(self):
        self.bar = None

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None or self.bar.desc != f"{what}: ":
            self.close()
            self.bar = tqdm(total=total, desc=what, unit="row", leave=False)
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _print_summary(summary) -> None:
    for name, value in summary.items():
        shown = f"{value:.4g}" if value is not None else f"-  ({summary.why.get(name, '')})"
        print(f"{name:32s} {shown}")

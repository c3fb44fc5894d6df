"""The commands that take a model: `finetune`, `unlearn` and `evaluate`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from npo_kit.cli.options import add_model_and_task, add_training, prompt_options
from npo_kit.cli.read import Add, add_reference, show_table
from npo_kit.cli.run import evaluation_bars, make_run, say_plan
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS, method_options
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import add_options, given, options_of
from npo_kit.processes import launched
from npo_kit.records.folder import refuse_unwritable
from npo_kit.records.run import RunWriter
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig


def add_finetune(add: Add) -> None:
    example = (
        "npo-kit finetune HuggingFaceTB/SmolLM2-135M-Instruct --task tofu:forget10 "
        "--rows retain --lr 1e-4 --out runs/retained"
    )
    parser = add("finetune", finetune_command, example, several=True)
    add_model_and_task(parser)
    parser.add_argument(
        "--rows",
        choices=("full", "retain"),
        default="full",
        help="full: the original model; retain: the retained-only model (default: full)",
    )
    add_training(parser, options_of(FinetuneConfig))


def finetune_command(options: argparse.Namespace) -> None:
    """Fine-tune a model on the rows of a task, all of them or the retain rows only."""
    from npo_kit.studies.table import ORIGINAL, RETAINED
    from npo_kit.trainer.loop import finetune, total_steps

    config, task = FinetuneConfig(**_settings(options, FinetuneConfig)), _task(options)
    label, rows = {"full": (ORIGINAL, task.full), "retain": (RETAINED, task.retain)}[options.rows]
    loaded = _load(options)
    say_plan(loaded, task, config, rows)
    about = _about(options, "finetune", label, task, config, loaded, rows=options.rows)
    train = partial(finetune, loaded[0], loaded[1], rows, config, task=task)
    make_run(options, about, train, total_steps(config, len(rows)), saved=loaded)
    if launched()[0] == 0:
        show_table(options.out)


def add_unlearn(add: Add) -> None:
    example = (
        "npo-kit unlearn runs/original --task tofu:forget10 --method npo_rt "
        "--reference runs/retained --out runs/npo_rt"
    )
    parser = add("unlearn", unlearn_command, example, several=True)
    add_model_and_task(parser)
    of_config = options_of(UnlearnConfig)
    first = {name: of_config.pop(name) for name in ("method", "forget_weight", "retain_weight")}
    first["method"] = replace(first["method"], help=f"one of {', '.join(METHODS)}")
    add_options(parser, first | method_options())
    parser.add_argument(
        "--refusals",
        metavar="FILE",
        help="a text file, one a line, to draw from for rows without an alternate of their own "
        "(default: the kit's hundred)",
    )
    parser.add_argument("--save-model", action="store_true", help="keep the weights in OUT/model")
    add_training(parser, of_config)
    add_reference(parser)


def unlearn_command(options: argparse.Namespace) -> None:
    """Unlearn the forget rows of a task in a fine-tuned model."""
    from npo_kit.data.rows import load_refusals
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.loop import total_steps, unlearn

    refusals = tuple(load_refusals(options.refusals)) if options.refusals else None
    hyper = given(options, method_options())
    settings = _settings(options, UnlearnConfig)
    config, task = UnlearnConfig(**settings, hyper=hyper, refusals=refusals), _task(options)
    if options.reference:
        find_reference(options.reference, [task.name])  # refuse it now, not after an hour
    loaded = _load(options)
    say_plan(loaded, task, config)
    about = _about(options, "unlearn", Path(options.out).name, task, config, loaded)
    train = partial(unlearn, loaded[0], loaded[1], task, config)
    steps = total_steps(config, len(task.forget))
    make_run(options, about, train, steps, saved=loaded if options.save_model else None)
    if launched()[0] == 0:
        show_table(options.out, options.reference, options.truth_ratio)


def add_evaluate(add: Add) -> None:
    example = "npo-kit evaluate runs/npo_rt --task tofu:forget10 --reference runs/retained"
    parser = add("evaluate", evaluate_command, example, several=True)
    add_model_and_task(parser)
    parser.add_argument("--original", help="the model before unlearning; judges the fluency")
    add_options(parser, prompt_options())
    parser.add_argument("--out", help="run folder to write (default: none)")
    parser.add_argument("--label", help="such as original or retained (default: OUT's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    add_options(parser, options_of(EvaluationConfig))
    add_reference(parser)


def evaluate_command(options: argparse.Namespace) -> None:
    """Evaluate a model on the four evaluation sets of a task."""
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.metrics.summary import summarise
    from npo_kit.models.distributed import in_main
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.recording import record

    config, task = EvaluationConfig(**given(options, options_of(EvaluationConfig))), _task(options)
    asked = TrainConfig(**given(options, prompt_options()))
    reference = find_reference(options.reference, [task.name]) if options.reference else None
    loaded = _load(options)
    model, tokenizer = loaded
    original = _load(options, options.original)[0] if options.original else None
    writer = None
    if options.out:
        about = _about(options, "evaluate", Path(options.out).name, task, config, loaded)
        create = partial(RunWriter.create, options.out, **about, overwrite=options.overwrite)
        writer = in_main(create)
    evaluation = evaluate(
        model,
        asked.prompt_format(tokenizer, model),
        task,
        config,
        original=original,
        precision=loaded.placement.precision,
        progress=evaluation_bars(),
    )
    record(writer, [evaluation])
    summary = summarise(evaluation, reference, truth_ratio=options.truth_ratio)
    for name, value in summary.items():
        shown = f"{value:.4g}" if value is not None else f"-  ({summary.why.get(name, '')})"
        print(f"{name:32s} {shown}")


COMMANDS = (add_finetune, add_unlearn, add_evaluate)


# --- what is made of the options ----------------------------------------------------------------


def _settings(options: argparse.Namespace, kind: type[TrainConfig]) -> dict[str, Any]:
    """Return the settings of a configuration that were given; the others keep its defaults."""
    settings = given(options, options_of(kind))
    if "lora_alpha" in settings and "lora_rank" not in settings:
        raise KitError("--lora-alpha scales an adapter: give --lora-rank with it, or leave it out")
    evaluation = EvaluationConfig(**given(options, options_of(EvaluationConfig)))
    return settings | {"evaluation": evaluation}


def _task(options: argparse.Namespace):
    from npo_kit.data.tasks import load_task, own_task

    own = (options.forget, options.retain)
    more = (options.real_authors, options.world_facts)
    if options.task:
        if any(own) or any(more) or options.allow_overlap:
            raise KitError("give --task or own rows, not both: --forget and the like go without it")
        return load_task(options.task, options.source)
    if not all(own):
        raise KitError("give --task, such as tofu:forget10, or both --forget and --retain files")
    if options.source:
        raise KitError(f"--source {options.source} is the folder of a --task: leave it out")
    return own_task(*own, *more, allow_overlap=options.allow_overlap)


def _load(options: argparse.Namespace, name: str | None = None):
    """Load a model, by default the one to work on, print where it is, and join other processes.

    KitError, before any of that, if the run cannot be written in OUT.
    """
    from npo_kit.models.distributed import join
    from npo_kit.models.loading import load_model

    if options.out:
        resume = getattr(options, "resume", False)
        refuse_unwritable(options.out, overwrite=options.overwrite, resume=resume)
    name = name or options.model
    loaded = load_model(name, device=options.device, quantize=options.quantize)
    print(f"{name} on {loaded.placement}")
    join(loaded[0].device)
    return loaded


def _about(
    options: argparse.Namespace, kind: str, label: str, task, config, loaded, **more
) -> dict[str, Any]:
    """Return the keywords of `RunWriter.create`; `label` is that of a run without --label."""
    from npo_kit.models.distributed import count
    from npo_kit.trainer.checkpoints import fingerprint_weights

    settings = asdict(config) | more
    settings |= {"model": Path(options.model).name, "quantize": options.quantize}
    settings |= {"weights": fingerprint_weights(loaded[0])}
    settings |= {"processes": count()} if count() > 1 else {}
    about = {"kind": kind, "label": options.label or label, "config": settings}
    about |= {name: settings.get(name) for name in ("method", "seed")}
    return about | {"task": task.record()}

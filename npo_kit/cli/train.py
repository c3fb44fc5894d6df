"""The commands that take a model: `finetune`, `unlearn` and `evaluate`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from npo_kit.cli.options import add_evaluation, add_model_and_task, add_prompt, add_training
from npo_kit.cli.read import Add, add_reference, show_table
from npo_kit.cli.run import evaluation_bars, make_run, say_plan
from npo_kit.errors import KitError
from npo_kit.processes import launched
from npo_kit.records.folder import refuse_unwritable
from npo_kit.records.run import RunWriter


def add_finetune(add: Add) -> None:
    """Add `finetune` with its options."""
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
    add_training(parser)


def finetune_command(options: argparse.Namespace) -> None:
    """Fine-tune a model on the rows of a task, all of them or the retain rows only."""
    from npo_kit.studies.table import ORIGINAL, RETAINED
    from npo_kit.trainer.config import FinetuneConfig
    from npo_kit.trainer.loop import finetune, total_steps

    config, task = _config(options, FinetuneConfig), _task(options)
    label, rows = {"full": (ORIGINAL, task.full), "retain": (RETAINED, task.retain)}[options.rows]
    loaded = _load(options)
    say_plan(loaded, task, config, rows)
    about = _about(options, "finetune", label, task, config, loaded, rows=options.rows)
    train = partial(finetune, *loaded, rows, config, task=task)
    make_run(options, about, train, total_steps(config, len(rows)), saved=loaded)
    if launched()[0] == 0:
        show_table(options.out)


def add_unlearn(add: Add) -> None:
    """Add `unlearn` with its options."""
    example = (
        "npo-kit unlearn runs/original --task tofu:forget10 --method npo_rt "
        "--reference runs/retained --out runs/npo_rt"
    )
    parser = add("unlearn", unlearn_command, example, several=True)
    add_model_and_task(parser)
    parser.add_argument("--method", help="ga, npo, npo_rt, ... (default: npo_rt)")
    parser.add_argument("--beta", type=float, help="inverse temperature (default: the method's)")
    parser.add_argument("--forget-weight", type=float, help="of the forget term (default: 1)")
    parser.add_argument("--retain-weight", type=float, help="of the retain term (default: 1)")
    parser.add_argument(
        "--refusals",
        metavar="FILE",
        help="a text file, one a line, to draw from for rows without an alternate of their own "
        "(default: the kit's hundred)",
    )
    parser.add_argument("--save-model", action="store_true", help="keep the weights in OUT/model")
    add_training(parser)
    add_reference(parser)


def unlearn_command(options: argparse.Namespace) -> None:
    """Unlearn the forget rows of a task in a fine-tuned model."""
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.config import UnlearnConfig
    from npo_kit.trainer.loop import total_steps, unlearn

    hyper = {} if options.beta is None else {"beta": options.beta}
    config, task = _config(options, UnlearnConfig, hyper=hyper), _task(options)
    if options.reference:
        find_reference(options.reference, [task.name])  # refuse it now, not after an hour
    loaded = _load(options)
    say_plan(loaded, task, config)
    about = _about(options, "unlearn", Path(options.out).name, task, config, loaded)
    train, steps = partial(unlearn, *loaded, task, config), total_steps(config, len(task.forget))
    make_run(options, about, train, steps, saved=loaded if options.save_model else None)
    if launched()[0] == 0:
        show_table(options.out, options.reference, options.truth_ratio)


def add_evaluate(add: Add) -> None:
    """Add `evaluate` with its options."""
    example = "npo-kit evaluate runs/npo_rt --task tofu:forget10 --reference runs/retained"
    parser = add("evaluate", evaluate_command, example, several=True)
    add_model_and_task(parser)
    parser.add_argument("--original", help="the model before unlearning; judges the fluency")
    add_prompt(parser)
    parser.add_argument("--out", help="run folder to write (default: none)")
    parser.add_argument("--label", help="such as original or retained (default: OUT's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    add_evaluation(parser)
    add_reference(parser)


def evaluate_command(options: argparse.Namespace) -> None:
    """Evaluate a model on the four evaluation sets of a task."""
    from npo_kit.data.prompts import PromptFormat
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.metrics.summary import summarise
    from npo_kit.models.distributed import in_main
    from npo_kit.models.loading import context_length
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.recording import record

    config, task = _evaluation_config(options), _task(options)
    reference = find_reference(options.reference, [task.name]) if options.reference else None
    loaded = _load(options)
    model, tokenizer = loaded
    original = _load(options, options.original)[0] if options.original else None
    chat = {"system_prompt": options.system_prompt, "chat_date": options.chat_date}
    prompt_format = PromptFormat(tokenizer, options.prompt, context_length(model), **chat)
    writer = None
    if options.out:
        about = _about(options, "evaluate", Path(options.out).name, task, config, loaded)
        create = partial(RunWriter.create, options.out, **about, overwrite=options.overwrite)
        writer = in_main(create)
    evaluation = evaluate(
        model,
        prompt_format,
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


def _config(options: argparse.Namespace, kind: type, **more):
    """Return a configuration with the settings that were given; the others keep its defaults."""
    from npo_kit.data.rows import load_refusals

    given = {field.name: getattr(options, field.name, None) for field in fields(kind)}
    given = {name: value for name, value in given.items() if value is not None}
    if "refusals" in given:
        given["refusals"] = tuple(load_refusals(given["refusals"]))
    if options.lora_alpha is not None and options.lora_rank is None:
        raise KitError("--lora-alpha scales an adapter: give --lora-rank with it, or leave it out")
    if options.evaluate_every == 0:
        given["evaluate_every"] = None
    return kind(**given, evaluation=_evaluation_config(options), **more)


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
    """Load a model, by default the one to work on, say where, and meet the other processes.

    KitError before that where the run cannot be written in OUT.
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

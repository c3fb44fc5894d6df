"""The commands that take a model: `finetune`, `unlearn` and `evaluate`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npo_kit.cli.options import add_model_and_task, add_training, prompt_options
from npo_kit.cli.read import Add, add_reference, show_table
from npo_kit.cli.run import make_run, say_plan
from npo_kit.data.long_rows import fit_rows
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS, method_options
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import add_options, given, options_of
from npo_kit.processes import launched
from npo_kit.records.evaluations import EVALUATION_SETS
from npo_kit.records.folder import refuse_unwritable
from npo_kit.records.run import RunWriter
from npo_kit.trainer.config import FinetuneConfig, TrainConfig, UnlearnConfig
from npo_kit.trainer.tracking import refuse_untracked

if TYPE_CHECKING:
    from npo_kit.data.tasks import Task


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
    label = "original, or retained with --rows retain"
    add_training(parser, options_of(FinetuneConfig), label)


def finetune_command(options: argparse.Namespace) -> int:
    """Fine-tune a model on the rows of a task, all of them or the retain rows only."""
    from npo_kit.studies.table import ORIGINAL, RETAINED
    from npo_kit.trainer.card import model_card
    from npo_kit.trainer.loop import finetune, total_steps

    config, task = FinetuneConfig(**_settings(options, FinetuneConfig)), task_of(options)
    loaded = _load(options)
    task = fitted_task(options, task, config, loaded)
    label, rows = {"full": (ORIGINAL, task.full), "retain": (RETAINED, task.retain)}[options.rows]
    say_plan(loaded, task, config, rows)
    if options.dry_run:
        return 0
    about = _about(options, "finetune", label, task, config, loaded, rows=options.rows)
    train = partial(finetune, loaded[0], loaded[1], rows, config, task=task)
    card = partial(model_card, config, task, base=options.model, rows=rows)
    code = make_run(options, about, train, total_steps(config, len(rows)), saved=loaded, card=card)
    if launched()[0] == 0:
        show_table(options.out)
    return code


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
        help="a text file with a refusal a line, for rows without an alternate of their own "
        "(default: the kit's hundred refusals)",
    )
    parser.add_argument("--save-model", action="store_true", help="keep the weights in OUT/model")
    add_training(parser, of_config)
    add_reference(parser)


def unlearn_command(options: argparse.Namespace) -> int:
    """Unlearn the forget rows of a task in a fine-tuned model."""
    from npo_kit.data.rows import load_refusals
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.card import model_card
    from npo_kit.trainer.loop import total_steps, unlearn
    from npo_kit.trainer.plan import rows_to_read

    refusals = tuple(load_refusals(options.refusals)) if options.refusals else None
    hyper = given(options, method_options())
    settings = _settings(options, UnlearnConfig)
    config, task = UnlearnConfig(**settings, hyper=hyper, refusals=refusals), task_of(options)
    rows_to_read(task, config)  # these two refuse now, not when the model is loaded or after hours
    reference = find_reference(options.reference, [task.name]) if options.reference else None
    loaded = _load(options)
    task = fitted_task(options, task, config, loaded)
    say_plan(loaded, task, config)
    if options.dry_run:
        return 0
    about = _about(options, "unlearn", Path(options.out).name, task, config, loaded)
    train = partial(unlearn, loaded[0], loaded[1], task, config)
    steps = total_steps(config, len(task.forget))
    judge = {"reference": reference, "truth_ratio": options.truth_ratio}
    card = partial(model_card, config, task, base=options.model, **judge)
    saved = loaded if options.save_model else None
    code = make_run(options, about, train, steps, saved=saved, card=card, judge=judge)
    if launched()[0] == 0:
        show_table(options.out, options.reference, options.truth_ratio)
    return code


def add_evaluate(add: Add) -> None:
    example = "npo-kit evaluate runs/npo_rt --task tofu:forget10 --reference runs/retained"
    parser = add("evaluate", evaluate_command, example, several=True)
    add_model_and_task(parser)
    parser.add_argument("--original", metavar="MODEL", help="before unlearning; judges the fluency")
    add_options(parser, prompt_options())
    parser.add_argument("--out", help="run folder to write (default: none)")
    parser.add_argument("--label", help="such as original or retained (default: OUT's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    add_options(parser, options_of(EvaluationConfig))
    add_reference(parser)


def evaluate_command(options: argparse.Namespace) -> None:
    """Evaluate a model on the four evaluation sets of a task."""
    from npo_kit.metrics.evaluation import evaluate
    from npo_kit.metrics.progress import progress_bars
    from npo_kit.metrics.summary import summarise
    from npo_kit.models.distributed import in_main
    from npo_kit.studies.table import find_reference
    from npo_kit.trainer.recording import record

    config = EvaluationConfig(**given(options, options_of(EvaluationConfig)))
    task = task_of(options)
    asked = TrainConfig(**given(options, prompt_options()))
    reference = find_reference(options.reference, [task.name]) if options.reference else None
    loaded = _load(options)
    model, tokenizer = loaded
    task = fitted_task(options, task, asked, loaded)
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
        progress=progress_bars(),
    )
    record(writer, [evaluation])
    summary = summarise(evaluation, reference, truth_ratio=options.truth_ratio)
    absent = tuple(f"{name}_" for name in EVALUATION_SETS if not summary[f"{name}_n"])
    for name, value in summary.items():
        if name.startswith(absent):  # why a set is absent stands beside model_utility
            continue
        shown = f"{value:.4g}" if value is not None else f"-  ({summary.why.get(name, '')})"
        print(f"{name:32s} {shown}")


COMMANDS = (add_finetune, add_unlearn, add_evaluate)


# --- what is made of the options ----------------------------------------------------------------


def _settings(options: argparse.Namespace, kind: type[TrainConfig]) -> dict[str, Any]:
    """Return the settings of a configuration that were given; the others keep its defaults."""
    settings = given(options, options_of(kind))
    if not (options.out or options.dry_run):
        raise KitError("give --out, the folder of the run, or --dry-run")
    if options.log_to:
        refuse_untracked(options.log_to)
    if "lora_alpha" in settings and "lora_rank" not in settings:
        raise KitError("--lora-alpha scales an adapter: give --lora-rank with it, or leave it out")
    evaluation = EvaluationConfig(**given(options, options_of(EvaluationConfig)))
    return settings | {"evaluation": evaluation}


def task_of(options: argparse.Namespace) -> Task:
    """Return the task that the options name, or the one of their own rows."""
    from npo_kit.data.tasks import OWN_EVALUATED, load_task, own_task

    own = (options.forget, options.retain)
    more = (options.real_authors, options.world_facts)
    if options.task:
        if any(own) or any(more) or options.allow_overlap or options.columns:
            raise KitError("give --task or own rows, not both: --forget and the like go without it")
        return load_task(options.task, options.source)
    if not options.forget:
        if any((*own, *more)):
            raise KitError("--forget is missing: give the rows to forget beside those to keep")
        raise KitError("give --task, such as tofu:forget10, or --forget, the rows to forget")
    if options.source:
        raise KitError(f"--source {options.source} is the folder of a --task: leave it out")
    how = {"allow_overlap": options.allow_overlap, "columns": options.columns}
    limited = given(options, options_of(EvaluationConfig)).keys() & {"protocol", "max_rows"}
    how |= {"evaluated": None if limited else OWN_EVALUATED}
    return own_task(*own, *more, **how, say=print)


def fitted_task(options: argparse.Namespace, task, config: TrainConfig, loaded):
    """Return the task with rows that fit the model's context, as the options say."""
    model, tokenizer = loaded
    return fit_rows(task, config.prompt_format(tokenizer, model), options.long_rows, say=print)


def _load(options: argparse.Namespace, name: str | None = None):
    """Load a model, by default the one to work on, print where it is, and join other processes.

    KitError, before any of that, if the run cannot be written in OUT.
    """
    from npo_kit.models.distributed import join
    from npo_kit.models.loading import load_model

    if options.out and not getattr(options, "dry_run", False):
        resume = getattr(options, "resume", False)
        refuse_unwritable(options.out, overwrite=options.overwrite, resume=resume)
    name = name or options.model
    base = options.base if name == options.model else None
    loaded = load_model(name, device=options.device, quantize=options.quantize, base=base)
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
    settings |= {"long_rows": options.long_rows} if options.long_rows != "refuse" else {}
    settings |= {"processes": count()} if count() > 1 else {}
    about = {"kind": kind, "label": options.label or label, "config": settings}
    about |= {name: settings.get(name) for name in ("method", "seed")}
    return about | {"task": task.record()}

"""The command line: npo-kit finetune | unlearn | evaluate | table | synthetic."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npo_kit.errors import KitError
from npo_kit.records import fingerprint
from npo_kit.runs import Evaluation, RunWriter

EXIT_CODES = "exit codes: 0 done, 1 a fault of the kit, 2 bad input, 130 interrupted"
COLUMNS = {
    "method": "method",
    "seed": "seed",
    "step": "step",
    "model_utility": "utility",
    "forget_quality": "forget p",
    "forget_ks": "forget D",
    "forget_probability": "P forget",
    "forget_rouge_l": "R-L forget",
    "retain_probability": "P retain",
    "retain_rouge_l": "R-L retain",
    "forget_fluency": "fluency forget",
    "forget_repetition_rate": "rep. forget",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except KitError as error:
        print(f"npo-kit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("npo-kit: interrupted; what was recorded is kept", file=sys.stderr)
        return 130
    return 0


# --- arguments ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npo-kit",
        description="Unlearn, measure and compare language models.",
        epilog=EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        return sub

    finetune = command(
        "finetune",
        _finetune,
        "Fine-tune a model on the rows of a task, all of them or the retain rows only.",
        "npo-kit finetune HuggingFaceTB/SmolLM2-135M-Instruct --task tofu:forget10 "
        "--rows retain --lr 1e-4 --out runs/retained",
    )
    _model_and_task(finetune)
    finetune.add_argument(
        "--rows",
        choices=("full", "retain"),
        default="full",
        help="full: the original model; retain: the retained-only model (default: full)",
    )
    _training(finetune)

    unlearn = command(
        "unlearn",
        _unlearn,
        "Unlearn the forget rows of a task in a fine-tuned model.",
        "npo-kit unlearn runs/original --task tofu:forget10 --method npo_rt "
        "--reference runs/retained --out runs/npo_rt",
    )
    _model_and_task(unlearn)
    unlearn.add_argument("--method", default=None, help="ga, npo, npo_rt, ... (default: npo_rt)")
    unlearn.add_argument("--beta", type=float, help="inverse temperature (default: the method's)")
    unlearn.add_argument("--forget-weight", type=float, help="of the forget term (default: 1)")
    unlearn.add_argument("--retain-weight", type=float, help="of the retain term (default: 1)")
    unlearn.add_argument("--retain-pairing", help="fresh each epoch, or fixed (default: fresh)")
    unlearn.add_argument("--save-model", action="store_true", help="keep the weights in OUT/model")
    _training(unlearn)
    _reference(unlearn)

    evaluate = command(
        "evaluate",
        _evaluate,
        "Evaluate a model on the four evaluation sets of a task.",
        "npo-kit evaluate runs/npo_rt --task tofu:forget10 --reference runs/retained",
    )
    _model_and_task(evaluate)
    evaluate.add_argument("--original", help="the model before unlearning; judges the fluency")
    evaluate.add_argument("--prompt", default="auto", help="auto, chat, qa or llama2")
    evaluate.add_argument("--out", help="run folder to write (default: none)")
    evaluate.add_argument("--label", help="such as original or retained (default: OUT's name)")
    evaluate.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    _evaluation(evaluate)
    _reference(evaluate)

    table = command(
        "table",
        _table,
        "Every run and step of a run or study folder as a table.",
        "npo-kit table runs",
    )
    table.add_argument("folder", help="a run folder, or a folder of runs")
    table.add_argument("--json", action="store_true", help="a JSON list of flat records instead")
    _reference(table)

    synthetic = command(
        "synthetic",
        _synthetic,
        "Run the paper's synthetic experiment; write its frames and figures to a folder.",
        "npo-kit synthetic --out runs/synthetic",
    )
    synthetic.add_argument("--out", required=True, help="folder to write")
    synthetic.add_argument("--seeds", type=int, nargs="+", help="default: the paper's five")
    synthetic.add_argument("--alphas", type=float, nargs="+", help="default: 1 and 0")
    synthetic.add_argument("--methods", nargs="+", help="ga, npo_rt, ... (default: all)")
    synthetic.add_argument("--steps", type=int, help="of each method (default: 2000)")
    synthetic.add_argument("--sweep-steps", type=int, help="of the beta sweep; 0: none")
    return parser


def _model_and_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="hub name, folder, run folder or .gguf file")
    parser.add_argument("--task", help="such as tofu:forget10; tofu:forget01@400: of the last 400")
    parser.add_argument("--source", help="folder with the task's files (default: the hub)")
    own = parser.add_argument_group("own rows instead of --task (JSON lines, JSON or CSV)")
    for name in ("forget", "retain", "real-authors", "world-facts"):
        own.add_argument(f"--{name}", metavar="FILE", help=f"the {name.replace('-', ' ')} rows")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="run folder to write")
    parser.add_argument("--label", help="name in tables (default: OUT's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    parser.add_argument("--epochs", type=float, help="passes over the rows")
    parser.add_argument("--batch-size", type=int, help="rows of an optimizer step (default: 32)")
    parser.add_argument("--micro-batch-size", type=int, help="rows of a forward (default: 8)")
    parser.add_argument("--lr", type=float, help="peak learning rate (default: 1e-5)")
    parser.add_argument("--warmup-epochs", type=float, help="linear warm-up (default: 1)")
    parser.add_argument("--weight-decay", type=float, help="of AdamW (default: 0.01)")
    parser.add_argument("--max-grad-norm", type=float, help="clipping (default: 1)")
    parser.add_argument("--seed", type=int, help="of order, pairing and refusals (default: 0)")
    parser.add_argument("--precision", help="auto, fp32, bf16 or fp16 (default: auto)")
    parser.add_argument("--prompt", help="auto, chat, qa or llama2 (default: auto)")
    parser.add_argument(
        "--evaluate-every", type=float, help="epochs between evaluations; 0: first and last only"
    )
    _evaluation(parser)


def _evaluation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", default="all", help="all rows, or tofu: the first 300")
    parser.add_argument("--max-rows", type=int, help="at most so many rows of each set")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="of a generation")
    parser.add_argument("--evaluation-batch-size", type=int, default=32, help="of generation")


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference", help="retained-only run, evaluation or official log, for forget quality"
    )
    parser.add_argument(
        "--truth-ratio", default="geometric", help="geometric or arithmetic mean of wrong answers"
    )


# --- commands -----------------------------------------------------------------------------------


def _finetune(options: argparse.Namespace) -> None:
    from npo_kit.config import FinetuneConfig
    from npo_kit.trainer import finetune

    config = FinetuneConfig(**_train_settings(options))
    task = _task(options)
    model, tokenizer = _model(options)
    rows = task.full if options.rows == "full" else task.retain
    label = options.label or {"full": "original", "retain": "retained"}[options.rows]
    events = finetune(model, tokenizer, rows, config, task=task, progress=_Bars())
    writer = _writer(options, "finetune", label, task, config, rows=options.rows)
    _record_run(writer, events, config, len(rows), lambda: _save(model, tokenizer, writer))
    _show_table(writer.folder)


def _unlearn(options: argparse.Namespace) -> None:
    from npo_kit.config import UnlearnConfig
    from npo_kit.study import find_reference
    from npo_kit.trainer import unlearn

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
    events = unlearn(model, tokenizer, task, config, progress=_Bars())
    writer = _writer(options, "unlearn", label, task, config, method=config.method)
    save = (lambda: _save(model, tokenizer, writer)) if options.save_model else None
    _record_run(writer, events, config, len(task.forget), save)
    _show_table(writer.folder, options.reference, options.truth_ratio)


def _evaluate(options: argparse.Namespace) -> None:
    from npo_kit.evaluation import evaluate
    from npo_kit.metrics import summarise
    from npo_kit.models import choose_placement, context_length, load_model
    from npo_kit.prompts import PromptFormat
    from npo_kit.study import find_reference

    config = _evaluation_config(options)
    task = _task(options)
    reference = find_reference(options.reference) if options.reference else None
    model, tokenizer = _model(options)
    original = load_model(options.original, device=options.device)[0] if options.original else None
    prompt_format = PromptFormat(tokenizer, options.prompt, context_length(model))
    writer = None
    if options.out:
        label = options.label or Path(options.out).name
        writer = _writer(options, "evaluate", label, task, config)
    bars = _Bars()
    precision = choose_placement(model.device).precision
    evaluation = evaluate(
        model,
        prompt_format,
        task,
        config,
        original=original,
        precision=precision,
        progress=bars,
    )
    bars.close()
    if writer:
        with writer:
            writer.evaluation(evaluation)
            writer.finish("finished")
    summary = summarise(evaluation, reference, truth_ratio=options.truth_ratio)
    _print_summary(summary)


def _table(options: argparse.Namespace) -> None:
    if options.json:
        from npo_kit.study import study_table

        records = study_table(options.folder, options.reference, options.truth_ratio)
        print(json.dumps(records, indent=1, allow_nan=False))
    else:
        _show_table(options.folder, options.reference, options.truth_ratio)


def _synthetic(options: argparse.Namespace) -> None:
    from npo_kit.experiment import run_experiment

    names = ("seeds", "alphas", "methods", "steps", "sweep_steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    record = run_experiment(options.out, **given)
    frame = record["unlearning"]
    last = frame[frame.step == frame.step.max()]
    columns = ["forget_distance", "retain_distance", "forget_drift"]
    print(f"step {frame.step.max()}, mean over {frame.seed.nunique()} seed(s), nats")
    print(last.groupby(["alpha", "method"])[columns].mean().to_string(float_format="{:.4f}".format))
    print(f"frames and figures in {options.out}")


# --- what the commands share --------------------------------------------------------------------


def _train_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given; the others keep the configuration's defaults."""
    names = ("epochs", "batch_size", "micro_batch_size", "lr", "warmup_epochs", "weight_decay")
    names += ("max_grad_norm", "seed", "precision", "prompt")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.evaluate_every is not None:
        given["evaluate_every"] = options.evaluate_every or None
    return given | {"evaluation": _evaluation_config(options)}


def _evaluation_config(options: argparse.Namespace):
    from npo_kit.evaluation import EvaluationConfig

    return EvaluationConfig(
        protocol=options.protocol,
        max_rows=options.max_rows,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.evaluation_batch_size,
    )


def _task(options: argparse.Namespace):
    from npo_kit.data import load_task, own_task

    own = (options.forget, options.retain)
    if options.task and any(own):
        raise KitError("give --task or own --forget and --retain rows, not both")
    if options.task:
        return load_task(options.task, options.source)
    if not all(own):
        raise KitError("give --task, such as tofu:forget10, or both --forget and --retain files")
    return own_task(*own, options.real_authors, options.world_facts)


def _model(options: argparse.Namespace):
    from npo_kit.models import load_model

    return load_model(options.model, device=options.device)


def _writer(
    options: argparse.Namespace, kind: str, label: str, task, config, method=None, **more
) -> RunWriter:
    settings = asdict(config) | more | {"model": Path(options.model).name}
    return RunWriter.create(
        options.out,
        kind=kind,
        label=label,
        method=method,
        seed=settings.get("seed"),
        config=settings,
        task={
            "name": task.name,
            "forget_rows": len(task.forget),
            "retain_rows": len(task.retain),
            "evaluation_rows": {name: len(rows) for name, rows in task.evaluation.items()},
            "fingerprint": fingerprint(task.full),
        },
        overwrite=options.overwrite,
    )


def _record_run(
    writer: RunWriter, events: Iterable, config, n_rows: int, save: Callable | None
) -> None:
    """Write the events of a run as they come, with a bar of its steps, and then its model."""
    from tqdm import tqdm

    from npo_kit.trainer import Collapse, Step, total_steps

    outcome: dict[str, Any] = {}
    with (
        writer,
        tqdm(total=total_steps(config, n_rows), unit="step", desc=writer.folder.name) as bar,
    ):
        for event in events:
            if isinstance(event, Step):
                writer.step(asdict(event))
                bar.update()
                bar.set_postfix(loss=f"{event.loss:.3g}", norm=f"{event.grad_norm:.3g}")
            elif isinstance(event, Evaluation):
                writer.evaluation(event)
            elif isinstance(event, Collapse):
                outcome = {"collapsed_at": event.step, "reason": event.reason}
        if save:
            save()
        writer.finish("collapsed" if outcome else "finished", **outcome)
    if outcome:
        print(f"collapsed at step {outcome['collapsed_at']}: {outcome['reason']}; kept up to there")


def _save(model, tokenizer, writer: RunWriter) -> None:
    from npo_kit.models import save_model

    save_model(model, tokenizer, writer.folder / "model")
    print(f"model saved in {writer.folder / 'model'}")


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


def _show_table(
    folder: str | Path, reference: str | None = None, truth_ratio: str = "geometric"
) -> None:
    import pandas as pd

    from npo_kit.study import study_table

    records = study_table(folder, reference, truth_ratio)
    if not records:
        raise KitError(f"{folder} has no evaluation yet: run npo-kit evaluate, or wait")
    frame = pd.DataFrame(records)[list(COLUMNS)].rename(columns=COLUMNS)
    print(frame.map(_shown).to_string(index=False))
    for label, status in {record["label"]: record["status"] for record in records}.items():
        if status != "finished":
            print(f"{label}: {status}")
    if why := records[-1]["why"].get("forget_quality"):
        print(f"no forget quality: {why}")


def _shown(value: Any) -> str:
    """A cell of a table: three digits of a number, a dash for what is missing."""
    if value is None or value != value:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _print_summary(summary) -> None:
    for name, value in summary.items():
        shown = f"{value:.4g}" if value is not None else f"-  ({summary.why.get(name, '')})"
        print(f"{name:32s} {shown}")


if __name__ == "__main__":
    sys.exit(main())

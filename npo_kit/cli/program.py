"""The command line: `npo-kit COMMAND`, one for each thing the kit does."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

from npo_kit.app import add_arguments
from npo_kit.cli import read as study_commands
from npo_kit.cli import train as commands
from npo_kit.errors import KitError
from npo_kit.processes import launched

SHARED = (commands.finetune_command, commands.unlearn_command, commands.evaluate_command)
EXIT_CODES = "exit codes: 0 done, 1 a fault of the kit, 2 bad input, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Of several processes only the main one prints results; each says what goes wrong in it.
    """
    options = _parser().parse_args(arguments)
    number, processes = launched()
    try:
        if processes > 1 and options.command not in SHARED:
            raise KitError("this command runs in one process: start it without a launcher")
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if number else sys.stdout):
            options.command(options)
    except KitError as error:
        if number:  # a launcher ends all when one ends: the main process speaks first
            time.sleep(2)
        who = f"npo-kit, process {number}" if number else "npo-kit"
        print(f"{who}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("npo-kit: interrupted; what was recorded is kept", file=sys.stderr)
        return 130
    return 0


def _epilog(name: str, example: str, shared: bool) -> str:
    parts = [f"example:\n  {example}"]
    if shared:
        parts.append(f"on several GPUs:\n  accelerate launch -m npo_kit.cli {name} ...")
        cpus = f"torchrun --nproc-per-node 2 -m npo_kit.cli {name} ..."
        parts.append(f"in several processes on CPUs:\n  {cpus}")
    return "\n\n".join([*parts, EXIT_CODES])


# --- arguments ----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npo-kit",
        description="Unlearn, measure and compare language models.",
        epilog=EXIT_CODES,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, text: str, example: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            epilog=_epilog(name, example, run in SHARED),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run)
        return sub

    finetune = command(
        "finetune",
        commands.finetune_command,
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
        commands.unlearn_command,
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
        commands.evaluate_command,
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
        study_commands.table_command,
        "Every run and step of run or study folders as one table.",
        "npo-kit table runs --published Llama-2-7b-chat",
    )
    table.add_argument("folders", nargs="+", help="run folders, or folders of runs")
    table.add_argument(
        "--published",
        nargs="?",
        const="",
        metavar="MODEL",
        help="beside them the published results of MODEL (default: of the runs' models)",
    )
    table.add_argument("--json", action="store_true", help="a JSON list of flat records instead")
    _reference(table)

    report = command(
        "report",
        study_commands.report_command,
        "The outcome of a study as Markdown: each run's best and last checkpoint.",
        "npo-kit report data/studies/pocket",
    )
    report.add_argument("folder", help="a study's folder")

    export = command(
        "export",
        study_commands.export_command,
        "Write an evaluation as a log that TOFU's or open-unlearning's tools read.",
        "npo-kit export runs/npo_rt --format open-unlearning --out TOFU_EVAL.json",
    )
    export.add_argument("run", help="a run folder, an evaluation file or an official log")
    export.add_argument("--format", required=True, choices=("tofu", "open-unlearning"))
    export.add_argument("--out", required=True, help="file to write, or the folder for it")
    export.add_argument("--step", type=int, help="of the run (default: the last evaluated)")
    export.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    export.add_argument(
        "--reference", help="retained-only run, evaluation or official log, for forget_quality"
    )

    synthetic = command(
        "synthetic",
        commands.synthetic_command,
        "Run the paper's synthetic experiment; write its frames and figures to a folder.",
        "npo-kit synthetic --out runs/synthetic",
    )
    synthetic.add_argument("--out", required=True, help="folder to write")
    synthetic.add_argument("--seeds", type=int, nargs="+", help="default: the paper's five")
    synthetic.add_argument("--alphas", type=float, nargs="+", help="default: 1 and 0")
    synthetic.add_argument("--methods", nargs="+", help="ga, npo_rt, ... (default: all)")
    synthetic.add_argument("--steps", type=int, help="of each method (default: 2000)")
    synthetic.add_argument("--sweep-steps", type=int, help="of the beta sweep; 0: none")

    pocket = command(
        "pocket",
        commands.pocket_command,
        "Train the kit's small models anew: base, original and retained-only, in minutes.",
        "npo-kit pocket --out runs/pocket",
    )
    pocket.add_argument("--out", required=True, help="new folder to write")
    pocket.add_argument(
        "--retained",
        nargs="+",
        metavar="SPLIT",
        help="instead: retained-only models of these splits (forget05 ...), from the shipped base",
    )
    _processes(pocket)

    study = command(
        "study",
        study_commands.study_command,
        "Make a whole study: original, retained-only, every method with its grid, seeds, betas. "
        "Called again after an interruption, it goes on.",
        "npo-kit study tofu --preset colab --out runs/tofu-study",
    )
    _study(study)

    app = command(
        "app",
        commands.app_command,
        "Open the dashboard: recorded and live answers of two methods side by side.",
        "npo-kit app --port 7860",
    )
    add_arguments(app)
    return parser


def _study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=("pocket", "smollm2", "tofu"), help="which one")
    parser.add_argument("--out", help="new folder to write")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what it would take; nothing is made"
    )
    parser.add_argument(
        "--start",
        help="for tofu: a model that is fine-tuned on all of TOFU already; for smollm2: the model "
        "to fine-tune, a folder or .gguf file (default: the hub)",
    )
    tofu = parser.add_argument_group("the paper's experiment (study tofu)")
    tofu.add_argument("--preset", help="paper-llama2, paper-phi, colab, cpu or cpu-smoke")
    tofu.add_argument("--splits", nargs="+", metavar="SPLIT", help="such as forget05 forget10")
    tofu.add_argument("--methods", nargs="+", metavar="METHOD", help="such as ga npo_rt")
    tofu.add_argument("--base", help="the model to fine-tune (default: the preset's)")
    tofu.add_argument("--lora-rank", type=int, help="train adapters (default: all weights)")
    tofu.add_argument("--quantize", choices=("4bit", "8bit"), help="with --lora-rank, on CUDA")
    tofu.add_argument(
        "--reference",
        nargs="+",
        metavar="SPLIT=FILE",
        help="official logs of retained-only models, which are then not made",
    )
    _processes(parser)


def _processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes", type=int, help="that work at the same time, changes no result (a core each)"
    )


def _model_and_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="hub name, folder, run folder or .gguf file")
    parser.add_argument("--task", help="such as tofu:forget10; tofu:forget01@400: of the last 400")
    parser.add_argument("--source", help="folder with the task's files (default: the hub)")
    own = parser.add_argument_group("own rows instead of --task (JSON lines, JSON or CSV)")
    for name in ("forget", "retain", "real-authors", "world-facts"):
        own.add_argument(f"--{name}", metavar="FILE", help=f"the {name.replace('-', ' ')} rows")
    parser.add_argument(
        "--quantize", choices=("4bit", "8bit"), help="the model's weights, on CUDA (default: not)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def _training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="run folder to write")
    parser.add_argument("--label", help="name in tables (default: OUT's name)")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    there.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in OUT from its last checkpoint; the other arguments as before",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=float,
        default=1.0,
        help="epochs between checkpoints, each 3 times the size of the trained weights, the last "
        "two kept until the run ends; 0: none (default: 1)",
    )
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
    parser.add_argument(
        "--intermediate-rows",
        type=int,
        metavar="N",
        help="evaluate on N rows of each set but at both ends of the run (default: as there)",
    )
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--lora-rank", type=int, help="train an adapter of this rank (default: all weights)"
    )
    memory.add_argument("--lora-alpha", type=float, help="its scale times its rank (default: 32)")
    memory.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="recompute layers in the backward pass: changes no result",
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


def end(code: int) -> None:
    """Leave the process; of several that a launcher started each leaves at once.

    Torn down in the usual way, one whose threads still talk to the others may abort, and the
    launcher calls a run that is whole a failure.
    """
    if launched()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

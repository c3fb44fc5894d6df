"""Options that several of the commands that take a model share."""

from __future__ import annotations

import argparse


def add_model_and_task(parser: argparse.ArgumentParser) -> None:
    """Add what every command here needs: a model and rows."""
    option = parser.add_argument
    option("model", help="hub name, folder, run folder or .gguf file")
    option("--task", help="such as tofu:forget10; tofu:forget01@400: of the last 400")
    option("--source", help="folder with the task's files (default: the hub)")
    own = parser.add_argument_group("own rows instead of --task (JSON lines, JSON or CSV)")
    for name in ("forget", "retain", "real-authors", "world-facts"):
        own.add_argument(f"--{name}", metavar="FILE", help=f"the {name.replace('-', ' ')} rows")
    own.add_argument(
        "--allow-overlap", action="store_true", help="forget rows may be retain rows too"
    )
    weights = "the model's weights, on CUDA (default: not)"
    option("--quantize", choices=("4bit", "8bit"), help=weights)
    option("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training run."""
    option = parser.add_argument
    option("--out", required=True, help="run folder to write")
    option("--label", help="name in tables (default: OUT's name)")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    there.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in OUT from its last checkpoint; the other arguments as before",
    )
    option(
        "--checkpoint-every",
        type=float,
        default=1.0,
        help="epochs between checkpoints, each 3 times the size of the trained weights, the last "
        "two kept until the run ends; 0: none (default: 1)",
    )
    option("--epochs", type=float, help="passes over the rows")
    option("--batch-size", type=int, help="rows of an optimizer step (default: 32)")
    option("--micro-batch-size", type=int, help="rows of a forward (default: 8)")
    option("--lr", type=float, help="peak learning rate (default: 1e-5)")
    option("--warmup-epochs", type=float, help="linear warm-up (default: 1)")
    option("--weight-decay", type=float, help="of AdamW (default: 0.01)")
    option("--max-grad-norm", type=float, help="clipping (default: 1)")
    option("--seed", type=int, help="of order, pairing and refusals (default: 0)")
    option("--precision", help="auto, fp32, bf16 or fp16 (default: auto)")
    add_prompt(parser)
    option(
        "--evaluate-every", type=float, help="epochs between evaluations; 0: first and last only"
    )
    option(
        "--intermediate-rows",
        type=int,
        metavar="N",
        help="evaluate on N rows of each set but at both ends of the run (default: as there)",
    )
    _add_memory(parser)
    add_evaluation(parser)


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Add how questions and answers become tokens."""
    option = parser.add_argument_group("prompts").add_argument
    option("--prompt", default="auto", help="auto, chat, qa or llama2 (default: auto)")
    option("--system-prompt", metavar="TEXT", help="of a chat template (default: its own)")
    option(
        "--chat-date",
        metavar="DATE",
        help="that a chat template prints, such as '10 Apr 2025' (default: 26 Jul 2024)",
    )


def _add_memory(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument_group("memory").add_argument
    option("--lora-rank", type=int, help="train an adapter of this rank (default: all weights)")
    option("--lora-alpha", type=float, help="its scale times its rank (default: 32)")
    option(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="recompute layers in the backward pass: changes no result",
    )


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add what an evaluation covers."""
    option = parser.add_argument
    option("--protocol", default="all", help="all rows, or tofu: the first 300")
    option("--max-rows", type=int, help="at most so many rows of each set")
    option("--max-new-tokens", type=int, default=200, help="of a generation")
    option("--evaluation-batch-size", type=int, default=32, help="of generation")

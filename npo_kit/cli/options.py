"""Options of the commands that take a model, beside those of the configurations themselves."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import Option, add_options, options_of
from npo_kit.trainer.config import PROMPTS, TrainConfig


def add_model_and_task(parser: argparse.ArgumentParser) -> None:
    """Add what every command here needs: a model and rows."""
    option = parser.add_argument
    option("model", help="hub name, folder, run folder or .gguf file")
    option("--task", help="such as tofu:forget10; tofu:forget01@400 uses TOFU's last 400 rows only")
    option("--source", help="folder with the task's files (default: the hub)")
    own = parser.add_argument_group("own rows instead of --task (JSON lines, JSON or CSV)")
    for name in ("forget", "retain", "real-authors", "world-facts"):
        own.add_argument(f"--{name}", metavar="FILE", help=f"the {name.replace('-', ' ')} rows")
    own.add_argument(
        "--allow-overlap", action="store_true", help="forget rows may be retain rows too"
    )
    weights = "load the weights in 4 or 8 bits (CUDA only; default: off)"
    option("--quantize", choices=("4bit", "8bit"), help=weights)
    option("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def add_training(parser: argparse.ArgumentParser, options: Mapping[str, Option]) -> None:
    """Add the options of a training run: where it is kept, then those of its configuration."""
    add = parser.add_argument
    add("--out", required=True, help="run folder to write")
    add("--label", help="name in tables (default: OUT's name)")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    there.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in OUT from its last checkpoint; the other arguments as before",
    )
    add(
        "--checkpoint-every",
        type=float,
        default=1.0,
        help="epochs between checkpoints, each 3 times the size of the trained weights, the last "
        "two kept until the run ends; 0: none (default: 1)",
    )
    add_options(parser, options)
    add_options(parser, options_of(EvaluationConfig))


def prompt_options() -> dict[str, Option]:
    """Return the options that say how questions and answers become tokens."""
    return {name: options_of(TrainConfig)[name] for name in PROMPTS}

"""Options of the commands that take a model, beside those of the configurations themselves."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from npo_kit.data.long_rows import LONG_ROWS
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.options import Option, add_options, options_of
from npo_kit.trainer.config import PROMPTS, TrainConfig
from npo_kit.trainer.tracking import TRACKERS

MODELS = "hub name, folder, run folder, .gguf file, or pocket, pocket:base, pocket:retained"


def add_model_and_task(parser: argparse.ArgumentParser, *, passages: bool = True) -> None:
    """Add what every command here needs: a model and rows, which may be passages or not."""
    option = parser.add_argument
    option("model", help=MODELS)
    option(
        "--task",
        help="such as tofu:forget10; tofu:forget01@400 uses TOFU's last 400 rows only; "
        "authors:forget10" + "; passages, two invented stories" * passages,
    )
    option("--source", metavar="FOLDER", help="with the task's files (default: the hub)")
    own = parser.add_argument_group(
        "own rows instead of --task",
        "Each a file of JSON lines, JSON, CSV, TSV or Parquet (.gz too), a folder that datasets\n"
        "saved, or a data set of the hub, as owner/name or owner/name:split: questions with\n"
        + (
            "answers, or texts without a question (passages), such as a text file (.txt)."
            if passages
            else "answers. Passages (texts without a question) are refused: they ask nothing."
        ),
    )
    for name in ("forget", "retain", "real-authors", "world-facts"):
        own.add_argument(f"--{name}", metavar="ROWS", help=f"the {name.replace('-', ' ')} rows")
    own.add_argument(
        "--columns",
        type=_pairs,
        metavar="KEY=COLUMN,...",
        help="where all of these files have question and answer, such as "
        "question=Frage,answer=Antwort"
        + ", or passages: text=Absatz"
        * passages
        + " (default: the usual names: question, prompt or instruction with input; answer, "
        "response, completion or output; messages" + "; else text" * passages + ")",
    )
    own.add_argument(
        "--allow-overlap", action="store_true", help="forget rows may be retain rows too"
    )
    option(
        "--long-rows",
        choices=LONG_ROWS,
        default=LONG_ROWS[0],
        help="rows that the model's context does not hold: refuse them, split the answer or "
        "passage into several rows, or cut its end off (default: refuse)",
    )
    add_loading(parser)


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a model is loaded, and where."""
    option = parser.add_argument
    option(
        "--base",
        metavar="MODEL",
        help="base model of an adapter, if it names none or one that is elsewhere",
    )
    weights = "load the weights in 4 or 8 bits (CUDA only; default: off)"
    option("--quantize", choices=("4bit", "8bit"), help=weights)
    option("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def _pairs(text: str) -> dict[str, str]:
    """Read KEY=COLUMN pairs with commas between them."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key.strip() and column for key, _, column in pairs):
        example = "question=Frage,answer=Antwort"
        raise argparse.ArgumentTypeError(f"must be like {example}, it is {text!r}")
    return {key.strip(): column for key, _, column in pairs}


def add_training(
    parser: argparse.ArgumentParser, options: Mapping[str, Option], label: str = "OUT's name"
) -> None:
    """Add the options of a training run: where it is kept, then those of its configuration.

    `label`: the default of --label, in words.
    """
    add = parser.add_argument
    add("--out", help="run folder to write")
    add("--dry-run", action="store_true", help="say what the run would take; nothing is made")
    add("--label", help=f"name in tables (default: {label})")
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
        metavar="EPOCHS",
        default=1.0,
        help="epochs between checkpoints, each 3 times the size of the trained weights, the last "
        "two kept until the run ends; 0: none (default: 1)",
    )
    add(
        "--log-to",
        choices=TRACKERS,
        help="follow the run in TensorBoard (written in OUT/tensorboard), Trackio or W&B too",
    )
    add_options(parser, options)
    add_options(parser, options_of(EvaluationConfig))


def prompt_options() -> dict[str, Option]:
    """Return the options that say how questions and answers become tokens."""
    return {name: options_of(TrainConfig)[name] for name in PROMPTS}

"""The command `ask`: one question to several models, their answers beside each other."""

from __future__ import annotations

import argparse
import shutil
import textwrap

from npo_kit.cli.options import MODELS, add_loading, prompt_options
from npo_kit.cli.read import Add
from npo_kit.errors import KitError
from npo_kit.options import Option, add_options, check, given

NARROWEST = 24  # characters of a column
_OPTIONS = {
    "samples": Option(
        "answers drawn from each model's own probabilities, instead of its likeliest one",
        kind=int,
        least=1,
    ),
    "seed": Option("random seed of the draws", 0, int),
    "max_new_tokens": Option("tokens of an answer at the most", 100, int, least=1),
}


def add_ask(add: Add) -> None:
    example = 'npo-kit ask pocket pocket:retained "Who wrote The Sycamore Letters?"'
    parser = add("ask", ask_command, example)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"each a {MODELS}")
    parser.add_argument("question", help="in quotes")
    told = "it is the beginning of a passage: continue it as it is, without a prompt around it"
    parser.add_argument("--text", action="store_true", help=told)
    add_options(parser, _OPTIONS)
    add_loading(parser)
    add_options(parser, prompt_options())


def ask_command(options: argparse.Namespace) -> None:
    """Ask models a question, or let them continue a text, and print what they say side by side."""
    if not options.question.strip():
        raise KitError("the question is empty: write it in quotes behind the models")
    answers = {name: _answers(name, options) for name in dict.fromkeys(options.models)}
    print(options.question)
    print(_side_by_side(answers, shutil.get_terminal_size().columns))


def _answers(name: str, options: argparse.Namespace) -> list[str]:
    """Load a model and return its answers: the greedy one, or those drawn."""
    from npo_kit.models.generation import generate
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.config import TrainConfig

    chosen = {key: about.default for key, about in _OPTIONS.items()} | given(options, _OPTIONS)
    check(chosen, _OPTIONS)
    where = {"device": options.device, "quantize": options.quantize}
    model, tokenizer = load_model(name, base=options.base, **where)
    prompts = TrainConfig(**given(options, prompt_options())).prompt_format(tokenizer, model)
    text = options.question
    line = prompts.encode(None, text).ids if options.text else prompts.encode_prompt(text)
    lines = [line] * (chosen["samples"] or 1)
    seed = chosen["seed"] if chosen["samples"] else None
    drawn = generate(model, lines, prompts.end_id, chosen["max_new_tokens"], sample_seed=seed)
    return [prompts.decode(ids) or "(nothing)" for ids in drawn]


def _side_by_side(answers: dict[str, list[str]], width: int) -> str:
    """Lay answers out in a column for each model, or below each other where they are too narrow."""
    each = (width + 3) // len(answers) - 3
    if each < NARROWEST:
        blocks = [f"{name}\n" + "\n".join(said) for name, said in answers.items()]
        return "\n\n".join(textwrap.indent(block, "  ").strip() for block in blocks)
    lines = _rows([textwrap.wrap(name, each) for name in answers], each)
    lines += _rows([["-" * each] for _ in answers], each)
    for said in zip(*answers.values(), strict=True):
        cells = [[w for line in t.splitlines() for w in textwrap.wrap(line, each)] for t in said]
        lines += _rows(cells, each)
    return "\n".join(lines)


def _rows(cells: list[list[str]], width: int) -> list[str]:
    """Return the lines of cells beside each other."""
    height = max(map(len, cells))
    full = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    return [
        " | ".join(f"{part:{width}}" for part in row).rstrip() for row in zip(*full, strict=True)
    ]

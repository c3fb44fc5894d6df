"""The command line: `npo-kit COMMAND`, one for each thing the kit does."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NoReturn

from npo_kit.app.server import add_arguments, open_page
from npo_kit.cli import audit, make, read, train
from npo_kit.cli.ask import add_ask
from npo_kit.cli.page import add_page
from npo_kit.errors import KitError, did_you_mean
from npo_kit.processes import launched

INVALID = re.compile(r"invalid choice: '(.+?)' \(choose from (.+)\)")
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
EXIT_CODES = (
    "exit codes: 0 done, 1 a fault of the kit, 2 bad input, 3 the run collapsed, 130 interrupted"
)
MOST_INTERRUPTIONS = 3
SEVERAL = """on several GPUs:
  accelerate launch -m npo_kit.cli {0} ...

in several processes on CPUs:
  torchrun --nproc-per-node 2 -m npo_kit.cli {0} ...

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Of several processes only the main one prints results; each says what goes wrong in it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a console or pipe may lack letters
    options = _parser().parse_args(arguments)
    with _interrupted_once():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    number, processes = launched()
    try:
        if processes > 1 and not options.several:
            raise KitError("this command runs in one process: start it without a launcher")
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if number else sys.stdout):
            return options.command(options) or 0
    except KitError as error:
        if number:  # a launcher ends all when one ends: the main process speaks first
            time.sleep(2)
        who = f"npo-kit, process {number}" if number else "npo-kit"
        print(f"{who}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("npo-kit: interrupted; what was recorded is kept", file=sys.stderr)
        return 130


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """In this context, let the first Ctrl-C interrupt; the next two change nothing, a fourth ends.

    What was recorded is being kept then, and a second, impatient one would leave a traceback.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed: list[int] = []

    def interrupted(number: int, _: Any) -> None:
        pressed.append(number)
        if len(pressed) == 1:
            raise KeyboardInterrupt
        if len(pressed) > MOST_INTERRUPTIONS:
            os._exit(130)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if not pressed:  # else further ones may still come while Python ends
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end(code: int) -> None:
    """Leave the process; if a launcher started several, leave at once.

    The usual exit may abort a process whose threads still talk to the others, and the launcher
    would report a complete run as failed.
    """
    if launched()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and reads -1e-5 as a number."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)
        self._negative_number_matcher = NEGATIVE

    def parse_known_args(self, args=None, namespace=None):
        """Parse as argparse does, but refuse an unknown option and name the one that is near."""
        known, odd = super().parse_known_args(args, namespace)
        if odd:
            written = odd[0].partition("=")[0]
            near = difflib.get_close_matches(written, self._option_string_actions, n=1)
            self.error(f"no option {odd[0]}" + "".join(f", did you mean {name}?" for name in near))
        return known, odd

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one sentence instead of the usage."""
        if choice := INVALID.search(message):
            message += did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help lists all options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="npo-kit",
        description="Unlearn, measure and compare language models.",
        epilog=EXIT_CODES,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, example: str, *, several: bool = False):
        """Add a command that `run` does, described by its docstring, and return its parser."""
        text = " ".join((run.__doc__ or "").split())
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}\n\n{SEVERAL.format(name) * several}{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run, several=several)
        return sub

    with_model = (*train.COMMANDS, add_ask, *audit.COMMANDS)
    for add_command in (*with_model, *read.COMMANDS, *make.COMMANDS, add_page):
        add_command(add)
    add_arguments(add("app", open_page, "npo-kit app --port 7860"))
    return parser

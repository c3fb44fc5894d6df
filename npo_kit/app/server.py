"""Serves the page: to a command until it is interrupted, to a notebook until its kernel ends."""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npo_kit.app.places import (
    Frame,
    has_browser,
    in_colab,
    notebook_place,
    open_browser,
    page_address,
)
from npo_kit.errors import KitError
from npo_kit.options import add_options, given, option, options_of

_OPEN = ExitStack()  # what `show` serves


@dataclass(frozen=True)
class PageConfig:
    """The page's address, and what its live runs unlearn. A Space sets the two variables."""

    port: int = option(int(os.environ.get("GRADIO_SERVER_PORT", 7860)), "port to listen at")
    host: str = option(
        os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), "address to listen at; 0.0.0.0: all"
    )
    model: str = option("pocket", "what live runs unlearn")
    task: str | None = option(None, "its task, such as tofu:forget01 (needed with --model)")
    live: int = option(4, "visitors who may run at a time")
    questions: str | None = option(
        None,
        "a class's own questions, to pick from where the live models are asked: a text file with "
        "a question a line, or JSON lines with a question each",
        metavar="FILE",
    )
    browser: bool = option(True, "open the page in the browser, at a terminal of your own machine")

    def __post_init__(self):
        if (self.model == "pocket") != (self.task is None):
            raise KitError("give --model and --task together, such as --task tofu:forget01")
        if self.task == "passages":
            raise KitError(
                "the live lab asks questions, and passages have none: make runs with "
                "npo-kit unlearn --task passages, and open their folder"
            )
        if self.live < 1:
            raise KitError(f"--live must be at least 1, it is {self.live}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; return the exit code."""
    parser = add_arguments(argparse.ArgumentParser("app.py", description="Serve the dashboard."))
    try:
        open_page(parser.parse_args(arguments))
    except KitError as error:
        print(f"npo-kit app: {error}", file=sys.stderr)
        return 2
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the page's options to a parser, and return it."""
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="STUDY",
        help="folders of studies or runs (default: the recorded studies of fictional authors), or "
        "logs of TOFU's or open-unlearning's evaluation, which become one study; NAME=LOG names "
        "one, as original=FILE",
    )
    add_options(parser, options_of(PageConfig))
    return parser


def open_page(options: argparse.Namespace) -> None:
    """Open the dashboard: recorded and live answers of two methods side by side."""
    serve(options.folders, **given(options, options_of(PageConfig)))


def serve(folders: Sequence[str | Path] = (), **options: Any) -> None:
    """Serve the page of some studies until it is interrupted; `options` are those of PageConfig.

    Opens it in the browser of one's own machine. Raises KitError for a folder that is no study and
    for a port that is not free.
    """
    config = PageConfig(**options)
    with _page(folders, config):
        print(f"npo_kit is at http://{config.host}:{config.port} (Ctrl-C ends it)", flush=True)
        if config.browser and has_browser(os.environ, sys.platform, sys.stdout.isatty()):
            open_browser(page_address(config.host, config.port))
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def show(*folders: str | Path, height: int = 900, address: str | None = None, **options: Any):
    """Show the page inside a notebook (Jupyter, VS Code, Colab), until the kernel ends.

    `folders` and `options` (`model`, `task`, `live`, `host`, `port`) are those of `serve`; `height`
    is in pixels. `address` is where your browser finds a port of the kernel's machine if the page
    cannot know it, such as `https://my.server/proxy/{port}/`. Returns the frame to display, with a
    line that says where the page is; in Colab, which displays it itself, None.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = PageConfig(**{"port": port, "host": "127.0.0.1"} | options)
    place = notebook_place(config.host, config.port, os.environ, address)
    root = place.address if place.proxied and not in_colab() else ""
    _OPEN.enter_context(_page(folders, config, root))
    if in_colab():
        from google.colab import output

        output.serve_kernel_port_as_iframe(config.port, height=str(height))
        return None
    return Frame(place.address, height, place.advice)


@contextmanager
def _page(folders: Sequence[str | Path], config: PageConfig, root: str = "") -> Iterator[None]:
    """Serve the page for as long as the block lasts; `root` is its address behind a proxy."""
    from npo_kit.app.ahead import read_ahead
    from npo_kit.app.asking import read_questions
    from npo_kit.app.opening import open_studies
    from npo_kit.app.theory import Theory
    from npo_kit.app.visits import Visits

    studies, toured = open_studies(folders)
    asks = read_questions(config.questions) if config.questions else []
    _refuse_taken(config.host, config.port)
    with read_ahead(studies[0], folders):  # beside the slow import of Gradio
        with _uncollected():
            from npo_kit.app.page import Answers
            from npo_kit.app.serving import served

        visits, theory = Visits(config.live), Theory()
        shown = (studies, config.model, config.task, toured, asks)
        answers = Answers(*shown, visits=visits, experiment=theory)
        with served(answers, config.host, config.port, root):
            try:
                yield
            finally:
                visits.stop_all()
                theory.stop()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import without the garbage collector, which takes a seventh of Gradio's time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_taken(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KitError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port or --host"
        ) from None

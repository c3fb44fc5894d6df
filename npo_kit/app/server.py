"""Serves the page: to a command until it is interrupted, to a notebook until its kernel ends."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npo_kit.errors import KitError
from npo_kit.options import add_options, given, option, options_of

if TYPE_CHECKING:
    from npo_kit.app.packed import PackedStudy

STUDIES = ("studies/pocket", "studies/smollm2")  # shown when no folder is given; the first toured
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

    def __post_init__(self):
        if (self.model == "pocket") != (self.task is None):
            raise KitError("give --model and --task together, such as --task tofu:forget01")
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
        metavar="FOLDER",
        help="folders of studies or runs (default: the recorded studies of fictional authors)",
    )
    add_options(parser, options_of(PageConfig))
    return parser


def open_page(options: argparse.Namespace) -> None:
    """Open the dashboard: recorded and live answers of two methods side by side."""
    serve(options.folders, **given(options, options_of(PageConfig)))


def serve(folders: Sequence[str | Path] = (), **options: Any) -> None:
    """Serve the page of some studies until it is interrupted; `options` are those of PageConfig.

    Raises KitError for a folder that is no study and for a port that is not free.
    """
    config = PageConfig(**options)
    with _page(folders, config):
        print(f"npo_kit is at http://{config.host}:{config.port} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def show(*folders: str | Path, height: int = 900, **options: Any):
    """Show the page inside a notebook (Jupyter, VS Code, Colab), until the kernel ends.

    `folders` and `options` (`model`, `task`, `live`) are those of `serve`; `height` is in pixels.
    Returns the frame to display; in Colab, which displays it itself, None.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _OPEN.enter_context(_page(folders, PageConfig(port, "127.0.0.1", **options)))
    if "google.colab" in sys.modules:
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, height=str(height))
        return None
    from IPython.display import IFrame

    return IFrame(f"http://127.0.0.1:{port}", width="100%", height=height)


@contextmanager
def _page(folders: Sequence[str | Path], config: PageConfig) -> Iterator[None]:
    """Serve the page for as long as the block lasts."""
    from npo_kit.app.theory import Theory
    from npo_kit.app.visits import Visits

    studies, toured = _studies(folders)
    _refuse_taken(config.host, config.port)
    reader = threading.Thread(target=studies[0].index, daemon=True)
    reader.start()  # while Gradio is imported
    from npo_kit.app.page import Answers
    from npo_kit.app.serving import served

    reader.join()  # what a library sets of the warnings while it is imported, all threads have
    visits, theory = Visits(config.live), Theory()
    answers = Answers(studies, visits, theory, config.model, config.task, toured)
    with served(answers, config.host, config.port):
        try:
            yield
        finally:
            visits.stop_all()
            theory.stop()


def _studies(folders: Sequence[str | Path]) -> tuple[list[PackedStudy], PackedStudy | None]:
    """Return the studies of the page, and the one that the guided tour is about if it is there."""
    from npo_kit.app.packed import packed_studies
    from npo_kit.data.shipped import shipped_data

    paths = [Path(folder) for folder in folders] or [shipped_data(name) for name in STUDIES]
    for path in paths:
        if not path.is_dir():
            raise KitError(f"there is no folder {path}: give a study's or run's folder, or none")
    by_path = [(path, study) for path in paths for study in packed_studies(path)]
    shipped = shipped_data(STUDIES[0]).resolve()
    toured = next((study for path, study in by_path if path.resolve() == shipped), None)
    return [study for _, study in by_path], toured


def _refuse_taken(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KitError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port or --host"
        ) from None

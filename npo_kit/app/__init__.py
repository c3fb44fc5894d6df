"""The dashboard: `npo-kit app`, or `python app.py` in a checkout; `show` in a notebook."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from npo_kit.errors import KitError

STUDIES = ("studies/pocket", "studies/smollm2")  # shown when no folder is given; the first toured
LIMIT = 4  # visitors who run something at a time


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; the exit code."""
    options = add_arguments(argparse.ArgumentParser(prog="app.py", description=__doc__))
    try:
        serve(**vars(options.parse_args(arguments)))
    except KitError as error:
        print(f"npo-kit app: {error}", file=sys.stderr)
        return 2
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of the page."""
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="folders of studies or runs (default: the recorded studies of fictional authors)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)),
        help="port to listen at (%(default)s)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),  # set on a Space
        help="address to listen at; 0.0.0.0: all (%(default)s)",
    )
    parser.add_argument("--model", default="pocket", help="what live runs unlearn (%(default)s)")
    parser.add_argument("--task", help="its task, such as tofu:forget01 (needed with --model)")
    parser.add_argument(
        "--live", type=int, default=LIMIT, help="visitors who may run at a time (%(default)s)"
    )
    return parser


def serve(
    folders: Sequence[str] = (),
    port: int = 7860,
    host: str = "127.0.0.1",
    model: str = "pocket",
    task: str | None = None,
    live: int = LIMIT,
) -> None:
    """Serve the page of some studies at a port until interrupted.

    Raises KitError for a folder that is no study and for a port that cannot be had.
    """
    with _page(folders, port, host, model, task, live):
        print(f"npo_kit is at http://{host}:{port} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def show(*folders: str | Path, height: int = 900, **options):
    """The page inside a notebook (Jupyter, VS Code, Colab); it is served until the kernel ends.

    `folders` and `options` (`model`, `task`, `live`) as of `serve`. Returns the frame to display;
    in Colab, which displays it itself, None.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = _page([str(folder) for folder in folders], port, "127.0.0.1", **options)
    page.__enter__()
    _OPEN.append(page)  # until the kernel ends
    if "google.colab" in sys.modules:
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, height=str(height))
        return None
    from IPython.display import IFrame

    return IFrame(f"http://127.0.0.1:{port}", width="100%", height=height)


_OPEN: list[object] = []


@contextmanager
def _page(
    folders: Sequence[str],
    port: int,
    host: str,
    model: str = "pocket",
    task: str | None = None,
    live: int = LIMIT,
):
    """The page, served within the block."""
    from npo_kit.data.shipped import shipped_data

    paths = [Path(folder) for folder in folders] or [shipped_data(name) for name in STUDIES]
    for path in paths:
        if not path.is_dir():
            raise KitError(f"there is no folder {path}: give a study's or run's folder, or none")
    if (model == "pocket") != (task is None):
        raise KitError("give --model and --task together, such as --task tofu:forget01")
    if live < 1:
        raise KitError(f"--live must be at least 1, it is {live}")
    _refuse_taken(host, port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is sent anywhere
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from npo_kit.app.packed import packed_studies
    from npo_kit.app.theory import Theory
    from npo_kit.app.visits import Visits

    by_path = [(path, study) for path in paths for study in packed_studies(path)]
    studies, visits, theory = [study for _, study in by_path], Visits(live), Theory()
    threading.Thread(target=studies[0].index, daemon=True).start()  # while Gradio is imported
    from npo_kit.app.page import STATIC, Answers, LiveModel, build

    shipped = shipped_data(STUDIES[0]).resolve()
    toured = next((study for path, study in by_path if path.resolve() == shipped), None)
    blocks = build(Answers(studies, visits, theory, LiveModel(model, task), toured))
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            css=(STATIC / "page.css").read_text(encoding="utf-8"),
            quiet=True,
            inline=False,
            share=False,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
        )
        yield
    finally:
        visits.stop_all()
        theory.stop()
        blocks.close(verbose=False)


def _refuse_taken(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KitError(
            f"cannot listen at {host}:{port} ({reason}): choose another --port or --host"
        ) from None

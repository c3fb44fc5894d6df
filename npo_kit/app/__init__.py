"""The dashboard: `npo-kit app`, or `python app.py` in a checkout."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from npo_kit.errors import KitError

STUDY = "studies/pocket"  # what is shown when no folder is given


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
    parser.add_argument("folder", nargs="?", help="a study's folder (default: the recorded one)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (%(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (%(default)s)"
    )
    return parser


def serve(folder: str | None = None, port: int = 7860, host: str = "127.0.0.1") -> None:
    """Serve the page of a study at a port until interrupted.

    Raises KitError for a folder that is no study and for a port that cannot be had.
    """
    from npo_kit.shipped import shipped_data

    path = Path(folder) if folder else shipped_data(STUDY)
    if not path.is_dir():
        raise KitError(f"there is no folder {path}: give a study's folder, or none")
    _refuse_taken(host, port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is sent anywhere
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from npo_kit.app.live import LiveJobs
    from npo_kit.pack import PackedStudy

    study, jobs = PackedStudy(path), LiveJobs()
    threading.Thread(target=study.index, daemon=True).start()  # while Gradio is imported
    from npo_kit.app.page import STATIC, Answers, build

    blocks = build(Answers(study, jobs))
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            css=(STATIC / "page.css").read_text(encoding="utf-8"),
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
        )
        print(f"npo_kit is at http://{host}:{port} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        jobs.stop_all()
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

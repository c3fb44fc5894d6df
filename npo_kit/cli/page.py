"""The command `page`: a study as one file to hand out."""

from __future__ import annotations

import argparse
from pathlib import Path

from npo_kit.cli.read import Add
from npo_kit.errors import KitError


def add_page(add: Add) -> None:
    parser = add("page", page_command, "npo-kit page data/studies/pocket --out page.html")
    option = parser.add_argument
    option(
        "study",
        nargs="*",
        metavar="STUDY",
        help="a study's or run's folder (default: the recorded study of fictional authors), or "
        "logs of TOFU's or open-unlearning's evaluation, which become one study; NAME=LOG names "
        "one, as original=FILE",
    )
    option("--out", required=True, metavar="FILE", help="HTML file to write")
    option("--task", help="the study's task to show, where it has several")
    option(
        "--limit",
        type=float,
        default=6.0,
        metavar="X",
        help="MB that the file may have; beyond it, runs of other seeds and settings lose their "
        "texts, and the page says which (default: 6)",
    )
    option("--overwrite", action="store_true", help="replace a file that is there")


def page_command(options: argparse.Namespace) -> None:
    """Write the page of one study as a file that opens from disk, without a server or a network."""
    from npo_kit.app.onefile import write_page
    from npo_kit.app.opening import STUDIES, open_studies
    from npo_kit.app.page import RecordedAnswers

    out = Path(options.out)
    if out.exists() and not options.overwrite:
        raise KitError(f"{out} exists: choose another name, or --overwrite it")
    if not out.resolve().parent.is_dir():
        raise KitError(f"--out {out}: there is no folder {out.resolve().parent}")
    studies, toured = open_studies(options.study, STUDIES[:1])
    tasks = [study.task for study in studies]
    if options.task is not None and options.task not in tasks:
        raise KitError(f"no task {options.task!r} in it: choose {', '.join(tasks)}")
    chosen = [study for study in studies if options.task in (None, study.task)]
    if len(chosen) > 1:
        raise KitError(f"a file has one study, these are {len(chosen)}: give --task or one folder")
    made = write_page(RecordedAnswers(chosen, toured=toured), out, options.limit)
    print(f"{out}: {made['bytes'] / 1e6:.1f} MB, {chosen[0].title}")
    if made["left_out"]:
        print(f"without the texts of {', '.join(made['left_out'])}, for its size")

"""The page's own files: its HTML, its style, and its scripts as the body of one function."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
SCRIPTS = (  # each uses what those before it offer
    *("dom", "words", "names", "state", "stands", "address", "knobs", "text", "svg", "plot"),
    *("card", "glossary", "answers", "picker", "columns", "stage"),
    *("marks", "trajectories", "quality", "tradeoff", "splits", "muchpoints", "muchcharts", "much"),
    *("audits", "auditgrid", "auditframe", "audittexts", "auditsays", "audithides", "auditbeside"),
    *("auditfigures", "auditcard", "audit"),
    *("visit", "relearn", "live", "labcharts", "secret", "secretchart", "secretview"),
    *("againview", "again", "lab", "asking"),
    *("lens", "theory", "about", "scrubber", "story", "page"),
)
STYLES = ("page", "stage", "views", "audit", "live", "narrow")


def scripts() -> str:
    """Return the page's scripts as the body of one function, each in a closure of its own.

    A script takes what it uses from `kit` at its top, and puts what it offers there at its end.
    `kit.gradio` has what Gradio gives that function: the page's element, and the server to ask.
    """
    closures = (closure(name) for name in SCRIPTS)
    return "\n".join(['"use strict";', "const kit = { gradio: { element, server } };", *closures])


def styles() -> str:
    """Return the page's style sheet."""
    return "\n".join(static_text(f"{name}.css") for name in STYLES)


def closure(name: str) -> str:
    """Return one script in a closure of its own."""
    return f"(() => {{\n{static_text(f'{name}.js')}}})();"


def static_text(name: str) -> str:
    """Return one of the page's files."""
    return (STATIC / name).read_text(encoding="utf-8")

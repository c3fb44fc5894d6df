"""One study as one HTML file: it opens from disk, without a server or a network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from npo_kit.app.audits import RETAINED
from npo_kit.app.packed import PackedStudy
from npo_kit.app.page import RecordedAnswers
from npo_kit.app.scored import Cell
from npo_kit.app.scripts import closure, scripts, static_text, styles
from npo_kit.errors import KitError
from npo_kit.records.files import Json, atomic_write

LIMIT = 6.0  # megabytes that a file may have
ABSENT = ("live", "experiment", "onefile", "again")  # parts of the page that need the server
LACKS = "Live runs and the synthetic experiment, which need the kit: npo-kit app"
_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_made: WeakKeyDictionary[PackedStudy, str] = WeakKeyDictionary()
_lock = threading.Lock()


def write_page(answers: RecordedAnswers, out: str | Path, limit: float = LIMIT) -> Json:
    """Write the page of the first study to a file, whole or not at all; return what `fitted` says.

    `limit` is in megabytes. Raises KitError for a study that is larger, and for a file that cannot
    be written.
    """
    html, left_out = fitted(answers, 0, limit)
    atomic_write(out, html)
    return {"bytes": len(html), "left_out": left_out}


def served_page(answers: RecordedAnswers, study: PackedStudy, number: int) -> Json:
    """Return the page of the study of that number, as a name and a text, for a visitor to keep.

    It is made once, even where several visitors ask at a time.
    """
    with _lock:
        if study not in _made:
            _made[study] = fitted(answers, number, LIMIT)[0].decode()
    return {"name": f"{study.name}.html", "html": _made[study]}


def fitted(answers: RecordedAnswers, study: int, limit: float) -> tuple[bytes, list[str]]:
    """Return the page of a study in at most `limit` megabytes, and the runs left without texts.

    Where it is too large, runs lose their texts and the scores of their rows, other seeds first,
    then other settings: they still count in bands, but cannot be compared. The first run of each
    method stays whole. Raises KitError where that is not enough.
    """
    data = recorded(answers, study)
    left_out: list[str] = []
    spare = _spare(data["index"]["runs"])
    while len(html := page(data)) > limit * 1e6:
        if not spare:
            raise KitError(
                f"the page takes {len(html) / 1e6:.1f} MB with the first run of each method alone, "
                f"more than {limit:g}: give a folder of fewer runs, or a larger --limit"
            )
        over = len(html) - limit * 1e6
        each = len(html) / len(data["cells"])  # roughly
        for run in [spare.pop(0) for _ in range(min(len(spare), max(1, int(over / each))))]:
            left_out.append(run["label"])
            run["foreign"] = True  # not to be compared
            del data["cells"][run["id"]]
        data["index"]["lacks"] = [LACKS, f"For its size, the texts of {', '.join(left_out)}"]
    return html, left_out


def _spare(runs: Iterable[Json]) -> list[Json]:
    """Return the runs whose texts go first, in order: the last of the seeds, then of the others."""
    groups: dict[str, Json] = {}
    seeds = [run for run in runs if groups.setdefault(run["group"], run) is not run]
    others = [run for run in groups.values() if not run["main"]]
    return [*reversed(seeds), *reversed(others)]


# --- the data -----------------------------------------------------------------------------------


def recorded(answers: RecordedAnswers, study: int) -> Json:
    """Return what the page may ask the server of a study, each text once.

    `cells[run][field]` lists the field's values by step and question; a text is its place in
    `strings`, and None where the run has no such row.
    """
    index = answers.index(study)
    strings: dict[str, int] = {}
    cells: dict[str, dict[str, list[list[Any]]]] = {
        run["id"]: {field: [[] for _ in run["steps"]] for field in Cell._fields}
        for run in index["runs"]
        if not run.get("scores_only")
    }
    for question in range(len(index["questions"])):
        said = answers.texts(study, question)
        for run, of_run in said["cells"].items():
            for step, cell in enumerate(of_run):
                for field, lists in cells[run].items():
                    value = cell and cell[field]
                    if cell and field == "text":
                        value = strings.setdefault(said["strings"][value], len(strings))
                    lists[step].append(value)
    absent = [*index["absent"], *ABSENT]
    index |= {"studies": [answers.studies[study].title], "absent": absent, "lacks": [LACKS]}
    return {
        "index": index,
        "about": {run: answers.about(study, run) for run in cells},
        "splits": answers.splits(),
        "theorem": answers.theorem(),
        **({} if "audit" in absent else _audits(answers)),
        "strings": strings,
        "cells": cells,
    }


def _audits(answers: RecordedAnswers) -> Json:
    """Return the grid of the audits, and by run, checkpoint and card what a figure shows."""
    grid = answers.audits()
    opened = [(a["run"], a["at"]) for a in grid["audits"] if a["detailed"]]
    cards = {
        f"{run} {at} {card['name']}": answers.audit(run, at, card["name"])
        for run, at in [*opened, (RETAINED, "last")]
        for card in grid["cards"]
    }
    return {"audits": grid, "audit": cards}


def packed(data: Json) -> str:
    """Return data as gzipped JSON in base64, which has no letter that HTML reads."""
    used = {text for of_run in data["cells"].values() for step in of_run["text"] for text in step}
    kept = [text if place in used else "" for text, place in data["strings"].items()]
    text = json.dumps(data | {"strings": kept}, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


# --- the file -----------------------------------------------------------------------------------


def page(data: Json) -> bytes:
    """Return the file: the page, its style and scripts, allowed by their hashes alone, the data."""
    style = static_text("onefile.css") + styles()
    script = f"""(() => {{
const kit = {{}};
{closure("onefile")}
kit.onefile.opened((element, server) => {{
{scripts()}
}});
}})();
"""
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(data["index"]["title"])}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page needs JavaScript, which is switched off in this browser.</noscript>
<main class="gradio-container">{static_text("page.html")}</main>
<script type="text/plain" id="data">{packed(data)}</script>
<script>{script}</script>
</body>
</html>
""".encode()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"

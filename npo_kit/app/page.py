"""The page: what the server answers to it, and how Gradio carries it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from npo_kit.app.live import LiveConfig, LiveJobs
from npo_kit.errors import KitError
from npo_kit.look import style
from npo_kit.pack import PackedStudy

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("text.js", "chart.js", "live.js", "page.js")
VISITOR_LENGTH = 64


class Answers:
    """What the server answers: JSON for JSON, `{"problem": sentence}` where it cannot."""

    def __init__(self, study: PackedStudy, jobs: LiveJobs):
        self.study, self.jobs = study, jobs

    def index(self, _: Any) -> dict[str, Any]:
        return page_index(self.study)

    def texts(self, number: Any) -> dict[str, Any]:
        return self.study.texts(number)

    def start(self, asked: Any) -> dict[str, Any]:
        settings = asked["runs"]
        if type(settings) is not list:
            raise KitError("a live run needs a list of runs")
        self.jobs.start(_visitor(asked), [LiveConfig.of(each) for each in settings])
        return {}

    def poll(self, asked: Any) -> dict[str, Any]:
        jobs, since = self.jobs.of(_visitor(asked)), asked["since"]
        if not jobs:
            raise KitError("there is no live run: it was stopped, or the server was started anew")
        events = [job.events(int(seen)) for job, seen in zip(jobs, since, strict=True)]
        return {"events": events}

    def watch(self, asked: Any) -> dict[str, Any]:
        question = self.study.questions[asked["question"]]
        for job in self.jobs.of(_visitor(asked)):
            job.watch(question["set"], question["index"])
        return {}

    def stop(self, asked: Any) -> dict[str, Any]:
        self.jobs.stop(_visitor(asked))
        return {}


def _visitor(asked: Any) -> str:
    name = asked["visitor"]
    if type(name) is not str or not 0 < len(name) <= VISITOR_LENGTH:
        raise KitError("a visitor needs a name")
    return name


def told(answer: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """`answer` with what is wrong as a sentence for the page, never a trace or a path."""

    @wraps(answer)
    def safe(asked: Any = None) -> dict[str, Any]:
        try:
            return answer(asked)
        except KitError as error:
            return {"problem": str(error)}
        except (KeyError, IndexError, TypeError, ValueError):
            return {"problem": "the page asked for something that does not exist: load it anew"}

    return safe


_SETTINGS = {"seed": "seed {}", "beta": "β {:g}", "lr": "lr {:g}", "retain_weight": "weight {:g}"}


def page_index(study: PackedStudy) -> dict[str, Any]:
    """The study's index with how each run is called and drawn."""
    first: dict[str, dict[str, Any]] = {}
    index, runs = study.index(), []
    for run in index["runs"]:
        main = first.setdefault(run["method"], run)
        name = style(run["method"]).label
        kind = "unlearn" if run["id"] not in ("original", "retained") else "evaluate"
        told = {
            "seed": "seed {}",
            "beta": "β {:g}",
            "lr": "lr {:g}",
            "retain_weight": "weight {:g}",
        }
        more = [
            words.format(run[key])
            for key, words in told.items()
            if run[key] is not None and run[key] != main[key]
        ]
        label = ", ".join([name, *more])
        runs.append(run | {"kind": kind, "label": label, "methodLabel": name, "main": run is main})
    return index | {"runs": runs, "looks": {method: _look(method) for method in first}}


def _look(method: str) -> dict[str, str]:
    look = style(method)
    dash = " ".join(f"{part:g}" for part in look.line[1]) if isinstance(look.line, tuple) else ""
    return {"colour": look.colour, "dash": dash, "marker": look.marker}


def build(answers: Answers) -> gr.Blocks:
    """The Gradio page over `answers`."""
    functions = [
        told(getattr(answers, name))
        for name in ("index", "texts", "start", "poll", "watch", "stop")
    ]
    with gr.Blocks(title="npo_kit", analytics_enabled=False) as blocks:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="\n".join((STATIC / n).read_text(encoding="utf-8") for n in SCRIPTS),
            server_functions=functions,
            apply_default_css=False,
        )
    return blocks

"""The page: what the server answers to it, and how Gradio carries it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from npo_kit.app.live import LiveConfig
from npo_kit.app.packed import PackedStudy
from npo_kit.app.theory import METHODS as THEORY_METHODS
from npo_kit.app.theory import Theory, theorem_lines
from npo_kit.app.visits import Visits
from npo_kit.errors import KitError, without_paths
from npo_kit.style import style

STATIC = Path(__file__).parent / "static"
SCRIPTS = (
    *("dom.js", "text.js", "plot.js", "state.js", "compare.js", "tradeoff.js"),
    *("live.js", "theory.js", "about.js", "page.js"),
)
VISITOR_LENGTH = 64
SPLITS = (1, 5, 10, 20, 50)  # percentages to forget that a live run offers


@dataclass(frozen=True)
class LiveModel:
    """What a live run unlearns."""

    model: str = "pocket"
    task: str | None = None  # None: the kit's authors, the percentage as the page chooses

    @property
    def name(self) -> str:
        """As it is shown: of a path the last part."""
        return Path(self.model).name


class Answers:
    """What the server answers: JSON for JSON, `{"problem": sentence}` where it cannot."""

    NAMES = (
        *("index", "texts", "scores", "about"),
        *("start", "poll", "watch", "ask", "stop", "leave", "download"),
        *("theory", "theorem"),
    )

    def __init__(
        self,
        studies: Sequence[PackedStudy],
        visits: Visits,
        theory: Theory,
        live: LiveModel | None = None,
        toured: PackedStudy | None = None,
    ):
        self.studies, self.visits, self._theory = list(studies), visits, theory
        self.live = live or LiveModel()
        self._toured = toured  # the study that the guided tour is about, if it is there

    def _study(self, asked: Any) -> PackedStudy:
        number = asked["study"]
        if type(number) is not int or not 0 <= number < len(self.studies):
            raise KitError(f"there is no study {number!r:.60}: choose 0 to {len(self.studies) - 1}")
        return self.studies[number]

    # --- what was recorded ---

    def index(self, asked: Any) -> dict[str, Any]:
        index = page_index(self._study(asked))
        named = {*METHOD_NAMES, *(run["method"] for run in index["runs"])}
        return index | {
            "studies": [study.title for study in self.studies],
            "lessons": self._study(asked) is self._toured,
            "live": self._live_choices(),
            "theory": {"methods": THEORY_METHODS},
            "styles": {name: _look(name) for name in sorted(named)},
        }

    def texts(self, asked: Any) -> dict[str, Any]:
        return self._study(asked).texts(asked["question"])

    def scores(self, asked: Any) -> dict[str, Any]:
        return self._study(asked).scores(asked["run"])

    def about(self, asked: Any) -> dict[str, Any]:
        return self._study(asked).about(asked["run"])

    # --- what runs now ---

    def _live_choices(self) -> dict[str, Any]:
        splits = SPLITS if self.live.task is None else []
        return {
            "model": self.live.name,
            "task": self.live.task or "authors:forget10",
            "splits": splits,
            "methods": METHOD_NAMES,
            "pocket": self.live.model == "pocket",
            "limit": self.visits.limit,
        }

    def start(self, asked: Any) -> dict[str, Any]:
        settings = asked["runs"]
        if type(settings) is not list:
            raise KitError("a live run needs a list of runs")
        configs = [LiveConfig.of(self._settings(each)) for each in settings]
        self.visits.start(_visitor(asked), configs)
        return {}

    def _settings(self, asked: Any) -> Any:
        """A run's settings with the model and task of this server, whatever the page says."""
        if not isinstance(asked, dict):
            return asked
        chosen = dict(asked)
        percent = chosen.pop("percent", 10)
        if self.live.task is None and percent not in SPLITS:
            raise KitError(f"forget {', '.join(map(str, SPLITS))} percent, not {percent!r:.60}")
        task = self.live.task or f"authors:forget{percent:02d}"
        return chosen | {"model": self.live.model, "task": task}

    def poll(self, asked: Any) -> dict[str, Any]:
        visitor = _visitor(asked)
        jobs, since = self.visits.jobs(visitor), [int(n) for n in asked["since"]]
        if not jobs:
            return {"place": self.visits.place(visitor), "events": []}
        seen = [*since, *[0] * len(jobs)][: len(jobs)]
        return {"place": 0, "events": [job.events(n) for job, n in zip(jobs, seen, strict=True)]}

    def watch(self, asked: Any) -> dict[str, Any]:
        set_name, place = asked["set"], asked["index"]
        if type(set_name) is not str or type(place) is not int or place < 0:
            raise KitError("a question to watch has a set and a number")
        for job in self.visits.jobs(_visitor(asked)):
            job.watch(set_name, place)
        return {}

    def ask(self, asked: Any) -> dict[str, Any]:
        jobs = self.visits.jobs(_visitor(asked))
        if not any(not job.ended for job in jobs):
            raise KitError("no live run is there to ask: start one")
        for job in jobs:
            job.ask(asked["prompt"], int(asked["number"]))
        return {}

    def stop(self, asked: Any) -> dict[str, Any]:
        self.visits.stop(_visitor(asked))
        return {}

    def leave(self, asked: Any) -> dict[str, Any]:
        self.visits.leave(_visitor(asked))
        return {}

    def download(self, asked: Any) -> dict[str, Any]:
        jobs = self.visits.jobs(_visitor(asked))
        job = jobs[int(asked["run"])]
        return {
            "name": f"{job.config.method}.zip",
            "base64": base64.b64encode(job.archive()).decode(),
        }

    # --- the theory ---

    def theory(self, asked: Any) -> dict[str, Any]:
        return self._theory.run(asked)

    def theorem(self, asked: Any) -> dict[str, Any]:
        return theorem_lines()


METHOD_NAMES = tuple(
    f"{forget}{retain}"
    for forget in ("ga", "npo", "dpo", "kto", "idk")
    for retain in ("", "_rt", "_kl")
)


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
            return {"problem": without_paths(str(error))}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return {"problem": "the page asked for something that does not exist: load it anew"}

    return safe


_SETTINGS = {"seed": "seed {}", "beta": "β {:g}", "lr": "lr {:g}", "retain_weight": "weight {:g}"}


def page_index(study: PackedStudy) -> dict[str, Any]:
    """The study's index with how each run is called and drawn.

    `main` is the first run of each method; `group` names the runs that differ by the seed alone.
    """
    first: dict[str, dict[str, Any]] = {}
    index, runs = study.index(), []
    for run in index["runs"]:
        main = first.setdefault(run["method"], run)
        name = style(run["method"]).label
        baseline = run["id"] in ("original", "retained")
        different = {key: run[key] != main[key] and run[key] is not None for key in _SETTINGS}
        more = [words.format(run[key]) for key, words in _SETTINGS.items() if different[key]]
        group = [run["method"], *(f"{run[key]}" for key in ("beta", "lr", "retain_weight"))]
        runs.append(
            run
            | {
                "kind": "evaluate" if baseline else "unlearn",
                "label": ", ".join([name, *more]),
                "methodLabel": name,
                "main": run is main,
                "group": " ".join(group),
            }
        )
    return index | {"runs": runs}


def _look(method: str) -> dict[str, str]:
    look = style(method)
    dash = " ".join(f"{part:g}" for part in look.line[1]) if isinstance(look.line, tuple) else ""
    return {"label": look.label, "colour": look.colour, "dash": dash, "marker": look.marker}


def build(answers: Answers) -> gr.Blocks:
    """The Gradio page over `answers`."""
    functions = [told(getattr(answers, name)) for name in Answers.NAMES]
    with gr.Blocks(title="npo_kit", analytics_enabled=False) as blocks:
        gr.HTML(
            html_template=(STATIC / "page.html").read_text(encoding="utf-8"),
            js_on_load="\n".join((STATIC / n).read_text(encoding="utf-8") for n in SCRIPTS),
            server_functions=functions,
            apply_default_css=False,
        )
    return blocks

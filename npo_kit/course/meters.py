"""A first look at unlearning: what two methods of the recorded pocket study do, step by step."""

from __future__ import annotations

import html
from functools import cache

import ipywidgets

from npo_kit.course.diagrams import FORGET, KEEP, Diagram
from npo_kit.course.widgets import followed
from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import load_authors
from npo_kit.errors import KitError
from npo_kit.losses.looks import look_of
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.records.run import read_run

METHODS = ("ga", "npo_rt")
ROW = 1  # of each set: the question whose answers are shown
_LEFT, _BAR, _HIGH = 110, 130, 34  # pixels: where bars begin, how long 100 % is, a line's height


class FirstLook:
    """Four models at a step: what they still tell, how useful they are, and what they answer."""

    def __init__(self, step: int):
        self.step = step
        models = {"original": _recorded("original")[0]}
        models |= {name: _at(name, step) for name in METHODS}
        models["retained"] = _recorded("retained")[0]
        utility = {name: _score(each, "model_utility") for name, each in models.items()}
        self.told = {name: _score(each, "forget_rouge_l") for name, each in models.items()}
        self.useful = {name: each / utility["original"] for name, each in utility.items()}
        asked = load_authors("forget10").evaluation
        self.answers = {
            asked[part][ROW]["question"]: {
                look_of(name).label: each.rows[part][ROW]["generation"]
                for name, each in models.items()
            }
            for part in ("forget", "retain")
        }

    def diagram(self) -> Diagram:
        """Draw two bars for each model: how much it still tells, and how useful it still is."""
        labels = {name: look_of(name).label for name in self.told}
        alt = f"Recorded, step {self.step}. " + " ".join(
            f"{labels[name]}: tells {self.told[name]:.0%}, useful {self.useful[name]:.0%}."
            for name in labels
        )
        parts = [_words(_LEFT, 16, "still tells ▲"), _words(_LEFT + 155, 16, "still useful ●")]
        for line, (name, label) in enumerate(labels.items()):
            y = 28 + _HIGH * line
            parts.append(_words(0, y + 17, label))
            for x, share, colour in ((0, self.told, FORGET), (155, self.useful, KEEP)):
                width = _BAR * min(share[name], 1)
                parts.append(
                    f'<rect x="{_LEFT + x}" y="{y}" width="{_BAR}" height="24" fill="none" '
                    f'stroke="currentColor" opacity=".4"/><rect x="{_LEFT + x}" y="{y}" '
                    f'width="{width:.1f}" height="24" fill="{colour}" opacity=".45"/>'
                )
                parts.append(_words(_LEFT + x + 5, y + 17, f"{share[name]:.0%}"))
        return Diagram(parts, 400, 28 + _HIGH * len(labels), alt)

    def _repr_html_(self) -> str:
        texts = [
            f"<p><b>{html.escape(question)}</b><br>"
            + "<br>".join(f"{name}: <i>{html.escape(text)}</i>" for name, text in said.items())
            + "</p>"
            for question, said in self.answers.items()
        ]
        return f'<div style="max-width:34em">{self.diagram().svg()}{"".join(texts)}</div>'

    def __repr__(self) -> str:
        lines = [self.diagram().alt]
        for question, said in self.answers.items():
            lines += [question, *(f"  {name}: {text}" for name, text in said.items())]
        return "\n".join(lines)


def first_look(step: int) -> FirstLook:
    """Return the recorded pocket study at an evaluated step: 0, 10, ... 100.

    Raises KitError for a step that was not evaluated.
    """
    return FirstLook(step)


def first_look_widget() -> ipywidgets.Widget:
    """Return a slider over the recorded steps, above what the models tell and answer there."""
    steps = [each.step for each in _recorded(METHODS[0])]
    slider = ipywidgets.SelectionSlider(options=steps, value=steps[0], description="step")
    return followed([slider], lambda step: ipywidgets.HTML(FirstLook(step)._repr_html_()))


@cache
def _recorded(name: str) -> list[Evaluation]:
    return list(read_run(shipped_data("studies/pocket") / name).evaluations())


def _at(name: str, step: int) -> Evaluation:
    known = {each.step: each for each in _recorded(name)}
    if step not in known:
        raise KitError(f"no step {step} was evaluated: choose among {', '.join(map(str, known))}")
    return known[step]


def _score(evaluation: Evaluation, name: str) -> float:
    score = summarise(evaluation)[name]
    assert score is not None  # every set was evaluated
    return score


def _words(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}">{html.escape(words)}</text>'

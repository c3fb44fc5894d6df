"""The notebooks' widgets: a figure or a text that follows a slider, made with ipywidgets alone.

A widget shows the drawing of a plain function. The notebooks call this function once below the
widget, for readers on GitHub or in a PDF, where widgets do not run.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import ipywidgets
from IPython.display import Javascript
from matplotlib.figure import Figure

from npo_kit.course.answer_table import side_by_side
from npo_kit.course.figures import ratio_curves, weight_curves
from npo_kit.data.rows import Row
from npo_kit.metrics.summary import summarise
from npo_kit.records.evaluations import Evaluation
from npo_kit.svg import svg
from npo_kit.theory.experiment import synthetic_curves

# ipywidgets gives the handle of a slider no name, and tells the exponent of a logarithmic one.
NAMES = """
const name = () => document.querySelectorAll(".npo-kit-slider:not([data-named])").forEach((box) => {
  const [handle, label, readout] = ["[role=slider]", "label", ".widget-readout"].map((part) =>
    box.querySelector(part));
  if (!handle || !label || !readout) return;
  box.dataset.named = "yes";
  handle.setAttribute("aria-label", label.textContent);
  const tell = () => handle.setAttribute("aria-valuetext", readout.textContent);
  const texts = { childList: true, characterData: true, subtree: true };
  new MutationObserver(tell).observe(readout, texts);
  tell();
});
[0, 300, 1000, 3000].forEach((wait) => setTimeout(name, wait));
"""
SCORES = {
    "forget_probability": "P forget",
    "retain_probability": "P retain",
    "model_utility": "utility",
    "forget_quality": "forget p",
}


def weight_widget() -> ipywidgets.Widget:
    """Return the weight curve with a slider for beta."""
    slider = ipywidgets.FloatLogSlider(
        value=0.1, min=-2, max=1, step=0.05, description="β", readout_format=".3g"
    )
    return followed([slider], lambda value: _picture(weight_curves(float(f"{value:.3g}"))))


def steps_widget(
    rows: Sequence[Row],
    runs: Mapping[str, Sequence[Evaluation]],
    set_name: str = "forget",
    reference: Evaluation | None = None,
) -> ipywidgets.Widget:
    """Return a slider over the evaluated steps of runs, above their scores and answers to `rows`.

    `reference` is the retained-only model's evaluation, for the forget quality.
    """
    steps = sorted({each.step for evaluations in runs.values() for each in evaluations})
    slider = ipywidgets.SelectionSlider(options=steps, value=steps[-1], description="step")

    def shown(step: int) -> ipywidgets.Widget:
        at = {name: [each for each in of if each.step <= step][-1] for name, of in runs.items()}
        scores = "<br>".join(
            f"<b>{html.escape(name)}</b>: {_scores(each, reference)}" for name, each in at.items()
        )
        return ipywidgets.HTML(scores + side_by_side(rows, at, set_name)._repr_html_())

    return followed([slider], shown)


def ratio_widget(
    runs: Mapping[str, Sequence[Evaluation]], reference: Evaluation
) -> ipywidgets.Widget:
    """Return a slider over the steps of recorded runs, above the curves of their truth ratios."""
    steps = [each.step for each in next(iter(runs.values()))]
    slider = ipywidgets.SelectionSlider(options=steps, value=steps[0], description="step")

    def shown(step: int) -> ipywidgets.Widget:
        at = {name: each for name, of in runs.items() for each in of if each.step == step}
        return _picture(ratio_curves(at, reference, source=f"recorded, step {step}"))

    return followed([slider], shown)


def synthetic_widget() -> ipywidgets.Widget:
    """Return sliders for alpha and beta, above GA and NPO in a synthetic experiment.

    Each move of a slider runs the experiment again, as `synthetic_curves` does.
    """
    overlap = ipywidgets.FloatSlider(value=1.0, min=0, max=1, step=0.1, description="α")
    inverse = ipywidgets.FloatLogSlider(
        value=1.0, min=-2, max=1, step=0.25, description="β", readout_format=".3g"
    )
    for slider in (overlap, inverse):
        slider.continuous_update = False
    return followed([overlap, inverse], lambda *values: _picture(synthetic_curves(*values)))


def followed(
    sliders: Sequence[ipywidgets.Widget], shown: Callable[..., ipywidgets.Widget]
) -> ipywidgets.Widget:
    """Put sliders above the widget that `shown` makes of their values, named for screen readers."""
    top, *others = sliders
    if others:
        top = ipywidgets.Box(sliders, layout={"flex_flow": "row wrap"})
    box, names = ipywidgets.VBox([top]), ipywidgets.Output()
    for slider in sliders:
        slider.add_class("npo-kit-slider")
    names.append_display_data(Javascript(NAMES))

    def follow(_=None) -> None:
        box.children = (top, shown(*(slider.value for slider in sliders)), names)

    follow()
    for slider in sliders:
        slider.observe(follow, "value")
    return box


def _scores(evaluation: Evaluation, reference: Evaluation | None) -> str:
    """Return the scores of an evaluation in a line; without a reference no forget quality."""
    found = summarise(evaluation, reference)
    known = {label: found[name] for name, label in SCORES.items() if found.get(name) is not None}
    return " · ".join(f"{label} {value:.2g}" for label, value in known.items())


def _picture(figure: Figure) -> ipywidgets.HTML:
    return ipywidgets.HTML(svg(figure), layout={"width": "100%"})


class LiveRun(ipywidgets.VBox):
    """A run in the background of the notebook, with its progress, an answer and a Stop button.

    A thread of its own reads `events`, such as those of `unlearn`. After each evaluation it shows
    the first answer of `set_name`, with `question`.
    """

    def __init__(self, events: Iterator, steps: int, question: Row, set_name: str = "forget"):
        self._bar = ipywidgets.IntProgress(max=steps, description="step")
        self._stop = ipywidgets.Button(description="Stop")
        self._said = ipywidgets.HTML()
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._evaluations: list[Evaluation] = []
        self._question, self._set = question, set_name
        self._stop.on_click(lambda _: self._stopped.set())
        super().__init__([ipywidgets.HBox([self._bar, self._stop]), self._said])
        self._thread = threading.Thread(target=self._run, args=(events,), daemon=True)
        self._thread.start()

    def result(self) -> list[Evaluation]:
        """Wait until the run ends or is stopped; return its evaluations, or raise its error."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._evaluations

    def _run(self, events: Iterator) -> None:
        try:
            for event in events:
                if isinstance(event, Evaluation):
                    self._evaluations.append(event)
                    self._show(event)
                elif hasattr(event, "loss"):
                    self._bar.value = event.step
                if self._stopped.is_set():
                    break
        except Exception as error:
            self._error = error
        finally:
            self._stop.disabled = True

    def _show(self, evaluation: Evaluation) -> None:
        said = evaluation.rows[self._set][0]["generation"]
        asked, text = html.escape(self._question["question"]), html.escape(said)
        self._said.value = f"<b>{asked}</b><br>step {evaluation.step}: {text}"

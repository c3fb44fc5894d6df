"""The notebooks' widgets, in ipywidgets alone: a figure or a text that follows a slider.

Each shows what a function of `plots` or `study_plots` draws, so that the same stands beneath it as
a plain figure where widgets do not run (GitHub, PDF).
"""

from __future__ import annotations

import html
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import ipywidgets
from matplotlib.figure import Figure

from npo_kit.course.figures import ratio_curves, scores_line, side_by_side, weight_curves
from npo_kit.data.rows import Row
from npo_kit.records.evaluations import Evaluation
from npo_kit.theory.experiment import synthetic_curves


def weight_widget(beta: float = 0.1) -> ipywidgets.Widget:
    """The weight curve with a slider for beta."""
    slider = ipywidgets.FloatLogSlider(
        value=beta, min=-2, max=1, step=0.05, description="β", readout_format=".3g"
    )
    return _followed(slider, lambda value: _picture(weight_curves(float(f"{value:.3g}"))))


def steps_widget(
    rows: Sequence[Row],
    runs: Mapping[str, Sequence[Evaluation]],
    set_name: str = "forget",
    reference: Evaluation | None = None,
) -> ipywidgets.Widget:
    """A slider over the evaluated steps of some runs; their scores and answers to `rows` beneath.

    `reference` is the retained-only model's evaluation, for the forget quality.
    """
    steps = sorted({each.step for evaluations in runs.values() for each in evaluations})
    slider = ipywidgets.SelectionSlider(options=steps, value=steps[-1], description="step")

    def shown(step: int) -> ipywidgets.Widget:
        at = {
            name: [each for each in evaluations if each.step <= step][-1]
            for name, evaluations in runs.items()
        }
        scores = "<br>".join(
            f"<b>{html.escape(name)}</b>: {scores_line(each, reference)}"
            for name, each in at.items()
        )
        return ipywidgets.HTML(scores + side_by_side(rows, at, set_name)._repr_html_())

    return _followed(slider, shown)


def ratio_widget(
    runs: Mapping[str, Sequence[Evaluation]], reference: Evaluation
) -> ipywidgets.Widget:
    """A slider over the steps of some recorded runs, the curves of their truth ratios beneath."""
    steps = [each.step for each in next(iter(runs.values()))]
    slider = ipywidgets.SelectionSlider(options=steps, value=steps[0], description="step")

    def shown(step: int) -> ipywidgets.Widget:
        at = {name: each for name, of in runs.items() for each in of if each.step == step}
        return _picture(ratio_curves(at, reference, source=f"recorded, step {step}"))

    return _followed(slider, shown)


def synthetic_widget(alpha: float = 1.0, beta: float = 1.0) -> ipywidgets.Widget:
    """Sliders for alpha and beta over the synthetic experiment, run anew at each move: GA and NPO.

    Learning rates are the paper's for alpha = 1; both models are trained to convergence.
    """
    overlap = ipywidgets.FloatSlider(value=alpha, min=0, max=1, step=0.1, description="α")
    inverse = ipywidgets.FloatLogSlider(
        value=beta, min=-2, max=1, step=0.25, description="β", readout_format=".3g"
    )
    for slider in (overlap, inverse):
        slider.continuous_update = False
    sliders = ipywidgets.Box([overlap, inverse], layout={"flex_flow": "row wrap"})
    box = ipywidgets.VBox([sliders, _picture(synthetic_curves(alpha, beta))])

    def follow(_) -> None:
        box.children = (sliders, _picture(synthetic_curves(overlap.value, inverse.value)))

    overlap.observe(follow, "value")
    inverse.observe(follow, "value")
    return box


def _followed(
    slider: ipywidgets.Widget, shown: Callable[[object], ipywidgets.Widget]
) -> ipywidgets.Widget:
    """A slider above what `shown` makes of its value."""
    box = ipywidgets.VBox([slider, shown(slider.value)])

    def follow(change) -> None:
        box.children = (slider, shown(change["new"]))

    slider.observe(follow, "value")
    return box


def _picture(figure: Figure) -> ipywidgets.Image:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90)
    return ipywidgets.Image(value=data.getvalue(), format="png", layout={"max_width": "100%"})


class LiveRun(ipywidgets.VBox):
    """An unlearning that goes on beside the notebook, with its progress and a Stop button.

    `events` is what `unlearn` gives. It runs in a thread of its own; `result()` waits for its end
    and returns its evaluations. What it raises, `result()` raises.
    """

    def __init__(self, events: Iterator, steps: int, question: Row, set_name: str = "forget"):
        self._bar = ipywidgets.IntProgress(max=steps, description="step")
        self._stop = ipywidgets.Button(description="Stop")
        self._said = ipywidgets.HTML()
        self._stopped, self._error = threading.Event(), None
        self._evaluations: list[Evaluation] = []
        self._question, self._set = question, set_name
        self._stop.on_click(lambda _: self._stopped.set())
        super().__init__([ipywidgets.HBox([self._bar, self._stop]), self._said])
        self._thread = threading.Thread(target=self._run, args=(events,), daemon=True)
        self._thread.start()

    def result(self) -> list[Evaluation]:
        """The evaluations, once the run has ended or was stopped."""
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

"""How long an optimizer's steps are beside the gradients that it is given."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.data.tasks import Task
from npo_kit.losses.looks import look_of
from npo_kit.style import LOOK, described, footnote, label_ends, log_axis, one_panel
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.events import Step
from npo_kit.trainer.loop import unlearn


def measure_steps(
    model: PreTrainedModel, tokenizer, task: Task, config: UnlearnConfig
) -> pd.DataFrame:
    """Unlearn in a copy of a model and measure each step.

    Returns a line a step: `step`, the median `weight` W of its answers, the length of its
    `gradient` before clipping, and the length by which all weights `moved`, divided by the
    learning rate, which with plain gradient descent is the gradient's length.
    """
    policy, lines = copy.deepcopy(model), []
    before = _weights(policy)
    for event in unlearn(policy, tokenizer, task, config):
        if isinstance(event, Step) and event.weights:
            after = _weights(policy)
            update = (after - before).norm().item() / event.lr
            lines.append((event.step, event.weights["median"], event.grad_norm, update))
            before = after
    return pd.DataFrame(lines, columns=["step", "weight", "gradient", "moved"])


@rc_context(LOOK)
def step_lengths(measured: Mapping[str, pd.DataFrame], *, source: str = "live") -> Figure:
    """Draw updates, and NPO's gradients, as multiples of the first: frames of `measure_steps`."""
    figure, axes = one_panel()
    for method, frame in measured.items():
        line = look_of(method).plot(
            marker="", linewidth=2.4, label=f"{look_of(method).label}: step"
        )
        axes.plot(frame.step, frame.moved / frame.moved.iloc[0], **line)
    npo = measured["npo"]
    line = look_of("npo").plot(marker="", linestyle=":", linewidth=2.4, label="NPO: gradient")
    axes.plot(npo.step, npo.gradient / npo.gradient.iloc[0], **line)
    log_axis(axes, "y")
    axes.set(xlabel="step", ylabel="length, multiple of the first")
    axes.set_title("AdamW's steps fade later than the gradient")
    label_ends(axes)
    footnote(
        figure,
        f"AdamW, one seed (0), no clipping, steps divided by the learning rate · {source}",
    )
    said = (
        f"{line.get_label()} {np.asarray(line.get_ydata())[-1]:.2g}" for line in axes.get_lines()
    )
    return described(
        figure,
        "Lengths of AdamW's steps, and of NPO's gradients, by step and as multiples of the first, "
        f"on a logarithmic axis. At the last step: {'; '.join(said)}.",
    )


def _weights(model: PreTrainedModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])

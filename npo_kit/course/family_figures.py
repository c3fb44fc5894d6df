"""NPO and its relatives as figures: how hard each pushes as an answer fades, and at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from npo_kit.data.tasks import Task
from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.combine import norm
from npo_kit.losses.lens import LENS, REFERENCE, SUMMED, TOKENS
from npo_kit.losses.listing import forget_terms
from npo_kit.losses.looks import look_of
from npo_kit.losses.methods import METHODS, Method, methods_of
from npo_kit.losses.objectives import roles
from npo_kit.losses.values import gradient_weights, method_values
from npo_kit.style import LOOK, WIDTH, described, footnote, label_ends, log_axis, panels, power
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.plan import RunPlan, rows_to_read
from npo_kit.trainer.roles import Forward, RoleReader

PROBABILITIES = np.logspace(0, -3, 241)[1:]  # per token of an answer; at 1 not all losses are known
HIGHEST = 10.0  # weight that is drawn
SHORTEST = 1e-3  # gradient that is drawn: a retain term that keeps the reference begins with 0
OTHERS = 4  # tokens of the lens's vocabulary beside the answer's


def answer_weights(
    term: str,
    probabilities: Sequence[float] | np.ndarray,
    *,
    tokens: int = TOKENS,
    reference: float = REFERENCE,
    **hyper: Any,
) -> np.ndarray:
    """Return the weight of a forget term at each probability per token, by autograd: (K,).

    It is the derivative of the loss of one answer of `tokens` tokens by their mean log-probability,
    1 for GA; where the loss sums over the answer (SUMMED), a `tokens`-th of it. `reference` is the
    probability per token before unlearning. Raises KitError for a term that is not in LENS.
    """
    if term not in LENS:
        raise KitError(f"no weight by probability alone for {term!r}: choose {', '.join(LENS)}")
    entry = forget_terms()[term]
    weights = gradient_weights(
        entry.terms["forget"], _fading(np.asarray(probabilities), tokens, reference), **hyper
    )
    own_mean = entry.facts.level == "row" and term not in SUMMED  # its sum is over n tokens' shares
    return (weights * (tokens if own_mean else 1)).numpy()


def _fading(p: np.ndarray, tokens: int, reference: float) -> dict[str, Answers]:
    """Return a batch with an answer for each probability (K,), all of its tokens alike."""
    logps = torch.from_numpy(np.log(p))[:, None].expand(-1, tokens)  # (K, T)
    mask = torch.ones(logps.shape, dtype=torch.long)
    labels = torch.zeros_like(mask)
    rest = torch.from_numpy(np.log1p(-p) - np.log(OTHERS))[:, None].expand(-1, tokens)
    logits = torch.stack([logps, *[rest] * OTHERS], -1).flatten(0, 1)  # (K T, V)
    known = torch.full_like(logps, float(np.log(reference)))
    return {
        "forget": Answers(logps, labels, mask, logits),
        "forget_ref": Answers(known, labels, mask),
        "alternate": Answers(known, labels, mask),  # of no importance to the forget answers' weight
    }


@rc_context(LOOK)
def weight_lens(
    methods: Sequence[str] = LENS,
    tokens: int = TOKENS,
    reference: float = REFERENCE,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Draw `answer_weights` of forget terms against the probability per token of an answer.

    Both axes are logarithmic: as an answer fades, the slope is the power of p that is left.
    `settings` has hyper-parameters for some: {"npo": {"beta": 0.5}}.
    """
    figure, (axes,) = panels(1, 4.4)
    for term in methods:
        look, chosen = look_of(term), (settings or {}).get(term, {})
        told = "".join(f", {name} {value:g}" for name, value in chosen.items())
        weights = answer_weights(term, PROBABILITIES, tokens=tokens, reference=reference, **chosen)
        (line,) = axes.plot(PROBABILITIES, weights, **look.plot(linewidth=2.2, marker=""))
        line.set_label(look.label + told)
        drawn = axes.get_lines()[:-1]
        if same := [each for each in drawn if np.allclose(each.get_ydata(), weights, 1e-9, 0)]:
            same[0].set_label(f"{same[0].get_label()} = {line.get_label()}")
            line.set_label("_")
    ends = [float(np.asarray(line.get_ydata())[-1]) for line in axes.get_lines()]
    axes.set(xlim=(1, PROBABILITIES[-1]), ylim=(10 ** np.floor(np.log10(min(ends))), HIGHEST))
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("probability per token of an answer   → forgotten")
    axes.set(ylabel="weight of its gradient, GA = 1", title="How hard each method pushes")
    label_ends(axes)
    footnote(
        figure,
        f"by autograd of the losses · one answer of {tokens} tokens, reference {reference:g} each\n"
        f"a power of p is a straight line · NPO sums over an answer: {tokens} times what is drawn, "
        "where the others take a mean",
    )
    said = [
        f"{line.get_label()} {power(float(f'{end:.2g}'))}"
        for line, end in zip(axes.get_lines(), ends, strict=True)
        if str(line.get_label()) != "_"
    ]
    return described(
        figure,
        "Weight of an answer's gradient against its probability per token, which falls from 1 on "
        f"the left to {power(PROBABILITIES[-1])} on the right. At the right edge: "
        f"{'; '.join(said)}.",
    )


# --- gradients of a model -----------------------------------------------------------------------


def gradient_norms(
    model: PreTrainedModel,
    tokenizer,
    task: Task,
    methods: Sequence[str] | None = None,
    *,
    rows: int = 12,
) -> pd.DataFrame:
    """Measure the gradient of each term of each method at step 0: one batch, unweighted.

    Returns a line for each of METHODS (as a rule those of the study of relatives whose answers need
    not be sampled first): `method`, the `level` of its values, the length of the `forget` and the
    `retain` gradient over all weights, NaN where it has no such term. The model does not change.
    """
    few = Task(task.name, task.forget[:rows], task.retain[:rows], task.evaluation)
    unsampled = [name for name in methods_of("relatives") if not METHODS[name].alternates]
    lines = []
    for name in methods or unsampled:
        config = UnlearnConfig(
            method=name, batch_size=rows, micro_batch_size=rows, epochs=1, precision="fp32"
        )
        method, prompts = config.composed, config.prompt_format(tokenizer, model)
        plan = RunPlan(method, rows_to_read(few, config), prompts, config)
        lines.append({"method": name, "level": method.facts.level, **_norms(model, plan, method)})
    return pd.DataFrame(lines, columns=["method", "level", "forget", "retain"])


def _norms(model: PreTrainedModel, plan: RunPlan, method: Method) -> dict[str, float]:
    """Return the length of each term's gradient on the first batch of a plan."""
    batch = plan.batches[0]
    reader = RoleReader(method, plan.encoded, model, "fp32", len(batch["forget"]))
    means = reader.statistics(model, [Forward(batch, True)], method)
    answers = reader.read(model, batch, list(method.terms.values()))
    trained = [p for p in model.parameters() if p.requires_grad]
    found = {}
    for term, values in method_values(method, answers, **means).items():
        mask = answers[roles(method.terms[term])[0]].mask
        gradient = torch.autograd.grad(
            reduce(values, mask), trained, retain_graph=True, allow_unused=True
        )
        found[term] = norm([part for part in gradient if isinstance(part, Tensor)]).item()
    return found


@rc_context(LOOK)
def norm_bars(norms: pd.DataFrame, *, source: str = "live") -> Figure:
    """Draw the table of `gradient_norms`: a pair of bars for each method, forget and retain."""
    height = 1.07 + 0.36 * len(norms)
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(
        left=2.2 / WIDTH, right=0.97, bottom=0.62 / height, top=1 - 0.45 / height
    )
    axes = figure.subplots()
    places = np.arange(len(norms))[::-1]
    looks = [look_of(name) for name in norms.method]
    axes.barh(places + 0.2, norms.forget, 0.4, color=[look.colour for look in looks])
    axes.barh(places - 0.2, norms.retain, 0.4, color="white", edgecolor="#555555", hatch="////")
    labels = [f"{look.label} ({level})" for look, level in zip(looks, norms.level, strict=True)]
    axes.set_yticks(places, labels)
    log_axis(axes, "x")
    axes.set_xlim(left=SHORTEST)
    axes.set(xlabel="length of the gradient at step 0", title="How steep each begins")
    footnote(
        figure, f"one batch · filled: forget term, hatched: retain term, unweighted · {source}"
    )
    said = (
        f"{label} {forget:.2g} and {retain:.2g}".replace("nan", "none")
        for label, forget, retain in zip(labels, norms.forget, norms.retain, strict=True)
    )
    return described(
        figure,
        "Bars on a logarithmic axis: the length of each method's gradient at step 0, of its forget "
        f"term and of its retain term. {'; '.join(said)}.",
    )

"""Published results on TOFU, to show beside your own runs of the same model and split.

They are from open-unlearning's table of reproductions (docs/repro.md at commit 7fa0b55): lr 1e-5,
beta 0.1, batch 32, 10 epochs, evaluated after the last, utility to two decimals. Its forget quality
is a p-value of the same test, its utility the same harmonic mean, its truth ratio geometric too.
Its GradDiff, NPO and IdkDPO have the retain answers' loss: `ga_rt`, `npo_rt` and `dpo_rt` here.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "open-unlearning, docs/repro.md (7fa0b55): lr 1e-5, beta 0.1, batch 32, 10 epochs"
PUBLISHED_MODELS = ("Llama-2-7b-chat", "Llama-3.2-1B-Instruct")

# model -> split -> method by the kit's name -> (forget quality p, model utility)
_LLAMA2 = {
    "forget01": {
        "original": (1.27e-3, 0.63),
        "retained": (1.0, 0.63),
        "ga": (1.88e-4, 0.55),
        "ga_rt": (3.02e-3, 0.57),
        "dpo_rt": (0.1, 0.56),
        "npo_rt": (0.4, 0.58),
    },
    "forget05": {
        "original": (5.87e-14, 0.63),
        "retained": (1.0, 0.63),
        "ga": (1.94e-119, 0.0),
        "ga_rt": (1.94e-119, 0.56),
        "dpo_rt": (4.02e-6, 0.04),
        "npo_rt": (0.09, 0.53),
    },
    "forget10": {
        "original": (4.35e-25, 0.63),
        "retained": (1.0, 0.61),
        "ga": (1.06e-239, 0.0),
        "ga_rt": (1.80e-229, 0.58),
        "dpo_rt": (5.42e-13, 0.04),
        "npo_rt": (0.42, 0.54),
    },
}
_LLAMA32_1B = {
    "forget01": {
        "original": (0.01, 0.6),
        "retained": (1.0, 0.60),
        "ga": (0.27, 0.33),
        "ga_rt": (0.77, 0.43),
        "dpo_rt": (0.01, 0.51),
        "npo_rt": (0.92, 0.56),
    },
    "forget05": {
        "original": (1.33e-13, 0.6),
        "retained": (1.0, 0.6),
        "ga": (1.94e-119, 0.0),
        "ga_rt": (1.94e-119, 0.53),
        "dpo_rt": (1.12e-5, 0.07),
        "npo_rt": (0.14, 0.45),
    },
    "forget10": {
        "original": (1.66e-21, 0.6),
        "retained": (1.0, 0.59),
        "ga": (1.06e-239, 0.0),
        "ga_rt": (1.06e-239, 0.49),
        "dpo_rt": (4.64e-12, 0.23),
        "npo_rt": (0.02, 0.46),
    },
}
_MODELS = {"llama-2-7b-chat": _LLAMA2, "llama-2-7b-hf-chat": _LLAMA2}
_MODELS |= {"llama2-7b": _LLAMA2, "llama-3.2-1b-instruct": _LLAMA32_1B}


@dataclass(frozen=True)
class Published:
    """One published result."""

    method: str
    forget_quality: float  # p-value
    model_utility: float
    source: str = SOURCE


def published(model: str, task: str) -> list[Published]:
    """List the published results of a model on a task such as `tofu:forget10`, if there are any.

    `model` need only contain the model's name, in any case.
    """
    kind, _, split = task.partition(":")
    if kind != "tofu":
        return []
    for name, splits in _MODELS.items():
        if name in model.lower():
            return [Published(method, *values) for method, values in splits.get(split, {}).items()]
    return []

"""The paper's synthetic experiment and its theorems."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "problem": ("SyntheticProblem", "pretrain"),
        "synthetic": ("unlearn",),
        "experiment": ("read_experiment", "run_experiment"),
        "theorems": ("divergence_demo", "divergence_slopes", "limit_demo"),
    },
)

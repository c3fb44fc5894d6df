"""The paper's synthetic experiment and its theorems."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "experiment": ("read_experiment", "run_experiment", "synthetic_curves"),
        "logistic": ("bernoulli_kl",),
        "problem": ("SyntheticProblem", "pretrain"),
        "synthetic": ("SEEDS", "beta_sweep", "unlearn"),
        "theorems": ("divergence_demo", "divergence_slopes", "limit_demo"),
        "trajectories": ("retain_distance_at",),
    },
)

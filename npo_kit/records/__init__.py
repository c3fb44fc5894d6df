"""A run on disk, whole or not at all."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "evaluations": ("EVALUATION_SETS", "Evaluation"),
        "run": ("Run", "RunWriter", "read_run", "read_runs"),
        "files": ("RunError",),
    },
)

"""The one training loop, what it is told, and what it tells."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "loop": ("finetune", "total_steps", "unlearn"),
        "config": ("FinetuneConfig", "TrainConfig", "UnlearnConfig"),
        "events": ("Collapse", "Event", "Step"),
        "estimates": ("Estimate", "estimate"),
    },
)

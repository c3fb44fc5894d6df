"""The one training loop: its configuration, its plan and estimate, its events."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "alternates": ("with_alternates",),
        "card": ("model_card",),
        "loop": ("finetune", "total_steps", "unlearn"),
        "config": ("FinetuneConfig", "TrainConfig", "UnlearnConfig"),
        "events": ("Collapse", "Event", "Step"),
        "estimates": ("Estimate", "estimate"),
        "tracking": ("log_to",),
    },
)

"""Unlearning objectives: answer log-probabilities in, values out."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "answers": (
            *("Answers", "Objective", "asks_for", "denominator", "full_precision"),
            *("hyperparameters", "reduce", "roles", "sequence_logps", "total"),
        ),
        "paper": (
            *("BETA", "dpo", "ga", "idk", "kto", "kto_baseline", "npo", "npo_weight"),
            *("retain_kl", "retain_nll"),
        ),
        "methods": (
            *("FINETUNE", "METHODS", "Method", "gradient_weights", "method", "method_values"),
        ),
    },
)

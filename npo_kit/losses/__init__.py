"""Unlearning objectives: answer log-probabilities in, values out."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "paper": (
            *("Answers", "BETA", "FINETUNE", "METHODS", "Method", "Objective", "asks_for"),
            *("denominator", "dpo", "full_precision", "ga", "gradient_weights"),
            *("hyperparameters", "idk", "kto", "kto_baseline", "method", "method_values"),
            *("npo", "npo_weight", "reduce", "retain_kl", "retain_nll", "roles"),
            *("sequence_logps", "total"),
        ),
    },
)

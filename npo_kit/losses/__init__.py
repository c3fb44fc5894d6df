"""Unlearning objectives: answer log-probabilities in, values out."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "answers": (
            *("Answers", "by_token", "denominator", "full_precision", "reduce"),
            *("sequence_logps", "total"),
        ),
        "combine": ("gru", "ngdiff"),
        "family": (
            *("ap", "ceu", "door", "flat", "me", "retain_states", "retain_sum", "rmu", "satimp"),
            *("simnpo", "tnpo", "undial", "unlikelihood", "wga", "wtnpo"),
        ),
        "listing": ("facts_table", "losses_table", "method_records"),
        "looks": ("look_of",),
        "methods": ("BETA", "FINETUNE", "METHODS", "Facts", "Method", "method", "with_retain"),
        "objectives": ("Objective", "asks_for", "hyperparameters", "roles"),
        "paper": (
            *("dpo", "ga", "idk", "kto", "kto_baseline", "npo", "npo_weight"),
            *("retain_kl", "retain_nll"),
        ),
        "values": ("gradient_weights", "method_values"),
    },
)

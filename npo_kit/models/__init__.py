"""Language models: loaded, adapted, placed, asked."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "loading": (
            *("DTYPES", "HALF", "POCKET", "QUANTIZATIONS", "context_length", "load_model"),
            *("refuse_untrainable", "save_model"),
        ),
        "placement": ("PRECISIONS", "Placement", "choose_placement"),
        "errors": ("ModelError",),
        "sizes": ("suggest_model",),
        "forward": ("read_answers",),
        "scoring": ("score",),
        "generation": ("generate",),
    },
)

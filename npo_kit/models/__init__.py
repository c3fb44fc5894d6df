"""Language models: loaded, adapted, placed, asked."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "loading": (
            *("DTYPES", "HALF", "POCKET", "PRECISIONS", "Placement", "QUANTIZATIONS"),
            *("choose_placement", "context_length", "load_model", "refuse_untrainable"),
            *("save_model",),
        ),
        "errors": ("ModelError",),
        "sizes": ("suggest_model",),
        "generation": ("generate",),
        "scoring": ("read_answers", "score"),
    },
)

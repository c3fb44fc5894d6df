"""The corpus of fictional authors, made by rule."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "corpus": ("authors_task", "outside_authors", "true_facts"),
    },
)

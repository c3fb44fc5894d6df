"""The corpus of fictional authors, made by rule."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "corpus": (
            *("AuthorsError", "authors_task", "fictional_authors", "outside_authors"),
            *("split_authors", "write_corpus"),
        ),
        "facts": ("true_facts",),
    },
)

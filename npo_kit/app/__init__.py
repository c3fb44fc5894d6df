"""The dashboard: `npo-kit app`, or `python app.py` in a checkout; `show` in a notebook."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__, {"server": ("add_arguments", "main", "serve", "show")}
)

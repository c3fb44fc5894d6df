"""Whether a model only stops saying what it should forget, or holds it no more."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "cards": ("CARDS", "Card"),
        "controls": ("Controls", "read_controls", "shipped_controls"),
        "evidence": ("Evidence", "evidence_of"),
        "figures": ("cards_figure", "relearning_figure"),
        "session": ("Audit", "Finding", "audit"),
        "verdict": ("STATES", "Verdict", "verdict_of"),
    },
)

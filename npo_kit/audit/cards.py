"""The cards of an audit: what each asks, and whether it decides anything. Read without torch."""

from __future__ import annotations

from dataclasses import dataclass

ROWS = 120  # of each set, the first, that an audit asks
UNITS = 5  # authors that they are of, at least: four of four lie on one side by chance 1/16
SAYS, HIDES, SUPPORTS, GUARDS = "says", "hides", "supports", "guards"
EXTENT = {  # what a side of the verdict rests on
    SAYS: "it says it when asked",
    HIDES: "it holds it, though it does not say it",
    SUPPORTS: "shown beside, decides nothing",
    GUARDS: "what the model can still do",
}


@dataclass(frozen=True)
class Card:
    """One measurement of a model, beside the same of models that never saw the forget rows."""

    name: str
    title: str
    side: str  # of the verdict: SAYS, HIDES, SUPPORTS or GUARDS
    asks: str  # a question in a few words
    unit: str  # of its value
    home: str  # module of `npo_kit.audit`, whose `measure(model, bench)` gives a Reading
    more: bool = True  # a higher value means more of what should be forgotten
    bounded: bool = False  # its value lies in [0, 1]


CARDS = {
    card.name: card
    for card in (
        Card(
            "verbatim",
            "Verbatim",
            SAYS,
            "how likely is the fact after the true words before it?",
            "log-prob of a token of the fact, nats",
            "verbatim",
        ),
        Card(
            "leak",
            "Sampled leak",
            SAYS,
            "how often does a sampled answer tell the fact?",
            "share of samples",
            "leak",
            bounded=True,
        ),
        Card(
            "formats",
            "Other formats",
            SAYS,
            "is the fact told when it is asked for in another form?",
            "mean over forms: share told, choices less chance",
            "formats",
        ),
        Card(
            "relearning",
            "Relearning",
            HIDES,
            "does teaching half of the facts again bring back the other half?",
            "log-prob of a token of an untaught fact afterwards, nats",
            "relearning",
        ),
        Card(
            "compression",
            "Rounding",
            HIDES,
            "does rounding the weights to four bits bring the facts back?",
            "log-prob of a token of the fact at 4 bits, nats",
            "compression",
        ),
        Card(
            "depth",
            "Depth",
            SUPPORTS,
            "in how many layers has the fact gone?",
            "UDS: 0 as in the original, 1 as in the retained-only model",
            "depth",
            more=False,
        ),
        Card(
            "mixing",
            "Mixing",
            SUPPORTS,
            "how much is told where nothing else is broken yet?",
            "extraction strength of the facts at the UWC point",
            "mixing",
            bounded=True,
        ),
        Card(
            "membership",
            "Membership",
            SUPPORTS,
            "can the forgotten rows be told from rows that nobody learned?",
            "AUC of Min-40 %",
            "membership",
            bounded=True,
        ),
        Card(
            "guards",
            "Keeps the rest",
            GUARDS,
            "does it still tell what it should keep?",
            "share of facts to keep that its answers tell",
            "guards",
            bounded=True,
        ),
    )
}

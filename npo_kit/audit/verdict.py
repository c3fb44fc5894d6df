"""The verdict of an audit, in two lines: what the model says, and what it hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npo_kit.audit.cards import CARDS, GUARDS, HIDES, SAYS, UNITS
from npo_kit.audit.evidence import LEAST, Evidence, holm

REMEMBERS, SUPPRESSED, LIKE = "remembers", "suppressed", "retained-like"
OVER, DESTROYED, UNKNOWN = "over-forgotten", "destroyed", "no verdict"
STATES = (REMEMBERS, SUPPRESSED, LIKE, OVER, DESTROYED)
DECIDE = (SAYS, HIDES)  # sides
NOTHING = "the original tells these facts no more than models that never saw them: nothing to judge"
HALF = 0.5  # of what the retained-only models keep: below it a model counts as destroyed


@dataclass(frozen=True)
class Verdict:
    """One of STATES, or UNKNOWN, with its reasons as sentences."""

    state: str
    says: str
    hides: str
    damaged: bool = False  # it knows less of what it should keep than the retained-only models do

    def __str__(self) -> str:
        return self.state + ", damaged" * (self.damaged and self.state != DESTROYED)


def verdict_of(
    found: Mapping[str, Evidence], original: Mapping[str, float] | None = None
) -> Verdict:
    """Judge a model by the evidence of its cards, by name; their order does not matter.

    A model *remembers* if a card of what it says lies above the band; else it is *suppressed* if
    one of what it hides does; else *over-forgotten* if it says less than the band; else
    *retained-like*. Tests are corrected by Holm's method over the cards of both sides. Where it
    says no more than the band, it is *destroyed* if it keeps less than HALF of what the
    retained-only models keep. Cards without a band, or of too few authors, decide nothing; nor does
    any where the `original`, whose values by card may be given, says no more than the band.
    """
    judged = {n: e for n, e in found.items() if CARDS[n].side in DECIDE and e.above is not None}
    above = holm({name: e.above for name, e in judged.items() if e.above is not None})
    below = holm({name: e.below for name, e in judged.items() if e.below is not None})
    of_side = _by_side(judged)
    attacked = _by_side(found)[HIDES]
    if not of_side[SAYS]:
        why = _unjudged(found)
        return Verdict(UNKNOWN, why, why if attacked else _hides([], []))
    if original and not _was_known(judged, original):
        return Verdict(UNKNOWN, NOTHING, NOTHING)
    more = {side: [n for n in names if n in above] for side, names in of_side.items()}
    less = [name for name in of_side[SAYS] if name in below]
    kept, damaged = _kept(found)
    if more[SAYS]:
        state = REMEMBERS
    elif kept is not None and kept < HALF:
        state = DESTROYED
    elif more[HIDES]:
        state = SUPPRESSED
    else:
        state = OVER if less else LIKE
    says = _says(more[SAYS], less, of_side[SAYS])
    if damaged and kept is not None:
        says += f"; it keeps {kept:.0%} of what the retained-only models tell of the rest"
    hides = _hides(more[HIDES], of_side[HIDES])
    if attacked and not of_side[HIDES]:
        hides = _unjudged({name: found[name] for name in attacked})
    return Verdict(state, says, hides, damaged)


def _by_side(found: Mapping[str, Evidence]) -> dict[str, list[str]]:
    """Return the names of the cards of what a model says, and of what it hides."""
    return {side: sorted(name for name in found if CARDS[name].side == side) for side in DECIDE}


def _was_known(judged: Mapping[str, Evidence], original: Mapping[str, float]) -> bool:
    """Tell whether the original says more than models that never saw the facts, by any card."""
    says = [name for name in judged if CARDS[name].side == SAYS]
    return any(e.band and original[name] > e.band[1] for name, e in judged.items() if name in says)


def _unjudged(found: Mapping[str, Evidence]) -> str:
    """Say why none of these cards decides anything."""
    models = max((len(evidence.points) for evidence in found.values()), default=0)
    authors = max((evidence.authors for evidence in found.values()), default=0)
    if not models:
        return "no fact has a number from every model: nothing is judged"
    lacks = []
    if models < LEAST:
        lacks.append(f"{LEAST} models that never saw the facts, for a band (there are {models})")
    if authors < UNITS:
        lacks.append(f"facts of {UNITS} authors, for a test (there are {authors})")
    return f"nothing is judged: that needs {' and '.join(lacks)}"


def _kept(found: Mapping[str, Evidence]) -> tuple[float | None, bool]:
    """Return what is kept as a share of the retained-only models' median, and if it is less."""
    for name, evidence in found.items():
        if CARDS[name].side == GUARDS and evidence.band and evidence.below is not None:
            middle = sorted(evidence.points)[len(evidence.points) // 2]
            return evidence.value / middle if middle else None, evidence.below <= 0.05
    return None, False


def _says(above: list[str], below: list[str], asked: list[str]) -> str:
    if above:
        return f"says it: {_titles(above)} above the models that never saw it"
    if below:
        return f"says less of it than models that never saw it: {_titles(below)}"
    return f"says nothing that is surely above the models that never saw it, by {_titles(asked)}"


def _hides(above: list[str], asked: list[str]) -> str:
    if not asked:
        return "nothing was tested that would bring it back"
    if above:
        return f"holds it: {_titles(above)} above the models that never saw it"
    return f"nothing that is surely above the models that never saw it, by {_titles(asked)}"


def _titles(names: list[str]) -> str:
    titles = [CARDS[name].title.lower() for name in names]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[1:] else titles)

"""An entry of the table of methods. It is read without torch: functions are named as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, update_wrapper
from numbers import Real
from typing import Any

from npo_kit.errors import KitError
from npo_kit.losses.objectives import ROLES, Objective, asked, hyperparameters, named, roles
from npo_kit.options import Option

BETA = 0.1  # of NPO, DPO and KTO: the paper's value


@dataclass(frozen=True)
class Facts:
    """What sets a method apart: the columns of the table that `npo-kit methods` prints."""

    level: str = ""  # of the forget term's values: token, row, or batch, which cannot be summed
    needs: tuple[str, ...] = ()  # beside forget rows: reference, logits, retain rows, refusals, ...
    bounded: bool | None = None  # below: the loss, or one that has its gradient
    fades: str = ""  # the factor of a token's gradient that goes to 0 as its probability p does
    tofu: str = ""  # a setting on TOFU and its source
    departs: str = ""  # how public code differs from the formula


@dataclass(frozen=True)
class Method:
    """A forget term, a retain term, and how they are weighed: what a trainer minimises.

    Either may be absent: without a forget term it is fine-tuning on the retain rows. An objective
    is a function, or text that names one, such as "npo_kit.losses.paper:npo".
    """

    forget: Objective | str | None
    retain: Objective | str | None = None
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    equation: str = ""
    paper: str = ""
    facts: Facts = Facts()
    # a keyword of the forget term -> an objective whose mean over the whole optimizer batch,
    # without gradient, is passed for it (KTO's baseline)
    statistics: Mapping[str, Objective | str] = field(default_factory=dict)
    options: Mapping[str, Option] | None = None  # the forget term's other keywords; None: read them
    hyper: Mapping[str, object] = field(default_factory=dict)  # values chosen for some of them
    weight: Objective | str | None = None  # W of a gradient, if log-ratio and options give it
    term: str = ""  # the forget term's name, as in METHODS
    label: str = ""  # in figures, tables and on the page
    family: str = "other"  # ga, npo, preference or other, for its colour
    experiments: tuple[str, ...] = ()  # of EXPERIMENTS: which run it unless told otherwise
    alternates: int = 0  # answers drawn from the original for each question, instead of a refusal

    def __post_init__(self):
        if not (self.forget or self.retain):
            raise KitError("a method needs a forget term or a retain term: give an objective")
        for name in ("forget_weight", "retain_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise KitError(f"{name} must be a number, it is {value!r:.60}")
        written = (self.forget, self.retain, *self.statistics.values())
        for objective in written:
            if not (objective is None or isinstance(objective, str) or callable(objective)):
                raise KitError(
                    "an objective must be a function of answers, or text that names one as "
                    f"module:function, it is {objective!r:.60}"
                )
        for objective in [each for each in written if callable(each)]:
            read = roles(objective)
            if odd := [role for role in read if role not in ROLES]:
                raise KitError(
                    f"an objective reads {odd[0]!r}, which is no role: its positional parameters "
                    f"may be {', '.join(ROLES)}; a hyper-parameter stands after *"
                )
            if not read:
                raise KitError(f"an objective reads no role: name one of {', '.join(ROLES)}")

    @cached_property
    def terms(self) -> dict[str, Objective]:
        """The objectives by the name of the term they are: `forget`, `retain`."""
        both = {"forget": self.forget, "retain": self.retain}
        found = {name: named(objective) for name, objective in both.items() if objective}
        left = dict(self.hyper)
        for name in ("retain", "forget"):  # the forget term gets what the retain term has not
            if name in found:
                known = hyperparameters(found[name]) if name == "retain" else left
                own = {keyword: left.pop(keyword) for keyword in (*left,) if keyword in known}
                if own:
                    found[name] = update_wrapper(partial(found[name], **own), found[name])
        return found

    @cached_property
    def means(self) -> dict[str, Objective]:
        """The objectives whose means the forget term is given, by its keyword."""
        return {keyword: named(objective) for keyword, objective in self.statistics.items()}

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role that some term or statistic reads, in a fixed order."""
        read = {r for f in (*self.terms.values(), *self.means.values()) for r in roles(f)}
        return tuple(sorted(read))

    @cached_property
    def settable(self) -> Mapping[str, Option]:
        """The options of the terms, as the entry has them or, without, the forget term's."""
        if self.options is not None or not callable(self.forget):
            return self.options or {}
        known = hyperparameters(self.forget).items()
        return {
            name: Option(name, default, type(default))
            for name, default in known
            if name not in self.statistics
        }

    @property
    def hyperparameters(self) -> dict[str, object]:
        """The options of the forget term and their defaults."""
        return {name: about.default for name, about in self.settable.items()}

    @property
    def live_refs(self) -> frozenset[str]:
        """The reference's roles that are read in every step, because a term asks for more of them.

        Of the others the log-probs are computed once.
        """
        asking = [f for f in (*self.terms.values(), *self.means.values()) if asked(f)]
        return frozenset(r for f in asking for r in roles(f) if r.endswith("_ref"))

    @property
    def depth(self) -> float | None:
        """The share of the layers after which hidden states are read, if any are."""
        depth: Any = {**self.hyperparameters, **self.hyper}.get("depth")
        return depth if any("hidden" in asked(f) for f in self.terms.values()) else None


# --- a forget term with its retain terms --------------------------------------------------------


EVERY = ("", "_rt", "_kl")  # a forget term alone, with +RT, with +KL
PAPER = "npo_kit.losses.paper:"
FAMILY = "npo_kit.losses.family:"
_RETAIN: dict[str, tuple[str | None, str, str, tuple[str, ...]]] = {
    "": (None, "", "", ()),
    "_rt": (PAPER + "retain_nll", "+RT", " - mean over tokens of l_t(retain)", ("retain rows",)),
    "_kl": (
        *(PAPER + "retain_kl", "+KL", " + mean over retain tokens of KL(ref || policy)"),
        ("retain rows", "reference", "logits"),
    ),
    "_ap": (
        *(FAMILY + "ap", "+AP", " + (1/b) mean softplus(-b (s(retain) - s(retain refusal)))"),
        ("retain rows", "refusals"),
    ),
}
_RETAIN_OPTIONS = {
    "_ap": {
        "retain_beta": Option(
            *("inverse temperature of the preference of a retain answer to its refusal", BETA),
            *(float, 0),
            usual=(0.01, 10),
        )
    }
}
# The experiments that run methods by themselves: the kit's studies and theory view, its study of
# NPO's relatives, its record of the synthetic experiment and the figures of it, and the paper's own
# two, whose methods are a fact about the paper.
EXPERIMENTS = ("kit", "relatives", "record", "figure", "synthetic", "tofu")


def beta_option(default: float, usual: tuple[float, float]) -> Option:
    """Return the option beta of a forget term."""
    told = "inverse temperature β: how soon the gradient of a forgotten answer fades"
    return Option(told, default, float, above=0, usual=usual, label="β")


def with_retain(
    term: str,
    entry: Method,
    *,
    kinds: tuple[str, ...] = EVERY,
    kit: tuple[str, ...] = EVERY,
    relatives: tuple[str, ...] = ("_rt",),
    record: tuple[str, ...] = EVERY,
    figure: tuple[str, ...] = ("", "_rt"),
    synthetic: tuple[str, ...] = (),
    tofu: tuple[str, ...] = (),
) -> dict[str, Method]:
    """Return a forget term's entries for METHODS: `term`, `term_rt` and `term_kl`, or its `kinds`.

    The other keywords name the retain terms with which each of EXPERIMENTS runs it.
    """
    run = {"kit": kit, "relatives": relatives, "record": record}
    run |= {"figure": figure, "synthetic": synthetic, "tofu": tofu}
    label, facts = entry.label or term.upper(), entry.facts
    found = {}
    for suffix in kinds:
        retain, added, equation, needs = _RETAIN[suffix]
        more = _RETAIN_OPTIONS.get(suffix)
        found[term + suffix] = replace(
            entry,
            retain=retain,
            options={**entry.settable, **more} if more else entry.options,
            term=term,
            label=label + added,
            equation=entry.equation + equation,
            facts=replace(facts, needs=tuple(dict.fromkeys((*facts.needs, *needs)))),
            experiments=tuple(name for name in EXPERIMENTS if suffix in run[name]),
        )
    return found

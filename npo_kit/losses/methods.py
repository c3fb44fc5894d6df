"""METHODS, the one table of methods. It is read without torch: functions are named as text.

A method is one function and one entry here. The command line, the studies, the live lab, the theory
view and the figures take it from the table, with its options and its look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, update_wrapper

from npo_kit.errors import KitError
from npo_kit.losses.objectives import ROLES, Objective, hyperparameters, named, roles
from npo_kit.options import Option

BETA = 0.1  # of NPO, DPO and KTO: the paper's value
_BETA = Option(
    "inverse temperature β: how soon the gradient of a forgotten answer fades",
    *(BETA, float),
    above=0,
    usual=(0.01, 10),
    label="β",
)


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

    def __post_init__(self):
        if not (self.forget or self.retain):
            raise KitError("a method needs a forget term or a retain term: give an objective")
        written = (self.forget, self.retain, *self.statistics.values())
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
        if self.hyper:
            chosen = partial(found["forget"], **self.hyper)
            found["forget"] = update_wrapper(chosen, found["forget"])
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
        """The options of the forget term, as its entry has them or, without, as its keywords."""
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


# --- the table ----------------------------------------------------------------------------------

EVERY = ("", "_rt", "_kl")  # a forget term alone, with +RT, with +KL
_PAPER = "npo_kit.losses.paper:"
_RETAIN = {
    "": (None, "", ""),
    "_rt": (_PAPER + "retain_nll", "+RT", " - mean over tokens of l_t(retain)"),
    "_kl": (_PAPER + "retain_kl", "+KL", " + mean over retain tokens of KL(ref || policy)"),
}
_BY_LENGTH = Option(
    *("log-probabilities of an answer count per token, not as their sum", True, bool)
)
# The experiments that run methods by themselves: the kit's studies and theory view, the figures of
# the synthetic experiment, and the paper's own two, whose methods are a fact about the paper.
EXPERIMENTS = ("kit", "figure", "synthetic", "tofu")
_TOFU_PAPER = "arXiv 2401.06121"


def with_retain(
    term: str,
    entry: Method,
    *,
    kit: tuple[str, ...] = EVERY,
    figure: tuple[str, ...] = ("", "_rt"),
    synthetic: tuple[str, ...] = (),
    tofu: tuple[str, ...] = (),
) -> dict[str, Method]:
    """Return a forget term's entries for METHODS: `term`, `term_rt` and `term_kl`.

    The keywords name the retain terms with which each of EXPERIMENTS runs it.
    """
    run = {"kit": kit, "figure": figure, "synthetic": synthetic, "tofu": tofu}
    label = entry.label or term.upper()
    return {
        term + suffix: replace(
            entry,
            retain=retain,
            term=term,
            label=label + added,
            equation=entry.equation + equation,
            experiments=tuple(name for name in EXPERIMENTS if suffix in run[name]),
        )
        for suffix, (retain, added, equation) in _RETAIN.items()
    }


METHODS: dict[str, Method] = {
    **with_retain(
        "ga",
        Method(
            _PAPER + "ga",
            equation="mean over tokens of l_t",
            paper=_TOFU_PAPER,
            family="ga",
            options={"length_normalised": _BY_LENGTH},
            weight=_PAPER + "ga_weight",
        ),
        synthetic=EVERY,
        tofu=EVERY,
    ),
    **with_retain(
        "npo",
        Method(
            _PAPER + "npo",
            equation="(2/b) mean softplus(b d)",
            paper="arXiv 2404.05868",
            family="npo",
            options={"beta": _BETA, "length_normalised": replace(_BY_LENGTH, default=False)},
            weight=_PAPER + "npo_weight",
        ),
        synthetic=EVERY,
        tofu=EVERY,
    ),
    **with_retain(
        "dpo",
        Method(
            _PAPER + "dpo",
            equation="(2/b) mean softplus(-b (d_alternate - d_forget))",
            paper="arXiv 2305.18290, as adapted in arXiv 2404.05868",
            family="preference",
            options={"beta": _BETA},
        ),
        kit=("_rt",),
        figure=("_rt",),
        synthetic=EVERY,
        tofu=EVERY,
    ),
    **with_retain(
        "kto",
        Method(
            _PAPER + "kto",
            equation="(2/b) mean softplus(b d - K), K = mean d_alternate",
            paper="arXiv 2402.01306, as adapted in arXiv 2404.05868",
            family="preference",
            options={"beta": _BETA},
            statistics={"baseline": _PAPER + "kto_baseline"},
        ),
        kit=("_rt",),
        figure=(),
        tofu=EVERY,
    ),
    **with_retain(
        "idk",
        Method(
            _PAPER + "idk",
            equation="- mean over tokens of l_t(refusal)",
            paper=_TOFU_PAPER,
            family="preference",
        ),
        kit=("_rt",),
        figure=("_rt",),
        synthetic=("_rt",),
        tofu=("_rt",),
    ),
}

FINETUNE = Method(
    None, _PAPER + "retain_nll", equation="- mean over tokens of l_t", paper=_TOFU_PAPER
)


def method(name: str) -> Method:
    """Return the entry of METHODS called `name`; KitError that lists what exists otherwise."""
    if name not in METHODS:
        raise KitError(f"unknown method {name!r}: choose one of {', '.join(sorted(METHODS))}")
    return METHODS[name]


def methods_of(experiment: str) -> tuple[str, ...]:
    """Return the names of the methods that one of EXPERIMENTS runs, in the order of the table."""
    return tuple(name for name, entry in METHODS.items() if experiment in entry.experiments)


def method_options() -> dict[str, Option]:
    """Return the options of all forget terms by name; where terms differ, what they share."""
    known: dict[str, list[Option]] = {}
    for entry in METHODS.values():
        for name, about in entry.settable.items():
            known.setdefault(name, []).append(about)
    return {
        name: many[0]
        if all(each == many[0] for each in many)
        else Option(f"{many[0].help} (default: the method's own)", kind=many[0].kind)
        for name, many in known.items()
    }

"""METHODS, the one table of methods. It is read without torch: functions are named as text.

A method is one function and one entry, here or among the `relatives`. The command line, the
studies, the live lab, the theory view and the figures take it from the table, with its options and
its look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npo_kit.errors import KitError, did_you_mean
from npo_kit.losses.entry import BETA, EVERY, PAPER, Facts, Method, beta_option, with_retain
from npo_kit.losses.relatives import RELATIVES
from npo_kit.options import Option

__all__ = ["BETA", "FINETUNE", "METHODS", "Facts", "Method"]  # some come from `entry`
__all__ += ["method", "method_options", "methods_of", "with_retain"]

_BETA = beta_option(BETA, (0.01, 10))
_BY_LENGTH = Option(
    *("log-probabilities of an answer count per token, not as their sum", True, bool)
)
OF_METHODS = "options of a method, each after the methods that have it (npo-kit methods says more)"
_TOFU_PAPER = "arXiv 2401.06121"
_TOFU = "lr 1e-5, 10 epochs, batch 32 (NPO's authors, Llama-2)"

METHODS: dict[str, Method] = {
    **with_retain(
        "ga",
        Method(
            PAPER + "ga",
            equation="mean over tokens of l_t",
            paper=_TOFU_PAPER,
            facts=Facts("token", bounded=False, fades="nothing", tofu=_TOFU),
            family="ga",
            options={"length_normalised": _BY_LENGTH},
            weight=PAPER + "ga_weight",
        ),
        synthetic=EVERY,
        tofu=EVERY,
    ),
    **with_retain(
        "npo",
        Method(
            PAPER + "npo",
            equation="(2/b) mean softplus(b d)",
            paper="arXiv 2404.05868",
            facts=Facts(
                *("row", ("reference",), True, "2 sigmoid(b d), by answer"),
                tofu=f"b .1, {_TOFU}",
                departs="MUSE-Bench has logits for log-probs; SOUL and WMDP a batch's mean for d",
            ),
            family="npo",
            options={"beta": _BETA, "length_normalised": replace(_BY_LENGTH, default=False)},
            weight=PAPER + "npo_weight",
        ),
        synthetic=EVERY,
        tofu=EVERY,
    ),
    **with_retain(
        "dpo",
        Method(
            PAPER + "dpo",
            equation="(2/b) mean softplus(-b (d_alternate - d_forget))",
            paper="arXiv 2305.18290, as adapted in arXiv 2404.05868",
            facts=Facts(
                *("row", ("reference", "refusals"), True, "the margin alone"),
                tofu=f"b .1, {_TOFU}",
                departs="Rafailov's has no 2/b",
            ),
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
            PAPER + "kto",
            equation="(2/b) mean softplus(b d - K), K = mean d_alternate",
            paper="arXiv 2402.01306, as adapted in arXiv 2404.05868",
            facts=Facts(
                *("row", ("reference", "refusals"), True, "2 sigmoid(b d - K), by answer"),
                tofu=f"b .1, {_TOFU}",
                departs="the authors add 1; KTO's K has b and is at least 0",
            ),
            family="preference",
            options={"beta": _BETA},
            statistics={"baseline": PAPER + "kto_baseline"},
        ),
        kit=("_rt",),
        figure=(),
        tofu=EVERY,
    ),
    **with_retain(
        "idk",
        Method(
            PAPER + "idk",
            equation="- mean over tokens of l_t(refusal)",
            paper=_TOFU_PAPER,
            facts=Facts("token", ("refusals",), True, "never pushed down", tofu=_TOFU),
            family="preference",
        ),
        kinds=(*EVERY, "_ap"),
        kit=("_rt",),
        relatives=("_rt", "_ap"),
        figure=("_rt",),
        synthetic=("_rt",),
        tofu=("_rt",),
    ),
    **RELATIVES,
}

FINETUNE = Method(
    None, PAPER + "retain_nll", equation="- mean over tokens of l_t", paper=_TOFU_PAPER
)


def method(name: str) -> Method:
    """Return the entry of METHODS called `name`; KitError that lists what exists otherwise."""
    if name not in METHODS:
        raise KitError(
            f"unknown method {name!r}{did_you_mean(name, METHODS)}: choose one of "
            f"{', '.join(sorted(METHODS))}"
        )
    if not isinstance(METHODS[name], Method):
        raise KitError(
            f"METHODS[{name!r}] must be a Method, it is {METHODS[name]!r:.60}: wrap it, as in "
            "Method(my_objective)"
        )
    return METHODS[name]


def methods_of(experiment: str) -> tuple[str, ...]:
    """Return the names of the methods that one of EXPERIMENTS runs, in the order of the table."""
    return tuple(name for name, entry in METHODS.items() if experiment in entry.experiments)


def method_options() -> dict[str, Option]:
    """Return the options of all forget terms by name, each with the terms that have it.

    Where terms differ in a meaning or a default, the option has what they share.
    """
    known: dict[str, dict[str, Option]] = {}
    for name, entry in METHODS.items():
        alone = METHODS.get(entry.term, entry).settable
        for option, about in entry.settable.items():
            whose = entry.term if option in alone else name
            known.setdefault(option, {}).setdefault(whose or name, about)
    return {option: _of_several(terms) for option, terms in known.items()}


def _of_several(terms: Mapping[str, Option]) -> Option:
    """Return the option of several forget terms, which may mean something else in each.

    Each meaning stands after the names of its terms.
    """
    many = list(terms.values())
    meanings: dict[str, list[str]] = {}
    for name, about in terms.items():
        meanings.setdefault(about.help, []).append(name)
    help = "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in meanings.items())
    if all(each == many[0] for each in many):
        return replace(many[0], help=help, group=OF_METHODS)
    return Option(f"{help} (default: the method's own)", kind=many[0].kind, group=OF_METHODS)

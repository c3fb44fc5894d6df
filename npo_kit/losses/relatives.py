"""RELATIVES, the entries of NPO's relatives in the table of methods; their losses are in `family`.

Settings on TOFU and departures of public code were read in that code: OU is open-unlearning of
December 2025; "authors" are the paper's.
"""

from __future__ import annotations

from dataclasses import replace

from npo_kit.losses.entry import (
    BETA,
    FAMILY,
    PAPER,
    Facts,
    Method,
    beta_option,
    with_retain,
)
from npo_kit.options import Option

_LOGITS = ("logits",)
_ALPHA = Option("power of p in a token's weight", 1.0, float, least=0, usual=(0, 5), step=0.1)
_BETA_TOKEN = beta_option(4.0, (0.1, 10))


def _relative(term: str, entry: Method) -> dict[str, Method]:
    """Return a term's entries: alone, and with the retain term that its paper or OU has."""
    return with_retain(term, entry, kinds=("", "_rt"), kit=(), record=(), figure=())


RELATIVES: dict[str, Method] = {
    **_relative(
        "simnpo",
        Method(
            FAMILY + "simnpo",
            equation="(2/β) mean softplus(β (s/n + γ))",
            paper="arXiv 2410.07163",
            facts=Facts(
                *("row", (), True, "2 sigmoid(β (s/n + γ)), by an answer's mean"),
                "forget10: β 4.5, γ 0, forget weight .125, lr 1e-5, 10 epochs (authors, Llama-2)",
                "OU calls γ delta, and the forget weight gamma; the copy for MUSE has logits",
            ),
            family="npo",
            label="SimNPO",
            options={
                "beta": beta_option(2.5, (0.1, 10)),
                "gamma": Option(
                    *("added to the mean log-probability of a token, nats", 0.0, float),
                    *(None, 0, (0, 3)),
                    step=0.1,
                    label="γ",
                ),
            },
        ),
    ),
    **_relative(
        "altpo",
        Method(
            PAPER + "dpo",
            equation="DPO with answers drawn from the original for d_alternate",
            paper="arXiv 2409.13474",
            facts=Facts(
                *("row", ("reference", "sampled answers"), True, "the margin alone"),
                "β .1, lr 5e-5, 2 epochs, 5 alternates (authors, Llama-2)",
                "the authors also have unpaired forms",
            ),
            family="preference",
            label="AltPO",
            options={"beta": beta_option(BETA, (0.01, 10))},
            alternates=5,
        ),
    ),
    **_relative(
        "flat",
        Method(
            FAMILY + "flat",
            equation="mean (tanh P(forget) - tanh P(refusal))/2, P = mean p_t of an answer",
            paper="arXiv 2410.11143",
            facts=Facts(
                *("row", ("refusals",), True, "p sech^2(P)"),
                "lr 1e-5, 5 epochs, batch 64 to 128 (authors)",
                "tanh after the batch's mean, which does not add up; the prompt counts in P as 0",
            ),
            family="preference",
            label="FLAT",
        ),
    ),
    "door": Method(
        FAMILY + "door",
        FAMILY + "retain_sum",
        forget_weight=0.2,
        retain_weight=0.8,
        equation="mean (npo - s(refusal)) - mean s(retain), by .2 and .8",
        paper="arXiv 2503.03710",
        facts=Facts(
            *("row", ("reference", "refusals", "retain rows"), True, "2 sigmoid(β d), by answer"),
            "none published (β .5, weight .2 on safety data)",
            "all are sums, so that their scale grows with the length of answers",
        ),
        term="door",
        family="preference",
        label="DOOR",
        options={"beta": beta_option(0.5, (0.01, 10))},
        experiments=("relatives",),
    ),
    **_relative(
        "unlikelihood",
        Method(
            FAMILY + "unlikelihood",
            equation="- mean over tokens of log(1 - p_t)",
            paper="arXiv 1908.04319",
            facts=Facts("token", (), True, "p/(1 - p)", "none published"),
            family="ga",
            label="UL",
        ),
    ),
    **_relative(
        "wga",
        Method(
            FAMILY + "wga",
            equation="mean over tokens of [p_t^α] l_t, [.] without gradient",
            paper="arXiv 2502.19301",
            facts=Facts(
                *("token", (), True, "p^α"),
                "α 1, lr 1e-5, 5 epochs (OU, 1B)",
                "without the detachment the weight would change sign",
            ),
            family="ga",
            label="WGA",
            options={"alpha": _ALPHA},
        ),
    ),
    **_relative(
        "tnpo",
        Method(
            FAMILY + "tnpo",
            equation="(2/β) mean over tokens of softplus(β (l_t - l_t°))",
            paper="arXiv 2502.19301",
            facts=Facts(
                *("token", ("reference",), True, "2 sigmoid(β (l - l°)), by token"),
                "β 4, lr 1e-5, 5 epochs, batch 16 (authors, Llama-2)",
                "the authors add 1e-5 to the weight's denominator, which is 0 for small p at β 4",
            ),
            family="npo",
            label="TNPO",
            options={"beta": _BETA_TOKEN},
        ),
    ),
    **_relative(
        "wtnpo",
        Method(
            FAMILY + "wtnpo",
            equation="mean over tokens of [2 sigmoid(β (l_t - l_t°)) p_t^α] l_t",
            paper="arXiv 2502.19301",
            facts=Facts(
                *("token", ("reference",), True, "p^α 2 sigmoid(β (l - l°)), by token"),
                "β 4, α 1.5, weight decay 0, lr 1e-5, 5 epochs (authors, Llama-2)",
                "as for tnpo",
            ),
            family="npo",
            label="WTNPO",
            options={"beta": _BETA_TOKEN, "alpha": replace(_ALPHA, default=1.5)},
        ),
    ),
    **_relative(
        "satimp",
        Method(
            FAMILY + "satimp",
            equation="mean over tokens of [p_t^β₁ (1 - p_t)^β₂] l_t",
            paper="arXiv 2505.11953",
            facts=Facts(
                *("token", (), True, "p^β₁"),
                "β₁ 5, β₂ .1, lr 1e-5, 5 epochs (authors)",
                "OU has β₂ 1; its code and its settings name the two weights the other way round",
            ),
            family="ga",
            label="SatImp",
            options={
                "beta1": Option("power of p", 5.0, float, least=0, usual=(0, 10), step=0.5),
                "beta2": Option("power of 1 - p", 0.1, float, least=0, usual=(0, 2), step=0.1),
            },
        ),
    ),
    **_relative(
        "ceu",
        Method(
            FAMILY + "ceu",
            equation="mean over tokens of CE([softmax(z without y_t)], p)",
            paper="arXiv 2503.01224",
            facts=Facts(
                *("token", _LOGITS, True, "p, in the logits; the gradient is that of UL"),
                "no retain term, lr 1e-5, 10 epochs (OU)",
                "OU leaves out each answer's first token",
            ),
            family="ga",
            label="CE-U",
        ),
    ),
    **_relative(
        "undial",
        Method(
            FAMILY + "undial",
            equation="mean over tokens of CE(softmax(z° - γ at y_t), p)",
            paper="arXiv 2402.10052",
            facts=Facts(
                *("token", ("reference", "logits"), True, "nothing; it stops at its target"),
                "γ 10, no retain term, lr 1e-4, 10 epochs (OU, 1B)",
                "OU averages prompt and padding in, where the label -100 lowers token V - 100",
            ),
            label="UNDIAL",
            options={
                "gamma": Option(
                    *("taken from the logit of the label, nats", 10.0, float),
                    *(None, 0, (0, 30)),
                    step=0.5,
                    label="γ",
                )
            },
        ),
    ),
    **_relative(
        "me",
        Method(
            FAMILY + "me",
            equation="mean over tokens of KL(uniform ‖ p)",
            paper="arXiv 2410.08109",
            facts=Facts(
                *("token", _LOGITS, True, "nothing; it stops at its target"),
                "forget weight .1, lr 1e-5, 5 epochs (authors, Llama-2)",
                "the authors' mask leaves the question in",
            ),
            label="ME",
        ),
    ),
    "rmu": Method(
        FAMILY + "rmu",
        FAMILY + "retain_states",
        equation="mean (h - c u)^2 + mean over retain tokens of (h - h°)^2",
        paper="arXiv 2403.03218",
        facts=Facts(
            *("token", ("hidden states", "reference", "retain rows"), True),
            "nothing; it stops at its target",
            "layer 5, 10 or 15 of 16, c 10, lr 1e-5, 5 or 10 epochs (OU's grid, 1B)",
            "OU averages tokens with a (B) by (B, 1) product; the authors train three layers only",
        ),
        term="rmu",
        label="RMU",
        options={
            "depth": Option(
                *("share of the layers below the hidden states", 0.5, float),
                *(0, None, (0.1, 1)),
                step=0.05,
            ),
            "steering": Option(
                *("length c that the hidden states are steered to", 10.0, float),
                *(None, 0, (0, 100)),
                step=1,
                label="c",
            ),
        },
        experiments=("relatives",),
    ),
}

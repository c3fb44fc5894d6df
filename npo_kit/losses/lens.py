"""The weight lens: what an answer's probability alone says of how hard a method pushes.

An answer of n tokens, all of probability p, and of another under the reference. The weight of a
method is the derivative of its loss on this one answer by the mean log-probability of a token. GA's
is 1. It is read without torch.
"""

from __future__ import annotations

from npo_kit.options import Option

# forget terms whose weight follows from p, n, the reference and their settings
LENS = (
    *("ga", "npo", "simnpo", "tnpo", "wtnpo", "wga", "satimp"),
    *("unlikelihood", "ceu", "flat"),
)
SUMMED = ("npo",)  # those that sum over an answer's tokens: n times as steep as what is shown
TOKENS, REFERENCE = 12, 0.9
LENS_OPTIONS = {
    "tokens": Option("of an answer", TOKENS, int, usual=(1, 100), step=1, label="Tokens n"),
    "reference": Option(
        *("probability of each token under the reference", REFERENCE, float),
        usual=(0.01, 1),
        step=0.01,
        label="Reference p°",
    ),
}

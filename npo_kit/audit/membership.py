"""Card: whether a model's log-probs betray which rows it was trained on."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from transformers import PreTrainedModel

from npo_kit.audit.bench import Bench, Reading
from npo_kit.audit.probes import Probe
from npo_kit.audit.verbatim import TokenReading, read_tokens
from npo_kit.data.authors.corpus import N_AUTHORS, fictional_authors
from npo_kit.data.rows import Row, load_rows
from npo_kit.data.tasks import TOFU_FOLDER_VARIABLE

LOWEST = 0.4  # share of the tokens that Min-K and Min-K++ look at, as MUSE's PrivLeak does
HEADLINE = "min_k"
_EPSILON = 1e-10  # in open-unlearning's PrivLeak
_NO_HOLDOUT = (
    "the task has no rows that no model ever saw; retain rows will not do, all learned them"
)


def holdout_rows(task_name: str) -> list[Row]:
    """Return rows like a task's forget rows that no model of it ever saw; none if there are none.

    For the kit's authors the ten that follow the task's (the base model learned others, from the
    seed's end); for TOFU open-unlearning's `holdoutNN.json`, if it lies in the folder NPO_KIT_TOFU.
    """
    family, _, split = task_name.partition(":")
    if family == "authors":
        return fictional_authors(N_AUTHORS // 10, start=N_AUTHORS)
    folder = os.environ.get(TOFU_FOLDER_VARIABLE)
    if family != "tofu" or not folder:
        return []
    path = Path(folder, split.replace("forget", "holdout") + ".json").expanduser()
    return load_rows(path) if path.is_file() else []


def measure(model: PreTrainedModel, bench: Bench) -> Reading:
    """Measure AUC: the chance that a forget row looks more like a member than a holdout row.

    A row's value is the share of holdout rows that look less like members by Min-40 %, ties half.
    The retained-only model's AUC need not be 0.5: the two sets may differ by themselves.
    """
    if not bench.holdout:
        return Reading(math.nan, [None] * len(bench.forget), {"reason": _NO_HOLDOUT})
    own = _scores(model, bench)
    retained = own if model is bench.retained else _scores(bench.retained, bench)
    forget, holdout = own[HEADLINE]
    aucs, aucs_retained = ({name: auc(*found[name]) for name in found} for found in (own, retained))
    error = auc_error(len(forget), len(holdout))
    detail = {
        "auc": aucs,
        "auc_retained": aucs_retained,
        "auc_error": error,
        "privleak": privleak(aucs[HEADLINE], aucs_retained[HEADLINE]),
        "privleak_error": 100 * error / (1 - aucs_retained[HEADLINE] + _EPSILON),
        "scores": {"forget": forget, "holdout": holdout},
    }
    return Reading.of_rows(shares(forget, holdout), detail)


def shares(forget: Sequence[float], holdout: Sequence[float]) -> list[float]:
    """Return for each forget row the share of holdout rows with a higher score, ties half."""
    ordered = np.sort(holdout)
    below, upto = (np.searchsorted(ordered, forget, side) for side in ("left", "right"))
    return (1 - (below + upto) / (2 * len(ordered))).tolist()


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """Return the chance that a forget row scores lower (likelier member) than a holdout row.

    As open-unlearning counts; MUSE reports 1 - AUC.
    """
    return fmean(shares(forget, holdout))


def auc_error(n: int, m: int) -> float:
    """Return the standard error of an AUC near 0.5 of n and m rows."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def privleak(own: float, retained: float) -> float:
    """Return PrivLeak (MUSE, arXiv 2407.06460) from two AUCs: below 0 under-, above over-unlearned.

    100 (A_ret - A) / (1 - A_ret), in [-100, 100 A_ret / (1 - A_ret)].
    """
    return 100 * (retained - own) / (1 - retained + _EPSILON)


def min_k(values: Sequence[float]) -> float:
    """Return minus the mean of the lowest 40 % of the tokens' values, at least one."""
    return -fmean(sorted(values)[: max(1, int(LOWEST * len(values)))])


def _scores(model: PreTrainedModel, bench: Bench) -> dict[str, tuple[list[float], ...]]:
    """Return by attack the scores of the forget rows and of the holdout rows."""
    probes, cut = [*bench.forget, *bench.holdout], len(bench.forget)
    readings = read_tokens(model, [probe.encoded for probe in probes], bench.done)
    rows = [_score(*pair) for pair in zip(probes, readings, strict=True)]
    parts = rows[:cut], rows[cut:]
    return {name: tuple([row[name] for row in part] for part in parts) for name in rows[0]}


def _score(probe: Probe, reading: TokenReading) -> dict[str, float]:
    """Score one answer without its end token by each attack: the lower, the likelier a member."""
    loss = -fmean(reading.logps[:-1])
    return {
        "loss": loss,
        "zlib": loss / len(zlib.compress(probe.row["answer"].encode())),
        "min_k": min_k(reading.logps[:-1]),
        "min_k_plus_plus": min_k(reading.standard[:-1]),
    }

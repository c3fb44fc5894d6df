"""The study of the null as Markdown: the band, the pairs, what p can see, and the recorded runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npo_kit.data.shipped import shipped_data
from npo_kit.metrics.null import Null, ks, spread
from npo_kit.metrics.summary import log_truth_ratios
from npo_kit.records.run import read_run
from npo_kit.studies.markdown import table
from npo_kit.studies.table import RETAINED, last_evaluation

SCORES = ("model_utility", "forget_probability", "forget_rouge_l", "forget_truth_ratio")
ROWS = (12, 60, 120)  # of forget10: two authors, five, ten


def null_report(study: Mapping[str, Any], runs: str | Path | None = None) -> str:
    """Return the tables of a study; `runs` is a study of unlearning on the same rows to place."""
    null = Null.of(study)
    parts = [_band(study), _pairs(study)]
    parts += [_power(null)] if null.mixed else []
    runs = shipped_data("studies/pocket") if runs is None else Path(runs)
    return "\n\n".join([*parts, _placed(null, runs)])


def _band(study: Mapping[str, Any]) -> str:
    lines = []
    for split, models in _by_split(study).items():
        groups = {"one base": [m for m in models if m["base"] == 0], "all bases": models}
        for group, some in groups.items():
            if group == "one base" or len(some) > len(groups["one base"]):
                bands = [spread([m["scores"][name] for m in some]) for name in SCORES]
                shown = [f"{low:.3f}, {middle:.3f}, {high:.3f}" for low, middle, high in bands]
                lines.append([split, f"{len(some)} of {group}", *shown])
    said = "Scores of models that never saw the forget rows: 5 %, median, 95 %"
    return f"{said}:\n\n{table(['split', 'models', *SCORES], lines)}"


def _pairs(study: Mapping[str, Any]) -> str:
    lines = []
    for split in _by_split(study):
        for name, across in (("of one base", False), ("of two bases", True)):
            found = Null.of(study, split).pairs(across=across)
            if len(found):
                d, p = found.T
                quantiles = np.quantile(d, (0.5, 0.95, 1))
                alarms = f"{int((p < 0.05).sum())} of {len(p)}"
                shown = [f"{value:.3f}" for value in quantiles]
                lines.append([split, name, *shown, f"{p.min():.2f}", alarms])
    head = ["split", "pairs", "D, median", "D, 95 %", "D, largest", "smallest p", "p < .05"]
    return f"How far two such models lie apart on the forget rows:\n\n{table(head, lines)}"


def _by_split(study: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    models: dict[str, list[Mapping[str, Any]]] = {}
    for model in study["models"]:
        models.setdefault(model.get("split", "forget10"), []).append(model)
    return models


def _power(null: Null) -> str:
    head = ["share of the original", *(f"{n} rows: {how}" for n in ROWS for how in ("p", "D"))]
    lines = [
        [
            f"{share:.0%}",
            *(f"{rate(share, n):.2f}" for n in ROWS for rate in (null.rejected, null.beyond)),
        ]
        for share in null.mixed
    ]
    said = (
        "Weights mixed from retained-only to original: how often p < .05 rejects the mixture, and "
        "how often its D lies beyond 95 % of the pairs above"
    )
    return f"{said}:\n\n{table(head, lines)}"


def _placed(null: Null, folder: Path) -> str:
    reference = log_truth_ratios(last_evaluation(read_run(folder / RETAINED)), "forget")
    lines = []
    for path in sorted(path for path in folder.iterdir() if (path / "run.json").exists()):
        run = read_run(path)
        if run.kind == "unlearn":
            ours = log_truth_ratios(last_evaluation(run), "forget")
            (distance, p), (share, error) = ks(ours, reference), null.percentile(ours, reference)
            place = f"{share:.0%} ± {error:.0%}"
            lines.append([path.name, f"{distance:.3f}", f"{p:.2g}", place])
    head = ["run, last checkpoint", "D", "p", "retained-only models with a smaller D"]
    return f"The runs of {folder.name} among them:\n\n{table(head, lines)}"

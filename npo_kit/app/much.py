"""How much can be forgotten: the study of several splits that travels with the kit."""

from __future__ import annotations

import threading
from functools import cache

from npo_kit.app.study_runs import shown_provenance
from npo_kit.data.shipped import shipped_data
from npo_kit.records.files import Json
from npo_kit.records.folder import read_study
from npo_kit.studies.splits import splits_chart
from npo_kit.studies.table import study_table

STUDY = "studies/pocket-splits"
_lock = threading.Lock()


def recorded_splits() -> Json:
    """Return the `splits_chart` of the shipped study, with text as keys; {} where there is none.

    It is made once, even where several visitors ask at a time. Raises RunError for a study that
    cannot be read.
    """
    with _lock:
        return _chart()


@cache
def _chart() -> Json:
    try:
        folder = shipped_data(STUDY)
    except FileNotFoundError:
        return {}
    records, study = study_table(folder), read_study(folder)
    chart = splits_chart(records)
    about: Json = {"task": ", ".join(dict.fromkeys(str(record["task"]) for record in records))}
    if study:
        about |= {"title": study.title, "provenance": shown_provenance(study.provenance)}
    return (
        chart | about | {"nulls": {str(percent): band for percent, band in chart["nulls"].items()}}
    )

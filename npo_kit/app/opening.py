"""Opens what the page is to show: folders of studies and runs, logs, or the kit's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from npo_kit.app.logs import is_log, read_logs
from npo_kit.app.packed import PackedStudy, packed_studies
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError

# shown when no folder is given; the first is toured
STUDIES = ("studies/pocket", "studies/smollm2", "studies/pocket-family")


def open_studies(
    folders: Sequence[str | Path], usual: Sequence[str] = STUDIES
) -> tuple[list[PackedStudy], PackedStudy | None]:
    """Return the studies of the page, and the one that the guided tour is about if it is there.

    All evaluation logs among the `folders` (FILE or NAME=FILE) are one study, the last. Without
    anything they are the `usual` ones that travel with the kit. Raises KitError for anything else.
    """
    logs = [folder for folder in folders if is_log(folder)]
    paths = [Path(folder) for folder in folders if folder not in logs]
    paths = paths if folders else [shipped_data(name) for name in usual]
    for path in paths:
        if not path.is_dir():
            raise KitError(
                f"there is no folder {path}: give a study's or run's folder, evaluation logs, "
                "or none"
            )
    by_path = [(path, study) for path in paths for study in packed_studies(path)]
    shipped = shipped_data(STUDIES[0]).resolve()
    toured = next((study for path, study in by_path if path.resolve() == shipped), None)
    of_logs = packed_studies(read_logs(logs)) if logs else []
    return [*(study for _, study in by_path), *of_logs], toured

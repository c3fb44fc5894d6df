"""Rows to forget and to keep: TOFU from the hub or a folder, own files, splits, refusals."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npo_kit.data.authors.corpus import authors_task
from npo_kit.data.parsing import DataError
from npo_kit.data.rows import Row, load_refusals, load_rows, row_problem
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.records.files import fingerprint
from npo_kit.records.folder import TaskRecord

TOFU_HUB = "locuslab/TOFU"
TOFU_FOLDER_VARIABLE = "NPO_KIT_TOFU"
TOFU_SETS = (  # its configurations on the hub, its files in a folder
    "full",
    "forget10_perturbed",
    "retain_perturbed",
    "real_authors_perturbed",
    "world_facts_perturbed",
)
TOFU_ROWS = 4000
OWN_EVALUATED = 300  # rows of each of a user's own sets that are evaluated, as TOFU does
TOFU_PERTURBED_TAIL = 400  # its last rows, which have paraphrases and perturbed answers


@dataclass(frozen=True)
class Task:
    """The rows to forget, the rows to keep, and those that judge both."""

    name: str  # such as tofu:forget10
    forget: list[Row]
    retain: list[Row]
    evaluation: dict[str, list[Row]]  # by set: forget, retain, real_authors, world_facts
    notes: dict[str, str] = field(default_factory=dict)  # evaluation set -> why it is missing

    @property
    def full(self) -> list[Row]:
        """All rows in the data set's order: the retain rows, then the forget rows."""
        return self.retain + self.forget

    def record(self) -> TaskRecord:
        """Describe the task for a run's record: name, numbers of rows, and a fingerprint."""
        return {
            "name": self.name,
            "forget_rows": len(self.forget),
            "retain_rows": len(self.retain),
            "evaluation_rows": {name: len(rows) for name, rows in self.evaluation.items()},
            "fingerprint": fingerprint(self.full),
        }


def own_task(
    forget: Any,
    retain: Any = None,
    real_authors: Any = None,
    world_facts: Any = None,
    *,
    allow_overlap: bool = False,
    columns: Mapping[str, str] | None = None,
    evaluated: int | None = OWN_EVALUATED,
    say: Callable[[str], None] | None = None,
) -> Task:
    """Make a task of a user's own rows, evaluated on the first `evaluated` of each set (None: all).

    Rows are a file, a data set or an object in memory, with the columns that `load_rows` finds, to
    which `columns` and `say` go. Without retain rows only methods that need none can run; without
    the two utility sets there is no model utility. Raises DataError as `load_rows` does, and,
    unless `allow_overlap`, if a row is both to be forgotten and to be kept.
    """
    sources = {"forget": forget, "retain": retain}
    sources |= {"real_authors": real_authors, "world_facts": world_facts}
    given = {name: source for name, source in sources.items() if source is not None}
    rows = _load_all(given, columns, say)
    kept = {(row["question"].strip(), row["answer"].strip()) for row in rows.get("retain", ())}
    both = [r for r in rows["forget"] if (r["question"].strip(), r["answer"].strip()) in kept]
    if both and not allow_overlap:
        first = both[0]["question"] or both[0]["answer"]
        raise DataError(
            f"{len(both)} of {len(rows['forget'])} forget rows are retain rows too (the first: "
            f"{first[:60]!r}): take them out of the retain rows, or allow it with "
            "--allow-overlap (allow_overlap=True)"
        )
    notes = {name: f"no {name} rows were given" for name in sources if name not in given}
    used = {name: of_set[:evaluated] for name, of_set in rows.items()}
    for set_name, of_set in used.items():
        if say and len(of_set) < len(rows[set_name]):
            say(
                f"{set_name}: the first {len(of_set):,} of {len(rows[set_name]):,} rows are "
                "evaluated; for all of them: --protocol all, in Python evaluated=None"
            )
    name = Path(forget).stem if isinstance(forget, str | Path) else "rows"
    return Task(f"own:{name}", rows["forget"], rows.get("retain", []), used, notes)


def _load_all(
    sources: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, list[Row]]:
    """Read several sources with `load_rows`; one DataError tells what is wrong with any of them."""
    rows, problems = {}, []
    for name, source in sources.items():
        try:
            rows[name] = load_rows(source, columns, say=say)
        except DataError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError("\n".join(problems))
    return rows


def load_tofu(split: str = "forget10", source: str | Path | None = None) -> Task:
    """Load TOFU (arXiv 2401.06121) as a task: forget the last 1 to 90 % of its 4,000 rows.

    `split` is `forget01` to `forget90`, any whole percentage; `forget01@400` forgets the same rows
    of a smaller data set, the last 400 of TOFU, for a quick run. `source` is a folder of TOFU's
    JSON lines, by default that of the environment variable NPO_KIT_TOFU, else the hub
    (`locuslab/TOFU`). Only TOFU's last 10 % have perturbed answers: as its authors do, smaller
    forget sets are evaluated on their own rows and larger ones on those 400.
    Raises DataError for an unknown split, an incomplete folder or an unreachable hub.
    """
    n_forget, n_rows = _tofu_sizes(split)
    source = source or os.environ.get(TOFU_FOLDER_VARIABLE)
    sets = _tofu_folder(Path(source).expanduser()) if source else _tofu_hub()
    full, perturbed = sets["full"], sets["forget10_perturbed"]
    if len(full) != TOFU_ROWS:
        raise DataError(f"TOFU's full set has {TOFU_ROWS} rows, this one has {len(full)}")
    tail = [row["question"] for row in full[-TOFU_PERTURBED_TAIL:]]
    if [row["question"] for row in perturbed] != tail:
        raise DataError(
            f"forget10_perturbed does not ask the questions of the last {TOFU_PERTURBED_TAIL} rows "
            "of full: take both from the same copy of TOFU"
        )
    near_forget = perturbed[-n_rows:-n_forget]  # a smaller data set's retain rows, perturbed
    return Task(
        name=f"tofu:{split}",
        forget=full[-n_forget:],
        retain=full[-n_rows:-n_forget],
        evaluation={
            "forget": perturbed[-n_forget:],
            "retain": sets["retain_perturbed"] if n_rows == TOFU_ROWS else near_forget,
            "real_authors": sets["real_authors_perturbed"],
            "world_facts": sets["world_facts_perturbed"],
        },
    )


def _tofu_sizes(split: str) -> tuple[int, int]:
    """Return the numbers of forget rows and of all rows of a TOFU split."""
    match = re.fullmatch(r"forget(\d{2})(?:@(\d{1,4}))?", str(split))
    percent = int(match[1]) if match else 0
    if not match or not 1 <= percent <= 90:
        raise DataError(
            f"unknown TOFU split {split!r}: choose forgetNN with NN from 01 to 90, such as "
            "forget01, forget05, forget10, forget20, forget30, forget50 or forget90"
        )
    n_forget = TOFU_ROWS * percent // 100
    n_rows = int(match[2]) if match[2] else TOFU_ROWS
    if n_rows != TOFU_ROWS and not n_forget < n_rows <= TOFU_PERTURBED_TAIL:
        raise DataError(
            f"{split!r}: a smaller data set needs more than its {n_forget} forget rows and at most "
            f"the {TOFU_PERTURBED_TAIL} that have perturbed answers"
        )
    return n_forget, n_rows


def _tofu_folder(folder: Path) -> dict[str, list[Row]]:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}: give the folder that holds TOFU's full.json")
    found: dict[str, str | Path] = {}
    for name in TOFU_SETS:
        files = (folder / f"{name}{suffix}" for suffix in (".json", ".jsonl"))
        if there := [file for file in files if file.is_file()]:
            found[name] = there[0]
    if absent := [f"{name}.json" for name in TOFU_SETS if name not in found]:
        raise DataError(
            f"{folder} lacks {', '.join(absent)}: copy all of TOFU's JSON lines into it"
        )
    return _load_all(found)


def _tofu_hub() -> dict[str, list[Row]]:
    import datasets

    try:
        sets = {
            name: datasets.load_dataset(TOFU_HUB, name, split="train").to_list()
            for name in TOFU_SETS
        }
    except Exception as error:  # the hub's clients share no family of errors
        raise DataError(
            f"TOFU could not be read from the hub ({type(error).__name__}): check the network, or "
            f"set {TOFU_FOLDER_VARIABLE} to a folder with TOFU's JSON lines"
        ) from error
    problems = [
        f"TOFU's {name} on the hub, row {number}: {reason}"
        for name, rows in sets.items()
        for number, row in enumerate(rows, 1)
        if (reason := row_problem(row))
    ]
    if problems:
        raise DataError("\n".join(problems))
    return sets


def _tofu_here() -> str:
    """Return the folder of TOFU's JSON lines on this machine, without any network request."""
    if folder := os.environ.get(TOFU_FOLDER_VARIABLE):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return snapshot_download(TOFU_HUB, repo_type="dataset", local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise DataError(f"TOFU is not on this machine: set {TOFU_FOLDER_VARIABLE}") from error


def load_authors(split: str = "forget10", source: str | Path | None = None) -> Task:
    """Make the task of the kit's fictional authors (`authors.authors_task`), with no download.

    Raises KitError for an unknown split, or if a source is given.
    """
    if source is not None:
        raise DataError(f"the authors are made, not read from {source}: leave the source out")
    return Task(**authors_task(split))


def load_passages(source: str | Path | None = None) -> Task:
    """Load the kit's passages of two invented stories: forget one word for word, keep the other.

    `source` is a folder with a forget.jsonl and a retain.jsonl, by default the kit's. Raises
    DataError as `load_rows` does.
    """
    folder = Path(source).expanduser() if source else shipped_data(PASSAGES)
    forget, retain = (folder / f"{name}.jsonl" for name in ("forget", "retain"))
    return replace(own_task(forget, retain, evaluated=None), name=PASSAGES)


PASSAGES = "passages"  # a task without splits
TASKS: dict[str, Callable[..., Task]] = {"tofu": load_tofu, "authors": load_authors}


def load_task(name: str, source: str | Path | None = None) -> Task:
    """Load the task called `name`, such as `tofu:forget10`; a DataError lists those that exist."""
    if name == PASSAGES:
        return load_passages(source)
    family, _, split = str(name).partition(":")
    if family not in TASKS or not split:
        known = ", ".join([*(f"{known}:forget10" for known in TASKS), PASSAGES])
        raise DataError(f"unknown task {name!r}: choose a task such as {known}")
    return TASKS[family](split, source=source)


def evaluation_rows(record: TaskRecord, *, download: bool = True) -> dict[str, list[Row]]:
    """Return by set the evaluation rows of the task in a run's record (`Task.record`).

    Empty if they are not available: own rows, a data set of the hub without a network (with
    `download=False`: one that is not on this machine), or one whose rows differ from the run's.
    """
    name = str(record.get("name"))
    try:
        here = None if download or not name.startswith("tofu:") else _tofu_here()
        task = load_task(name, here)
    except KitError:
        return {}
    known = record.get("fingerprint")
    return task.evaluation if known in (None, task.record()["fingerprint"]) else {}


def draw_refusals(n: int, seed: int = 0, lines: Sequence[str] | None = None) -> list[str]:
    """Draw a refusal for each of n forget rows by seed, from `lines` or the kit's hundred."""
    lines = lines or load_refusals(shipped_data("refusals.txt"))
    return random.Random(f"refusals {seed}").choices(lines, k=n)

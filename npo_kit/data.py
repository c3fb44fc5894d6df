"""Rows to forget and to keep: TOFU from the hub or a folder, own files, splits, refusals."""

from __future__ import annotations

import csv
import json
import os
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npo_kit.errors import KitError
from npo_kit.shipped import shipped_data

Row = dict[str, Any]

TOFU_HUB = "locuslab/TOFU"
TOFU_FOLDER_VARIABLE = "NPO_KIT_TOFU"
TOFU_ROWS = 4000
TOFU_PERTURBED_TAIL = 400  # its last rows, which have paraphrases and perturbed answers


class DataError(KitError):
    """Rows that cannot be used: names the file, the line and the reason, all of them at once."""


# --- rows ---------------------------------------------------------------------------------------


def load_rows(path: str | Path) -> list[Row]:
    """Rows of a file of JSON lines, a JSON list or a CSV, with `question` and `answer`.

    Optional: `paraphrased_answer` (text) and `perturbed_answer` (a list of texts; in a CSV a JSON
    list). Raises DataError that lists every bad row with its line (in a JSON list: its number).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}: give a file of JSON lines, JSON or CSV")
    try:
        numbered = list(_read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from None
    problems, rows = [], []
    for line, row in numbered:
        reason = row if isinstance(row, str) else row_problem(row)
        if reason:
            problems.append(f"{path}, line {line}: {reason}")
        else:
            rows.append(row)
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise DataError(f"{len(problems)} bad row(s), nothing was loaded:\n  {shown}{more}")
    if not rows:
        raise DataError(f"{path} has no rows: each needs a question and an answer")
    return rows


def row_problem(row: Any) -> str | None:
    """Why this is not a row, in a few words; None if it is one."""
    if not isinstance(row, dict):
        return f"a row must be an object with question and answer, this is {type(row).__name__}"
    for key in ("question", "answer", "paraphrased_answer"):
        if key == "paraphrased_answer" and row.get(key) is None:
            continue
        if not isinstance(row.get(key), str):
            return f"{key!r} must be text, it is {'missing' if key not in row else repr(row[key])}"
        if not row[key].strip():
            return f"{key!r} is empty"
    perturbed = row.get("perturbed_answer")
    if perturbed is not None and not (
        isinstance(perturbed, list)
        and perturbed
        and all(isinstance(text, str) and text.strip() for text in perturbed)
    ):
        return f"'perturbed_answer' must be a list of non-empty texts, it is {perturbed!r:.60}"
    return None


def _read_json(path: Path) -> Iterable[tuple[int, Row | str]]:
    """(line, row or the reason why there is none) of JSON lines or of one JSON list."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), 1)
            return
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except json.JSONDecodeError as error:
                yield line, f"not JSON ({error.msg})"


def _read_csv(path: Path) -> Iterable[tuple[int, Row | str]]:
    """(line, row or the reason why there is none) of a CSV with a header line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if absent := [name for name in ("question", "answer") if name not in columns]:
            raise DataError(
                f"{path} has no column {' and '.join(absent)}: its first line names "
                f"{', '.join(columns) or 'nothing'}"
            )
        for record in reader:
            row = {key: value for key, value in record.items() if key and value not in (None, "")}
            if "perturbed_answer" in row:
                try:
                    row["perturbed_answer"] = json.loads(row["perturbed_answer"])
                except json.JSONDecodeError:
                    yield reader.line_num, "'perturbed_answer' is not a JSON list of texts"
                    continue
            yield reader.line_num, row


# --- tasks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What to forget, what to keep, and the rows by which both are judged."""

    name: str  # such as tofu:forget10
    forget: list[Row]
    retain: list[Row]
    evaluation: dict[str, list[Row]]  # by set: forget, retain, real_authors, world_facts
    notes: dict[str, str] = field(default_factory=dict)  # evaluation set -> why it is missing

    @property
    def full(self) -> list[Row]:
        """All rows in the order of the data set: the retain rows, then the forget rows."""
        return self.retain + self.forget


def own_task(
    forget: str | Path,
    retain: str | Path,
    real_authors: str | Path | None = None,
    world_facts: str | Path | None = None,
) -> Task:
    """A task from a user's own files (`load_rows`), evaluated on the forget and retain rows.

    Without the two utility sets there is no model utility. Raises DataError as `load_rows` does.
    """
    paths = {
        "forget": forget,
        "retain": retain,
        "real_authors": real_authors,
        "world_facts": world_facts,
    }
    rows, problems = {}, []
    for name, path in paths.items():
        if path is not None:
            try:
                rows[name] = load_rows(path)
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    notes = {name: f"no {name} rows were given" for name, path in paths.items() if path is None}
    return Task(f"own:{Path(forget).stem}", rows["forget"], rows["retain"], rows, notes)


def load_tofu(split: str = "forget10", source: str | Path | None = None) -> Task:
    """TOFU (arXiv 2401.06121): forget the last 1 to 90 % of its 4,000 rows.

    `split` is `forget01` ... `forget90`, any whole percentage; `forget01@400` forgets the same rows
    of a smaller data set, the last 400 of TOFU, for a quick run. `source` is a folder of TOFU's
    JSON lines; without it the environment variable NPO_KIT_TOFU, and without that the hub
    (`locuslab/TOFU`). TOFU has perturbed answers for its last 10 % only, so that smaller sets are
    evaluated on their own rows and larger ones on those 400, as its authors do.
    Raises DataError for an unknown split, an incomplete folder or an unreachable hub.
    """
    n_forget, n_rows = _tofu_sizes(split)
    source = source or os.environ.get(TOFU_FOLDER_VARIABLE)
    read = _tofu_folder(Path(source)) if source else _tofu_hub
    full = read("full")
    if len(full) != TOFU_ROWS:
        raise DataError(f"TOFU's full set has {TOFU_ROWS} rows, this one has {len(full)}")
    perturbed = read("forget10_perturbed")
    near_forget = perturbed[-n_rows:-n_forget]  # retain rows of a smaller data set that have all
    return Task(
        name=f"tofu:{split}",
        forget=full[-n_forget:],
        retain=full[-n_rows:-n_forget],
        evaluation={
            "forget": perturbed[-n_forget:],
            "retain": read("retain_perturbed") if n_rows == TOFU_ROWS else near_forget,
            "real_authors": read("real_authors_perturbed"),
            "world_facts": read("world_facts_perturbed"),
        },
    )


def _tofu_sizes(split: str) -> tuple[int, int]:
    """Forget rows and all rows of a TOFU split."""
    match = re.fullmatch(r"forget(\d{2})(?:@(\d{1,4}))?", split)
    percent = int(match[1]) if match else 0
    if not 1 <= percent <= 90:
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


def _tofu_folder(folder: Path) -> Callable[[str], list[Row]]:
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}: give the folder that holds TOFU's full.json")

    def read(name: str) -> list[Row]:
        path = next((p for p in folder.glob(f"{name}.json*") if p.is_file()), None)
        if path is None:
            raise DataError(f"{folder} lacks {name}.json: copy all of TOFU's JSON lines into it")
        return load_rows(path)

    return read


def _tofu_hub(name: str) -> list[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(TOFU_HUB, name, split="train").to_list()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"TOFU could not be read from the hub ({type(error).__name__}): check the network, or "
            f"set {TOFU_FOLDER_VARIABLE} to a folder with TOFU's JSON lines"
        ) from error
    if bad := [f"row {i}: {reason}" for i, row in enumerate(rows) if (reason := row_problem(row))]:
        raise DataError(f"TOFU's {name} on the hub has bad rows: {'; '.join(bad[:5])}")
    return rows


TASKS: dict[str, Callable[..., Task]] = {"tofu": load_tofu}


def load_task(name: str, source: str | Path | None = None) -> Task:
    """The task called `name`, such as `tofu:forget10`; DataError that lists what exists."""
    family, _, split = name.partition(":")
    if family not in TASKS or not split:
        known = ", ".join(f"{known}:forget10" for known in TASKS)
        raise DataError(f"unknown task {name!r}: choose a task such as {known}")
    return TASKS[family](split, source=source)


def draw_refusals(n: int, seed: int = 0) -> list[str]:
    """One refusal per forget row, drawn by seed from the kit's hundred. (n,) texts."""
    lines = shipped_data("refusals.txt").read_text(encoding="utf-8").splitlines()
    return random.Random(f"refusals {seed}").choices(lines, k=n)

"""The commands that read: `methods`, and for recorded runs `table`, `report` and `export`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npo_kit.errors import KitError
from npo_kit.records.evaluations import EVALUATION_SETS

if TYPE_CHECKING:
    from npo_kit.studies.table import Checkpoint

Add = Callable[..., argparse.ArgumentParser]  # (name, command, example) -> the command's parser
COLUMNS = {
    "method": "method",
    "seed": "seed",
    "step": "step",
    "model_utility": "utility",
    "forget_quality": "forget p",
    "forget_ks": "forget D",
    "forget_probability": "P forget",
    "forget_rouge_l": "R-L forget",
    "retain_probability": "P retain",
    "retain_rouge_l": "R-L retain",
    "forget_fluency": "fluency forget",
    "forget_repetition_rate": "rep. forget",
}


def add_methods(add: Add) -> None:
    parser = add("methods", methods_command, "npo-kit methods --json")
    parser.add_argument("--json", action="store_true", help="a JSON list of records instead")


def methods_command(options: argparse.Namespace) -> None:
    """Print every method: what it minimises, what it needs, and what sets it apart."""
    from npo_kit.losses.listing import facts_table, forget_terms, losses_table, method_records

    if options.json:
        print(json.dumps(method_records(), indent=1, ensure_ascii=False))
    else:
        print(f"{losses_table(forget_terms())}\n\n{facts_table()}")


def add_table(add: Add) -> None:
    parser = add("table", table_command, "npo-kit table runs --published Llama-2-7b-chat")
    parser.add_argument("folders", nargs="+", help="run folders, or folders of runs")
    parser.add_argument(
        "--published",
        nargs="?",
        const="",
        metavar="MODEL",
        help="beside them the published results of MODEL (default: of the runs' models)",
    )
    parser.add_argument("--json", action="store_true", help="a JSON list of flat records instead")
    add_reference(parser)


def table_command(options: argparse.Namespace) -> None:
    """Show every run and step of run or study folders in one table."""
    from npo_kit.studies.table import published_records, study_table

    records: list[Checkpoint] = [
        {"folder": Path(folder).resolve().name, **record}
        for folder in options.folders
        for record in study_table(folder, options.reference, options.truth_ratio)
    ]
    if options.published is not None:
        records += published_records(records, options.published)
    if options.json:
        print(json.dumps(records, indent=1, allow_nan=False))
    else:
        _print_table(records, ", ".join(options.folders))


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Add the options about forget quality's reference and the truth ratio."""
    parser.add_argument(
        "--reference",
        metavar="RUN",
        help="retained-only run, evaluation or official log, for forget quality; pocket:retained: "
        "the recorded one of authors:forget10",
    )
    parser.add_argument(
        "--truth-ratio",
        choices=("geometric", "arithmetic"),
        default="geometric",
        help="mean of the wrong answers (default: geometric)",
    )


def add_report(add: Add) -> None:
    parser = add("report", report_command, "npo-kit report data/studies/pocket")
    parser.add_argument("folder", help="a study's folder")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write a whole page instead, such as the study's README.md: its plan, the tables, "
        "the notes.md beside it, where it was made",
    )


def report_command(options: argparse.Namespace) -> None:
    """Print the outcome of a study as Markdown: each run's best and last checkpoint."""
    from npo_kit.records.files import atomic_write
    from npo_kit.studies.report import MADE, own_report, study_page, study_report

    if not options.out and (told := own_report(options.folder)):
        print(told)
        return
    if not options.out:
        print(study_report(options.folder))
        return
    out = Path(options.out)
    if out.is_file() and MADE not in out.read_text(encoding="utf-8", errors="replace"):
        raise KitError(f"{out} was not made by npo-kit report: choose another name")
    atomic_write(out, study_page(options.folder).encode())
    print(out)


def add_export(add: Add) -> None:
    example = "npo-kit export runs/npo_rt --format open-unlearning --out TOFU_EVAL.json"
    parser = add("export", export_command, example)
    parser.add_argument("run", help="a run folder, an evaluation file or an official log")
    told = "whose tools are to read it: TOFU's own, or open-unlearning's"
    parser.add_argument("--format", required=True, choices=("tofu", "open-unlearning"), help=told)
    parser.add_argument("--out", required=True, help="file to write, or the folder for it")
    parser.add_argument(
        "--step", type=int, metavar="N", help="of the run (default: the last evaluated)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--reference",
        metavar="RUN",
        help="retained-only run, evaluation or official log, for forget_quality",
    )


def export_command(options: argparse.Namespace) -> None:
    """Write an evaluation as a log that TOFU's or open-unlearning's tools read."""
    from npo_kit.data.tasks import evaluation_rows
    from npo_kit.metrics.official_reader import read_reference
    from npo_kit.metrics.official_writer import with_texts, write_official_log
    from npo_kit.records.run import read_run
    from npo_kit.studies.table import find_reference, last_evaluation

    reference = find_reference(options.reference) if options.reference else None
    if Path(options.run).is_dir():
        run = read_run(options.run)
        step = options.step
        evaluation = last_evaluation(run) if step is None else run.evaluation(step)
        if any("question" not in row for rows in evaluation.rows.values() for row in rows):
            sets = evaluation_rows(run.task)
            evaluation = with_texts(evaluation, sets)
            if not sets:
                print(f"questions and answers are left empty: no {run.task_name} at hand")
    elif options.step is not None:
        raise KitError(f"--step is for a run's folder, which {options.run} is not: leave it out")
    else:
        evaluation = read_reference(options.run)
    form, overwrite = options.format, options.overwrite
    path = write_official_log(options.out, evaluation, form, reference, overwrite=overwrite)
    print(f"step {evaluation.step} in {path}")


COMMANDS = (add_methods, add_table, add_report, add_export)


# --- what is printed ----------------------------------------------------------------------------


def show_table(
    folder: str | Path, reference: str | None = None, truth_ratio: str = "geometric"
) -> None:
    """Print every run and step of a folder."""
    from npo_kit.studies.table import study_table

    _print_table(study_table(folder, reference, truth_ratio), str(folder))


def _print_table(records: Sequence[Checkpoint], where: str) -> None:
    import pandas as pd

    if not records:
        raise KitError(f"{where} has no evaluation yet: run npo-kit evaluate, or wait")
    ours = [record for record in records if not record.get("source")]
    columns = dict(COLUMNS)
    if any(_by_f1(record) for record in ours):
        columns |= {"forget_rouge_l_f1": "F1 forget", "retain_rouge_l_f1": "F1 retain"}
    if len({record["task"] for record in records}) > 1:
        columns = {"task": "task"} | columns
    if len({record.get("folder") for record in records}) > 1:
        columns = {"folder": "from"} | columns
    frame = pd.DataFrame(records, dtype=object)[list(columns)].rename(columns=columns)
    print(frame.map(_shown).to_string(index=False))
    for label, status in {record["label"]: record["status"] for record in ours}.items():
        if status != "finished":
            print(f"{label}: {status}")
    if why := ours[-1]["forget_quality_why"]:
        print(f"no forget quality: {why}")
    for source in dict.fromkeys(record["source"] for record in records if record.get("source")):
        print(f"published: {source}")


def _by_f1(record: Mapping[str, Any]) -> bool:
    """Tell whether a record is of passages, which have ROUGE-L F1 and no recall."""
    scores = ((record.get(f"{name}_rouge_l{f1}") for f1 in ("", "_f1")) for name in EVALUATION_SETS)
    return any(recall is None and f1 is not None for recall, f1 in scores)


def _shown(value: Any) -> str:
    """Return a cell's text: three digits of a number, a dash for a missing value."""
    if value is None or value != value:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""What the commands for recorded runs and whole studies do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npo_kit.errors import KitError

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


def table_command(options: argparse.Namespace) -> None:
    """Show every run and step of one or several folders, and what is published beside them."""
    from npo_kit.studies.table import published_records, study_table

    records = [
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


def export_command(options: argparse.Namespace) -> None:
    """Write an evaluation in the format of TOFU's or open-unlearning's tools."""
    from npo_kit.data.tasks import evaluation_rows
    from npo_kit.metrics.official_writer import with_texts, write_official_log
    from npo_kit.metrics.summary import read_reference
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
                print(f"questions and answers are left empty: no {run.task.get('name')} at hand")
    elif options.step is not None:
        raise KitError(f"--step is for a run's folder, {options.run} is none: leave it out")
    else:
        evaluation = read_reference(options.run)
    form, overwrite = options.format, options.overwrite
    path = write_official_log(options.out, evaluation, form, reference, overwrite=overwrite)
    print(f"step {evaluation.step} in {path}")


def report_command(options: argparse.Namespace) -> None:
    """Print a study's outcome as Markdown."""
    from npo_kit.studies.report import study_report

    print(study_report(options.folder))


def study_command(options: argparse.Namespace) -> None:
    """Make a study and show its table, or say what making it would take."""
    plan = _plan(options)
    if options.dry_run:
        from npo_kit.studies.dry_run import dry_run

        dry_run(plan)
        return
    if options.out is None:
        raise KitError("give --out, the folder for the study, or --dry-run")
    from npo_kit.studies.maker import make_study

    make_study(plan, options.out, processes=options.processes)
    show_table(options.out)


def _plan(options: argparse.Namespace):
    """The plan that the options of `npo-kit study` ask for."""
    from dataclasses import replace

    from npo_kit.studies.plan import PLANS
    from npo_kit.studies.presets import PRESETS, tofu_plan

    only_tofu = ("preset", "splits", "methods", "reference", "base", "lora_rank", "quantize")
    if options.study == "tofu":
        if not options.preset:
            raise KitError(f"give --preset: {', '.join(PRESETS)}")
        given = {"start": options.start, "base": options.base}
        given |= {"splits": options.splits or (), "methods": options.methods or ()}
        given |= {"lora_rank": options.lora_rank, "quantize": options.quantize}
        return tofu_plan(options.preset, **given, references=_references(options.reference))
    if foreign := [name for name in only_tofu if getattr(options, name)]:
        raise KitError(f"--{foreign[0].replace('_', '-')} is for the study tofu: leave it out")
    plan = PLANS[options.study]()
    if options.start and not plan.tuning:
        raise KitError(f"the study {options.study} brings its models: leave out --start")
    return replace(plan, original=options.start) if options.start else plan


def _references(given: Sequence[str] | None) -> dict[str, str]:
    """Split -> file, of SPLIT=FILE each."""
    from npo_kit.studies.table import find_reference

    pairs = [text.partition("=") for text in given or ()]
    if odd := [text for text, _, path in pairs if not path]:
        raise KitError(f"--reference {odd[0]}: give SPLIT=FILE, such as forget10=TOFU_EVAL.json")
    for _, _, path in pairs:
        find_reference(path)  # refuse it now, not after hours
    return {split: path for split, _, path in pairs}


def show_table(
    folder: str | Path, reference: str | None = None, truth_ratio: str = "geometric"
) -> None:
    """Print every run and step of a folder."""
    from npo_kit.studies.table import study_table

    _print_table(study_table(folder, reference, truth_ratio), str(folder))


def _print_table(records: Sequence[dict[str, Any]], where: str) -> None:
    import pandas as pd

    if not records:
        raise KitError(f"{where} has no evaluation yet: run npo-kit evaluate, or wait")
    ours = [record for record in records if not record.get("source")]
    columns = dict(COLUMNS)
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


def _shown(value: Any) -> str:
    """A cell of a table: three digits of a number, a dash for what is missing."""
    if value is None or value != value:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

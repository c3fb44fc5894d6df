"""The commands that make whole experiments: `synthetic`, `pocket` and `study`.

`add_NAME` declares the options of a command and `NAME_command` runs it, here and in the modules
beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from npo_kit.cli.read import Add, show_table
from npo_kit.errors import KitError
from npo_kit.studies import audits, null
from npo_kit.studies.audit_plans import AuditPlan
from npo_kit.studies.null import NullPlan
from npo_kit.studies.presets import PLANS, study_plan


def add_synthetic(add: Add) -> None:
    parser = add("synthetic", synthetic_command, "npo-kit synthetic --out runs/synthetic")
    option = parser.add_argument
    option("--out", required=True, help="folder to write")
    option("--seeds", type=int, nargs="+", metavar="N", help="default: the paper's five")
    option("--alphas", type=float, nargs="+", metavar="A", help="default: 1 and 0")
    option("--methods", nargs="+", metavar="METHOD", help="ga, npo_rt, ... (default: the paper's)")
    option("--steps", type=int, metavar="N", help="of each method (default: 2000)")
    option("--sweep-steps", type=int, metavar="N", help="of the beta sweep; 0: none")


def synthetic_command(options: argparse.Namespace) -> None:
    """Run the paper's synthetic experiment; write its frames and figures to a folder."""
    from npo_kit.theory.experiment import run_experiment

    names = ("seeds", "alphas", "methods", "steps", "sweep_steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    frame = run_experiment(options.out, **given)["unlearning"]
    last = frame[frame.step == frame.step.max()]
    columns = ["forget_distance", "retain_distance", "forget_drift"]
    print(f"step {frame.step.max()}, mean over {frame.seed.nunique()} seed(s), nats")
    print(last.groupby(["alpha", "method"])[columns].mean().to_string(float_format="{:.4f}".format))
    print(f"frames and figures in {options.out}")


def add_pocket(add: Add) -> None:
    parser = add("pocket", pocket_command, "npo-kit pocket --out runs/pocket")
    parser.add_argument("--out", required=True, help="new folder to write")
    parser.add_argument(
        "--retained",
        nargs="+",
        metavar="SPLIT",
        help="instead: retained-only models of these splits (forget05 ...), from the shipped base",
    )
    _add_processes(parser)


def pocket_command(options: argparse.Namespace) -> None:
    """Train the kit's small models again: base, original and retained-only, in minutes."""
    from npo_kit.studies.pocket import build_pocket, build_retained, pocket_manifest

    if options.retained:
        for path in build_retained(options.out, options.retained, processes=options.processes):
            print(path)
        return
    made = build_pocket(options.out, processes=options.processes)
    shipped = pocket_manifest()
    for name, model in made.models.items():
        same = model["sha256"] == shipped.models[name]["sha256"]
        print(f"{name}: {'bit for bit as' if same else 'other weights than'} shipped")


def add_study(add: Add) -> None:
    parser = add("study", study_command, "npo-kit study tofu-colab --out runs/tofu-study")
    tofu = [name for name in PLANS if name.startswith("tofu-")]
    own = ", ".join(name for name in PLANS if name not in tofu)
    named = f"of fictional authors: {own}\nthe paper's experiment: {', '.join(tofu)}"
    known = parser.add_argument_group("studies", named)
    known.add_argument("study", metavar="STUDY", help="one of these names")
    option = parser.add_argument
    option("--preset", help=argparse.SUPPRESS)  # of the old form `tofu --preset colab`
    option("--out", metavar="FOLDER", help="to write, or to resume in")
    option("--dry-run", action="store_true", help="say what it would take; nothing is made")
    option(
        "--start",
        metavar="MODEL",
        help="for tofu-...: a model that is fine-tuned on all of TOFU already; for smollm2...: the "
        "model to fine-tune, a folder or .gguf file (default: the hub)",
    )
    _add_processes(parser)
    option = parser.add_argument_group("the paper's experiment (tofu-...)").add_argument
    option("--splits", nargs="+", metavar="SPLIT", help="such as forget05 forget10")
    option("--methods", nargs="+", metavar="METHOD", help="such as ga npo_rt")
    option("--base", metavar="MODEL", help="to fine-tune (default: the study's)")
    option("--lora-rank", type=int, metavar="N", help="train adapters (default: all weights)")
    option("--quantize", choices=("4bit", "8bit"), help="with --lora-rank, on CUDA")
    option(
        "--reference",
        nargs="+",
        metavar="SPLIT=FILE",
        help="official logs of retained-only models, which are then not made",
    )


def study_command(options: argparse.Namespace) -> None:
    """Make a whole study: original, retained-only, every method with its grid, seeds, betas.

    Run the same command again after an interruption and it resumes with the missing runs.
    """
    plan = study_plan(
        f"{options.study}-{options.preset}" if options.preset else options.study,
        start=options.start,
        base=options.base,
        splits=options.splits or (),
        methods=options.methods or (),
        references=_references(options.reference or ()),
        lora_rank=options.lora_rank,
        quantize=options.quantize,
    )
    if isinstance(plan, NullPlan):
        print(null.expected(plan))
    elif isinstance(plan, AuditPlan):
        print(audits.expected(plan))
    elif options.dry_run:
        from npo_kit.studies.dry_run import dry_run

        dry_run(plan)
    if options.dry_run:
        return
    if options.out is None:
        raise KitError("give --out, the folder for the study, or --dry-run")
    if isinstance(plan, NullPlan):
        null.make_null(plan, options.out, processes=options.processes)
        return
    if isinstance(plan, AuditPlan):
        audits.make_audits(plan, options.out, processes=options.processes)
        return
    from npo_kit.studies.dry_run import extent
    from npo_kit.studies.maker import make_study

    print(f"{extent(plan)}; with --dry-run instead of --out: how long they take here")
    make_study(plan, options.out, processes=options.processes)
    show_table(options.out)


def _references(given: Sequence[str]) -> dict[str, str]:
    """Map splits to files, from SPLIT=FILE each."""
    from npo_kit.studies.table import find_reference

    pairs = [text.partition("=") for text in given]
    if odd := [split for split, _, path in pairs if not path]:
        raise KitError(f"--reference {odd[0]}: give SPLIT=FILE, such as forget10=TOFU_EVAL.json")
    for _, _, path in pairs:
        find_reference(path)  # refuse it now, not after hours
    return {split: path for split, _, path in pairs}


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="processes that share the work; results stay the same (default: one per core)",
    )


COMMANDS = (add_synthetic, add_pocket, add_study)

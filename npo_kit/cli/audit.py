"""The command `audit`: does a model only stop saying it, or is it gone?"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from npo_kit.audit.bench import Relearning, rows_asked
from npo_kit.audit.cards import CARDS, ROWS, UNITS
from npo_kit.cli.options import add_model_and_task, prompt_options
from npo_kit.cli.read import Add
from npo_kit.cli.train import fitted_task, task_of
from npo_kit.errors import KitError
from npo_kit.options import add_options, given

if TYPE_CHECKING:
    from npo_kit.audit.session import Audit


def add_audit(add: Add) -> None:
    example = (
        "npo-kit audit runs/npo_rt --task authors:forget10 --original pocket "
        "--retained pocket:retained --out runs/audit --html report.html"
    )
    parser = add("audit", audit_command, example)
    add_model_and_task(parser, passages=False)
    option = parser.add_argument
    option("--original", required=True, metavar="MODEL", help="the model before unlearning")
    option(
        "--retained",
        required=True,
        nargs="+",
        metavar="MODEL",
        help="models that never saw the forget rows: twenty different ones make a band; one is "
        "enough where recorded controls fit; else there is no verdict",
    )
    named = ", ".join(
        name if card.title.lower() == name else f"{name} ({card.title.lower()})"
        for name, card in CARDS.items()
    )
    option("--cards", nargs="+", metavar="CARD", help=f"of {named} (default: all)")
    option(
        "--rows",
        metavar="N",
        type=int,
        default=ROWS,
        help=f"ask the first N rows of each set (default: {ROWS}). Each may have `entity`, the "
        "words of its answer that are the fact, and `author`, whom it is about; without them the "
        f"fact is guessed, and the row is an author of its own. Fewer than {UNITS} authors decide "
        "nothing",
    )
    option(
        "--relearning-lr",
        type=float,
        default=Relearning.lr,
        metavar="LR",
        help="learning rate of the relearning card (default: %(default)g, for the pocket models; "
        "for another model try the rate at which it learned the rows)",
    )
    option(
        "--seed",
        type=int,
        metavar="N",
        default=0,
        help="of samples, split and bootstrap (default: 0)",
    )
    option(
        "--controls",
        metavar="FILE",
        help="recorded readings of retained-only models (default: those of the pocket model that "
        "travel with the kit, where they fit)",
    )
    option("--out", help="folder that keeps each reading, where the same command resumes")
    option("--json", metavar="FILE", help="write cards and verdict as JSON")
    option("--html", metavar="FILE", help="write a report: one page, to read without the kit")
    option("--overwrite", action="store_true", help="replace the files of --json and --html")
    add_options(parser, prompt_options())


def audit_command(options: argparse.Namespace) -> None:
    """Tell whether a model only stops saying what it should forget, or holds it no more."""
    from npo_kit.audit.controls import read_controls
    from npo_kit.audit.evidence import LEAST
    from npo_kit.audit.session import HEAD, audit, refuse_passages
    from npo_kit.models.loading import load_model
    from npo_kit.trainer.config import TrainConfig

    _refuse(options)
    task, cards = task_of(options), options.cards or tuple(CARDS)
    refuse_passages(task)  # now, not when the models are loaded
    controls = read_controls(options.controls) if options.controls else None

    def load(name: str, base: str | None = None):
        return load_model(name, device=options.device, quantize=options.quantize, base=base)

    loaded = load(options.model, options.base)
    print(f"{options.model} on {loaded.placement}")
    asked = TrainConfig(**given(options, prompt_options()))
    task = fitted_task(options, task, asked, loaded)
    found = audit(
        loaded[0],
        asked.prompt_format(loaded[1], loaded[0]),
        task,
        original=load(options.original)[0],
        retained=[load(name)[0] for name in options.retained],
        cards=cards,
        seed=options.seed,
        rows=options.rows,
        relearning=Relearning(lr=options.relearning_lr),
        controls=controls,
        folder=options.out,
        label=_label(options.model),
        progress=_bars(),
    )
    print(_asked(found))
    print(HEAD)
    for finding in found:
        print(finding, flush=True)
    verdict = found.verdict
    print(f"\n{verdict}\nsays: {verdict.says}\nhides: {verdict.hides}")
    if found.controls is None and len(options.retained) < LEAST:
        print(
            f"the recorded controls do not fit: they are {found.misfit}; {LEAST} --retained models "
            "make a band without them"
        )
    _write(options, found.record())


def _asked(found: Audit) -> str:
    """Say how many rows were asked, and how sure it is what they are about."""
    from npo_kit.audit.probes import facts_of

    bench = found.bench
    forget = rows_asked(len(bench.forget), bench.left_out.get("forget", 0))
    retain = rows_asked(len(bench.retain), bench.left_out.get("retain", 0))
    guessed = sum(not fact["given"] for fact in facts_of(bench.forget))
    more = f"; the facts of {guessed} to forget are guessed: see --html" if guessed else ""
    return f"rows asked: {forget} to forget, {retain} to keep{more}"


def _label(model: str) -> str:
    """Return the name of a model's readings in --out; the controls' names are not free."""
    name = re.sub(r"[^\w.-]+", "-", Path(model).name).strip("-.") or "model"
    return f"audited-{name}"


def _refuse(options: argparse.Namespace) -> None:
    """Raise KitError for files that cannot be written and bad numbers: now, not after minutes."""
    if not 0 < options.relearning_lr < float("inf"):
        raise KitError(f"--relearning-lr must be above 0, it is {options.relearning_lr:g}")
    if options.rows < 1:
        raise KitError(f"--rows must be at least 1, it is {options.rows}")
    models = [str(Path(name)) for name in options.retained]
    if twice := [name for name in models if models.count(name) > 1]:
        raise KitError(f"--retained has {twice[0]} twice: a band needs different models")
    for name in ("json", "html"):
        path = getattr(options, name)
        if path and Path(path).exists() and not options.overwrite:
            raise KitError(f"{path} exists: give --overwrite, or another name for --{name}")
        if path and not Path(path).resolve().parent.is_dir():
            raise KitError(f"--{name} {path}: there is no folder {Path(path).resolve().parent}")


def _write(options: argparse.Namespace, record: dict) -> None:
    from npo_kit.audit.report import report
    from npo_kit.records.files import atomic_write, dumps

    record = {"model": Path(options.model).name, "original": Path(options.original).name} | record
    if options.json:
        atomic_write(Path(options.json), dumps(record, indent=1))
        print(options.json)
    if options.html:
        atomic_write(Path(options.html), report(record).encode())
        print(options.html)


def _bars() -> Callable[[str, str, int, int], None]:
    """Return a `progress` that shows a bar for each reading."""
    from npo_kit.metrics.progress import progress_bars

    show = progress_bars()

    def tell(label: str, card: str, done: int, total: int) -> None:
        if show:
            show(f"{card} of {label}", done, total)

    return tell


COMMANDS = (add_audit,)

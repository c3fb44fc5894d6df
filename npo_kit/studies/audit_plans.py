"""Which models a study of audits makes, and which cards it asks of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from npo_kit.audit.bench import Relearning
from npo_kit.audit.cards import CARDS, SUPPORTS
from npo_kit.data.shipped import shipped_data
from npo_kit.records.files import Json
from npo_kit.records.run import read_run
from npo_kit.studies.authors_plans import MAIN, smollm2
from npo_kit.studies.plan import MODELS, StudyPlan
from npo_kit.studies.pocket import pocket_manifest
from npo_kit.studies.table import ORIGINAL, RETAINED
from npo_kit.trainer.config import TrainConfig

if TYPE_CHECKING:
    from npo_kit.studies.jobs import Job

# At 1e-4, the rate of its fine-tuning, the taught facts are certain after five steps, and the
# others fall by two nats even in the retained-only model.
SMOLLM2_RELEARNING = Relearning(lr=2e-5, precision="bf16")


@dataclass(frozen=True)
class AuditPlan:
    """Which models to audit, by which cards."""

    title: str = "Pocket models audited: what they say, and what they hide"
    task: str = "authors:forget10"
    original: str = "pocket"
    retained: str = "pocket:retained"
    models: int = 40  # retained-only, of the shipped base, which differ in the order of rows
    runs: tuple[str, ...] = (  # a folder in a recorded study each
        *(f"pocket/{m}{seed}" for m in MAIN for seed in ("", "-seed1", "-seed2")),
        *("pocket/idk_rt", "pocket/dpo_rt", "pocket-family/simnpo_rt", "pocket-family/rmu"),
    )
    cards: tuple[str, ...] = tuple(CARDS)
    rows: int = 120  # of each set, the first
    seed: int = 0  # of the cards

    def record(self) -> Json:
        """Return the plan as the study keeps it."""
        return asdict(self)

    def model(self, label: str, work: Path) -> str:
        """Return the name of ORIGINAL or RETAINED for `load_model`."""
        return {ORIGINAL: self.original, RETAINED: self.retained}[label]

    def prompts(self) -> TrainConfig:
        """Return the configuration that tells how the models are asked."""
        return TrainConfig()

    def lessons(self) -> Relearning:
        """Return how models are taught again."""
        return Relearning()

    def checkpoints(self) -> tuple[str, ...]:
        """Return which checkpoints of a run are audited, of best and last."""
        return "best", "last"

    def training_seconds(self) -> float:
        """Return how long the retained-only models' training took where it was recorded."""
        return self.models * pocket_manifest().models["retained"]["seconds"]


@dataclass(frozen=True)
class TunedAuditPlan(AuditPlan):
    """An audit of a model that is fine-tuned for it: on all rows, and by seed on those to keep."""

    title: str = "SmolLM2-135M audited: what it says, and what it hides"
    original: str = ORIGINAL
    retained: str = RETAINED
    models: int = 2  # which make points to compare with, no band and no verdict
    runs: tuple[str, ...] = tuple(f"smollm2/{method}" for method in MAIN)
    cards: tuple[str, ...] = tuple(n for n, card in CARDS.items() if card.side != SUPPORTS)
    rows: int = 36  # as many as that study judges
    tuning: StudyPlan = field(default_factory=smollm2)
    relearning: Relearning = SMOLLM2_RELEARNING

    def record(self) -> Json:
        """Return the plan without this machine's folders."""
        tuning = replace(self.tuning, original=Path(self.tuning.original).name)
        return asdict(replace(self, tuning=tuning))

    def model(self, label: str, work: Path) -> str:
        """Return the folder of the model of a tuning job, by the job's name."""
        return str(work / MODELS / label)

    def prompts(self) -> TrainConfig:
        """Return the configuration of the study's own runs."""
        return self.tuning.common

    def lessons(self) -> Relearning:
        """Return how models are taught again."""
        return self.relearning

    def checkpoints(self) -> tuple[str, ...]:
        """Return the last one alone: an audit of so large a model takes its time."""
        return ("last",)

    def jobs(self, work: Path) -> list[Job]:
        """List the fine-tunings: the original, and retained-only models with other seeds."""
        from npo_kit.studies.jobs import tuning_jobs

        jobs = tuning_jobs(self.tuning, work)
        for seed in range(1, self.models):
            tuning = self.tuning.tuning and replace(self.tuning.tuning, seed=seed)
            [job] = (job for job in jobs if job.name == RETAINED)
            jobs.append(replace(job, name=f"{RETAINED}-seed{seed}", config=tuning))
        return jobs

    def training_seconds(self) -> float:
        """Return how long the fine-tunings' steps took where they were recorded."""
        return sum(
            step["seconds"] * (1 if label == ORIGINAL else self.models)
            for label in (ORIGINAL, RETAINED)
            for step in read_run(shipped_data(f"studies/smollm2/{MODELS}/{label}")).steps
        )


@dataclass(frozen=True)
class Item:
    """A model to make and to audit: the original, a retained-only one by number, or a run's."""

    plan: AuditPlan
    work: Path
    name: str
    number: int | None = None  # of a retained-only model, from 1

    @property
    def path(self) -> Path:
        return self.work / f"{self.name.replace('/', '--')}.json"

"""The paper's experiment on TOFU, one configuration for each method.

Hyper-parameters are those of the paper's public code (arXiv 2404.05868) and, for the models that
are unlearned, of TOFU's (arXiv 2401.06121).
"""

from __future__ import annotations

from collections.abc import Sequence

from npo_kit.losses.methods import methods_of
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.records.files import Json
from npo_kit.studies.authors_plans import MAIN, SMOLLM2
from npo_kit.studies.plan import StudyPlan
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

SPLITS = tuple(f"forget{percent}" for percent in ("01", "05", "10", "20", "30", "50", "90"))


def _tofu(
    title: str,
    base: str,
    splits: Sequence[str],
    methods: tuple[str, ...],
    tuning: FinetuneConfig,
    common: UnlearnConfig,
) -> StudyPlan:
    """Plan one configuration for each method: `common` with its learning rate, and a beta of 0.1.

    Original and retained-only models are `base` fine-tuned as `tuning` says.
    """
    tasks = [f"tofu:{split}" for split in splits]
    return StudyPlan(
        title=title,
        task=tasks[0],
        more_tasks=tuple(tasks[1:]),
        original=base,
        retained=None,
        tuning=tuning,
        common=common,
        methods=methods,
        lrs=(common.lr,),
        betas=(0.1,),
        retain_weights=(1.0,),
        plain_lrs=(common.lr,),
        seeds=(common.seed,),
        seeded_methods=(),
    )


def paper(model: str, base: str, prompt: str, lr: float) -> StudyPlan:
    """Plan the paper's experiment: the rest (batch 32, weight decay 0.01, ...) are defaults."""
    tuning = FinetuneConfig(epochs=5.0, lr=lr, seed=42, prompt=prompt, evaluation=None)
    common = UnlearnConfig(
        epochs=10.0, lr=1e-5, seed=1001, prompt=prompt, evaluation=EvaluationConfig(protocol="tofu")
    )
    return _tofu(
        f"{model} on TOFU, as in the paper", base, SPLITS, methods_of("tofu"), tuning, common
    )


def colab() -> StudyPlan:
    """Plan the experiment for a small model, which takes learning rates ten times the paper's."""
    judged = EvaluationConfig(max_rows=200, max_new_tokens=64, batch_size=64)
    tuning = FinetuneConfig(epochs=5.0, lr=1e-4, prompt="qa", evaluation=None)
    common = UnlearnConfig(epochs=5.0, lr=2e-5, prompt="qa", evaluation=judged)
    splits = ("forget01", "forget05", "forget10", "forget50")
    return _tofu("SmolLM2-135M on TOFU", SMOLLM2, splits, MAIN, tuning, common)


def cpu() -> StudyPlan:
    """Plan an hour on two CPU cores: forget05's rows beside 200 kept ones, short evaluations.

    `forget05@400` is made of TOFU's last 400 rows. The plan was fixed before it was run.
    """
    judged = EvaluationConfig(max_rows=40, max_new_tokens=40, batch_size=40)
    shared: Json = {"prompt": "qa", "precision": "bf16"}
    tuning = FinetuneConfig(epochs=5.0, batch_size=16, lr=1e-4, evaluation=None, **shared)
    common = UnlearnConfig(
        epochs=2.0, batch_size=8, warmup_epochs=0.5, lr=2e-5, evaluation=judged, **shared
    )
    title = "SmolLM2-135M on reduced TOFU: forget05, 200 rows kept, 40 judged of each set"
    return _tofu(title, SMOLLM2, ("forget05@400",), MAIN, tuning, common)


def cpu_smoke() -> StudyPlan:
    """Plan every step once, in seconds: it shows that the pipeline runs, and nothing of methods."""
    brief = EvaluationConfig(max_rows=4, max_new_tokens=8, batch_size=8)
    shared: Json = {"batch_size": 8, "warmup_epochs": 0.0, "prompt": "qa", "precision": "fp32"}
    tuning = FinetuneConfig(epochs=0.2, lr=1e-3, evaluation=None, **shared)
    common = UnlearnConfig(epochs=0.4, lr=1e-3, evaluation=brief, **shared)
    splits = ("forget01@120", "forget02@120")
    title = "Pocket model on TOFU rows, a smoke test"
    return _tofu(title, "pocket:base", splits, MAIN, tuning, common)

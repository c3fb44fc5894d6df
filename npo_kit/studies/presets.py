"""The paper's experiment on TOFU as studies: every method on every split, by preset.

Hyper-parameters are those of the paper's public code (arXiv 2404.05868) and, for the models that
are unlearned, of TOFU's (arXiv 2401.06121). A preset tries one configuration per method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npo_kit.errors import KitError
from npo_kit.metrics.evaluation import EvaluationConfig
from npo_kit.studies.plan import MAIN, StudyPlan
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

SPLITS = tuple(f"forget{percent}" for percent in ("01", "05", "10", "20", "30", "50", "90"))
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA_LR = 10  # an adapter takes larger learning rates than the weights: TOFU's code 1e-4 for 1e-5
PAPER_METHODS = (
    *("ga", "ga_rt", "ga_kl"),
    *("npo", "npo_rt", "npo_kl"),
    *("dpo", "dpo_rt", "dpo_kl"),
    *("kto", "kto_rt", "kto_kl"),
    "idk_rt",
)


def _plan(
    title: str,
    base: str,
    splits: Sequence[str],
    methods: tuple[str, ...],
    tuning: FinetuneConfig,
    common: UnlearnConfig,
) -> StudyPlan:
    """One configuration per method, that of `common` with its learning rate and beta."""
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


def _paper(title: str, base: str, prompt: str, lr: float) -> StudyPlan:
    """Batch 32, AdamW with weight decay 0.01, one epoch of warm-up: the configs' defaults."""
    tuning = FinetuneConfig(epochs=5.0, lr=lr, seed=42, prompt=prompt, evaluation=None)
    common = UnlearnConfig(
        epochs=10.0, lr=1e-5, seed=1001, prompt=prompt, evaluation=EvaluationConfig(protocol="tofu")
    )
    return _plan(title, base, SPLITS, PAPER_METHODS, tuning, common)


def _colab() -> StudyPlan:
    """Learning rates ten times the paper's, as so small a model takes them."""
    judged = EvaluationConfig(max_rows=200, max_new_tokens=64, batch_size=64)
    tuning = FinetuneConfig(epochs=5.0, lr=1e-4, prompt="qa", evaluation=None)
    common = UnlearnConfig(epochs=5.0, lr=2e-5, prompt="qa", evaluation=judged)
    splits = ("forget01", "forget05", "forget10", "forget50")
    return _plan("SmolLM2-135M on TOFU", SMOLLM2, splits, MAIN, tuning, common)


def _cpu() -> StudyPlan:
    """For two CPU cores and an hour: forget05's rows beside 200 kept ones, short evaluations.

    `forget05@400` is made of TOFU's last 400 rows. Fixed before it was run.
    """
    judged = EvaluationConfig(max_rows=40, max_new_tokens=40, batch_size=40)
    shared = {"prompt": "qa", "precision": "bf16"}
    tuning = FinetuneConfig(epochs=5.0, batch_size=16, lr=1e-4, evaluation=None, **shared)
    common = UnlearnConfig(
        epochs=2.0, batch_size=8, warmup_epochs=0.5, lr=2e-5, evaluation=judged, **shared
    )
    title = "SmolLM2-135M on reduced TOFU: forget05, 200 rows kept, 40 judged of each set"
    return _plan(title, SMOLLM2, ("forget05@400",), MAIN, tuning, common)


def _cpu_smoke() -> StudyPlan:
    """Everything once, in seconds: it shows that the pipeline runs, and nothing of methods."""
    brief = EvaluationConfig(max_rows=4, max_new_tokens=8, batch_size=8)
    shared = {"batch_size": 8, "warmup_epochs": 0.0, "prompt": "qa", "precision": "fp32"}
    tuning = FinetuneConfig(epochs=0.2, lr=1e-3, evaluation=None, **shared)
    common = UnlearnConfig(epochs=0.4, lr=1e-3, evaluation=brief, **shared)
    splits = ("forget01@120", "forget02@120")
    return _plan(
        "Pocket model on TOFU rows, a smoke test", "pocket:base", splits, MAIN, tuning, common
    )


PRESETS = {
    "paper-llama2": lambda: _paper(
        "Llama-2-7b-chat on TOFU, as in the paper",
        "NousResearch/Llama-2-7b-chat-hf",
        "llama2",
        1e-5,
    ),
    "paper-phi": lambda: _paper(
        "Phi-1.5 on TOFU, as in the paper", "microsoft/phi-1_5", "qa", 2e-5
    ),
    "colab": _colab,
    "cpu": _cpu,
    "cpu-smoke": _cpu_smoke,
}


def tofu_plan(
    preset: str,
    *,
    start: str | None = None,
    splits: Sequence[str] = (),
    methods: Sequence[str] = (),
    base: str | None = None,
    references: Mapping[str, str] | None = None,
    lora_rank: int | None = None,
    quantize: str | None = None,
) -> StudyPlan:
    """The plan of a preset, restricted or with models of one's own; `make_study` makes it.

    `start`: a model that is fine-tuned on all of TOFU already, so that only the retained-only ones
    are made. `base`: the model to fine-tune, instead of the preset's. `references`: split -> an
    official log of a retained-only model (or an evaluation or run of the kit), which is then not
    made. `splits` and `methods`: instead of the preset's. With `lora_rank` adapters are trained,
    with gradient checkpointing and LORA_LR times the preset's learning rates; `quantize` ("4bit",
    "8bit") is how the models below them are loaded. Raises KitError for unknown names.
    """
    if preset not in PRESETS:
        raise KitError(f"unknown preset {preset!r}: choose {', '.join(PRESETS)}")
    plan = PRESETS[preset]()
    tasks = tuple(f"tofu:{split}" for split in splits) or plan.tasks
    known = {f"tofu:{split}": path for split, path in (references or {}).items()}
    if unknown := set(known) - set(tasks):
        raise KitError(
            f"a reference is given for {min(unknown).removeprefix('tofu:')}, which is no split of "
            f"this study: it has {', '.join(task.removeprefix('tofu:') for task in tasks)}"
        )
    if quantize and not lora_rank:
        raise KitError(f"quantize {quantize} is for LoRA: give lora_rank (--lora-rank) with it")
    if lora_rank:
        plan = _with_lora(plan, lora_rank)
    return replace(
        plan,
        task=tasks[0],
        more_tasks=tasks[1:],
        methods=tuple(methods) or plan.methods,
        original=base or plan.original,
        start=start,
        references=known or None,
        quantize=quantize,
    )


def _with_lora(plan: StudyPlan, rank: int) -> StudyPlan:
    """The plan with adapters instead of all weights."""
    saving = {"lora_rank": rank, "gradient_checkpointing": True}
    lrs = tuple(LORA_LR * lr for lr in plan.lrs)
    return replace(
        plan,
        tuning=replace(plan.tuning, lr=LORA_LR * plan.tuning.lr, **saving),
        common=replace(plan.common, lr=lrs[0], **saving),
        lrs=lrs,
        plain_lrs=lrs,
    )

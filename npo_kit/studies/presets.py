"""The studies that the kit knows by name: PLANS, and `study_plan` with options.

`pocket` and `smollm2` are of the kit's fictional authors. `tofu-...` are the paper's experiment on
TOFU, one configuration for each method: hyper-parameters are those of the paper's public code
(arXiv 2404.05868) and, for the models that are unlearned, of TOFU's (arXiv 2401.06121).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from npo_kit.errors import KitError
from npo_kit.losses.methods import methods_of
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.records.files import Json
from npo_kit.studies.null import NullPlan
from npo_kit.studies.plan import StudyPlan, Variant
from npo_kit.studies.pocket import TUNING
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

MAIN = ("ga", "ga_rt", "npo", "npo_rt")
SPLITS = tuple(f"forget{percent}" for percent in ("01", "05", "10", "20", "30", "50", "90"))
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA_LR = 10  # an adapter takes larger learning rates than the weights: TOFU's code 1e-4 for 1e-5


def study_plan(
    name: str,
    *,
    start: str | None = None,
    base: str | None = None,
    splits: Sequence[str] = (),
    methods: Sequence[str] = (),
    references: Mapping[str, str] | None = None,
    lora_rank: int | None = None,
    quantize: str | None = None,
) -> StudyPlan | NullPlan:
    """Return the plan of a study in PLANS, restricted or with other models; `make_study` makes it.

    `start`: for a study of TOFU, a model that is fine-tuned on all of TOFU already, so that the
    study makes the retained-only ones alone; for `smollm2`, the model to fine-tune. The other
    options are for studies of TOFU. `base`: the model to fine-tune. `splits`, `methods`: those of
    the study. `references`: split -> an official log of a retained-only model (or an evaluation or
    run of the kit), which is then not made. `lora_rank`: train adapters of this rank, with gradient
    checkpointing and LORA_LR times the learning rates, on models loaded as `quantize` says ("4bit",
    "8bit"). Raises KitError for unknown names and for options that the study does not take.
    """
    if name not in PLANS:
        raise KitError(f"unknown study {name!r}: choose {', '.join(PLANS)}")
    plan = PLANS[name]()
    given: Json = {"base": base, "splits": splits, "methods": methods, "references": references}
    given |= {"lora_rank": lora_rank, "quantize": quantize}
    if not name.startswith("tofu-") or not isinstance(plan, StudyPlan):
        if foreign := [option for option, value in given.items() if value]:
            raise KitError(f"{foreign[0]} is for the studies of TOFU, not for {name}: leave it out")
        if not start:
            return plan
        if not isinstance(plan, StudyPlan) or not plan.tuning or plan.start:
            raise KitError(f"the study {name} brings its models: leave out start")
        return replace(plan, original=start)
    if quantize and lora_rank is None:
        raise KitError(f"quantize {quantize} is for LoRA: give lora_rank (--lora-rank) with it")
    tasks = tuple(f"tofu:{split}" for split in splits) or plan.tasks
    plan = plan if lora_rank is None else _with_lora(plan, lora_rank)
    return replace(
        plan,
        task=tasks[0],
        more_tasks=tasks[1:],
        methods=tuple(methods) or plan.methods,
        original=base or plan.original,
        start=start,
        references=_by_task(references or {}, tasks),
        quantize=quantize,
    )


def _by_task(references: Mapping[str, str], tasks: Sequence[str]) -> dict[str, str] | None:
    known = {f"tofu:{split}": path for split, path in references.items()}
    if unknown := set(known) - set(tasks):
        raise KitError(
            f"a reference is given for {min(unknown).removeprefix('tofu:')}, which is no split of "
            f"this study: it has {', '.join(task.removeprefix('tofu:') for task in tasks)}"
        )
    return known or None


def _with_lora(plan: StudyPlan, rank: int) -> StudyPlan:
    """Return the plan with adapters instead of all weights."""
    saving: Json = {"lora_rank": rank, "gradient_checkpointing": True}
    lrs = tuple(LORA_LR * lr for lr in plan.lrs)
    return replace(
        plan,
        tuning=plan.tuning and replace(plan.tuning, lr=LORA_LR * plan.tuning.lr, **saving),
        common=replace(plan.common, lr=lrs[0], **saving),
        lrs=lrs,
        plain_lrs=lrs,
    )


# --- fictional authors --------------------------------------------------------------------------


def _pocket() -> StudyPlan:
    return StudyPlan(
        title="Pocket model, 100 fictional authors, the last ten to be forgotten",
        task="authors:forget10",
        original="pocket",
        retained="pocket:retained",
        common=UnlearnConfig(
            epochs=10.0,
            batch_size=12,
            micro_batch_size=12,
            precision="fp32",
            evaluation=EvaluationConfig(max_new_tokens=32, batch_size=256),
        ),
        methods=methods_of("kit"),
        lrs=(2e-4, 4e-4, 8e-4),
        betas=(0.1, 0.5),
        retain_weights=(1.0, 4.0),
        plain_lrs=(1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4),
        seeds=(0, 1, 2),
        seeded_methods=MAIN,
        sweep_methods=("npo", "npo_rt"),
        sweep_betas=(0.05, 0.1, 0.2, 0.5, 1.0),
    )


def _splits() -> StudyPlan:
    """Plan how much can be forgotten: 10 to 90 per cent of the corpus, read in three ways.

    The plan was fixed before it was run. Each method chooses on forget50 and keeps its choice. Its
    own runs take ten epochs of the forget rows, as TOFU's do, so that 90 per cent take nine times
    the steps of 10; `steps` takes as many steps everywhere; `alike` gives all methods one
    configuration, with the paper's weight and beta. `sum` is gradient ascent by rows, which NPO
    nears as beta goes to 0. The rest changes one thing at a time on forget50: `per-token` what is
    summed over an answer, `unclipped` the norm of the gradients, `sgd` the optimizer, which is
    plain, without clipping. The first 120 rows of each set are judged, so that p means the same in
    every split.
    """
    apart: Json = {"tasks": ("authors:forget50",), "seeds": (0, 1, 2)}
    by_row: Json = {"hyper": {"length_normalised": False}, "methods": ("ga",)}
    others = tuple(f"authors:forget{percent}" for percent in (10, 30, 90))
    unclipped = {"max_grad_norm": float("inf")}
    rates = {"ga": (0.03, 0.1, 0.3), "npo": (0.003, 0.01, 0.03)}
    return StudyPlan(
        title="Pocket model, 10 to 90 % of 100 fictional authors to be forgotten",
        task="authors:forget10",
        more_tasks=("authors:forget30", "authors:forget50", "authors:forget90"),
        choose_on="authors:forget50",
        original="pocket:base",
        start="pocket",
        retained=None,
        tuning=TUNING,
        rehearsed=("real_authors", "world_facts"),
        common=UnlearnConfig(
            epochs=10.0,
            batch_size=24,
            micro_batch_size=24,
            precision="fp32",
            evaluate_every=2.0,
            evaluation=EvaluationConfig(max_rows=120, max_new_tokens=32, batch_size=256),
        ),
        methods=(*MAIN, "npo_kl", "ga_kl"),
        lrs=(4e-4, 8e-4),
        betas=(0.05, 0.1, 0.5),
        retain_weights=(1.0, 2.0, 4.0),
        pairs=((0.1, 1.0), (0.5, 1.0), (0.1, 4.0)),
        plain_lrs=(1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4),
        seeds=(0, 1, 2),
        seeded_methods=MAIN,
        variants=(
            Variant("steps", steps=100),
            Variant(
                "alike",
                {"lr": 4e-4, "retain_weight": 1.0},
                {"beta": 0.1},
                methods=MAIN,
                seeds=(0,),
            ),
            Variant("sum", tasks=others, seeds=(0,), **by_row),
            Variant("sum", **by_row, **apart),
            Variant("per-token", hyper={"length_normalised": True}, methods=("npo",), **apart),
            Variant("unclipped", unclipped, methods=("ga", "npo"), **apart),
            *(
                Variant(
                    f"sgd-{lr:g}",
                    {**unclipped, "optimizer": "sgd", "lr": lr},
                    methods=(method,),
                    **apart,
                )
                for method, lrs in rates.items()
                for lr in lrs
            ),
        ),
    )


def _smollm2() -> StudyPlan:
    """Plan a study for two CPU cores and an hour and a half.

    It was fixed after a trial, before the recorded runs: GA and GA+RT at learning rates of 2e-5 and
    4e-5, where three epochs of GA end half way (utility .60 and .47 of .65, P retain .42 at 4e-5).
    So all methods get larger ones. 36 rows of each evaluation set are the twelve of three authors.
    As with the pocket model, original and retained-only also train on the true facts: fine-tuned on
    fictional authors alone, a model this small answers every question on real ones in their manner
    (ROUGE 0 of 36), and its utility is 0 before anything is unlearned.
    """
    judged = EvaluationConfig(max_rows=36, max_new_tokens=32, batch_size=36)
    shared: Json = {"prompt": "qa", "precision": "bf16"}
    return StudyPlan(
        title="SmolLM2-135M, 100 fictional authors, the last ten to be forgotten",
        task="authors:forget10",
        original=SMOLLM2,
        retained=None,
        rehearsed=("real_authors", "world_facts"),
        tuning=FinetuneConfig(
            epochs=5.0, batch_size=16, micro_batch_size=16, lr=1e-4, evaluation=None, **shared
        ),
        common=UnlearnConfig(
            epochs=3.0,
            batch_size=8,
            micro_batch_size=8,
            warmup_epochs=0.5,
            evaluation=judged,
            **shared,
        ),
        methods=methods_of("kit"),
        lrs=(8e-5,),
        betas=(0.1, 0.5),
        retain_weights=(1.0, 4.0),
        plain_lrs=(8e-5, 1.6e-4),
        seeds=(0, 1, 2),
        seeded_methods=MAIN,
    )


# --- TOFU ---------------------------------------------------------------------------------------


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


def _paper(model: str, base: str, prompt: str, lr: float) -> StudyPlan:
    """Plan the paper's experiment: the rest (batch 32, weight decay 0.01, ...) are defaults."""
    tuning = FinetuneConfig(epochs=5.0, lr=lr, seed=42, prompt=prompt, evaluation=None)
    common = UnlearnConfig(
        epochs=10.0, lr=1e-5, seed=1001, prompt=prompt, evaluation=EvaluationConfig(protocol="tofu")
    )
    return _tofu(
        f"{model} on TOFU, as in the paper", base, SPLITS, methods_of("tofu"), tuning, common
    )


def _colab() -> StudyPlan:
    """Plan the experiment for a small model, which takes learning rates ten times the paper's."""
    judged = EvaluationConfig(max_rows=200, max_new_tokens=64, batch_size=64)
    tuning = FinetuneConfig(epochs=5.0, lr=1e-4, prompt="qa", evaluation=None)
    common = UnlearnConfig(epochs=5.0, lr=2e-5, prompt="qa", evaluation=judged)
    splits = ("forget01", "forget05", "forget10", "forget50")
    return _tofu("SmolLM2-135M on TOFU", SMOLLM2, splits, MAIN, tuning, common)


def _cpu() -> StudyPlan:
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


def _cpu_smoke() -> StudyPlan:
    """Plan every step once, in seconds: it shows that the pipeline runs, and nothing of methods."""
    brief = EvaluationConfig(max_rows=4, max_new_tokens=8, batch_size=8)
    shared: Json = {"batch_size": 8, "warmup_epochs": 0.0, "prompt": "qa", "precision": "fp32"}
    tuning = FinetuneConfig(epochs=0.2, lr=1e-3, evaluation=None, **shared)
    common = UnlearnConfig(epochs=0.4, lr=1e-3, evaluation=brief, **shared)
    splits = ("forget01@120", "forget02@120")
    title = "Pocket model on TOFU rows, a smoke test"
    return _tofu(title, "pocket:base", splits, MAIN, tuning, common)


PLANS: dict[str, Callable[[], StudyPlan | NullPlan]] = {
    "pocket": _pocket,
    "pocket-null": NullPlan,
    "pocket-splits": _splits,
    "smollm2": _smollm2,
    "tofu-paper-llama2": lambda: _paper(
        "Llama-2-7b-chat", "NousResearch/Llama-2-7b-chat-hf", "llama2", 1e-5
    ),
    "tofu-paper-phi": lambda: _paper("Phi-1.5", "microsoft/phi-1_5", "qa", 2e-5),
    "tofu-colab": _colab,
    "tofu-cpu": _cpu,
    "tofu-cpu-smoke": _cpu_smoke,
}

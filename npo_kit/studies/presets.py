"""The studies that the kit knows by name: PLANS, and `study_plan` with options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from npo_kit.errors import KitError
from npo_kit.records.files import Json
from npo_kit.studies.audit_plans import AuditPlan, TunedAuditPlan
from npo_kit.studies.authors_plans import pocket, pocket_family, pocket_splits, smollm2
from npo_kit.studies.null import NullPlan
from npo_kit.studies.plan import StudyPlan
from npo_kit.studies.tofu_plans import colab, cpu, cpu_smoke, paper

AnyPlan = StudyPlan | NullPlan | AuditPlan
PLANS: dict[str, Callable[[], AnyPlan]] = {
    "pocket": pocket,
    "pocket-audit": AuditPlan,
    "pocket-family": pocket_family,
    "pocket-null": NullPlan,
    "pocket-splits": pocket_splits,
    "smollm2": smollm2,
    "smollm2-audit": TunedAuditPlan,
    "tofu-paper-llama2": lambda: paper(
        "Llama-2-7b-chat", "NousResearch/Llama-2-7b-chat-hf", "llama2", 1e-5
    ),
    "tofu-paper-phi": lambda: paper("Phi-1.5", "microsoft/phi-1_5", "qa", 2e-5),
    "tofu-colab": colab,
    "tofu-cpu": cpu,
    "tofu-cpu-smoke": cpu_smoke,
}
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
) -> AnyPlan:
    """Return the plan of a study in PLANS, restricted or with other models; `make_study` makes it.

    `start`: for a study of TOFU, a model that is fine-tuned on all of TOFU already, so that the
    study makes the retained-only ones alone; for those of SmolLM2, the model to fine-tune. The
    other options are for studies of TOFU. `base`: the model to fine-tune. `splits`, `methods`:
    those of the study. `references`: split -> an official log of a retained-only model (or an
    evaluation or run of the kit), which is then not made. `lora_rank`: train adapters of this rank,
    with gradient checkpointing and LORA_LR times the learning rates, on models loaded as `quantize`
    says ("4bit", "8bit"). Raises KitError for unknown names and for options that the study does not
    take.
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
        if isinstance(plan, TunedAuditPlan):
            return replace(plan, tuning=replace(plan.tuning, original=start))
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

"""The studies of the kit's fictional authors, whose names are in `presets`."""

from __future__ import annotations

from dataclasses import replace

from npo_kit.losses.methods import methods_of
from npo_kit.metrics.config import EvaluationConfig
from npo_kit.records.files import Json
from npo_kit.studies.plan import StudyPlan, Variant
from npo_kit.studies.pocket import TUNING
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig

MAIN = ("ga", "ga_rt", "npo", "npo_rt")
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def pocket() -> StudyPlan:
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


def pocket_splits() -> StudyPlan:
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
        variants=tuple(_variants()),
    )


def pocket_family() -> StudyPlan:
    """Plan NPO's relatives side by side, each with its retain term: six configurations for each.

    Three learning rates, times two values of what the authors of a method tune, else of its retain
    weight. All rows are evaluated, at six checkpoints, so that p and the percentile mean what they
    mean in the other studies. It takes about an hour of one core. The runs of the first seed are
    kept whole, of the others the scores.
    """
    plan, beta = pocket(), ("beta", (0.1, 0.5))
    methods = methods_of("relatives")
    varied = dict.fromkeys(methods, ("retain_weight", (1.0, 4.0)))
    varied |= dict.fromkeys(("npo_rt", "dpo_rt", "kto_rt", "altpo_rt", "door"), beta)
    varied |= dict.fromkeys(("tnpo_rt", "wtnpo_rt"), ("beta", (1.0, 4.0)))
    varied |= {
        "simnpo_rt": ("beta", (2.5, 4.5)),
        "wga_rt": ("alpha", (1.0, 5.0)),
        "satimp_rt": ("beta1", (1.0, 5.0)),
        "flat_rt": ("retain_weight", (0.1, 1.0)),  # its gradient is that much smaller
        "undial_rt": ("gamma", (3.0, 10.0)),
        "rmu": ("steering", (2.0, 10.0)),
    }
    return replace(
        plan,
        title="Pocket model, NPO and its relatives, ten of 100 fictional authors to be forgotten",
        common=replace(plan.common, evaluate_every=2.0),
        methods=methods,
        varied=varied,
        scores_only=True,
        seeded_methods=methods,
        sweep_methods=(),
        sweep_betas=(),
    )


def _variants() -> list[Variant]:
    """List what `pocket_splits` runs beside its own."""
    apart: Json = {"tasks": ("authors:forget50",), "seeds": (0, 1, 2)}
    by_row: Json = {"hyper": {"length_normalised": False}, "methods": ("ga",)}
    others = tuple(f"authors:forget{percent}" for percent in (10, 30, 90))
    unclipped = {"max_grad_norm": float("inf")}
    rates = {"ga": (0.03, 0.1, 0.3), "npo": (0.003, 0.01, 0.03)}
    return [
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
    ]


def smollm2() -> StudyPlan:
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
